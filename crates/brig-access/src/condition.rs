//! What a policy asks of a request, as far as it can be answered without Cedar.
//!
//! Most policies of a long list do not apply to a given request, and most of those say so in a plain
//! comparison: an image's name, a label, a flag. Telling that here takes nanoseconds, evaluating the
//! policy takes a thousand times that. A policy is left out only when its condition is *surely*
//! false: parts that are not understood, and parts that come after them in the order of evaluation,
//! count as unknown, for they might fail, and a policy that fails denies.

use std::borrow::Cow;
use std::collections::BTreeSet;

use cedar_policy::Policy;
use serde_json::Value as Json;

use crate::attributes::{Attributes, Value, Variable};

/// Deepest nesting that is looked into.
const MAX_DEPTH: usize = 64;

/// A condition. Places are those of [`Attributes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Always the same.
    Constant(bool),
    /// A flag of the request.
    Flag(usize),
    /// A text is this one.
    Equal(usize, String),
    /// A text is one of these.
    OneOf(usize, BTreeSet<String>),
    /// A text looks like this: what stands between its wildcards.
    Like(usize, Vec<String>),
    /// A set holds this.
    Holds(usize, String),
    /// A set holds one of these at least.
    HoldsAny(usize, Vec<String>),
    /// A set holds all of these.
    HoldsAll(usize, Vec<String>),
    /// A set holds nothing.
    Empty(usize),
    /// The object has this label.
    Label(String),
    /// The other way round.
    Not(Box<Condition>),
    /// Both; the second is asked only if the first holds.
    And(Box<Condition>, Box<Condition>),
    /// Either; the second is asked only if the first does not hold.
    Or(Box<Condition>, Box<Condition>),
    /// Cedar has to be asked.
    Unknown,
}

impl Condition {
    /// The condition of a policy, whose types have been checked against the schema.
    pub(crate) fn of(policy: &Policy, places: &Attributes<'_>) -> Self {
        let Ok(json) = policy.to_json() else {
            return Self::Unknown;
        };
        let Some(conditions) = json.get("conditions").and_then(Json::as_array) else {
            return Self::Unknown;
        };
        conditions.iter().fold(Self::Constant(true), |before, condition| {
            let body = condition
                .get("body")
                .map_or(Self::Unknown, |body| Self::read(body, places, MAX_DEPTH));
            let own = match condition.get("kind").and_then(Json::as_str) {
                Some("when") => body,
                Some("unless") => Self::Not(Box::new(body)),
                _ => Self::Unknown,
            };
            Self::And(Box::new(before), Box::new(own))
        })
    }

    /// Reads an expression of Cedar's JSON policy format.
    fn read(expression: &Json, places: &Attributes<'_>, depth: usize) -> Self {
        let mut members = expression.as_object().into_iter().flatten();
        let (Some((operator, operands)), None, Some(depth)) =
            (members.next(), members.next(), depth.checked_sub(1))
        else {
            return Self::Unknown;
        };
        let (left, right) = (operands.get("left"), operands.get("right"));
        let inner = |part: Option<&Json>| {
            Box::new(part.map_or(Self::Unknown, |part| Self::read(part, places, depth)))
        };
        let read = || match operator.as_str() {
            "Value" => operands.as_bool().map(Self::Constant),
            "." => match place(expression, places)? {
                (place, Value::Flag(_)) => Some(Self::Flag(place)),
                _ => None,
            },
            "!" => Some(Self::Not(inner(operands.get("arg")))),
            "&&" => Some(Self::And(inner(left), inner(right))),
            "||" => Some(Self::Or(inner(left), inner(right))),
            "==" => equal(left?, right?, places),
            "!=" => equal(left?, right?, places).map(|equal| Self::Not(Box::new(equal))),
            "like" => match place(left?, places)? {
                (place, Value::Text(_)) => {
                    Some(Self::Like(place, pattern(operands.get("pattern")?)?))
                }
                _ => None,
            },
            "contains" => match (place(left?, places), place(right?, places)) {
                (Some((place, Value::Set(_))), None) => {
                    Some(Self::Holds(place, text(right?)?.to_owned()))
                }
                (None, Some((place, Value::Text(_)))) => {
                    Some(Self::OneOf(place, texts(left?)?.into_iter().collect()))
                }
                _ => None,
            },
            "containsAny" => {
                set(left?, places).zip(texts(right?)).map(|(p, t)| Self::HoldsAny(p, t))
            }
            "containsAll" => {
                set(left?, places).zip(texts(right?)).map(|(p, t)| Self::HoldsAll(p, t))
            }
            "isEmpty" => set(operands.get("arg")?, places).map(Self::Empty),
            "hasTag" if variable(left?) == Some(Variable::Resource) => {
                text(right?).map(|name| Self::Label(name.to_owned()))
            }
            _ => None,
        };
        read().unwrap_or(Self::Unknown)
    }

    /// Whether it holds; `None` when Cedar has to say.
    pub(crate) fn holds(&self, attributes: &Attributes<'_>) -> Option<bool> {
        let text = |place: &usize| match attributes.at(*place) {
            Some(Value::Text(text)) => Some(text.as_ref()),
            _ => None,
        };
        let set = |place: &usize| match attributes.at(*place) {
            Some(Value::Set(items)) => Some(items.as_slice()),
            _ => None,
        };
        match self {
            Self::Constant(known) => Some(*known),
            Self::Flag(place) => match attributes.at(*place) {
                Some(Value::Flag(flag)) => Some(*flag),
                _ => None,
            },
            Self::Equal(place, other) => text(place).map(|text| text == other),
            Self::OneOf(place, others) => text(place).map(|text| others.contains(text)),
            Self::Like(place, pieces) => text(place).map(|text| looks_like(text, pieces)),
            Self::Holds(place, item) => set(place).map(|items| has(items, item)),
            Self::HoldsAny(place, some) => {
                set(place).map(|items| some.iter().any(|item| has(items, item)))
            }
            Self::HoldsAll(place, all) => {
                set(place).map(|items| all.iter().all(|item| has(items, item)))
            }
            Self::Empty(place) => set(place).map(<[_]>::is_empty),
            Self::Label(name) => Some(attributes.labels().contains_key(name)),
            Self::Not(inner) => inner.holds(attributes).map(|holds| !holds),
            Self::And(first, second) => match first.holds(attributes)? {
                true => second.holds(attributes),
                false => Some(false),
            },
            Self::Or(first, second) => match first.holds(attributes)? {
                true => Some(true),
                false => second.holds(attributes),
            },
            Self::Unknown => None,
        }
    }
}

fn has(sorted: &[Cow<'_, str>], item: &str) -> bool {
    sorted.binary_search_by(|known| known.as_ref().cmp(item)).is_ok()
}

/// Whether the pieces stand in the text in this order, the first at its start and the last at its
/// end.
fn looks_like(text: &str, pieces: &[String]) -> bool {
    let [first, between @ .., last] = pieces else {
        return pieces.first().is_some_and(|only| only == text);
    };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else {
        return false;
    };
    for piece in between {
        match rest.split_once(piece.as_str()) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last.as_str())
}

fn variable(expression: &Json) -> Option<Variable> {
    match expression.get("Var")?.as_str()? {
        "principal" => Some(Variable::Principal),
        "resource" => Some(Variable::Resource),
        "context" => Some(Variable::Context),
        _ => None,
    }
}

/// The attribute that is read, and a value of its kind.
fn place<'a>(expression: &Json, places: &'a Attributes<'a>) -> Option<(usize, &'a Value<'a>)> {
    let access = expression.get(".")?;
    let place = places.place(variable(access.get("left")?)?, access.get("attr")?.as_str()?)?;
    places.at(place).map(|value| (place, value))
}

fn set(expression: &Json, places: &Attributes<'_>) -> Option<usize> {
    match place(expression, places)? {
        (place, Value::Set(_)) => Some(place),
        _ => None,
    }
}

fn text(expression: &Json) -> Option<&str> {
    expression.get("Value")?.as_str()
}

fn texts(expression: &Json) -> Option<Vec<String>> {
    let items = expression.get("Set")?.as_array()?;
    items.iter().map(|item| text(item).map(str::to_owned)).collect()
}

fn equal(left: &Json, right: &Json, places: &Attributes<'_>) -> Option<Condition> {
    let (attribute, literal) = match (place(left, places), place(right, places)) {
        (Some(attribute), None) => (attribute, right),
        (None, Some(attribute)) => (attribute, left),
        _ => return None,
    };
    match (attribute, literal.get("Value")?) {
        ((place, Value::Text(_)), Json::String(text)) => {
            Some(Condition::Equal(place, text.clone()))
        }
        ((place, Value::Flag(_)), Json::Bool(true)) => Some(Condition::Flag(place)),
        ((place, Value::Flag(_)), Json::Bool(false)) => {
            Some(Condition::Not(Box::new(Condition::Flag(place))))
        }
        _ => None,
    }
}

/// What stands between a pattern's wildcards.
fn pattern(parts: &Json) -> Option<Vec<String>> {
    let mut pieces = vec![String::new()];
    for part in parts.as_array()? {
        if part.as_str() == Some("Wildcard") {
            pieces.push(String::new());
        } else {
            pieces.last_mut()?.push_str(part.get("Literal")?.as_str()?);
        }
    }
    Some(pieces)
}

#[cfg(test)]
mod tests;
