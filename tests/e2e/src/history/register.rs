//! A name of Docker's API as a register.

use super::Model;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// What the last write brought.
    pub value: u64,
    /// What the object was created with: another object of that name has another one.
    pub created: u64,
}

/// What was done to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It was not there and is now.
    Create(u64),
    /// The first value was there and is the second one now.
    Update(u64, u64),
    /// The object that was created with this value is gone.
    Remove(u64),
    /// This was there.
    Read(Option<Value>),
}

/// See [`Step`].
#[derive(Debug)]
pub struct Register;

impl Model for Register {
    type State = Option<Value>;
    type Step = Step;

    fn after(state: &Self::State, step: &Step) -> Option<Self::State> {
        match (*state, *step) {
            (None, Step::Create(value)) => Some(Some(Value { value, created: value })),
            (Some(Value { value, created }), Step::Update(before, next)) if value == before => {
                Some(Some(Value { value: next, created }))
            }
            (Some(found), Step::Remove(created)) if found.created == created => Some(None),
            (found, Step::Read(seen)) if found == seen => Some(found),
            _ => None,
        }
    }
}
