//! Namespaces: opening them and running code inside one.
//!
//! Namespaces belong to threads. Everything here uses a thread of its own, so that the caller's
//! never changes.

use std::any::Any;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// A kind of namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NsKind {
    /// Network.
    Net,
    /// Mounts.
    Mnt,
    /// Process ids.
    Pid,
    /// Host name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Users and capabilities.
    User,
    /// The root of the control group view.
    Cgroup,
}

impl NsKind {
    /// The name below `/proc/PID/ns`.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Mnt => "mnt",
            Self::Pid => "pid",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::User => "user",
            Self::Cgroup => "cgroup",
        }
    }
}

/// Opens a namespace of a process.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn open(pid: i32, kind: NsKind) -> io::Result<OwnedFd> {
    File::open(format!("/proc/{pid}/ns/{}", kind.file_name())).map(OwnedFd::from)
}

/// Runs `f` in a network namespace, on a thread of its own, and waits for it.
///
/// # Errors
/// When the namespace cannot be entered; what `f` returns.
pub fn in_net<T, F>(ns: BorrowedFd<'_>, f: F) -> io::Result<T>
where
    T: Send,
    F: FnOnce() -> io::Result<T> + Send,
{
    on_thread(move || {
        move_into_link_name_space(ns, Some(LinkNameSpaceType::Network))?;
        f()
    })
}

/// Runs `f` in a mount namespace, on a thread of its own, and waits for it. Root and working
/// directory of that thread are the namespace's root.
///
/// # Errors
/// When the namespace cannot be entered; what `f` returns.
pub fn in_mount<T, F>(ns: BorrowedFd<'_>, f: F) -> io::Result<T>
where
    T: Send,
    F: FnOnce() -> io::Result<T> + Send,
{
    on_thread(move || {
        own_fs_context()?;
        move_into_link_name_space(ns, Some(LinkNameSpaceType::Mount))?;
        f()
    })
}

/// Gives the calling thread a root, working directory and umask of its own; without it the kernel
/// refuses to change the mount namespace of one thread among several.
pub(crate) fn own_fs_context() -> io::Result<()> {
    // SAFETY: CLONE_FS does not touch the descriptor table, which is what makes unshare unsafe.
    unsafe { unshare_unsafe(UnshareFlags::FS) }?;
    Ok(())
}

/// Runs `f` on a fresh thread and joins it.
pub(crate) fn on_thread<T, F>(f: F) -> io::Result<T>
where
    T: Send,
    F: FnOnce() -> io::Result<T> + Send,
{
    thread::scope(|scope| {
        thread::Builder::new()
            .name("brig-ns".to_owned())
            .spawn_scoped(scope, f)?
            .join()
            .unwrap_or_else(|panic| Err(panicked(&*panic)))
    })
}

fn panicked(panic: &(dyn Any + Send)) -> io::Error {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    io::Error::other(format!("the namespace thread panicked: {text}"))
}

type Job = Box<dyn FnOnce() + Send>;

/// A thread that lives in a mount namespace of its own, in which some mounts of the host are
/// hidden. Programs started from it, and their children, live there too.
///
/// Mounts that the host makes later show up in it wherever they are made below a shared mount (see
/// [`crate::mount::make_shared_mountpoint`]); nothing goes the other way.
pub struct PrivateMounts {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    host: OwnedFd,
    hide: Vec<PathBuf>,
}

impl fmt::Debug for PrivateMounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateMounts").finish_non_exhaustive()
    }
}

impl PrivateMounts {
    /// Makes the namespace and unmounts the paths of `hide` in it. A path that is no mount point
    /// needs no hiding and is skipped.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn new(hide: &[&Path]) -> io::Result<Self> {
        let hide: Vec<PathBuf> = hide.iter().map(|path| (*path).to_owned()).collect();
        let host = OwnedFd::from(File::open("/proc/thread-self/ns/mnt")?);
        let hidden = hide.clone();
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, started) = mpsc::channel();
        let thread = thread::Builder::new().name("brig-mounts".to_owned()).spawn(move || {
            let entered = enter_private_namespace(&hidden);
            let failed = entered.is_err();
            if ready.send(entered).is_err() || failed {
                return;
            }
            while let Ok(job) = queue.recv() {
                job();
            }
        })?;
        started.recv().map_err(io::Error::other)??;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), host, hide })
    }

    /// Has the thread move to a new namespace, made from the host's mounts as they are then; what
    /// was started before stays in the old one. For hosts whose root mount is not shared, where
    /// later mounts would not show up otherwise.
    ///
    /// # Errors
    /// When the thread has ended or a descriptor is missing. That the kernel refused the move is
    /// logged; then the thread sees the host's mounts.
    pub fn renew(&self) -> io::Result<()> {
        let (host, hide) = (self.host.try_clone()?, self.hide.clone());
        self.submit(move || {
            let moved = move_into_link_name_space(host.as_fd(), Some(LinkNameSpaceType::Mount))
                .map_err(io::Error::from)
                .and_then(|()| enter_private_namespace(&hide));
            if let Err(error) = moved {
                tracing::error!(%error, "a mount namespace could not be made");
            }
        })
    }

    /// Has `f` run on the thread, after what was asked before, and does not wait.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn submit<F>(&self, f: F) -> io::Result<()>
    where
        F: FnOnce() + Send + 'static,
    {
        let job: Job = Box::new(move || {
            if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)) {
                tracing::error!(error = %panicked(&*panic), "a job in the mount namespace failed");
            }
        });
        let jobs = self.jobs.as_ref().ok_or_else(|| io::Error::other("the thread has ended"))?;
        jobs.send(job).map_err(|_| io::Error::other("the thread has ended"))
    }

    /// Runs `f` on the thread, after what was asked before, and waits for it.
    ///
    /// # Errors
    /// When `f` panicked.
    pub fn run<T, F>(&self, f: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (done, answer) = mpsc::channel();
        self.submit(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            // Nobody waits any more: nothing to tell.
            let _ = done.send(result);
        })?;
        answer.recv().map_err(io::Error::other)?.map_err(|panic| panicked(&*panic))
    }
}

impl Drop for PrivateMounts {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            // A panic in a job was reported where the job was asked for.
            let _ = thread.join();
        }
    }
}

fn enter_private_namespace(hide: &[PathBuf]) -> io::Result<()> {
    // SAFETY: neither flag touches the descriptor table, which is what makes unshare unsafe.
    unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    for path in hide {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // EINVAL: not a mount point.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "ns_tests.rs"]
pub(crate) mod tests;
