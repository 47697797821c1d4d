//! Linearizability: whether operations that overlapped in time can be put into one order in which
//! each of them does what it was seen to do, and in which none stands before one that had ended
//! before it began. The search is Wing and Gong's, with Lowe's memory of what was tried.

use std::collections::HashSet;
use std::hash::Hash;

/// What an object does.
pub trait Model {
    /// What the object is.
    type State: Clone + Eq + Hash + Default;
    /// What somebody did to it, with what came out of it.
    type Step;

    /// The state after a step; `None` when the step cannot have had this outcome in this state.
    fn after(state: &Self::State, step: &Self::Step) -> Option<Self::State>;
}

/// A step and when it was taken.
#[derive(Clone, Debug)]
pub struct Timed<S> {
    /// When it began.
    pub call: u64,
    /// When its outcome was known; `None` when nobody knows whether it was taken, or ever will be.
    pub end: Option<u64>,
    /// What was done.
    pub step: S,
}

/// An order of these steps that explains them, as their positions in the slice. Steps without an
/// end are in it only where they are needed. `None` when there is none.
#[must_use]
pub fn order<M: Model>(steps: &[Timed<M::Step>]) -> Option<Vec<usize>> {
    let mut search = Search::<M> { steps, tried: HashSet::new(), chosen: Vec::new() };
    let left: Vec<usize> = (0..steps.len()).collect();
    search.extend(&M::State::default(), &left).then_some(search.chosen)
}

struct Search<'a, M: Model> {
    steps: &'a [Timed<M::Step>],
    /// What was left and what the object was, where that led nowhere.
    tried: HashSet<(Vec<usize>, M::State)>,
    chosen: Vec<usize>,
}

impl<M: Model> Search<'_, M> {
    fn extend(&mut self, state: &M::State, left: &[usize]) -> bool {
        // Whatever began after one of the others had ended cannot be the next one.
        let Some(first_end) = left.iter().filter_map(|at| self.steps[*at].end).min() else {
            return true;
        };
        if !self.tried.insert((left.to_vec(), state.clone())) {
            return false;
        }
        for &at in left {
            let candidate = &self.steps[at];
            if candidate.call > first_end {
                continue;
            }
            let Some(next) = M::after(state, &candidate.step) else { continue };
            let rest: Vec<usize> = left.iter().copied().filter(|other| *other != at).collect();
            self.chosen.push(at);
            if self.extend(&next, &rest) {
                return true;
            }
            self.chosen.pop();
        }
        false
    }
}
