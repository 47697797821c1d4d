//! The vulnerability database's file, from manager to manager, and from managers to workers. What is
//! in it is the daemon's business; here it is bytes with a digest.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use brig_pki::hash;
use brig_pki::tls::TlsCredentials;
use brig_proto::brig::{
    CurrentScanDatabaseReply, CurrentScanDatabaseRequest, FetchScanDatabaseRequest, ScanDatabase,
    ScanDatabasePart, scan_databases_client::ScanDatabasesClient, scan_databases_server,
};
use brig_store::etcd::Live;
use brig_store::{State, Store, StoreObject as _};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::grpc::client::{self, MANAGER_NAME};

/// Bytes of one part.
const PART: usize = 256 << 10;
/// Largest part that is taken.
const MAX_PART: usize = 4 << 20;
/// Parts that wait for a slow reader.
const BUFFER: usize = 4;
/// How long another manager may take to begin, and between two parts.
const PATIENCE: Duration = Duration::from_secs(20);
/// Hexadecimal digits of a SHA-256.
const DIGEST_LEN: usize = 64;

/// Why a file could not be had from another manager.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No other manager is there.
    #[error("no other manager is there to ask for it")]
    Nobody,
    /// None of them gave it.
    #[error("no manager gave it; the last one, {manager}: {reason}")]
    Refused {
        /// Its address.
        manager: String,
        /// What it said, or what was wrong with its answer.
        reason: String,
    },
    /// It could not be written here.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// The way to the files of the others, and to our own.
#[derive(Clone)]
pub(crate) struct ScanFiles {
    store: Store,
    own: String,
    live: Live,
    credentials: Arc<TlsCredentials>,
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Where our own are; set by the daemon once it has them.
    folder: Arc<OnceLock<PathBuf>>,
}

impl ScanFiles {
    pub(crate) fn new(
        store: Store,
        own: String,
        live: Live,
        credentials: Arc<TlsCredentials>,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { store, own, live, credentials, tracker, stop, folder: Arc::default() }
    }

    /// Gives other managers files out of this folder.
    pub(crate) fn offer(&self, folder: PathBuf) {
        let _ = self.folder.set(folder);
    }

    /// The addresses of the others; the one that got the file first before the rest.
    fn others(&self, first: &str) -> Vec<String> {
        let entries = self.live.entries().borrow().clone();
        let mut others: Vec<(bool, String)> = entries
            .iter()
            .filter_map(|(key, address)| {
                let manager = key.strip_prefix("m/")?;
                (manager != self.own).then(|| (manager != first, address.clone()))
            })
            .collect();
        others.sort();
        others.into_iter().map(|(_, address)| address).collect()
    }

    /// Writes the file into `path`, whole and verified, or removes what there is of it.
    pub(crate) async fn fetch(&self, wanted: &ScanDatabase, path: &Path) -> Result<(), FetchError> {
        let others = self.others(&wanted.node);
        let fetch = fetch(&others, &self.credentials, wanted, path);
        self.stop.run_until_cancelled(fetch).await.unwrap_or(Err(FetchError::Nobody))
    }
}

/// Writes the file into `path` from the first of these managers that gives it, whole and verified,
/// or removes what there is of it.
pub(crate) async fn fetch(
    managers: &[String],
    credentials: &Arc<TlsCredentials>,
    wanted: &ScanDatabase,
    path: &Path,
) -> Result<(), FetchError> {
    let mut last = FetchError::Nobody;
    for manager in managers {
        match fetch_from(manager, credentials, wanted, path).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                let _ = tokio::fs::remove_file(path).await;
                last = error;
            }
        }
    }
    Err(last)
}

/// Asks a manager which file the cluster's is.
pub(crate) async fn current(
    manager: &str,
    credentials: &Arc<TlsCredentials>,
) -> Result<Option<ScanDatabase>, Status> {
    let ask = async {
        let (channel, _) = client::connect(manager, Arc::clone(credentials), MANAGER_NAME)
            .await
            .map_err(|error| Status::unavailable(brig_types::error::chain(&error)))?;
        let mut client = ScanDatabasesClient::new(channel);
        let answer = client.current(CurrentScanDatabaseRequest {}).await?;
        Ok(answer.into_inner().database)
    };
    tokio::time::timeout(PATIENCE, ask)
        .await
        .unwrap_or_else(|_| Err(Status::unavailable(format!("{manager} does not answer"))))
}

/// The one object, as it is stored.
pub(crate) fn stored(state: &State) -> Option<Arc<ScanDatabase>> {
    state.all::<ScanDatabase>().find(|database| !database.id().is_empty()).cloned()
}

async fn fetch_from(
    manager: &str,
    credentials: &Arc<TlsCredentials>,
    wanted: &ScanDatabase,
    path: &Path,
) -> Result<(), FetchError> {
    let refused = |reason: String| FetchError::Refused { manager: manager.to_owned(), reason };
    let write = |source| FetchError::Write { path: path.to_owned(), source };
    let late = |_| refused("it does not answer".to_owned());
    let begin = async {
        let (channel, _) = client::connect(manager, Arc::clone(credentials), MANAGER_NAME)
            .await
            .map_err(|error| brig_types::error::chain(&error))?;
        let request = FetchScanDatabaseRequest { digest: wanted.digest.clone() };
        ScanDatabasesClient::new(channel)
            .max_decoding_message_size(MAX_PART)
            .fetch(request)
            .await
            .map_err(|status| status.message().to_owned())
    };
    let answer = tokio::time::timeout(PATIENCE, begin).await.map_err(late)?.map_err(refused)?;
    let mut parts = answer.into_inner();
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .await
        .map_err(write)?;
    let (mut sum, mut size) = (hash::Sha256::new(), 0_u64);
    loop {
        let part = tokio::time::timeout(PATIENCE, parts.message()).await.map_err(late)?;
        let part = part.map_err(|status| refused(status.message().to_owned()))?;
        let Some(part) = part else { break };
        size = size.saturating_add(u64::try_from(part.data.len()).unwrap_or(u64::MAX));
        if size > wanted.size {
            return Err(refused(format!("it sends more than {} bytes", wanted.size)));
        }
        sum.update(&part.data);
        file.write_all(&part.data).await.map_err(write)?;
    }
    file.flush().await.map_err(write)?;
    file.sync_all().await.map_err(write)?;
    if size != wanted.size || hash::hex(&sum.finish()) != wanted.digest {
        return Err(refused("what it sends has another digest".to_owned()));
    }
    Ok(())
}

/// The name of the file with a digest.
#[must_use]
pub fn scan_file_name(digest: &str) -> String {
    format!("{digest}.db")
}

fn is_digest(text: &str) -> bool {
    text.len() == DIGEST_LEN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[tonic::async_trait]
impl scan_databases_server::ScanDatabases for ScanFiles {
    type FetchStream = ReceiverStream<Result<ScanDatabasePart, Status>>;

    async fn current(
        &self,
        _: Request<CurrentScanDatabaseRequest>,
    ) -> Result<Response<CurrentScanDatabaseReply>, Status> {
        let database = stored(&self.store.view()).map(|database| database.as_ref().clone());
        Ok(Response::new(CurrentScanDatabaseReply { database }))
    }

    async fn fetch(
        &self,
        request: Request<FetchScanDatabaseRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let digest = request.into_inner().digest;
        // SECURITY: it becomes a file name.
        if !is_digest(&digest) {
            return Err(Status::invalid_argument("a SHA-256 in hexadecimal is needed"));
        }
        let folder = self.folder.get().ok_or_else(|| Status::unavailable("not ready yet"))?;
        let mut file = File::open(folder.join(scan_file_name(&digest)))
            .await
            .map_err(|_| Status::not_found("this manager does not have it"))?;
        let (sender, parts) = mpsc::channel(BUFFER);
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            let send = async {
                loop {
                    let mut data = vec![0; PART];
                    let part = match file.read(&mut data).await {
                        Ok(0) => return,
                        Ok(read) => {
                            data.truncate(read);
                            Ok(ScanDatabasePart { data })
                        }
                        Err(_) => Err(Status::internal("the file cannot be read")),
                    };
                    let ends = part.is_err();
                    if sender.send(part).await.is_err() || ends {
                        return;
                    }
                }
            };
            let _ = stop.run_until_cancelled(send).await;
        });
        Ok(Response::new(ReceiverStream::new(parts)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_nothing_that_could_be_a_path() {
        assert!(is_digest(&"a0".repeat(32)));
        for text in ["", "..", &"A0".repeat(32), &"a".repeat(63), &format!("../{}", "a".repeat(61))]
        {
            assert!(!is_digest(text), "{text}");
        }
    }
}
