//! Watching a directory for files that are complete.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::reactor::register;

/// Bytes read at once; an event is at most 16 + 256 of them.
const BUFFER: usize = 8192;

/// Reports the names of files that were renamed into a directory or closed after writing.
#[derive(Debug)]
pub struct DirWatch {
    fd: AsyncFd<OwnedFd>,
    pending: VecDeque<OsString>,
    overflow: bool,
}

impl DirWatch {
    /// Starts watching. Files that are already there are not reported: list the directory after
    /// this returned. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the kernel answers, for example when there is no such directory.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(
            &fd,
            dir,
            WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR,
        )?;
        Ok(Self {
            fd: register(fd, Interest::READABLE)?,
            pending: VecDeque::new(),
            overflow: false,
        })
    }

    /// The next name. Cancel-safe: a name is only lost if it was returned.
    ///
    /// # Errors
    /// `ErrorKind::Other` with [`Overflow`] inside when the kernel dropped events: list the
    /// directory and go on. Anything else is final.
    pub async fn next(&mut self) -> io::Result<OsString> {
        loop {
            if self.overflow {
                self.overflow = false;
                return Err(io::Error::other(Overflow));
            }
            if let Some(name) = self.pending.pop_front() {
                return Ok(name);
            }
            let mut ready = self.fd.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); BUFFER];
            let mut reader = inotify::Reader::new(self.fd.get_ref(), &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) => {
                        if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                            self.overflow = true;
                        } else if let Some(name) = event.file_name() {
                            self.pending.push_back(OsStr::from_bytes(name.to_bytes()).to_owned());
                        }
                        if reader.is_buffer_empty() {
                            break;
                        }
                    }
                    Err(rustix::io::Errno::AGAIN) => {
                        ready.clear_ready();
                        break;
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

/// The kernel dropped events because nobody read them in time.
#[derive(Debug, thiserror::Error)]
#[error("the queue of directory events overflowed")]
pub struct Overflow;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn renames_and_closed_files_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = DirWatch::new(dir.path()).unwrap();
        fs::write(dir.path().join("a"), "1").unwrap();
        let outside = tempfile::NamedTempFile::new_in(dir.path().parent().unwrap()).unwrap();
        fs::rename(outside.path(), dir.path().join("b")).unwrap();
        assert_eq!(watch.next().await.unwrap(), "a");
        assert_eq!(watch.next().await.unwrap(), "b");
        let path = dir.path().join("c");
        let (got, ()) = tokio::join!(watch.next(), async {
            tokio::task::yield_now().await;
            fs::write(&path, "1").unwrap();
        });
        assert_eq!(got.unwrap(), "c");
    }
}
