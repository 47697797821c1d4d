//! The engine of one node: what it owns, how it starts and ends.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use brig_image::{ImageStore, Snapshots};
use brig_network::Networks;
use brig_runtime::Runtime;
use brig_types::id::ContainerId;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::EngineConfig;
use crate::container::Container;
use crate::container::exec::ExecTable;
use crate::container::record::ContainerPaths;
use crate::container::registry::Registry;
use crate::disk;
use crate::error::EngineError;
use crate::events::{EventBus, kind};
use crate::guard::Guard;
use crate::lent::{Lender, LentSocket};
use crate::volumes::Volumes;

/// How long shutdown waits for teardowns and other work under way.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);

/// A running engine. Clones are the same engine.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: EngineConfig,
    images: ImageStore,
    snapshots: Snapshots,
    runtime: Runtime,
    networks: Networks,
    volumes: Volumes,
    guard: Arc<Guard>,
    lender: Lender,
    events: EventBus,
    registry: Registry<Container>,
    execs: ExecTable,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Runs being taken apart right now.
    teardowns: watch::Sender<usize>,
}

impl Engine {
    /// Starts an engine over `images`: checks the runtime, sets the networks up, finds running
    /// containers again and starts those that should run.
    ///
    /// # Errors
    /// A missing program, unusable directories, networks that cannot be set up.
    pub async fn start(config: EngineConfig, images: ImageStore) -> Result<Self, EngineError> {
        for (dir, mode) in [
            (config.data_root.join("containers"), 0o700),
            (config.exec_root.join("bundles"), 0o700),
            (config.exec_root.join("rootfs"), 0o700),
        ] {
            disk::create_dir(&dir, mode)
                .map_err(|source| EngineError::disk("create", &dir, source))?;
        }
        let rootfs = config.exec_root.join("rootfs");
        // The runtime may live in a mount namespace of its own: root file systems that are mounted
        // below a shared mount come and go there by themselves.
        brig_sys::mount::make_shared_mountpoint(&rootfs)
            .map_err(|source| EngineError::disk("share", &rootfs, source))?;
        let guard = Arc::new(Guard::new(&config));
        let volumes = Volumes::open(&config.data_root.join("volumes"), Arc::clone(&guard))?;
        let lender = Lender::new(&config.exec_root);
        let runtime = Runtime::probe(config.runtime.clone())?;
        let networks = Networks::start(config.network.clone()).await?;
        let snapshots = images.snapshots().clone();
        let engine = Self {
            inner: Arc::new(Inner {
                config,
                images,
                snapshots,
                runtime,
                networks,
                volumes,
                guard,
                lender,
                events: EventBus::default(),
                registry: Registry::default(),
                execs: ExecTable::default(),
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
                teardowns: watch::Sender::new(0),
            }),
        };
        engine.watch_exits()?;
        engine.recover().await?;
        Ok(engine)
    }

    /// Ends the engine's own work. Containers go on; the next engine finds them.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(SHUTDOWN_PATIENCE, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("some work of the engine did not end in time");
        }
        self.inner.networks.shutdown().await;
        self.inner.runtime.shutdown().await;
    }

    /// Removes everything that this engine put on the machine outside of its data root: containers
    /// with their processes and mounts, networks with their bridges and rules.
    ///
    /// For taking an engine off a machine; it is of no use afterwards.
    ///
    /// # Errors
    /// The first thing that could not be removed; everything else is still tried.
    pub async fn purge(&self) -> Result<(), EngineError> {
        let mut outcome = Ok(());
        let options = crate::RemoveOptions { force: true, volumes: true };
        for container in self.registry().all() {
            outcome = outcome.and(self.remove(container.id.as_str(), options).await);
        }
        self.teardowns_done().await;
        outcome = outcome.and(self.inner.networks.purge().await.map_err(EngineError::from));
        self.shutdown().await;
        let rootfs = self.inner.config.exec_root.join("rootfs");
        let unmounted = brig_sys::mount::unmount(&rootfs, true);
        outcome.and(unmounted.map_err(|source| EngineError::disk("unmount", &rootfs, source)))
    }

    /// The events of this engine.
    #[must_use]
    pub fn events(&self) -> &EventBus {
        &self.inner.events
    }

    /// The images.
    #[must_use]
    pub fn images(&self) -> &ImageStore {
        &self.inner.images
    }

    /// The networks.
    #[must_use]
    pub fn networks(&self) -> &Networks {
        &self.inner.networks
    }

    /// The volumes.
    #[must_use]
    pub fn volumes(&self) -> &Volumes {
        &self.inner.volumes
    }

    /// The runtime that starts processes.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.inner.runtime
    }

    /// The settings it was started with.
    #[must_use]
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }

    /// Sockets that containers were lent, to be served; whoever asks first gets them all.
    #[must_use]
    pub fn lent_sockets(&self) -> Option<mpsc::UnboundedReceiver<LentSocket>> {
        self.inner.lender.take()
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.inner.guard
    }

    pub(crate) fn lender(&self) -> &Lender {
        &self.inner.lender
    }

    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.inner.snapshots
    }

    pub(crate) fn registry(&self) -> &Registry<Container> {
        &self.inner.registry
    }

    pub(crate) fn execs(&self) -> &ExecTable {
        &self.inner.execs
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.inner.stop.is_cancelled()
    }

    pub(crate) async fn shutdown_started(&self) {
        self.inner.stop.cancelled().await;
    }

    /// A token that is cancelled when the engine shuts down.
    pub(crate) fn child_token(&self) -> CancellationToken {
        self.inner.stop.child_token()
    }

    /// Runs a task that shutdown waits for.
    pub(crate) fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.inner.tasks.spawn(task);
    }

    /// Runs an operation to its end, whether or not the caller waits for it: a client that hangs
    /// up must not leave half a container.
    pub(crate) async fn detached<T, F>(&self, operation: F) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, EngineError>> + Send + 'static,
    {
        if self.is_shutting_down() {
            return Err(EngineError::ShuttingDown);
        }
        match self.inner.tasks.spawn(operation).await {
            Ok(result) => result,
            Err(error) => Err(EngineError::System {
                action: "finish the operation",
                source: std::io::Error::other(error),
            }),
        }
    }

    /// Runs blocking work of an operation.
    pub(crate) async fn blocking<T, F>(&self, work: F) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, EngineError> + Send + 'static,
    {
        match self.inner.tasks.spawn_blocking(work).await {
            Ok(result) => result,
            Err(error) => Err(EngineError::System {
                action: "finish the operation",
                source: std::io::Error::other(error),
            }),
        }
    }

    /// Where a container's files are.
    pub(crate) fn paths(&self, id: &ContainerId) -> ContainerPaths {
        let config = &self.inner.config;
        ContainerPaths {
            dir: self.containers_dir().join(id.as_str()),
            bundle: config.exec_root.join("bundles").join(id.as_str()),
            rootfs: config.exec_root.join("rootfs").join(id.as_str()),
            subpaths: config.exec_root.join("subpaths").join(id.as_str()),
        }
    }

    pub(crate) fn containers_dir(&self) -> std::path::PathBuf {
        Path::new(&self.inner.config.data_root).join("containers")
    }

    /// Counts a teardown until the guard is dropped.
    pub(crate) fn teardown_begun(&self) -> TeardownGuard {
        self.inner.teardowns.send_modify(|count| *count += 1);
        TeardownGuard(self.inner.teardowns.clone())
    }

    /// Whether a run was being taken apart; comes back when none is. A start that finds an address
    /// or a port taken tries once more then.
    pub(crate) async fn teardowns_done(&self) -> bool {
        let mut count = self.inner.teardowns.subscribe();
        let any = *count.borrow_and_update() > 0;
        if any {
            let _ = tokio::time::timeout(Duration::from_secs(5), count.wait_for(|n| *n == 0)).await;
        }
        any
    }

    /// Publishes an event of a container.
    pub(crate) fn container_event(
        &self,
        container: &Container,
        action: &str,
        extra: &[(&str, String)],
    ) {
        let mut attributes = container.event_attributes();
        attributes.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        self.events().emit(kind::CONTAINER, action, container.id.as_str(), attributes);
    }

    /// Publishes an event of a volume.
    pub(crate) fn volume_event(&self, action: &str, name: &str) {
        let attributes =
            BTreeMap::from([("driver".to_owned(), crate::volumes::LOCAL_DRIVER.to_owned())]);
        self.events().emit(kind::VOLUME, action, name, attributes);
    }
}

/// A run that is being taken apart.
#[derive(Debug)]
pub(crate) struct TeardownGuard(watch::Sender<usize>);

impl Drop for TeardownGuard {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}
