//! Sets of processors and memory nodes, as `--cpuset-cpus` and `--cpuset-mems` name them.

use std::path::Path;

use crate::error::EngineError;

/// The kernel knows fewer; bounds what one request can make the engine count.
const MAX_NUMBER: u32 = 8192;

/// What a set is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cpus,
    Memory,
}

/// Reads `0-3,7` into ranges; `None` when it is none.
fn parse(text: &str) -> Option<Vec<(u32, u32)>> {
    let number = |text: &str| text.parse().ok().filter(|number| *number < MAX_NUMBER);
    text.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some((first, last))
        })
        .collect()
}

fn within(wanted: &[(u32, u32)], there: &[(u32, u32)]) -> bool {
    let has = |number: u32| there.iter().any(|(first, last)| (*first..=*last).contains(&number));
    wanted.iter().all(|(first, last)| (*first..=*last).all(has))
}

/// Refuses a set that is none, or that names what is not in the kernel's list at `online`.
///
/// # Errors
/// [`EngineError::Invalid`] with docker's text.
pub(crate) fn check(kind: Kind, set: &str, online: &Path) -> Result<(), EngineError> {
    if set.is_empty() {
        return Ok(());
    }
    let (name, plural) = match kind {
        Kind::Cpus => ("cpus", "CPUs"),
        Kind::Memory => ("mems", "memory nodes"),
    };
    let Some(wanted) = parse(set) else {
        let shown: String = set.chars().take(80).collect();
        return Err(EngineError::Invalid(format!("Invalid value {shown} for cpuset {name}")));
    };
    // Without such a list it is the kernel that says no, at the start.
    let Ok(list) = std::fs::read_to_string(online) else { return Ok(()) };
    let list = list.trim();
    match parse(list) {
        Some(there) if !within(&wanted, &there) => Err(EngineError::Invalid(format!(
            "Requested {plural} are not available - requested {set}, available: {list}"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_held_against_what_there_is() {
        let folder = tempfile::tempdir().unwrap();
        let online = folder.path().join("online");
        std::fs::write(&online, "0-1,4\n").unwrap();
        let text = |set: &str| check(Kind::Cpus, set, &online).map_err(|error| error.to_string());
        for good in ["", "0", "0-1", "1,0", "4", "0-1,4"] {
            assert_eq!(text(good), Ok(()), "{good}");
        }
        for bad in ["abc", "1-0", "0,", "-1", "99999", "0-99999"] {
            assert_eq!(text(bad), Err(format!("Invalid value {bad} for cpuset cpus")));
        }
        assert_eq!(
            text("0-2"),
            Err("Requested CPUs are not available - requested 0-2, available: 0-1,4".to_owned())
        );
        assert_eq!(check(Kind::Memory, "7", &folder.path().join("none")).map_err(|_| ()), Ok(()));
    }
}
