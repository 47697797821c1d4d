//! Stop, kill and restart.

use std::sync::Arc;
use std::time::Duration;

use brig_types::signal::Signal;

use super::Container;
use super::state::{Status, Transition};
use super::wait::{WaitCondition, WaitHandle};
use crate::engine::Engine;
use crate::error::EngineError;

/// How long a container has to stop by itself when nobody says otherwise.
const DEFAULT_STOP_TIMEOUT: i64 = 10;
/// How long a killed process may take to end before the caller is told that it doesn't.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

fn parse_signal(text: &str) -> Result<Signal, EngineError> {
    Signal::parse(text).map_err(|error| EngineError::Invalid(error.to_string()))
}

impl Engine {
    /// Stops a container: its stop signal, and after `timeout` seconds (negative: never; `None`:
    /// the container's own, else 10) KILL. Runs to its end even if the caller goes away.
    ///
    /// # Errors
    /// [`EngineError::NotModified`] when it doesn't run; unknown container or signal; runtime.
    pub async fn stop(
        &self,
        key: &str,
        timeout: Option<i64>,
        signal: Option<&str>,
    ) -> Result<(), EngineError> {
        let container = self.registry().find(key)?;
        let signal = signal.filter(|text| !text.is_empty()).map(parse_signal).transpose()?;
        let engine = self.clone();
        self.detached(async move {
            engine.stop_gently(&container, timeout, signal).await?;
            engine.container_event(&container, "stop", &[]);
            Ok(())
        })
        .await
    }

    /// Stops, without `op` held: while the container has its time to end, others may remove, kill,
    /// pause or stop it sooner.
    async fn stop_gently(
        &self,
        container: &Arc<Container>,
        timeout: Option<i64>,
        signal: Option<Signal>,
    ) -> Result<(), EngineError> {
        let op = container.op.lock().await;
        if !container.cell().record.state.status.is_up() {
            return Err(EngineError::NotModified);
        }
        // Registered first: whichever way this run ends, and into whatever, is not missed.
        let mut ended = WaitHandle::new(container, WaitCondition::NextExit);
        let (signal, patience, status, durability) = {
            let mut cell = container.cell();
            let config = &cell.record.config;
            let signal = match signal {
                Some(signal) => signal,
                None if config.stop_signal.is_empty() => Signal::TERM,
                None => parse_signal(&config.stop_signal)?,
            };
            let timeout = timeout.or(config.stop_timeout).unwrap_or(DEFAULT_STOP_TIMEOUT);
            let patience = u64::try_from(timeout).map_or(Duration::MAX, Duration::from_secs);
            cell.record.stopped_by_hand = true;
            (signal, patience, cell.record.state.status, cell.record.state_durability())
        };
        // Before the signal: a daemon that dies now must not start it again.
        container.save_durably(durability).await;
        if status == Status::Restarting {
            self.cancel_restart(container);
            return Ok(());
        }
        if signal == Signal::KILL {
            return self.kill_until_down(container, &mut ended).await;
        }
        self.signal(container, signal).await?;
        drop(op);
        let down = ended.met_within(patience).await;
        let _op = container.op.lock().await;
        // Whoever held `op` may have ended this run, and even have begun another one.
        if !down && !ended.is_met() {
            self.kill_until_down(container, &mut ended).await?;
        }
        Ok(())
    }

    /// Stops at once, with `op` held and a container that is up.
    pub(crate) async fn kill_locked(&self, container: &Arc<Container>) -> Result<(), EngineError> {
        let mut ended = WaitHandle::new(container, WaitCondition::NextExit);
        let durability = {
            let mut cell = container.cell();
            cell.record.stopped_by_hand = true;
            cell.record.state_durability()
        };
        // Before the signal: a daemon that dies now must not start it again.
        container.save_durably(durability).await;
        self.kill_until_down(container, &mut ended).await
    }

    /// Sends KILL and waits until the run is over.
    async fn kill_until_down(
        &self,
        container: &Arc<Container>,
        ended: &mut WaitHandle,
    ) -> Result<(), EngineError> {
        self.signal(container, Signal::KILL).await?;
        if !ended.met_within(KILL_TIMEOUT).await {
            return Err(EngineError::Conflict(format!(
                "cannot stop container: {}: tried to kill container, but did not receive an exit event",
                container.id
            )));
        }
        // It may have ended by itself just before, on its way to an automatic start.
        if container.cell().record.state.status == Status::Restarting {
            self.cancel_restart(container);
        }
        Ok(())
    }

    /// Sends a signal to the container's process and tells so; a frozen one is thawed to get it.
    async fn signal(&self, container: &Arc<Container>, signal: Signal) -> Result<(), EngineError> {
        if let Err(error) = self.runtime().kill(&container.id, signal, false).await {
            // It may have ended in between, which is what was wanted; that it did may not have been
            // noticed here yet.
            let gone = matches!(error, brig_runtime::RuntimeError::NotRunning(_))
                || !container.cell().record.state.status.has_process();
            return if gone { Ok(()) } else { Err(error.into()) };
        }
        self.container_event(container, "kill", &[("signal", signal.number().to_string())]);
        if container.cell().record.state.status == Status::Paused {
            self.runtime().resume(&container.id).await?;
            container.cell().record.state.apply(Transition::Unpause);
        }
        Ok(())
    }

    /// Ends the wait for an automatic start.
    pub(crate) fn cancel_restart(&self, container: &Arc<Container>) {
        {
            let mut cell = container.cell();
            if let Some(cancel) = cell.restart_wait.take() {
                cancel.cancel();
            }
            cell.record.state.apply(Transition::CancelRestart);
            container.phase.send_modify(|phase| phase.up = false);
        }
        container.save();
    }

    /// Sends a signal (`None`: KILL).
    ///
    /// # Errors
    /// Not running, unknown container or signal; runtime.
    pub async fn kill(&self, key: &str, signal: Option<&str>) -> Result<(), EngineError> {
        let signal = match signal.filter(|text| !text.is_empty()) {
            Some(text) => parse_signal(text)?,
            None => Signal::KILL,
        };
        let container = self.registry().find(key)?;
        let (engine, key) = (self.clone(), key.to_owned());
        self.detached(async move {
            let status = {
                let mut cell = container.cell();
                let status = cell.record.state.status;
                let own = Signal::parse(&cell.record.config.stop_signal).unwrap_or(Signal::TERM);
                // Whoever sends the signal that ends it does not want it started again.
                if status.has_process() && (signal == Signal::KILL || signal == own) {
                    cell.record.stopped_by_hand = true;
                }
                status
            };
            if status == Status::Restarting {
                container.cell().record.stopped_by_hand = true;
                engine.cancel_restart(&container);
                return Ok(());
            }
            if !status.has_process() {
                return Err(EngineError::KillNotRunning { name: key, id: container.id.clone() });
            }
            if signal == Signal::KILL {
                let mut ended = WaitHandle::new(&container, WaitCondition::NextExit);
                engine.signal(&container, signal).await?;
                // Like docker: after a KILL the container is down when the answer comes.
                ended.met_within(KILL_TIMEOUT).await;
                Ok(())
            } else {
                engine.signal(&container, signal).await
            }
        })
        .await
    }

    /// Stops a container if it runs, and starts it.
    ///
    /// # Errors
    /// As [`Engine::stop`] and [`Engine::start_container`].
    pub async fn restart(
        &self,
        key: &str,
        timeout: Option<i64>,
        signal: Option<&str>,
    ) -> Result<(), EngineError> {
        let container = self.registry().find(key)?;
        let signal = signal.filter(|text| !text.is_empty()).map(parse_signal).transpose()?;
        let engine = self.clone();
        self.detached(async move {
            // Without its secrets it would not come up again: refuse while it still runs.
            if container.cell().record.needs_secrets {
                return Err(EngineError::Conflict(format!(
                    "container {} was given secrets or configs by the swarm; update its service instead of restarting it",
                    container.id
                )));
            }
            // A container that removes itself would be gone between the two steps.
            container.cell().stays = true;
            let stopped = engine.stop_gently(&container, timeout, signal).await;
            container.cell().stays = false;
            match stopped {
                Ok(()) => engine.container_event(&container, "stop", &[]),
                Err(EngineError::NotModified) => {}
                Err(error) => return Err(error),
            }
            let _op = container.op.lock().await;
            match engine.start_locked(&container, Default::default(), false).await {
                // Somebody else has started it meanwhile.
                Ok(()) | Err(EngineError::NotModified) => {}
                Err(error) => return Err(error),
            }
            engine.container_event(&container, "restart", &[]);
            Ok(())
        })
        .await
    }
}
