//! Starting a container: everything in one pass, and everything back if a step fails.

use std::sync::Arc;

use brig_runtime::{CreateRequest, Created, LogTarget};
use brig_types::error::chain;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::io::IoSession;
use super::logs::rotate;
use super::record::Record;
use super::restart_policy::Backoff;
use super::state::{ProcessFacts, Status, Transition};
use super::{Container, Run, spec};
use crate::admission::{Occasion, Origin};
use crate::disk::Durability;
use crate::engine::Engine;
use crate::error::EngineError;
use crate::secrets::{self, SecretFile};

/// What a start is given beyond the container's record. None of it is kept.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    /// Files for `/run/secrets`, or with absolute targets anywhere.
    pub secrets: Vec<SecretFile>,
    /// Files placed relative to `/`.
    pub configs: Vec<SecretFile>,
    /// For whom it is started.
    pub origin: Origin,
}

impl StartOptions {
    fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.configs.is_empty()
    }
}

impl Engine {
    /// Starts a container. Runs to its end even if the caller goes away.
    ///
    /// # Errors
    /// [`EngineError::NotModified`] when it runs; everything that makes a start fail, after which
    /// the container is as before, with exit code 126, 127 or 128.
    pub async fn start_container(
        &self,
        key: &str,
        options: StartOptions,
    ) -> Result<(), EngineError> {
        let container = self.registry().find(key)?;
        let engine = self.clone();
        self.detached(async move {
            let _op = container.op.lock().await;
            engine.start_locked(&container, options, false).await
        })
        .await
    }

    /// Starts with `op` held. An automatic start keeps its counters.
    pub(crate) async fn start_locked(
        &self,
        container: &Arc<Container>,
        options: StartOptions,
        automatic: bool,
    ) -> Result<(), EngineError> {
        container.wait_clean().await;
        if !automatic {
            self.admit_first(container, &options.origin).await?;
        }
        let record = {
            let mut cell = container.cell();
            match cell.record.state.status {
                Status::Running => return Err(EngineError::NotModified),
                Status::Restarting if !automatic => return Err(EngineError::NotModified),
                Status::Paused => {
                    return Err(EngineError::Conflict(
                        "cannot start a paused container, try unpause instead".to_owned(),
                    ));
                }
                Status::Removing | Status::Dead => {
                    return Err(EngineError::Conflict(
                        "container is marked for removal and cannot be started".to_owned(),
                    ));
                }
                Status::Created | Status::Exited | Status::Restarting => {}
            }
            if cell.record.needs_secrets && options.is_empty() {
                return Err(EngineError::Conflict(format!(
                    "container {} was given secrets or configs by the swarm and cannot be started without them",
                    container.id
                )));
            }
            cell.record.needs_secrets |= !options.is_empty();
            if !automatic {
                cell.record.restart_count = 0;
                cell.record.stopped_by_hand = false;
                cell.backoff = Backoff::default();
            }
            cell.restart_wait = None;
            cell.starting = true;
            cell.early_exit = None;
            cell.record.clone()
        };
        match self.launch(container, &record, options).await {
            Ok(created) => {
                self.started(container, created).await;
                Ok(())
            }
            Err(error) => {
                self.start_failed(container, &error).await;
                Err(error)
            }
        }
    }

    /// A container that never ran is judged by what holds now; one that did may run again.
    async fn admit_first(&self, container: &Container, origin: &Origin) -> Result<(), EngineError> {
        if self.config().admission.is_none() {
            return Ok(());
        }
        let record = container.record();
        if record.state.status != Status::Created || record.state.started_at.is_some() {
            return Ok(());
        }
        let image = self.images().resolve(record.image_id.as_str())?;
        let warnings = {
            let asked = &record.config.image;
            self.admit(asked, &image, origin.clone(), Occasion::FirstStart).await?
        };
        for warning in warnings {
            tracing::warn!(container = %container.id, warning, "while starting a container");
        }
        Ok(())
    }

    async fn launch(
        &self,
        container: &Arc<Container>,
        record: &Record,
        options: StartOptions,
    ) -> Result<Created, EngineError> {
        let (engine, this, wanted) = (self.clone(), Arc::clone(container), record.clone());
        let StartOptions { secrets, configs, origin: _ } = options;
        let stage = self.blocking(move || {
            // What runs and is not recorded would be taken for lost by the next engine: no start
            // where nothing can be written.
            this.try_save(Durability::Cached)
                .map_err(|source| EngineError::disk("write to", &this.paths.dir, source))?;
            let access = wanted.host_config.engine_access.as_ref();
            let lent = access.map(|access| engine.lender().lend(&this.id, access)).transpose();
            let lent = lent.map_err(|error| EngineError::system("lend a socket", error))?;
            let prepared = engine.stage(&this, &wanted, &secrets, &configs)?;
            Ok((prepared, secrets, configs, lent))
        });
        // Independent of each other; both are undone together.
        let (staged, reserved) = tokio::join!(stage, self.reserve_networks(container, record));
        let ((prepared, secrets, configs, lent), reserved) = (staged?, reserved?);
        let (engine, this, wanted) = (self.clone(), Arc::clone(container), record.clone());
        let (spec, reserved) = self
            .blocking(move || {
                engine.write_files(&this, &wanted, &reserved)?;
                let input = spec::container(&wanted, prepared, engine.runtime().facts().apparmor)?;
                let built = brig_runtime::spec::build(&input, engine.runtime().facts())
                    .map_err(|error| EngineError::Invalid(error.to_string()))?;
                for warning in built.warnings {
                    tracing::info!(container = %this.id, warning, "a setting was weakened");
                }
                Ok((built.spec, reserved))
            })
            .await?;
        let config = &record.config;
        let log = record.host_config.log_config.kind != "none";
        let created = self
            .runtime()
            .create(CreateRequest {
                id: container.id.clone(),
                bundle: container.paths.bundle.clone(),
                spec,
                tty: config.tty,
                open_stdin: config.open_stdin,
                stdin_once: config.stdin_once && !config.tty,
                log: LogTarget { path: log.then(|| container.paths.log()) },
                keep: lent,
            })
            .await?;
        let pid = created.pid;
        let attach = async {
            if secrets.is_empty() && configs.is_empty() {
                return Ok(());
            }
            self.blocking(move || secrets::attach(pid, secrets, configs)).await
        };
        let connect = self.connect_networks(container, record, reserved, pid);
        let (attached, connected) = tokio::join!(attach, connect);
        attached?;
        connected?;
        container.cell().io.connect(&created.console);
        self.network_events(container, "connect");
        self.runtime().start(&container.id).await?;
        Ok(created)
    }

    /// Records a start that worked, and sets going what runs beside the process.
    async fn started(&self, container: &Arc<Container>, created: Created) {
        let cancel = self.child_token();
        let durability = {
            let mut cell = container.cell();
            let state = &mut cell.record.state;
            state.apply(Transition::Start);
            state.process = Some(ProcessFacts {
                pid: created.pid,
                pid_start: created.pid_start,
                conmon_pid: created.conmon_pid,
                conmon_start: created.conmon_start,
            });
            state.exit_code = 0;
            state.oom_killed = false;
            state.error.clear();
            state.started_at = Some(OffsetDateTime::now_utc());
            cell.run = Some(Run {
                console: created.console,
                cancel: cancel.clone(),
                began: tokio::time::Instant::now(),
            });
            cell.record.state_durability()
        };
        container.save_durably(durability).await;
        container.phase.send_modify(|phase| {
            phase.up = true;
            phase.error.clear();
        });
        self.container_event(container, "start", &[]);
        // Only now may its end be noticed: after everybody was told of its beginning.
        let early = {
            let mut cell = container.cell();
            cell.starting = false;
            cell.early_exit.take()
        };
        match early {
            Some(exit) => self.container_exited(container, exit),
            None => self.accompany(container, cancel),
        }
    }

    /// Starts health checks and log rotation for a run.
    pub(crate) fn accompany(&self, container: &Arc<Container>, cancel: CancellationToken) {
        let record = container.record();
        let config = &record.host_config.log_config;
        match rotate::check(&config.kind, &config.config) {
            Ok(Some(limits)) => {
                let (log, bundle) = (container.paths.log(), container.paths.bundle.clone());
                self.spawn(rotate::keep_within(log, bundle, limits, cancel.clone()));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(container = %container.id, error = chain(&error), "log limits are ignored");
            }
        }
        self.watch_health(container, cancel);
    }

    /// Takes back what a failed start did, and tells whoever waits.
    async fn start_failed(&self, container: &Arc<Container>, error: &EngineError) {
        tracing::info!(container = %container.id, error = chain(error), "a start failed");
        container.phase.send_modify(|phase| phase.clean = false);
        self.tear_down(container).await;
        let exit_code = error.start_exit_code();
        let message = chain(error);
        let (remove, io) = {
            let mut cell = container.cell();
            cell.starting = false;
            cell.early_exit = None;
            let state = &mut cell.record.state;
            state.apply(Transition::StartFailed);
            state.exit_code = exit_code;
            state.error.clone_from(&message);
            let remove = cell.record.host_config.auto_remove;
            if remove {
                cell.record.state.apply(Transition::Remove);
            }
            (remove, std::mem::replace(&mut cell.io, IoSession::new()))
        };
        io.end();
        // Also of one that removes itself: the next daemon goes on with a removal that was cut off.
        container.save();
        if remove {
            self.registry().remove(&container.id, &container.name());
            self.container_event(container, "destroy", &[]);
        }
        container.phase.send_modify(|phase| {
            phase.up = false;
            phase.ended_runs += 1;
            phase.exit_code = exit_code;
            phase.error = message;
            phase.removed = remove;
        });
        if remove {
            self.remove_remains(container, true).await;
        }
    }
}
