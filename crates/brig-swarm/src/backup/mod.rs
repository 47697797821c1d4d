//! Backups of a cluster: everything in its store, encrypted for whoever may restore it.
//!
//! | part | what |
//! | --- | --- |
//! | header | two lines in the clear: `brig-cluster-backup 1`, and JSON that says which version of brig wrote it, when, and how it is encrypted |
//! | the rest | an age file ([`brig_pki::agefile`]) with the stream of [`stream`]: hash of the header, cluster, revision, every object, and at the end their numbers and a hash over all of it |
//!
//! Neither names nor the cluster's id are in the clear. A backup is complete by itself: the
//! authority's key, join tokens, secrets and the unlock key are objects or parts of them. The data
//! keys are not in it, because whoever restores it seals with keys of its own. What could not be
//! restored is not written, and not restored either: [`check`].

mod check;
mod stream;

pub(crate) mod restore;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::SystemTime;

use brig_pki::agefile::{AgeError, Opener, Readers};
use brig_pki::hash;
use brig_pki::seal::KeyRing;
use brig_proto::swarm::Cluster;
use brig_store::{Kind, Object, RedbBackend, State, Store, StoreError};
use brig_types::error::{Categorized, ErrorKind};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::stream::{StreamReader, StreamWriter};
use crate::manager::keys::{DataKeys, UNLOCK_SUBSYSTEM};

const MAGIC: &str = "brig-cluster-backup ";
/// The newest format, and the only one so far.
const FORMAT: u32 = 1;
/// Longest line of a header, in bytes.
const MAX_LINE: u64 = 4096;
/// What is gathered before it is encrypted, in bytes.
const BUFFER: usize = 64 << 10;

/// What a backup says of itself without being opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BackupHeader {
    /// The format's number.
    #[serde(skip)]
    pub format: u32,
    /// The version of brig that wrote it.
    pub brig: String,
    /// When it was written, RFC 3339.
    pub created: String,
    /// How it is encrypted.
    pub encryption: String,
}

/// What is in a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupSummary {
    /// What it says of itself.
    pub header: BackupHeader,
    /// The cluster's id.
    pub cluster: String,
    /// The manager that wrote it.
    pub node: String,
    /// Revision of the store.
    pub revision: u64,
    /// Objects by kind.
    pub objects: BTreeMap<&'static str, usize>,
    /// Whether managers of it are locked.
    pub autolock: bool,
}

/// A backup that was read to its end and can be restored.
#[derive(Debug)]
pub struct Backup {
    /// What is in it.
    pub summary: BackupSummary,
    pub(crate) state: State,
    pub(crate) cluster: std::sync::Arc<Cluster>,
}

/// What is wrong with a backup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// Not a backup.
    #[error("this is no backup of a cluster: it does not begin with \"{}\"", MAGIC.trim_end())]
    NotABackup,
    /// From a newer version.
    #[error("the backup has format {0}, this version of brig reads {FORMAT}")]
    Format(u32),
    /// The header cannot be read.
    #[error("the backup's header is damaged")]
    Header(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It cannot be decrypted.
    #[error("the backup cannot be opened")]
    Open(#[source] AgeError),
    /// It ends too early or was altered.
    #[error("the backup was cut off or altered, nothing of it is used")]
    Broken(#[source] io::Error),
    /// It decrypts, but what is in it is not what was written.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// What is in it does not fit together.
    #[error("the cluster cannot be restored from this: {0}")]
    Unfit(String),
    /// It cannot be written.
    #[error("the backup cannot be written")]
    Write(#[source] io::Error),
    /// The scratch store failed.
    #[error("the backup cannot be tried in a scratch store")]
    Scratch(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Categorized for BackupError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Write(_) | Self::Scratch(_) => ErrorKind::System,
            _ => ErrorKind::InvalidParameter,
        }
    }
}

/// A snapshot of the cluster, on its way into a backup.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) state: State,
    pub(crate) node: String,
}

impl Snapshot {
    /// A cluster as it is in `state`, as the manager `node` sees it.
    #[must_use]
    pub const fn new(state: State, node: String) -> Self {
        Self { state, node }
    }

    /// Finds out whether this could be restored, before anything is written.
    ///
    /// # Errors
    /// [`BackupError::Unfit`].
    pub fn check(&self) -> Result<(), BackupError> {
        check::cluster(&self.state).map(drop)
    }

    /// Writes a backup of it. Blocks.
    ///
    /// # Errors
    /// [`BackupError::Unfit`], [`BackupError::Open`], [`BackupError::Write`].
    pub fn write(&self, readers: &Readers, mut out: impl Write) -> Result<(), BackupError> {
        let cluster = check::cluster(&self.state)?;
        let created = OffsetDateTime::from(SystemTime::now());
        let header = BackupHeader {
            format: FORMAT,
            brig: env!("CARGO_PKG_VERSION").to_owned(),
            created: created.format(&Rfc3339).unwrap_or_default(),
            encryption: "age".to_owned(),
        };
        let clear = header.to_text();
        out.write_all(clear.as_bytes()).map_err(BackupError::Write)?;
        let sealed = readers.seal(out).map_err(BackupError::Open)?;
        let buffered = io::BufWriter::with_capacity(BUFFER, sealed);
        let mut stream = StreamWriter::begin(
            buffered,
            &stream::Preface {
                header: hash::hex(&hash::sha256(clear.as_bytes())),
                cluster: cluster.id.clone(),
                node: self.node.clone(),
                revision: self.state.revision(),
            },
        )
        .map_err(BackupError::Write)?;
        for object in self.state.objects() {
            stream.object(&object).map_err(BackupError::Write)?;
        }
        let buffered = stream.finish().map_err(BackupError::Write)?;
        let sealed = buffered.into_inner().map_err(|e| BackupError::Write(e.into_error()))?;
        let mut out = sealed.finish().map_err(BackupError::Open)?;
        out.flush().map_err(BackupError::Write)
    }
}

impl BackupHeader {
    fn to_text(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        format!("{MAGIC}{}\n{json}\n", self.format)
    }

    /// Reads a header, and its text as it is in the file.
    fn read(input: &mut impl BufRead) -> Result<(Self, Vec<u8>), BackupError> {
        let mut text = Vec::new();
        let mut line = |text: &mut Vec<u8>| {
            let start = text.len();
            let read = input.take(MAX_LINE).read_until(b'\n', text);
            read.map_err(BackupError::Broken)?;
            Ok::<_, BackupError>(start)
        };
        line(&mut text)?;
        let format = std::str::from_utf8(&text)
            .ok()
            .and_then(|first| first.strip_prefix(MAGIC)?.strip_suffix('\n')?.parse().ok())
            .ok_or(BackupError::NotABackup)?;
        if format != FORMAT {
            return Err(BackupError::Format(format));
        }
        let second = line(&mut text)?;
        let json = text.get(second..).unwrap_or_default();
        let header: Self =
            serde_json::from_slice(json).map_err(|error| BackupError::Header(Box::new(error)))?;
        Ok((Self { format, ..header }, text))
    }
}

impl Backup {
    /// Reads a backup to its end and makes sure that it can be restored. Blocks.
    ///
    /// # Errors
    /// [`BackupError`].
    pub fn read(input: impl Read, opener: &Opener) -> Result<Self, BackupError> {
        let mut input = BufReader::with_capacity(BUFFER, input);
        let (header, clear) = BackupHeader::read(&mut input)?;
        let plain = opener.open(input).map_err(BackupError::Open)?;
        let buffered = BufReader::with_capacity(BUFFER, plain);
        let mut stream = StreamReader::begin(buffered)?;
        if stream.preface().header != hash::hex(&hash::sha256(&clear)) {
            return Err(BackupError::Damaged("its header is another one's".to_owned()));
        }
        let mut objects = Vec::new();
        while let Some(object) = stream.next()? {
            objects.push(object);
        }
        let preface = stream.preface().clone();
        let counts = count(&objects);
        let state = State::of(objects).map_err(|double| {
            let (kind, id) = (double.kind(), double.id());
            BackupError::Damaged(format!("{kind} {id} is in it twice, or its name is"))
        })?;
        let cluster = check::cluster(&state)?;
        if cluster.id != preface.cluster {
            return Err(BackupError::Damaged("it is of another cluster than it says".to_owned()));
        }
        let summary = BackupSummary {
            header,
            cluster: preface.cluster,
            node: preface.node,
            revision: preface.revision,
            objects: counts,
            autolock: cluster.unlock_keys.iter().any(|key| key.subsystem == UNLOCK_SUBSYSTEM),
        };
        Ok(Self { summary, state, cluster })
    }

    /// Restores it into a store in `dir`, which must be empty, opens that store anew, and compares
    /// every object. The store is sealed with a key that exists in memory only.
    ///
    /// # Errors
    /// [`BackupError::Scratch`], [`BackupError::Damaged`].
    pub async fn try_out(&self, dir: &std::path::Path) -> Result<(), BackupError> {
        let path = dir.join("scratch.redb");
        let ring = KeyRing::generate().map_err(scratch)?;
        let keys = std::sync::Arc::new(DataKeys::new(std::sync::Arc::new(ring)));
        let open = || {
            let (path, keys) = (path.clone(), std::sync::Arc::clone(&keys));
            async move {
                let opened = tokio::task::spawn_blocking(move || {
                    let backend = RedbBackend::open(&path)
                        .map_err(|error| StoreError::Open(std::sync::Arc::new(error)))?;
                    Store::open(backend, keys)
                });
                opened.await.map_err(scratch)?.map_err(scratch)
            }
        };
        let store = open().await?;
        store.restore(self.state.objects()).await.map_err(scratch)?;
        close(store).await?;
        let store = open().await?;
        let view = store.view();
        let equal = self.state.objects().map(plain).eq(view.objects().map(plain));
        close(store).await?;
        if !equal {
            return Err(BackupError::Damaged("a scratch store came out different".to_owned()));
        }
        Ok(())
    }
}

/// An object without its version, which every store counts by itself.
fn plain(object: Object) -> Object {
    object.with_version(0)
}

async fn close(store: Store) -> Result<(), BackupError> {
    tokio::task::spawn_blocking(move || store.close()).await.map_err(scratch)
}

fn scratch(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BackupError {
    BackupError::Scratch(error.into())
}

fn count(objects: &[Object]) -> BTreeMap<&'static str, usize> {
    let mut counts: BTreeMap<_, _> = Kind::ALL.map(|kind| (kind.as_str(), 0)).into();
    for object in objects {
        *counts.entry(object.kind().as_str()).or_default() += 1;
    }
    counts
}

#[cfg(feature = "fuzzing")]
/// Reads what claims to be a backup's header and stream, for the fuzzer: what is behind the
/// encryption, too.
pub fn fuzz_backup(data: &[u8]) {
    let mut input = data;
    let _ = BackupHeader::read(&mut input);
    if let Ok(mut stream) = StreamReader::begin(data) {
        let mut objects = Vec::new();
        while let Ok(Some(object)) = stream.next() {
            objects.push(object);
        }
        let _ = State::of(objects).map(|state| check::cluster(&state).map(drop));
    }
}

#[cfg(test)]
mod tests;
