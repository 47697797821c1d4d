//! Deleting big directory trees: renamed out of the way at once, deleted by a thread.
//!
//! The rename is what makes a removal atomic; what a crash leaves in the trash goes at the next
//! start.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use brig_types::id::random_hex;

use super::files;
use crate::error::ImageError;

/// A directory whose content is deleted in the background.
#[derive(Debug)]
pub(crate) struct Trash {
    dir: PathBuf,
    jobs: mpsc::Sender<PathBuf>,
}

impl Trash {
    /// Starts the thread, which ends with the value, and begins with what is there already.
    pub(crate) fn open(dir: PathBuf) -> Result<Self, ImageError> {
        files::make_dir(&dir)?;
        let (jobs, queue) = mpsc::channel();
        for name in files::names(&dir)? {
            let _ = jobs.send(dir.join(name));
        }
        std::thread::Builder::new()
            .name("brig-trash".to_owned())
            .spawn(move || {
                for path in queue {
                    delete(&path);
                }
            })
            .map_err(ImageError::io("starting the thread that empties", &dir))?;
        Ok(Self { dir, jobs })
    }

    /// Takes a file or directory of the same file system away from its name.
    ///
    /// Durable only once the directory it was in is synced.
    pub(crate) fn put(&self, path: &Path) -> Result<(), ImageError> {
        let target = self.dir.join(random_hex());
        match fs::rename(path, &target) {
            Ok(()) => {
                let _ = self.jobs.send(target);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(ImageError::io("removing", path)(error)),
        }
    }
}

fn delete(path: &Path) {
    match brig_sys::remove::remove_tree(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %path.display(), %error, "trash is not removed"),
    }
}
