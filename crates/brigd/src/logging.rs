//! The log: to standard error, at a level that can be changed while the daemon runs.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::LogLevel;

/// Environment variable with a filter of `tracing`, for finding faults; beats the configuration.
const FILTER_VARIABLE: &str = "BRIGD_LOG";

/// Changes the level of the running log.
#[derive(Clone, Debug)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

/// The log can't be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The filter of the environment is malformed.
    #[error("invalid log filter in BRIGD_LOG")]
    Filter(#[source] ParseError),
    /// There is a log already.
    #[error("cannot install the log")]
    Install(#[source] TryInitError),
}

/// Installs the log for the whole process.
///
/// # Errors
/// [`LogError`].
pub fn install(level: LogLevel) -> Result<LogControl, LogError> {
    let (filter, handle) = reload::Layer::new(filter(level).map_err(LogError::Filter)?);
    // The journal puts its own time before each line.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let registry = Registry::default().with(filter);
    if journal {
        registry.with(lines.without_time()).try_init().map_err(LogError::Install)?;
    } else {
        registry.with(lines).try_init().map_err(LogError::Install)?;
    }
    Ok(LogControl(handle))
}

impl LogControl {
    /// Logs from `level` on.
    pub fn set(&self, level: LogLevel) {
        match filter(level) {
            Ok(new) => {
                if self.0.reload(new).is_err() {
                    tracing::error!("the log level cannot be changed any more");
                }
            }
            Err(error) => tracing::error!(%error, "invalid log filter"),
        }
    }
}

fn filter(level: LogLevel) -> Result<EnvFilter, ParseError> {
    match std::env::var(FILTER_VARIABLE) {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(text),
        _ => EnvFilter::try_new(match level {
            // The protocol libraries' own debug lines would bury ours.
            LogLevel::Debug => {
                "info,brigd=debug,brig_engine=debug,brig_image=debug,brig_network=debug,\
                                brig_runtime=debug,brig_store=debug,brig_swarm=debug,brig_pki=debug,brig_sys=debug"
            }
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_a_valid_filter() {
        for level in [LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error] {
            assert!(filter(level).is_ok(), "{level:?}");
        }
    }
}
