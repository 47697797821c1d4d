//! The one place that starts programs.
//!
//! Programs get an environment of their own, the descriptors that are named and no other, and on
//! hosts with hybrid control groups a mount namespace without the version 2 hierarchy, which crun
//! refuses to work beside.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use brig_sys::cgroup::{self, CgroupMode};
use brig_sys::mount::unshared_mounts;
use brig_sys::ns::PrivateMounts;
use brig_sys::spawn::{Child, Spawn};
use brig_types::signal::Signal;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use crate::sealed::SEALED_FD;

/// What a program may write before the rest is thrown away.
const MAX_OUTPUT: u64 = 256 << 10;

/// How long a killed program may take to go.
const REAP_LIMIT: Duration = Duration::from_secs(5);

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug)]
pub(crate) struct Launcher {
    mounts: Option<PrivateMounts>,
    /// The host's mounts that were copied into that namespace and would not have come by
    /// themselves.
    copied: Mutex<BTreeSet<(u32, PathBuf)>>,
}

/// Which of the host's mounts a program has to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sees {
    /// Those of before, and what was mounted below shared ones since.
    Known,
    /// All of them.
    All,
}

/// How a program ended and what it wrote.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Launcher {
    pub(crate) fn new() -> io::Result<Self> {
        let mounts = (cgroup::mode() == CgroupMode::Hybrid)
            .then(|| PrivateMounts::new(&[Path::new(cgroup::HYBRID_UNIFIED)]))
            .transpose()?;
        Ok(Self { mounts, copied: Mutex::default() })
    }

    /// A program with the environment that all of them get.
    pub(crate) fn program(path: &Path) -> Spawn {
        // conmon writes log times in local time.
        Spawn::new(path).env("PATH", PATH).env("TZ", "UTC")
    }

    /// Starts it. If the caller goes away meanwhile, it is killed and reaped.
    pub(crate) async fn start(&self, program: Spawn, sees: Sees) -> io::Result<Child> {
        let (done, started) = oneshot::channel();
        let run = move || {
            if let Err(Ok(child)) = done.send(program.start()) {
                // Nobody waits for it any more, nor for how this ends.
                let _ = child.kill_and_reap();
            }
        };
        match &self.mounts {
            Some(mounts) => {
                if sees == Sees::All {
                    self.follow(mounts)?;
                }
                mounts.submit(run)?;
            }
            None => drop(tokio::task::spawn_blocking(run)),
        }
        started.await.map_err(io::Error::other)?
    }

    /// Making a namespace waits for the kernel's readers, so it is only done when the host has
    /// mounts that the last one lacks.
    fn follow(&self, mounts: &PrivateMounts) -> io::Result<()> {
        let host = unshared_mounts()?;
        let mut copied = self.copied.lock().unwrap_or_else(PoisonError::into_inner);
        if *copied != host {
            mounts.renew()?;
            *copied = host;
        }
        Ok(())
    }

    /// Runs a program, which may be one that it gets sealed, to its end, which must come within
    /// `limit`.
    pub(crate) async fn output<I>(
        &self,
        path: &Path,
        sealed: Option<&OwnedFd>,
        args: I,
        limit: Duration,
    ) -> io::Result<Output>
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        let (stdout, out) = pipe_end()?;
        let (stderr, err) = pipe_end()?;
        let mut program = Self::program(path).args(args).fd(out, 1).fd(err, 2);
        if let Some(sealed) = sealed {
            program = program.fd(sealed.try_clone()?, SEALED_FD);
        }
        let child = self.start(program, Sees::Known).await?;
        let finished = tokio::time::timeout(limit, async {
            let (stdout, stderr, status) = tokio::join!(read(stdout), read(stderr), child.wait());
            io::Result::Ok(Output { status: status?, stdout: stdout?, stderr: stderr? })
        })
        .await;
        match finished {
            Ok(output) => output,
            Err(_elapsed) => {
                child.signal(Signal::KILL)?;
                // One that the kernel keeps even now stays a zombie.
                let _ = tokio::time::timeout(REAP_LIMIT, child.wait()).await;
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }
}

/// A pipe: the end that this process reads, and the other one.
pub(crate) fn pipe_end() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write))
}

async fn read(pipe: pipe::Receiver) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut limited = pipe.take(MAX_OUTPUT);
    limited.read_to_end(&mut bytes).await?;
    // What is beyond the limit is read too, so that the program can end.
    let mut rest = limited.into_inner();
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(bytes)
}
