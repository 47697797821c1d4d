//! The database's file below the data root: named by its digest, checked before it is used, mapped
//! while it is read, replaced as a whole. Whoever holds the old one goes on reading it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use brig_files::Durability;
use brig_pki::hash;
use brig_scan::db::{DbError, Index};
use brig_swarm::scan_file_name;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Mutex, MutexGuard, watch};

use super::download::Attempts;

/// Largest database that is taken, in bytes. All feeds together make one of some 100 MiB.
pub(super) const MAX_DATABASE: u64 = 1 << 30;
/// Longest time between two pieces of one that is sent.
const PATIENCE: Duration = Duration::from_secs(60);
/// Says which file is in use.
const CURRENT: &str = "current.json";
/// Largest such note.
const MAX_CURRENT: u64 = 4 << 10;
/// Files on their way.
const INCOMING: &str = "incoming-";
/// Bytes that are read at once.
const PIECE: usize = 128 << 10;

/// Why a database is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The folder or a file in it cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What was sent is no database.
    #[error("this vulnerability database cannot be used")]
    Unusable(#[source] DbError),
    /// It is larger than what is taken.
    #[error("the vulnerability database is larger than {MAX_DATABASE} bytes")]
    TooLarge,
    /// It did not arrive.
    #[error("the vulnerability database did not arrive whole")]
    Cut(#[source] io::Error),
    /// The work was interrupted.
    #[error("interrupted")]
    Interrupted,
}

/// A database in use.
#[derive(Debug)]
pub struct Loaded {
    /// What is in it.
    pub index: Index,
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
    /// When it came, in Unix seconds.
    pub received: i64,
    /// The file.
    pub path: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Current {
    digest: String,
    received: i64,
}

/// A file that arrived whole, not used yet. Removed when it is dropped.
#[derive(Debug)]
pub struct Arrived {
    path: PathBuf,
    /// SHA-256, in hexadecimal.
    pub digest: String,
}

impl Arrived {
    /// When it was made, as it says itself; the file is looked at, not checked. Blocks.
    ///
    /// # Errors
    /// [`DatabaseError::Unusable`].
    pub fn created(&self) -> Result<String, DatabaseError> {
        let index = Index::open(&self.path).map_err(DatabaseError::Unusable)?;
        Ok(index.created().to_owned())
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The folder, and what of it is in use.
#[derive(Debug)]
pub struct Database {
    dir: PathBuf,
    current: watch::Sender<Option<Arc<Loaded>>>,
    changing: Mutex<()>,
    attempts: std::sync::Mutex<Option<Attempts>>,
}

impl Database {
    /// Opens what is there. A file that cannot be used is told of and is as good as none.
    ///
    /// # Errors
    /// [`DatabaseError::File`] when the folder cannot be used.
    pub fn open(dir: PathBuf) -> Result<Self, DatabaseError> {
        let failed = |source| DatabaseError::File { path: dir.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed)?;
        let loaded = match read_current(&dir) {
            Ok(None) => None,
            Ok(Some(current)) => {
                let path = dir.join(scan_file_name(&current.digest));
                match Index::open(&path) {
                    Ok(index) => {
                        let Current { digest, received } = current;
                        Some(Arc::new(Loaded { index, digest, received, path }))
                    }
                    Err(error) => {
                        let error = brig_types::error::chain(&error);
                        tracing::error!(%error, "there is no vulnerability database; give this engine one: brig scan db update --engine");
                        None
                    }
                }
            }
            Err(source) => {
                tracing::error!(%source, "which vulnerability database is in use cannot be read");
                None
            }
        };
        sweep(&dir, loaded.as_deref(), |name| name.starts_with(INCOMING)).map_err(failed)?;
        Ok(Self {
            dir,
            current: watch::Sender::new(loaded),
            changing: Mutex::new(()),
            attempts: std::sync::Mutex::default(),
        })
    }

    /// What is in use.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Loaded>> {
        self.current.borrow().clone()
    }

    /// Wakes when another one is in use.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Loaded>>> {
        self.current.subscribe()
    }

    /// The folder of the files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps everybody else from changing which one is in use.
    pub async fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// What became of fetching it, where this engine does that.
    #[must_use]
    pub fn attempts(&self) -> Option<Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes what became of fetching it.
    pub(super) fn note(&self, attempts: Option<Attempts>) {
        *self.attempts.lock().unwrap_or_else(PoisonError::into_inner) = attempts;
    }

    /// A path for a file on its way.
    #[must_use]
    pub fn incoming(&self) -> PathBuf {
        self.dir.join(format!("{INCOMING}{}", brig_types::id::random_hex()))
    }

    /// Takes a file that somebody else has put at an incoming path.
    #[must_use]
    pub fn adopt(&self, path: PathBuf, digest: String) -> Arrived {
        Arrived { path, digest }
    }

    /// Reads a file to its end.
    ///
    /// # Errors
    /// [`DatabaseError::TooLarge`], [`DatabaseError::Cut`], [`DatabaseError::File`].
    pub async fn receive(
        &self,
        mut from: impl AsyncRead + Unpin,
    ) -> Result<Arrived, DatabaseError> {
        let path = self.incoming();
        let failed = |source| DatabaseError::File { path: path.clone(), source };
        let mut file = tokio::fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .await
            .map_err(failed)?;
        // From here on it is removed again.
        let mut arrived = Arrived { path: path.clone(), digest: String::new() };
        let (mut sum, mut size) = (hash::Sha256::new(), 0_u64);
        let mut piece = vec![0; PIECE];
        loop {
            let read = tokio::time::timeout(PATIENCE, from.read(&mut piece))
                .await
                .map_err(|_| DatabaseError::Cut(io::ErrorKind::TimedOut.into()))?
                .map_err(DatabaseError::Cut)?;
            let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            size = size.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
            if size > MAX_DATABASE {
                return Err(DatabaseError::TooLarge);
            }
            sum.update(bytes);
            file.write_all(bytes).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        arrived.digest = hash::hex(&sum.finish());
        Ok(arrived)
    }

    /// Checks a file in full and uses it from now on. The caller holds [`Database::change`].
    ///
    /// # Errors
    /// [`DatabaseError::Unusable`]: the one that is in use stays.
    pub async fn install(
        &self,
        arrived: Arrived,
        _changing: &MutexGuard<'_, ()>,
    ) -> Result<Arc<Loaded>, DatabaseError> {
        let dir = self.dir.clone();
        let loaded = tokio::task::spawn_blocking(move || take_over(&dir, &arrived))
            .await
            .map_err(|_| DatabaseError::Interrupted)??;
        let loaded = Arc::new(loaded);
        self.current.send_replace(Some(Arc::clone(&loaded)));
        let dir = self.dir.clone();
        let kept = Arc::clone(&loaded);
        let swept = tokio::task::spawn_blocking(move || sweep(&dir, Some(&kept), |_| false)).await;
        if let Ok(Err(error)) = swept {
            tracing::warn!(%error, "old vulnerability databases were not removed");
        }
        Ok(loaded)
    }
}

fn take_over(dir: &Path, arrived: &Arrived) -> Result<Loaded, DatabaseError> {
    let index = Index::open(&arrived.path).map_err(DatabaseError::Unusable)?;
    index.verify().map_err(DatabaseError::Unusable)?;
    let path = dir.join(scan_file_name(&arrived.digest));
    let failed = |source| DatabaseError::File { path: path.clone(), source };
    fs::rename(&arrived.path, &path).map_err(failed)?;
    sync(dir).map_err(failed)?;
    let digest = arrived.digest.clone();
    let received = OffsetDateTime::now_utc().unix_timestamp();
    write_current(dir, &Current { digest: digest.clone(), received }).map_err(failed)?;
    Ok(Loaded { index, digest, received, path })
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn read_current(dir: &Path) -> io::Result<Option<Current>> {
    let Some(text) = brig_files::read(&dir.join(CURRENT), MAX_CURRENT)? else {
        return Ok(None);
    };
    let current: Current = serde_json::from_slice(&text)?;
    if current.digest.len() == 64 && current.digest.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(Some(current))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "it names no digest"))
    }
}

fn write_current(dir: &Path, current: &Current) -> io::Result<()> {
    let json = serde_json::to_vec(current)?;
    brig_files::replace(&dir.join(CURRENT), &json, 0o600, Durability::Synced)
}

/// Removes databases that are not in use, where one is, and what else `is_left`.
fn sweep(dir: &Path, kept: Option<&Loaded>, is_left: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_ours = name.strip_suffix(".db").is_some_and(|digest| {
            digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit())
        });
        let is_kept = kept.is_some_and(|kept| kept.path.file_name() == Some(&entry.file_name()));
        if (is_ours && kept.is_some() && !is_kept) || is_left(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use brig_scan::db::{Collector, Feed};

    use super::*;

    fn bytes(created: &str) -> Vec<u8> {
        let mut into = Collector::new();
        into.feed(Feed {
            name: "feed".to_owned(),
            newest: "2026-01-01".to_owned(),
            ..Feed::default()
        });
        into.to_bytes(created).unwrap()
    }

    async fn give(database: &Database, bytes: &[u8]) -> Result<Arc<Loaded>, DatabaseError> {
        let arrived = database.receive(bytes).await?;
        let changing = database.change().await;
        database.install(arrived, &changing).await
    }

    fn files(database: &Database) -> usize {
        fs::read_dir(database.dir()).unwrap().count()
    }

    #[tokio::test]
    async fn a_new_one_takes_the_place_of_the_old_one_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path().join("scan")).unwrap();
        assert!(database.current().is_none());
        let mut watch = database.watch();
        let first = give(&database, &bytes("2026-01-01T00:00:00Z")).await.unwrap();
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        let second = give(&database, &bytes("2026-01-02T00:00:00Z")).await.unwrap();
        assert!(watch.has_changed().unwrap());
        assert_ne!(first.digest, second.digest);
        // The old one can still be read, although its file is gone.
        first.index.verify().unwrap();
        assert_eq!(files(&database), 2);
        drop(database);
        let again = Database::open(dir.path().join("scan")).unwrap();
        let current = again.current().unwrap();
        assert_eq!(current.digest, second.digest);
        assert_eq!(current.index.created(), "2026-01-02T00:00:00Z");
    }

    #[tokio::test]
    async fn what_is_damaged_or_foreign_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(dir.path().join("scan")).unwrap();
        let good = bytes("2026-01-01T00:00:00Z");
        let first = give(&database, &good).await.unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            if let Some(byte) = bad.get_mut(at) {
                *byte ^= 0x20;
            }
            let error = give(&database, &bad).await.unwrap_err();
            assert!(matches!(error, DatabaseError::Unusable(_)), "{at}: {error}");
        }
        for bad in [&[][..], b"hello", good.get(..good.len() - 1).unwrap()] {
            assert!(give(&database, bad).await.is_err());
        }
        assert_eq!(database.current().unwrap().digest, first.digest);
        assert_eq!(files(&database), 2);
    }

    #[tokio::test]
    async fn a_broken_note_or_file_is_as_good_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scan");
        let database = Database::open(path.clone()).unwrap();
        let loaded = give(&database, &bytes("2026-01-01T00:00:00Z")).await.unwrap();
        drop(database);
        fs::write(&loaded.path, b"short").unwrap();
        assert!(Database::open(path.clone()).unwrap().current().is_none());
        fs::write(path.join(CURRENT), b"{\"digest\":\"../../x\",\"received\":1}").unwrap();
        let database = Database::open(path).unwrap();
        assert!(database.current().is_none());
        give(&database, &bytes("2026-01-03T00:00:00Z")).await.unwrap();
        assert!(database.current().is_some());
    }
}
