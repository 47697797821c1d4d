//! Requirements as advisory databases write them (`>= 1.2, < 2`, `~> 3.1`, `^1.4.2`), brought to
//! intervals between versions.

use super::Scheme;

/// Longest requirement that is read, in bytes.
const MAX_REQUIREMENT: usize = 4096;

/// Which tool's language a requirement is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// Cargo: commas join, no operator means `^`.
    Cargo,
    /// RubyGems: commas join, no operator means `=`.
    Gem,
    /// npm: spaces join, `||` separates, no operator means `=`, `1.x` and `1.2.3 - 2.0.0`.
    Npm,
    /// Composer: commas or spaces join, `|` or `||` separates, no operator means `=`.
    Composer,
}

/// One end of an interval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The version at the end.
    pub version: String,
    /// Whether it belongs to the interval.
    pub inclusive: bool,
}

/// A run of versions; an end that is absent is open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interval {
    /// The oldest.
    pub from: Option<Bound>,
    /// The newest.
    pub to: Option<Bound>,
}

/// A requirement that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("version requirement {0:?} cannot be read")]
pub struct RequirementError(String);

/// The intervals that a requirement allows, any of which is enough.
///
/// # Errors
/// [`RequirementError`] when an operator or a version is not understood.
pub fn intervals(
    requirement: &str,
    syntax: Syntax,
    scheme: Scheme,
) -> Result<Vec<Interval>, RequirementError> {
    let refuse = || RequirementError(requirement.chars().take(200).collect());
    if requirement.len() > MAX_REQUIREMENT {
        return Err(refuse());
    }
    let alternatives: Vec<&str> = match syntax {
        Syntax::Npm | Syntax::Composer => {
            requirement.split('|').filter(|s| !s.trim().is_empty()).collect()
        }
        Syntax::Cargo | Syntax::Gem => vec![requirement],
    };
    let mut all = Vec::new();
    for alternative in alternatives {
        let mut joined = Interval::default();
        let mut empty = false;
        for (operator, version) in conditions(alternative, syntax).ok_or_else(refuse)? {
            let condition = interval(&operator, &version, syntax).ok_or_else(refuse)?;
            for (bound, upper) in [(condition.from, false), (condition.to, true)] {
                if let Some(bound) = bound {
                    tighten(
                        if upper { &mut joined.to } else { &mut joined.from },
                        bound,
                        upper,
                        scheme,
                    );
                }
            }
        }
        if let (Some(from), Some(to)) = (&joined.from, &joined.to) {
            let order = scheme.compare(&from.version, &to.version);
            empty = order.is_gt() || (order.is_eq() && !(from.inclusive && to.inclusive));
        }
        if !empty {
            all.push(joined);
        }
    }
    Ok(all)
}

fn tighten(end: &mut Option<Bound>, new: Bound, upper: bool, scheme: Scheme) {
    let tighter = match end {
        None => true,
        Some(old) => {
            let order = scheme.compare(&new.version, &old.version);
            let order = if upper { order.reverse() } else { order };
            order.is_gt() || (order.is_eq() && !new.inclusive)
        }
    };
    if tighter {
        *end = Some(new);
    }
}

/// The parts of one alternative, as operator and version.
fn conditions(text: &str, syntax: Syntax) -> Option<Vec<(String, String)>> {
    if matches!(syntax, Syntax::Npm | Syntax::Composer)
        && let Some((low, high)) = text.split_once(" - ")
    {
        return Some(vec![
            (">=".to_owned(), low.trim().to_owned()),
            ("<=".to_owned(), high.trim().to_owned()),
        ]);
    }
    let mut found = Vec::new();
    let mut operator = String::new();
    for word in text.split([',', ' ', '\t', '\n']).filter(|word| !word.is_empty()) {
        let length = word
            .bytes()
            .take_while(|b| matches!(b, b'<' | b'>' | b'=' | b'~' | b'^' | b'!'))
            .count();
        let (sign, version) = word.split_at_checked(length)?;
        if !sign.is_empty() {
            if !operator.is_empty() {
                return None;
            }
            sign.clone_into(&mut operator);
        }
        if !version.is_empty() {
            found.push((std::mem::take(&mut operator), version.to_owned()));
        }
    }
    operator.is_empty().then_some(found)
}

fn interval(operator: &str, version: &str, syntax: Syntax) -> Option<Interval> {
    let at = |version: &str, inclusive| Some(Bound { version: version.to_owned(), inclusive });
    let wild = version.split('.').any(|part| matches!(part, "*" | "x" | "X"));
    if wild {
        let parts: Vec<&str> =
            version.split('.').take_while(|part| !matches!(*part, "*" | "x" | "X")).collect();
        let low = parts.join(".");
        let upper = parts.len().checked_sub(1).and_then(|last| next(&parts, last));
        return Some(match (operator, upper) {
            (_, None) => Interval::default(),
            ("<", Some(_)) => Interval { from: None, to: at(&low, false) },
            (">=", Some(_)) => Interval { from: at(&low, true), to: None },
            ("<=", Some(upper)) => Interval { from: None, to: at(&upper, false) },
            (">", Some(upper)) => Interval { from: at(&upper, true), to: None },
            (_, Some(upper)) => Interval { from: at(&low, true), to: at(&upper, false) },
        });
    }
    let version = version.strip_prefix('v').unwrap_or(version);
    if !version.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let release = version.split(['-', '+']).next().unwrap_or(version);
    let parts: Vec<&str> = release.split('.').collect();
    Some(match operator {
        "<" => Interval { from: None, to: at(version, false) },
        "<=" => Interval { from: None, to: at(version, true) },
        ">" => Interval { from: at(version, false), to: None },
        ">=" => Interval { from: at(version, true), to: None },
        "=" | "==" => Interval { from: at(version, true), to: at(version, true) },
        "" if syntax != Syntax::Cargo => {
            Interval { from: at(version, true), to: at(version, true) }
        }
        // `^1.2.3` and Cargo's bare `1.2.3`: up to the next change of the first number that is not 0.
        "" | "^" => {
            let last = parts.len().checked_sub(1)?;
            let place =
                parts.iter().position(|part| part.bytes().any(|b| b != b'0')).unwrap_or(last);
            Interval { from: at(version, true), to: at(&next(&parts, place)?, false) }
        }
        // `~1.2.3` and `~1.2`: the same minor; `~1`: the same major.
        "~" if matches!(syntax, Syntax::Cargo | Syntax::Npm) => Interval {
            from: at(version, true),
            to: at(&next(&parts, 1.min(parts.len().checked_sub(1)?))?, false),
        },
        // RubyGems' and Composer's: all but the last given number stay. Pre-releases count.
        "~>" | "~" => {
            let numeric: Vec<&str> = parts
                .iter()
                .copied()
                .take_while(|part| part.bytes().all(|b| b.is_ascii_digit()))
                .collect();
            let place = numeric.len().saturating_sub(2);
            Interval { from: at(version, true), to: at(&next(&numeric, place)?, false) }
        }
        _ => return None,
    })
}

/// The first version after all that begin with `parts[..=place]`.
fn next(parts: &[&str], place: usize) -> Option<String> {
    let mut raised: Vec<String> = parts.iter().take(place).map(|part| (*part).to_owned()).collect();
    raised.push(parts.get(place)?.parse::<u64>().ok()?.checked_add(1)?.to_string());
    Some(raised.join("."))
}
