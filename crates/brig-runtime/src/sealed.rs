//! The OCI runtime as a sealed file in memory.
//!
//! A container must not reach the runtime's program by `/proc/<pid>/exe` and write to it. So crun
//! begins every run by mounting itself read-only and starting over from there, which loads all of
//! its libraries twice and takes the host's mount lock three times. A program that is sealed
//! already is as safe, and crun then goes to work at once.
//!
//! What runs it gets the file under a number of its own and names it `/proc/self/fd/<number>`: a
//! path by this daemon's process id could be another process's one day.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

use crate::config::{self, Flavor};
use crate::launch::Launcher;
use crate::runtime::Inner;

/// The number under which a program gets the file.
pub(crate) const SEALED_FD: i32 = 7;
/// No build of crun is larger.
const MAX_PROGRAM: u64 = 16 << 20;
const ELF: &[u8] = b"\x7fELF";
/// How long such a program may take to say its version.
const TRY_LIMIT: Duration = Duration::from_secs(10);

/// The path of the file for whoever has it under [`SEALED_FD`].
pub(crate) fn path() -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{SEALED_FD}"))
}

/// The copy of one build of the runtime, and none while there is none.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    known: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    build: String,
    /// Absent while it is made, and if this host does not run such files.
    file: Option<Arc<OwnedFd>>,
}

impl Sealed {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The copy of this build, and whether anybody was told to make one.
    fn look(&self, build: &str) -> (Option<Arc<OwnedFd>>, bool) {
        match &*self.lock() {
            Some(known) if known.build == build => (known.file.clone(), true),
            _ => (None, false),
        }
    }

    fn put(&self, build: &str, file: Option<OwnedFd>) {
        *self.lock() = Some(Known { build: build.to_owned(), file: file.map(Arc::new) });
    }
}

impl Inner {
    /// The runtime's sealed copy, if there is one.
    pub(crate) fn sealed(&self) -> Option<Arc<OwnedFd>> {
        let build = config::build_of(&self.programs.runtime).ok()?;
        self.sealed.look(&build).0
    }

    /// Has a copy made if there is none of the program as it is now.
    pub(crate) fn seal(self: &Arc<Self>) {
        if self.programs.flavor != Flavor::Crun {
            return;
        }
        let Ok(build) = config::build_of(&self.programs.runtime) else { return };
        if self.sealed.look(&build).1 {
            return;
        }
        // Once for each build, whatever comes of it.
        self.sealed.put(&build, None);
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let made = tokio::select! {
                () = inner.stop.cancelled() => return,
                made = make(&inner.programs.runtime, &inner.launcher) => made,
            };
            match made {
                Ok(file) => inner.sealed.put(&build, Some(file)),
                Err(error) => tracing::debug!(%error, "the OCI runtime seals itself each time"),
            }
        });
    }
}

/// Copies the program and sees whether the copy runs.
async fn make(program: &Path, launcher: &Launcher) -> io::Result<OwnedFd> {
    let source = program.to_owned();
    let file = tokio::task::spawn_blocking(move || copy(&source)).await??;
    let answer = launcher.output(&path(), Some(&file), ["--version"], TRY_LIMIT).await?;
    if !answer.status.success() {
        return Err(io::Error::other(answer.status.to_string()));
    }
    Ok(file)
}

fn copy(program: &Path) -> io::Result<OwnedFd> {
    let mut source = File::open(program)?.take(MAX_PROGRAM + 1);
    let mut bytes = Vec::new();
    source.read_to_end(&mut bytes)?;
    // A script is read by its interpreter, which sees no seals.
    if !bytes.starts_with(ELF) || u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_PROGRAM) {
        return Err(io::Error::other("not a program to copy"));
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag, and let such files run without it.
    let file = rustix::fs::memfd_create(c"oci-runtime", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create(c"oci-runtime", flags))?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    // Exactly what crun looks for.
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    // What is open for writing cannot be run.
    let own = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    Ok(rustix::fs::open(own, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sealed_copy_runs_and_cannot_be_changed() {
        let launcher = Launcher::new().unwrap();
        let file = make(Path::new("/bin/true"), &launcher).await.unwrap();
        let seals = rustix::fs::fcntl_get_seals(&file).unwrap();
        assert_eq!(seals.bits(), 0b1111);
        assert!(rustix::io::write(&file, b"x").is_err());
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        if let Ok(writable) = rustix::fs::open(own, OFlags::WRONLY, Mode::empty()) {
            assert!(rustix::io::write(&writable, b"x").is_err());
        }
        assert!(make(Path::new("/bin/false"), &launcher).await.is_err(), "it does not run well");
    }

    #[test]
    fn scripts_and_what_is_not_there_are_left_alone() {
        let mut script = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut script, b"#!/bin/sh\n").unwrap();
        assert!(copy(script.path()).is_err());
        assert!(copy(Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn another_build_is_another_copy() {
        let sealed = Sealed::default();
        assert!(!sealed.look("1").1);
        sealed.put("1", None);
        assert!(matches!(sealed.look("1"), (None, true)));
        sealed.put("1", Some(File::open("/dev/null").unwrap().into()));
        assert!(sealed.look("1").0.is_some());
        assert!(matches!(sealed.look("2"), (None, false)));
    }
}
