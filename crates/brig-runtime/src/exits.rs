//! How containers end: conmon's exit files.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use brig_types::id::ContainerId;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use crate::conmon::{EXIT_FILE, OOM_FILE};

/// 128 and SIGKILL: what a container gets that had to be killed because nobody watched it.
pub(crate) const KILLED: i32 = 137;

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitInfo {
    /// Exit status; 128 and the number for a signal.
    pub code: i32,
    /// Whether something in the container was killed for lack of memory.
    pub oom: bool,
    /// When.
    pub at: OffsetDateTime,
    /// Why the status is not the process's own, if so.
    pub reason: Option<String>,
}

impl ExitInfo {
    pub(crate) fn lost(reason: &str, bundle: &Path) -> Self {
        Self {
            code: KILLED,
            oom: bundle.join(OOM_FILE).exists(),
            at: OffsetDateTime::now_utc(),
            reason: Some(reason.to_owned()),
        }
    }
}

/// Containers that ended, in the order in which that was noticed. Each is reported once, after all
/// its output is in its log.
#[derive(Debug)]
pub struct Exits {
    pub(crate) queue: mpsc::UnboundedReceiver<(ContainerId, ExitInfo)>,
}

impl Exits {
    /// The next one; `None` when the runtime has been shut down. Cancel-safe.
    pub async fn next(&mut self) -> Option<(ContainerId, ExitInfo)> {
        self.queue.recv().await
    }
}

/// Reads a container's exit file, `None` while it has none.
pub(crate) fn read(exits: &Path, id: &ContainerId, bundle: &Path) -> io::Result<Option<ExitInfo>> {
    for path in [exits.join(id.as_str()), bundle.join(EXIT_FILE)] {
        match read_file(&path) {
            Ok((code, at)) => {
                let oom = bundle.join(OOM_FILE).exists();
                return Ok(Some(ExitInfo { code, oom, at, reason: None }));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The status in an exit file and when it was written.
pub(crate) fn read_file(path: &Path) -> io::Result<(i32, OffsetDateTime)> {
    let text = fs::read_to_string(path)?;
    let at = fs::metadata(path)?.modified().unwrap_or_else(|_| SystemTime::now());
    let code = text.trim().parse().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} has no status", path.display()))
    })?;
    Ok((code, at.into()))
}

/// Removes what an earlier run of the same container left.
pub(crate) fn forget(exits: &Path, id: &ContainerId) {
    let path = exits.join(id.as_str());
    if let Err(error) = fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "an exit file could not be removed");
    }
}
