//! Waiting for a container to stop, to end its next run, or to be removed.

use std::time::Duration;

use tokio::sync::watch;

use super::Container;
use super::record::Record;
use crate::engine::Engine;
use crate::error::EngineError;

/// What a waiter is told about; changes go through a watch channel, so none is missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    /// Running, paused or about to be started again.
    pub(crate) up: bool,
    /// Runs that ended, failed starts among them.
    pub(crate) ended_runs: u64,
    /// Nothing is left of the last run: mounts, addresses, runtime state.
    pub(crate) clean: bool,
    /// It is gone.
    pub(crate) removed: bool,
    /// The last exit code.
    pub(crate) exit_code: i32,
    /// Why the last start failed; empty if it didn't.
    pub(crate) error: String,
}

impl Phase {
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            up: record.state.status.is_up(),
            ended_runs: 0,
            clean: true,
            removed: false,
            exit_code: record.state.exit_code,
            error: String::new(),
        }
    }
}

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// That it doesn't run; true at once for one that doesn't.
    #[default]
    NotRunning,
    /// The end of the run that goes on or comes next.
    NextExit,
    /// Its removal.
    Removed,
}

impl WaitCondition {
    /// Reads the API's word; empty means not running.
    ///
    /// # Errors
    /// [`EngineError::Invalid`].
    pub fn parse(word: &str) -> Result<Self, EngineError> {
        match word {
            "" | "not-running" => Ok(Self::NotRunning),
            "next-exit" => Ok(Self::NextExit),
            "removed" => Ok(Self::Removed),
            other => Err(EngineError::Invalid(format!("invalid condition: {other:?}"))),
        }
    }
}

/// How the wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitOutcome {
    /// The exit code.
    pub exit_code: i64,
    /// Why the container could not be started, if that ended the wait.
    pub error: Option<String>,
}

/// A registered wait: nothing that happens after it was made is missed.
#[derive(Debug)]
pub struct WaitHandle {
    phase: watch::Receiver<Phase>,
    condition: WaitCondition,
    ended_before: u64,
}

impl WaitHandle {
    pub(crate) fn new(container: &Container, condition: WaitCondition) -> Self {
        let phase = container.phase.subscribe();
        let ended_before = phase.borrow().ended_runs;
        Self { phase, condition, ended_before }
    }

    fn condition(&self) -> impl Fn(&Phase) -> bool + use<> {
        let (condition, ended_before) = (self.condition, self.ended_before);
        move |phase: &Phase| match condition {
            WaitCondition::NotRunning => !phase.up || phase.removed,
            WaitCondition::NextExit => phase.ended_runs > ended_before || phase.removed,
            WaitCondition::Removed => phase.removed,
        }
    }

    /// Whether the condition is met now.
    pub(crate) fn is_met(&self) -> bool {
        (self.condition())(&self.phase.borrow())
    }

    async fn met(&mut self) {
        let met = self.condition();
        // An error means that the container is gone, which meets every condition.
        let _ = self.phase.wait_for(met).await;
    }

    /// Whether the condition is met in time; `Duration::MAX` waits for ever. Cancel safe.
    pub(crate) async fn met_within(&mut self, patience: Duration) -> bool {
        if patience == Duration::MAX {
            self.met().await;
            return true;
        }
        tokio::time::timeout(patience, self.met()).await.is_ok()
    }

    /// Waits for the condition. Cancel safe.
    pub async fn wait(mut self) -> WaitOutcome {
        self.met().await;
        let phase = self.phase.borrow();
        // Whoever waits for the removal got it; that the start before it failed is not its error.
        let failed = !phase.error.is_empty() && self.condition != WaitCondition::Removed;
        WaitOutcome {
            exit_code: i64::from(phase.exit_code),
            error: failed.then(|| phase.error.clone()),
        }
    }
}

impl Engine {
    /// Registers a wait.
    ///
    /// # Errors
    /// Unknown container.
    pub fn wait(&self, key: &str, condition: WaitCondition) -> Result<WaitHandle, EngineError> {
        Ok(WaitHandle::new(&*self.registry().find(key)?, condition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::{ContainerPaths, tests::sample};

    fn container() -> std::sync::Arc<Container> {
        let dir = std::path::PathBuf::from("/nonexistent");
        let paths = ContainerPaths {
            dir: dir.clone(),
            bundle: dir.clone(),
            rootfs: dir.clone(),
            subpaths: dir,
        };
        Container::new(sample(), paths)
    }

    #[tokio::test]
    async fn conditions() {
        let c = container();
        let not_running = WaitHandle::new(&c, WaitCondition::NotRunning);
        assert_eq!(not_running.wait().await.exit_code, 0);
        let next = WaitHandle::new(&c, WaitCondition::NextExit);
        let removed = WaitHandle::new(&c, WaitCondition::Removed);
        c.phase.send_modify(|phase| {
            phase.ended_runs += 1;
            phase.exit_code = 3;
        });
        assert_eq!(next.wait().await, WaitOutcome { exit_code: 3, error: None });
        let later = async {
            tokio::task::yield_now().await;
            c.phase.send_modify(|phase| phase.removed = true);
        };
        let (outcome, ()) = tokio::join!(removed.wait(), later);
        assert_eq!(outcome.exit_code, 3);
        c.phase.send_modify(|phase| phase.error = "no such program".to_owned());
        assert_eq!(WaitHandle::new(&c, WaitCondition::Removed).wait().await.error, None);
        assert!(WaitHandle::new(&c, WaitCondition::NotRunning).wait().await.error.is_some());
        assert!(WaitCondition::parse("bogus").is_err());
    }
}
