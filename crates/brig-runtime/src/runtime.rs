//! The handle on everything, and its setup.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use brig_sys::cgroup;
use brig_sys::inotify::DirWatch;
use brig_types::id::ContainerId;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::{self, Flavor, Layout, Programs, RuntimeConfig};
use crate::error::RuntimeError;
use crate::exits::{ExitInfo, Exits};
use crate::facts::HostFacts;
use crate::launch::Launcher;
use crate::sealed::Sealed;
use crate::seccomp::FilterCache;
use crate::supervise::Registry;

/// Below the containers' parent group; holds the conmons, so that stopping the daemon's own group
/// does not stop them.
const CONMON_GROUP: &str = "conmon";

/// Creates containers and looks after them. Clones are the same runtime; when the last one is
/// dropped it stops watching, and the containers go on.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub(crate) inner: Arc<Inner>,
    _stop: Arc<DropGuard>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) programs: Programs,
    pub(crate) layout: Layout,
    pub(crate) facts: HostFacts,
    pub(crate) launcher: Launcher,
    pub(crate) sealed: Sealed,
    pub(crate) filters: Option<FilterCache>,
    pub(crate) registry: Registry,
    pub(crate) conmon_groups: Vec<PathBuf>,
    pub(crate) exited: mpsc::UnboundedSender<(ContainerId, ExitInfo)>,
    exits: Mutex<Option<Exits>>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Runtime {
    /// Finds the programs, makes the folders, and starts to watch for containers that end. Must be
    /// called in a tokio runtime. On hosts with hybrid control groups conmon lives in a mount
    /// namespace of its own. Root file systems must lie below a shared mount then
    /// ([`brig_sys::mount::make_shared_mountpoint`]): else every one costs a new namespace, and
    /// other containers' conmons keep it mounted.
    ///
    /// # Errors
    /// [`RuntimeError::Missing`] names what to install.
    pub fn probe(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        let programs = Programs::find(&config)?;
        let layout = Layout::create(&config)?;
        let facts = HostFacts::gather(programs.init.clone(), config.cgroup_parent.clone());
        let launcher = Launcher::new()
            .map_err(|e| RuntimeError::system("making a mount namespace for containers", e))?;
        let filters = match programs.flavor {
            Flavor::Crun => compiler_build(&programs, &facts)
                .map(|build| FilterCache::new(layout.filters.clone(), build)),
            Flavor::Runc => None,
        };
        let watch = DirWatch::new(&layout.exits)
            .map_err(|e| RuntimeError::file("watching", &layout.exits, e))?;
        let (exited, queue) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            conmon_groups: conmon_groups(&config.cgroup_parent),
            programs,
            layout,
            facts,
            launcher,
            sealed: Sealed::default(),
            filters,
            registry: Registry::default(),
            exited,
            exits: Mutex::new(Some(Exits { queue })),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
        });
        inner.tasks.spawn(Arc::clone(&inner).watch_exits(watch));
        inner.seal();
        Ok(Self { inner, _stop: Arc::new(stop.drop_guard()) })
    }

    /// The stream of containers that end. There is one; the second call gets `None`.
    #[must_use]
    pub fn exits(&self) -> Option<Exits> {
        self.inner.exits.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What configurations are built for.
    #[must_use]
    pub fn facts(&self) -> &HostFacts {
        &self.inner.facts
    }

    /// Which OCI runtime is used.
    #[must_use]
    pub fn flavor(&self) -> Flavor {
        self.inner.programs.flavor
    }

    /// Where that OCI runtime is.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.inner.programs.runtime
    }

    /// Stops watching and waits for what is under way. The containers go on.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

/// Everything that decides what a profile is compiled to.
fn compiler_build(programs: &Programs, facts: &HostFacts) -> Option<String> {
    let crun = config::build_of(&programs.runtime)
        .inspect_err(|error| tracing::warn!(%error, "compiled filters are not kept"))
        .ok()?;
    Some(format!("{}\n{crun}\n{}", facts.machine, config::libseccomp_build()))
}

/// Best effort: without it, conmons stay in the daemon's group.
fn conmon_groups(parent: &str) -> Vec<PathBuf> {
    cgroup::create_tracking_group(&format!("{parent}/{CONMON_GROUP}")).unwrap_or_else(|error| {
        tracing::warn!(%error, "containers' monitors stay in the daemon's control group");
        Vec::new()
    })
}
