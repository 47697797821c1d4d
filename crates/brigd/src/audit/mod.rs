//! The audit log: who did what, chained by hashes.
//!
//! Entries are written, not synced, before the change that they are about; a background task
//! syncs them once a second and then seals the head, which says how many there are and what the
//! last hash is. So a change never happens without its entry having been handed to the kernel,
//! and what a crash of the machine can lose is the last second. Files are rotated by size and the
//! chain goes on from one to the next; none is ever removed by the daemon.

pub mod entry;
pub mod query;
pub mod verify;

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use brig_files::Durability;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use entry::{Entry, Kind};

/// A file larger than this is followed by a new one.
const MAX_FILE: u64 = 16 << 20;
/// How often entries are synced.
const SEAL_INTERVAL: Duration = Duration::from_secs(1);
/// Longest line that is looked at; entries are far shorter.
pub(crate) const MAX_LINE: u64 = 64 << 10;
/// Longest text of a field; what is longer is cut.
const MAX_FIELD: usize = 512;
const HEAD_FILE: &str = "head.json";
const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";

/// The audit log can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// A file can't be read or written.
    #[error("cannot {step} the audit log at {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// An entry can't be encoded.
    #[error("cannot encode an entry of the audit log")]
    Encode(#[source] serde_json::Error),
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AuditError {
    let path = path.to_owned();
    move |source| AuditError::Io { step, path, source }
}

/// What the log says of its own end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Entries so far.
    pub(crate) count: u64,
    /// Hash of the last one.
    pub(crate) hash: String,
}

/// The log.
#[derive(Clone, Debug)]
pub struct AuditLog {
    dir: Arc<PathBuf>,
    writer: Arc<Mutex<Writer>>,
}

#[derive(Debug)]
struct Writer {
    file: File,
    path: PathBuf,
    length: u64,
    count: u64,
    hash: String,
    /// Files that were rotated away and are not synced yet.
    unsynced: Vec<File>,
    sealed: u64,
}

/// The log's files, oldest first.
pub(crate) fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

pub(crate) fn read_head(dir: &Path) -> io::Result<Option<Head>> {
    let mut text = String::new();
    match File::open(dir.join(HEAD_FILE)) {
        Ok(file) => file.take(MAX_LINE).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_str(&text).map(Some).map_err(io::Error::from)
}

fn file_name(first: u64) -> String {
    format!("{PREFIX}{first:016}{SUFFIX}")
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

impl AuditLog {
    /// Opens the log in a directory, making it if there is none.
    ///
    /// # Errors
    /// [`AuditError::Io`]. A damaged log is no error: it gets an entry that says so.
    pub fn open(dir: &Path) -> Result<Self, AuditError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed("make", dir))?;
        let head = read_head(dir).map_err(failed("read the head of", dir));
        let files = files(dir).map_err(failed("read", dir))?;
        let path = files.last().cloned().unwrap_or_else(|| dir.join(file_name(1)));
        let mut file = create(&path).map_err(failed("open", &path))?;
        let (length, last) = tail(&mut file).map_err(failed("read", &path))?;
        let (count, hash) = match last.as_deref().and_then(entry::split) {
            Some((hash, text)) => {
                let seq = serde_json::from_str::<Entry>(text).map_or(0, |entry| entry.seq);
                (seq, hash.to_owned())
            }
            None => (0, entry::START.to_owned()),
        };
        let log = Self {
            dir: Arc::new(dir.to_owned()),
            writer: Arc::new(Mutex::new(Writer {
                file,
                path,
                length,
                count,
                hash: hash.clone(),
                unsynced: Vec::new(),
                sealed: 0,
            })),
        };
        let alarm = match head {
            Ok(None) if count == 0 => {
                // From the first entry on there is a head: one that is missing was taken away.
                let head = Head { count, hash };
                log.write_head(&head).map_err(failed("seal", &dir.join(HEAD_FILE)))?;
                None
            }
            Ok(None) => Some("the head of the log was missing".to_owned()),
            Ok(Some(head)) if head.count > count => Some(format!(
                "the log ended at entry {count}, but had {} when it was sealed",
                head.count
            )),
            Ok(Some(head)) if head.count == count && head.hash != hash => {
                Some(format!("entry {count} is not the one that was sealed"))
            }
            Ok(Some(_)) => None,
            Err(error) => Some(brig_types::error::chain(&error)),
        };
        if let Some(note) = alarm {
            tracing::error!(note, "the audit log was tampered with, or the disk lost a part of it");
            log.append(Entry { kind: Kind::Alarm, note, ..Entry::default() })?;
            log.seal()?;
        }
        Ok(log)
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes an entry; its number and time are filled in.
    ///
    /// # Errors
    /// When it can't be written; the log is then as it was.
    pub fn append(&self, mut entry: Entry) -> Result<(), AuditError> {
        for field in [&mut entry.principal, &mut entry.object, &mut entry.rule, &mut entry.note] {
            if field.len() > MAX_FIELD {
                let end = (0..=MAX_FIELD).rev().find(|at| field.is_char_boundary(*at));
                field.truncate(end.unwrap_or(0));
            }
        }
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.length >= MAX_FILE {
            writer.rotate(&self.dir)?;
        }
        entry.seq = writer.count + 1;
        entry.time = brig_api::time::rfc3339nano_fixed(time::OffsetDateTime::now_utc());
        let (line, hash) = entry::line(&writer.hash, &entry).map_err(AuditError::Encode)?;
        if let Err(error) = writer.file.write_all(line.as_bytes()) {
            // Half a line would break the chain for good.
            let length = writer.length;
            if let Err(error) = writer.file.set_len(length) {
                tracing::error!(%error, "cannot take half an entry of the audit log back");
            }
            return Err(failed("write", &writer.path)(error));
        }
        writer.length += line.len() as u64;
        writer.count = entry.seq;
        writer.hash = hash;
        Ok(())
    }

    /// Syncs what was written and seals the head over it.
    ///
    /// # Errors
    /// [`AuditError::Io`].
    pub fn seal(&self) -> Result<(), AuditError> {
        let (file, path, rotated, head) = {
            let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            if writer.sealed == writer.count {
                return Ok(());
            }
            let file = writer.file.try_clone().map_err(failed("sync", &writer.path))?;
            let head = Head { count: writer.count, hash: writer.hash.clone() };
            (file, writer.path.clone(), std::mem::take(&mut writer.unsynced), head)
        };
        for old in rotated {
            old.sync_data().map_err(failed("sync", &path))?;
        }
        file.sync_data().map_err(failed("sync", &path))?;
        self.write_head(&head).map_err(failed("seal", &self.dir.join(HEAD_FILE)))?;
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).sealed = head.count;
        Ok(())
    }

    fn write_head(&self, head: &Head) -> io::Result<()> {
        let json = serde_json::to_vec(head)?;
        brig_files::replace(&self.dir.join(HEAD_FILE), &json, 0o600, Durability::Synced)
    }

    /// Seals once a second until told to stop, and a last time then.
    pub async fn keep_sealed(self, stop: CancellationToken) {
        loop {
            let ended = tokio::time::timeout(SEAL_INTERVAL, stop.cancelled()).await.is_ok();
            self.seal_logged().await;
            if ended {
                return;
            }
        }
    }

    /// Seals and tells the log about failures.
    pub async fn seal_logged(&self) {
        let log = self.clone();
        match tokio::task::spawn_blocking(move || log.seal()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = brig_types::error::chain(&error);
                tracing::error!(%error, "the audit log is not sealed");
            }
            Err(error) => tracing::error!(%error, "the audit log is not sealed"),
        }
    }
}

impl Writer {
    fn rotate(&mut self, dir: &Path) -> Result<(), AuditError> {
        let path = dir.join(file_name(self.count + 1));
        let file = create(&path).map_err(failed("open", &path))?;
        let old = std::mem::replace(&mut self.file, file);
        self.unsynced.push(old);
        self.path = path;
        self.length = 0;
        Ok(())
    }
}

/// The length of the whole lines of a file, and the last of them. Half a line at the end, as a
/// crash leaves it, is cut off.
fn tail(file: &mut File) -> io::Result<(u64, Option<String>)> {
    let length = file.seek(SeekFrom::End(0))?;
    let from = length.saturating_sub(MAX_LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(MAX_LINE).read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let kept = from + whole as u64;
    if kept < length {
        file.set_len(kept)?;
    }
    let lines = bytes.get(..whole.saturating_sub(1)).unwrap_or_default();
    let last = lines.rsplit(|byte| *byte == b'\n').next().filter(|line| !line.is_empty());
    Ok((kept, last.map(|line| String::from_utf8_lossy(line).into_owned())))
}

#[cfg(test)]
mod tests;
