//! The commands, by the kind of object they are about.

pub(crate) mod access;
pub(crate) mod audit;
pub(crate) mod cluster;
pub(crate) mod config;
pub(crate) mod container;
pub(crate) mod context;
pub(crate) mod image;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod policy;
pub(crate) mod prune;
pub(crate) mod scan;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod stack;
pub(crate) mod swarm;
pub(crate) mod system;
pub(crate) mod trust;
pub(crate) mod volume;

mod inspect;
mod stored;
mod tasks;

use brig_api::filters::Filters;

use crate::error::{Error, Failures, Result, message};

/// Reads `--filter key=value` flags.
pub(crate) fn filters(flags: &[String]) -> Result<Filters> {
    let mut filters = Filters::new();
    for flag in flags {
        let Some((key, value)) = flag.split_once('=') else {
            return Err(message(format!(
                "invalid argument {flag:?} for \"-f, --filter\" flag: invalid filter {flag:?} (must be in \"<filter>=<value>\" format)"
            )));
        };
        filters.add(key.trim().to_ascii_lowercase(), value.trim());
    }
    Ok(filters)
}

/// Refuses an empty name or id, which would make another path.
pub(crate) fn checked<'a>(kind: &str, name: &'a str) -> Result<&'a str> {
    if name.trim().is_empty() {
        return Err(message(format!("invalid {kind} name or ID: value is empty")));
    }
    Ok(name)
}

/// Does something to each name and prints the name when it is done; failures come at the end.
pub(crate) async fn each<F>(names: &[String], mut action: impl FnMut(String) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let mut failures = Failures::default();
    for name in names {
        if failures.keep(action(name.clone()).await)?.is_some() {
            crate::output::line(name)?;
        }
    }
    failures.finish()
}

/// With `--force`, an object that is not there is only told about.
pub(crate) fn forgive_missing(result: Result<()>, force: bool) -> Result<()> {
    match result {
        Err(error @ Error::Api { status: 404, .. }) if force => {
            crate::output::warn(&error.text());
            Ok(())
        }
        other => other,
    }
}
