//! Health checks: a probe that runs in the container now and then, and what its results mean.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use brig_api::container::{ContainerConfig, Health, HealthLog};
use brig_api::exec::ExecConfig;
use brig_api::time::rfc3339nano;
use brig_types::signal::Signal;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Container;
use super::exec::ExecStart;
use super::state::Status;
use crate::engine::Engine;

const DEFAULT_INTERVAL: Duration = Duration::from_secs(30);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: i64 = 3;
/// Results that are kept.
const KEPT_RESULTS: usize = 5;
/// Bytes of a probe's output that are kept.
const MAX_OUTPUT: usize = 4096;

/// What to run, when, and when to worry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Probe {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

impl Probe {
    /// Reads a configuration; `None` when there is no check.
    fn parse(config: &ContainerConfig) -> Option<Self> {
        let health = config.healthcheck.as_ref()?;
        let command = match health.test.split_first()? {
            (kind, rest) if kind == "CMD" => rest.to_vec(),
            (kind, rest) if kind == "CMD-SHELL" => {
                let mut shell = config.shell.clone();
                if shell.is_empty() {
                    shell = vec!["/bin/sh".to_owned(), "-c".to_owned()];
                }
                shell.push(rest.join(" "));
                shell
            }
            _ => return None,
        };
        if command.is_empty() {
            return None;
        }
        let duration = |nanos: i64, default| match u64::try_from(nanos) {
            Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos),
            _ => default,
        };
        Some(Self {
            command,
            interval: duration(health.interval, DEFAULT_INTERVAL),
            timeout: duration(health.timeout, DEFAULT_TIMEOUT),
            start_period: duration(health.start_period, Duration::ZERO),
            start_interval: duration(health.start_interval, DEFAULT_START_INTERVAL),
            retries: if health.retries > 0 { health.retries } else { DEFAULT_RETRIES },
        })
    }
}

/// The status of a container's health check, in the Engine API's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HealthStatus {
    Starting,
    Healthy,
    Unhealthy,
}

impl HealthStatus {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What the checks of a run have shown so far.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HealthState {
    status: HealthStatus,
    failing_streak: i64,
    log: VecDeque<HealthLog>,
}

impl HealthState {
    fn new() -> Self {
        Self { status: HealthStatus::Starting, failing_streak: 0, log: VecDeque::new() }
    }

    /// `starting`, `healthy` or `unhealthy`.
    pub(crate) fn status(&self) -> &'static str {
        self.status.as_str()
    }

    /// As inspect shows it.
    pub(crate) fn report(&self) -> Health {
        Health {
            status: self.status().to_owned(),
            failing_streak: self.failing_streak,
            log: self.log.iter().cloned().collect(),
        }
    }

    /// As inspect shows it once the container has ended.
    pub(crate) fn at_the_end(self) -> Health {
        Health { status: HealthStatus::Unhealthy.as_str().to_owned(), ..self.report() }
    }

    /// Takes a result; the new status if it changed. A failure in the start period counts nothing
    /// until the first success.
    fn take(
        &mut self,
        result: HealthLog,
        retries: i64,
        in_start_period: bool,
    ) -> Option<&'static str> {
        let before = self.status;
        if result.exit_code == 0 {
            self.failing_streak = 0;
            self.status = HealthStatus::Healthy;
        } else if !(in_start_period && self.status == HealthStatus::Starting) {
            self.failing_streak += 1;
            if self.failing_streak >= retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        if self.log.len() == KEPT_RESULTS {
            self.log.pop_front();
        }
        self.log.push_back(result);
        (self.status != before).then(|| self.status())
    }
}

impl Engine {
    /// Checks a run's health until it ends.
    pub(crate) fn watch_health(&self, container: &Arc<Container>, cancel: CancellationToken) {
        let Some(probe) = Probe::parse(&container.cell().record.config) else { return };
        container.cell().health = Some(HealthState::new());
        let (engine, container) = (self.clone(), Arc::clone(container));
        self.spawn(async move {
            let began = Instant::now();
            loop {
                let starting = container
                    .cell()
                    .health
                    .as_ref()
                    .is_some_and(|health| health.status == HealthStatus::Starting);
                let in_start_period = starting && began.elapsed() < probe.start_period;
                let pause = if in_start_period { probe.start_interval } else { probe.interval };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = cancel.cancelled() => return,
                }
                if container.cell().record.state.status != Status::Running {
                    continue;
                }
                let result = tokio::select! {
                    result = engine.probe(&container, &probe) => result,
                    () = cancel.cancelled() => return,
                };
                let in_start_period = began.elapsed() < probe.start_period;
                let changed = {
                    let mut cell = container.cell();
                    cell.health
                        .as_mut()
                        .and_then(|health| health.take(result, probe.retries, in_start_period))
                };
                if let Some(status) = changed {
                    engine.container_event(&container, &format!("health_status: {status}"), &[]);
                }
            }
        });
    }

    /// Runs the probe once.
    async fn probe(&self, container: &Arc<Container>, probe: &Probe) -> HealthLog {
        let start = rfc3339nano(OffsetDateTime::now_utc());
        let (exit_code, output) = match self.run_probe(container, probe).await {
            Ok(outcome) => outcome,
            Err(error) => (-1, brig_types::error::chain(&error)),
        };
        HealthLog { start, end: rfc3339nano(OffsetDateTime::now_utc()), exit_code, output }
    }

    async fn run_probe(
        &self,
        container: &Arc<Container>,
        probe: &Probe,
    ) -> Result<(i64, String), crate::error::EngineError> {
        let config = ExecConfig {
            cmd: probe.command.clone(),
            attach_stdout: true,
            attach_stderr: true,
            ..ExecConfig::default()
        };
        let id = self.create_exec(container.id.as_str(), config)?;
        let mut streams = self.start_exec(id.as_str(), ExecStart::default()).await?;
        let mut output = Vec::new();
        let read = async {
            while let Some(chunk) = streams.output.recv().await {
                let room = MAX_OUTPUT.saturating_sub(output.len());
                output.extend(chunk.bytes.iter().take(room));
            }
        };
        let in_time = tokio::time::timeout(probe.timeout, read).await.is_ok();
        let result = self.inspect_exec(id.as_str())?;
        let text = String::from_utf8_lossy(&output).into_owned();
        if in_time {
            return Ok((self.exec_exit_code(id.as_str()).await?, text));
        }
        let killed = i32::try_from(result.pid).ok().filter(|pid| *pid > 0).map(|pid| {
            brig_sys::process::pidfd(pid)
                .and_then(|fd| brig_sys::process::send_signal(&fd, Signal::KILL))
        });
        if let Some(Err(error)) = killed {
            tracing::debug!(%error, "a probe that took too long is gone already");
        }
        Ok((
            -1,
            format!("Health check exceeded timeout ({}s): {text}", probe.timeout.as_secs_f64()),
        ))
    }
}

#[cfg(test)]
mod tests {
    use brig_api::container::HealthConfig;

    use super::*;

    fn config(test: &[&str]) -> ContainerConfig {
        ContainerConfig {
            healthcheck: Some(HealthConfig {
                test: test.iter().map(|word| (*word).to_owned()).collect(),
                interval: 1_000_000_000,
                ..HealthConfig::default()
            }),
            ..ContainerConfig::default()
        }
    }

    fn result(exit_code: i64) -> HealthLog {
        HealthLog { exit_code, ..HealthLog::default() }
    }

    #[test]
    fn probes() {
        let shell = Probe::parse(&config(&["CMD-SHELL", "test -f /x"])).unwrap();
        assert_eq!(shell.command, ["/bin/sh", "-c", "test -f /x"]);
        assert_eq!((shell.interval, shell.retries), (Duration::from_secs(1), 3));
        let plain = Probe::parse(&config(&["CMD", "ok", "now"])).unwrap();
        assert_eq!(plain.command, ["ok", "now"]);
        for none in [&["NONE"][..], &[], &["CMD"]] {
            assert_eq!(Probe::parse(&config(none)), None);
        }
    }

    #[test]
    fn three_failures_make_it_unhealthy_and_one_success_healthy() {
        let mut health = HealthState::new();
        assert_eq!(health.take(result(1), 3, true), None);
        assert_eq!(health.failing_streak, 0);
        assert_eq!(health.take(result(1), 3, false), None);
        assert_eq!(health.take(result(1), 3, false), None);
        assert_eq!(health.take(result(2), 3, false), Some("unhealthy"));
        assert_eq!(health.take(result(0), 3, false), Some("healthy"));
        assert_eq!(health.take(result(0), 3, false), None);
        assert_eq!(health.report().log.len(), KEPT_RESULTS);
        assert_eq!(health.report().failing_streak, 0);
    }
}
