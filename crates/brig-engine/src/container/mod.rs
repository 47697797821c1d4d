//! Containers of one node: their records, their lives, and what clients see of them.
//!
//! A [`Container`] has one lock for whole operations (start, stop, remove: `op`, held over await)
//! and one for its facts (`cell`, never held over await). Whoever waits for a change listens on
//! its [`Phase`].

pub mod archive;
pub mod attach;
pub mod commit;
pub mod detach_keys;
pub mod exec;
pub mod health;
pub mod list;
pub mod logs;
pub mod restart_policy;
pub mod state;
pub mod stats;
pub mod status_text;
pub mod wait;

pub(crate) mod connect;
pub(crate) mod copy_up;
mod cpuset;
pub(crate) mod create;
pub(crate) mod diff;
pub(crate) mod exit;
pub(crate) mod files;
pub(crate) mod image_defaults;
pub(crate) mod inspect;
pub(crate) mod io;
pub(crate) mod links;
pub(crate) mod mounts;
pub(crate) mod names;
pub(crate) mod networking;
pub(crate) mod pause;
pub(crate) mod ports;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod registry;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod spec;
pub(crate) mod stage;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod top;
pub(crate) mod update;
pub(crate) mod validate;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brig_runtime::{Console, ExitInfo};
use brig_types::id::{ContainerId, ExecId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::health::HealthState;
use self::io::IoSession;
use self::record::{ContainerPaths, Record};
use self::restart_policy::Backoff;
use self::wait::Phase;
use crate::disk::Durability;

/// One container.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) paths: ContainerPaths,
    /// Held by an operation that changes its life, for as long as it takes.
    pub(crate) op: tokio::sync::Mutex<()>,
    cell: Mutex<Cell>,
    /// Held while the record is written: of two that write, the later has the later facts.
    saving: Mutex<()>,
    pub(crate) phase: watch::Sender<Phase>,
}

/// The facts about a container.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) record: Record,
    /// A start is under way; an exit that comes meanwhile is kept in `early_exit`.
    pub(crate) starting: bool,
    pub(crate) early_exit: Option<ExitInfo>,
    /// A restart by hand is under way: one that removes itself stays for it. Not recorded, so that
    /// it removes itself all the same when the daemon does not come to the start.
    pub(crate) stays: bool,
    /// The present run.
    pub(crate) run: Option<Run>,
    /// Input and output of the present or the next run.
    pub(crate) io: Arc<IoSession>,
    pub(crate) backoff: Backoff,
    /// Ends the wait for the next automatic start.
    pub(crate) restart_wait: Option<CancellationToken>,
    pub(crate) health: Option<HealthState>,
    /// Processes started in it, newest last.
    pub(crate) execs: Vec<ExecId>,
}

/// What belongs to one run of a container.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) console: Console,
    /// Ends what runs beside it: health checks, log rotation.
    pub(crate) cancel: CancellationToken,
    pub(crate) began: tokio::time::Instant,
}

impl Container {
    pub(crate) fn new(record: Record, paths: ContainerPaths) -> Arc<Self> {
        let phase = Phase::of(&record);
        Arc::new(Self {
            id: record.id.clone(),
            paths,
            op: tokio::sync::Mutex::new(()),
            cell: Mutex::new(Cell {
                record,
                starting: false,
                early_exit: None,
                stays: false,
                run: None,
                io: IoSession::new(),
                backoff: Backoff::default(),
                restart_wait: None,
                health: None,
                execs: Vec::new(),
            }),
            saving: Mutex::new(()),
            phase: watch::Sender::new(phase),
        })
    }

    /// The facts, locked. Never keep the guard over an await.
    pub(crate) fn cell(&self) -> MutexGuard<'_, Cell> {
        self.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the record.
    pub(crate) fn record(&self) -> Record {
        self.cell().record.clone()
    }

    pub(crate) fn name(&self) -> String {
        self.cell().record.name.clone()
    }

    /// The console of the present run.
    pub(crate) fn console(&self) -> Option<Console> {
        self.cell().run.as_ref().map(|run| run.console.clone())
    }

    /// What its events say about it: labels, image, name.
    pub(crate) fn event_attributes(&self) -> BTreeMap<String, String> {
        let cell = self.cell();
        let mut attributes = cell.record.config.labels.clone();
        attributes.insert("image".to_owned(), cell.record.config.image.clone());
        attributes.insert("name".to_owned(), cell.record.name.clone());
        attributes
    }

    /// Writes the record for the next engine, not for after a loss of power. Failing to is logged:
    /// the container's life goes on, and recovery finds the truth in the runtime.
    pub(crate) fn save(&self) {
        self.save_as(Durability::Cached);
    }

    /// Like [`Container::save`], where need be by way of a thread that may wait for the disk.
    pub(crate) async fn save_durably(self: &Arc<Self>, durability: Durability) {
        match durability {
            Durability::Cached => self.save(),
            Durability::Synced => {
                let this = Arc::clone(self);
                let saved = tokio::task::spawn_blocking(move || this.save_as(durability)).await;
                if let Err(error) = saved {
                    tracing::error!(container = %self.id, %error, "writing a record was interrupted");
                }
            }
        }
    }

    /// Writes the record for the next engine, and says if that cannot be done.
    pub(crate) fn try_save(&self, durability: Durability) -> std::io::Result<()> {
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        self.record().save(&self.paths.dir, durability)
    }

    fn save_as(&self, durability: Durability) {
        if let Err(error) = self.try_save(durability) {
            tracing::error!(container = %self.id, %error, "a container's record cannot be written");
        }
    }

    /// Waits until nothing is left of the last run.
    pub(crate) async fn wait_clean(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.phase.subscribe().wait_for(|phase| phase.clean).await;
    }
}
