//! The server as a whole: its files, its listener, what it does in the background.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use brig_pki::engine::{EngineFiles, EngineTlsError, PublicServer};
use brig_trust::{Gun, Role};
use brig_types::error::chain;
use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{AuthError, Authentication};
use crate::place::Place;
use crate::repositories::{ImportError, Imported, Repositories};
use crate::service::Service;
use crate::storage::{EmbeddedStorage, Storage, StorageError};
use crate::vault::{Vault, VaultError};

pub(crate) const DATABASE: &str = "trust.redb";
/// Connections at a time.
const MAX_CONNECTIONS: usize = 2048;
/// Time from the connection to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a request's head, and for an idle connection to be used again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_HEADERS: usize = 64;
/// Bytes of a request's line and headers: a token can be long.
const MAX_HEAD: usize = 64 << 10;
/// Pause after the kernel refused a connection, as when there are no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How often files are looked at.
const FILES_INTERVAL: Duration = Duration::from_secs(1);
/// How often the background looks for what ends soon.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(600);
/// Time for requests that are under way when the server stops.
const DRAIN: Duration = Duration::from_secs(10);
/// Longest age that answers may be kept for: a year.
const MAX_AGE: u32 = 365 * 24 * 3600;

/// How long answers may be kept, in seconds; 0 forbids it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheAges {
    /// Of the newest files.
    pub newest: u32,
    /// Of files by version or hash, which never change.
    pub fixed: u32,
}

impl Default for CacheAges {
    fn default() -> Self {
        Self { newest: 300, fixed: 2_592_000 }
    }
}

/// What the server is made of, besides what it serves.
#[derive(Debug)]
pub struct Config {
    /// Certificate and key of HTTPS.
    pub tls: EngineFiles,
    /// Who may do what.
    pub authentication: Authentication,
    /// Beginnings of the names that are served; none for all.
    pub gun_prefixes: Vec<String>,
    /// How long answers may be kept.
    pub cache: CacheAges,
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The data root cannot be made.
    #[error("cannot make {}", path.display())]
    DataRoot {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The server's keys.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// HTTPS.
    #[error(transparent)]
    Tls(#[from] EngineTlsError),
    /// Authentication.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// A prefix that would match other names too.
    #[error("the prefix {0:?} must end in a slash, as in reg.example/team/")]
    Prefix(String),
    /// An age out of range.
    #[error("answers can be kept for 0 to {MAX_AGE} seconds, not {0}")]
    Age(u32),
    /// The address.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A trust server that is ready to listen.
#[derive(Debug)]
pub struct TrustServer {
    tls: PublicServer,
    service: Arc<Service>,
}

impl TrustServer {
    /// Reads the files that the configuration names. Blocks. Nothing is served before
    /// [`TrustServer::place`] is told what.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn new(config: Config) -> Result<Self, ServerError> {
        for prefix in &config.gun_prefixes {
            if !prefix.ends_with('/') {
                return Err(ServerError::Prefix(prefix.clone()));
            }
        }
        for age in [config.cache.newest, config.cache.fixed] {
            if age > MAX_AGE {
                return Err(ServerError::Age(age));
            }
        }
        let tls = PublicServer::load(config.tls)?;
        let service = Service::new(
            Place::default(),
            config.authentication,
            config.gun_prefixes,
            config.cache,
        );
        Ok(Self { tls, service: Arc::new(service) })
    }

    /// Where what is served is kept.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.service.place
    }

    /// The end of the server's certificate.
    #[must_use]
    pub fn certificate_end(&self) -> OffsetDateTime {
        self.tls.not_after()
    }

    /// Listens on `HOST:PORT`.
    ///
    /// # Errors
    /// [`ServerError::Listen`].
    pub async fn listen(address: &str) -> Result<TcpListener, ServerError> {
        let failed = |source| ServerError::Listen { address: address.to_owned(), source };
        TcpListener::bind(address).await.map_err(failed)
    }

    /// Serves until told to stop, then lets requests that are under way end.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let this = Arc::new(self);
        let tasks = TaskTracker::new();
        tasks.spawn(stop.clone().run_until_cancelled_owned(follow(Arc::clone(&this))));
        tasks.spawn(stop.clone().run_until_cancelled_owned(renew(Arc::clone(&this))));
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&listener, &places) => accepted,
            };
            match accepted {
                Ok((stream, place)) => {
                    let (this, stop) = (Arc::clone(&this), stop.clone());
                    tasks.spawn(async move {
                        this.connection(stream, stop).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            tracing::warn!("requests were still under way at the end");
        }
    }

    async fn connection(&self, stream: TcpStream, stop: CancellationToken) {
        let metrics = &self.service.metrics;
        // Small answers go out at once.
        let tuned = stream.set_nodelay(true);
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, self.tls.accept(stream));
        let shaken = match tuned {
            Ok(()) => handshake.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            Err(error) => Err(error),
        };
        let stream = match shaken {
            Ok(stream) => stream,
            Err(error) => {
                metrics.handshake_failures.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, "no connection");
                return;
            }
        };
        metrics.connections.fetch_add(1, Ordering::Relaxed);
        let service = Arc::clone(&self.service);
        let answer = service_fn(move |request| {
            let service = Arc::clone(&service);
            async move { Ok::<_, std::convert::Infallible>(service.answer(request).await) }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_headers(MAX_HEADERS)
                .max_header_size(MAX_HEAD)
                .serve_connection(TokioIo::new(stream), answer)
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}

/// Takes a repository over into a data root that no server has open. Blocks.
///
/// # Errors
/// [`ServerError`], [`ImportError`] as its source.
pub fn import_into(
    data_root: &Path,
    seal_key: Option<&Path>,
    gun: &Gun,
    files: Vec<(Role, Bytes)>,
) -> Result<Imported, ImportFailure> {
    let repositories = open_repositories(data_root, seal_key)?;
    Ok(repositories.import(gun, files, OffsetDateTime::now_utc())?)
}

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportFailure {
    /// The data root cannot be opened.
    #[error(transparent)]
    Open(#[from] ServerError),
    /// The repository cannot be taken over.
    #[error(transparent)]
    Import(#[from] ImportError),
}

pub(crate) fn open_repositories(
    data_root: &Path,
    seal_key: Option<&Path>,
) -> Result<Repositories, ServerError> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_root)
        .map_err(|source| ServerError::DataRoot { path: data_root.to_owned(), source })?;
    // First what only one process can have open.
    let storage: Arc<dyn Storage> = Arc::new(EmbeddedStorage::open(&data_root.join(DATABASE))?);
    let vault = Vault::open(data_root, seal_key)?;
    Ok(Repositories::new(storage, vault))
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// Reads certificate, key and passwords again when they change.
async fn follow(server: Arc<TrustServer>) {
    let mut known = server.tls.stamps();
    let mut changing = None;
    loop {
        tokio::time::sleep(FILES_INTERVAL).await;
        let now = server.tls.stamps();
        if now == known {
            changing = None;
        } else if changing.as_ref() == Some(&now) {
            // It has stayed the same for a moment: certificate and key are two files.
            match server.tls.reload() {
                Ok(true) => tracing::info!("TLS files read again"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(error = chain(&error), "the TLS files are kept as they were");
                }
            }
            known = now;
            changing = None;
        } else {
            changing = Some(now);
        }
        let reading = Arc::clone(&server);
        let read = tokio::task::spawn_blocking(move || reading.service.authentication.reload());
        match read.await {
            Ok(Ok(true)) => tracing::info!("the files of authentication were read again"),
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "authentication is kept as it was");
            }
            _ => {}
        }
    }
}

/// Signs anew what ends soon.
async fn renew(server: Arc<TrustServer>) {
    loop {
        let mut after = None;
        loop {
            let Ok(repositories) = server.service.place.repositories() else { break };
            let step = tokio::task::spawn_blocking(move || {
                repositories.renew_some(after.as_ref(), OffsetDateTime::now_utc())
            });
            let Ok(Ok(step)) = step.await else { break };
            if step.renewed > 0 {
                let renewed = u64::try_from(step.renewed).unwrap_or_default();
                server.service.metrics.renewals.fetch_add(renewed, Ordering::Relaxed);
                tracing::info!(renewed, "signed anew what ends soon");
            }
            after = step.last;
            if after.is_none() {
                break;
            }
        }
        tokio::time::sleep(RENEWAL_INTERVAL).await;
    }
}
