//! Starting a program with exactly the descriptors it shall have.
//!
//! The standard library can only place descriptors 0 to 2, and anything beyond that makes it fork.
//! `posix_spawn` places any, and does not copy the page tables of a large daemon.

use std::ffi::{CString, OsString};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::ptr;

use brig_types::signal::Signal;
use rustix::process::{WaitId, WaitIdOptions, waitid};

/// Descriptors are duplicated to this number or above before they are placed, so that placing one
/// cannot overwrite another that is still to come.
const HIGH: i32 = 64;

/// A program to start.
#[derive(Debug)]
pub struct Spawn {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    fds: Vec<(OwnedFd, i32)>,
}

impl Spawn {
    /// The program at this path, with no arguments, an empty environment, and /dev/null as its
    /// standard streams.
    #[must_use]
    pub fn new(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            fds: Vec::new(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I>(mut self, args: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets its working directory.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    /// Gives it a descriptor under this number (0 to 63). No other descriptors of this process
    /// reach it.
    #[must_use]
    pub fn fd(mut self, fd: OwnedFd, number: i32) -> Self {
        self.fds.push((fd, number));
        self
    }

    /// Starts it, in the namespaces of the calling thread. Signals are all unblocked and default
    /// in the new process.
    ///
    /// # Errors
    /// `NotFound` and the like for the program or the directory; `InvalidInput` for a NUL byte or
    /// a descriptor number out of range.
    pub fn start(self) -> io::Result<Child> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let program = CString::new(self.program.as_os_str().as_bytes())?;
        let mut args = vec![program.clone()];
        for arg in self.args {
            args.push(CString::new(arg.into_vec())?);
        }
        let mut env = Vec::with_capacity(self.env.len());
        for (name, value) in self.env {
            let mut pair = name.into_vec();
            pair.push(b'=');
            pair.extend_from_slice(value.as_bytes());
            env.push(CString::new(pair)?);
        }
        let dir = self.dir.map(|dir| CString::new(dir.into_os_string().into_vec())).transpose()?;

        let mut placed = Vec::with_capacity(self.fds.len() + 3);
        for number in 0..3 {
            if !self.fds.iter().any(|(_, wanted)| *wanted == number) {
                let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
                placed.push((high(null.as_fd())?, number));
            }
        }
        for (fd, number) in &self.fds {
            if !(0..HIGH).contains(number) {
                return Err(invalid("the descriptor's number is out of range"));
            }
            placed.push((high(fd.as_fd())?, *number));
        }
        let beyond = placed.iter().map(|(_, number)| number + 1).max().unwrap_or(3);

        let mut actions = Actions::new()?;
        if let Some(dir) = &dir {
            actions.chdir(dir)?;
        }
        for (fd, number) in &placed {
            actions.place(fd.as_fd(), *number)?;
        }
        for number in (3..beyond).filter(|n| !placed.iter().any(|(_, wanted)| wanted == n)) {
            actions.close(number)?;
        }
        actions.close_from(beyond)?;
        let attributes = Attributes::with_default_signals()?;
        let pid = spawn(&program, &actions, &attributes, &args, &env)?;
        // Nobody else reaps it, so the pid is still its own.
        Ok(Child { pid, pidfd: crate::process::pidfd(pid)? })
    }
}

/// A descriptor that whoever started this program placed under a number. Its original is closed when
/// the program ends; what is returned is a copy, so this may be called more than once.
///
/// # Errors
/// When there is none under this number.
pub fn inherited(number: i32) -> io::Result<OwnedFd> {
    // SAFETY: the number is only looked up by the kernel, which answers with an error when nothing
    // is open under it; what comes back is a new descriptor that nobody else owns.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(copy) })
}

fn high(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, HIGH)?)
}

/// A process that was started by [`Spawn::start`]. Somebody has to [`Child::wait`] for it, or it
/// stays in the process table.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: OwnedFd,
}

impl Child {
    /// Its process id, until it was waited for.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends it a signal. One that has ended is fine.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match crate::process::send_signal(&self.pidfd, signal) {
            Err(error) if !crate::process::is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Kills it and removes it from the process table. Blocks until it has ended.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn kill_and_reap(self) -> io::Result<()> {
        self.signal(Signal::KILL)?;
        waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)?;
        Ok(())
    }

    /// Waits this long for its end, then kills it; removes it from the process table. Blocks. Only
    /// whoever has no runtime needs this.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn end_within(self, grace: std::time::Duration) -> io::Result<ExitStatus> {
        let timeout = rustix::event::Timespec::try_from(grace).map_err(io::Error::other)?;
        let mut waiting = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
        let ended = rustix::event::poll(&mut waiting, Some(&timeout));
        if !ended.is_ok_and(|count| count > 0) {
            self.signal(Signal::KILL)?;
        }
        let status = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)?
            .ok_or_else(|| io::Error::other("the process has not ended"))?;
        Ok(exit_status(&status))
    }

    /// Waits until it has ended and removes it from the process table. Cancel-safe. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// What the kernel answers, for example when it was waited for before.
    pub async fn wait(&self) -> io::Result<ExitStatus> {
        crate::process::wait_exit(self.pidfd.as_fd()).await?;
        let status = waitid(
            WaitId::PidFd(self.pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        )?
        .ok_or_else(|| io::Error::other("the process has not ended"))?;
        Ok(exit_status(&status))
    }
}

fn exit_status(status: &rustix::process::WaitIdStatus) -> ExitStatus {
    // wait(2)'s encoding.
    let raw = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => (code & 0xff) << 8,
        (None, Some(signal)) => signal,
        (None, None) => 0,
    };
    ExitStatus::from_raw(raw)
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        // SAFETY: an all-zero value of this plain C struct may be passed to its init function.
        let mut actions = unsafe { std::mem::zeroed() };
        // SAFETY: `actions` is a valid place to initialise.
        check(unsafe { libc::posix_spawn_file_actions_init(&raw mut actions) })?;
        Ok(Self(actions))
    }

    fn chdir(&mut self, dir: &CString) -> io::Result<()> {
        // SAFETY: initialised in `new`; the string is copied by the call.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&raw mut self.0, dir.as_ptr()) })
    }

    fn place(&mut self, fd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
        // SAFETY: initialised in `new`; only numbers are stored.
        check(unsafe {
            libc::posix_spawn_file_actions_adddup2(&raw mut self.0, fd.as_raw_fd(), number)
        })
    }

    fn close(&mut self, number: i32) -> io::Result<()> {
        // SAFETY: initialised in `new`; only a number is stored.
        check(unsafe { libc::posix_spawn_file_actions_addclose(&raw mut self.0, number) })
    }

    fn close_from(&mut self, number: i32) -> io::Result<()> {
        // SAFETY: initialised in `new`; only a number is stored.
        check(unsafe { libc::posix_spawn_file_actions_addclosefrom_np(&raw mut self.0, number) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new` and destroyed once.
        let _ = unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn with_default_signals() -> io::Result<Self> {
        // SAFETY: an all-zero value of this plain C struct may be passed to its init function.
        let mut attributes = unsafe { std::mem::zeroed() };
        // SAFETY: `attributes` is a valid place to initialise.
        check(unsafe { libc::posix_spawnattr_init(&raw mut attributes) })?;
        let mut this = Self(attributes);
        // SAFETY: a sigset is plain data; both are initialised by the calls before they are used,
        // and the attributes copy them.
        unsafe {
            let mut none: libc::sigset_t = std::mem::zeroed();
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigfillset(&raw mut all);
            check(libc::posix_spawnattr_setsigmask(&raw mut this.0, &raw const none))?;
            check(libc::posix_spawnattr_setsigdefault(&raw mut this.0, &raw const all))?;
            let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF;
            let flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
            check(libc::posix_spawnattr_setflags(&raw mut this.0, flags))?;
        }
        Ok(this)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `with_default_signals` and destroyed once.
        let _ = unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

fn spawn(
    program: &CString,
    actions: &Actions,
    attributes: &Attributes,
    args: &[CString],
    env: &[CString],
) -> io::Result<i32> {
    let pointers = |strings: &[CString]| {
        let mut list: Vec<*mut libc::c_char> =
            strings.iter().map(|text| text.as_ptr().cast_mut()).collect();
        list.push(ptr::null_mut());
        list
    };
    let (argv, envp) = (pointers(args), pointers(env));
    let mut pid = 0;
    // SAFETY: program, argv and envp are NUL-terminated and outlive the call, which only reads
    // them; actions and attributes are initialised.
    check(unsafe {
        libc::posix_spawn(
            &raw mut pid,
            program.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            argv.as_ptr(),
            envp.as_ptr(),
        )
    })?;
    Ok(pid)
}

/// These functions return the error instead of setting errno.
fn check(answer: libc::c_int) -> io::Result<()> {
    if answer == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(answer)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn shell(script: &str) -> Spawn {
        Spawn::new(Path::new("/bin/sh")).arg("-c").arg(script)
    }

    #[tokio::test]
    async fn only_the_given_descriptors_and_variables_arrive() {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        // Not close-on-exec on purpose: they must not arrive either, below and above the number
        // that is placed.
        let leak = |least| {
            let fd = rustix::io::fcntl_dupfd_cloexec(&write, least).unwrap();
            rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
            fd
        };
        let leaks = [leak(20), leak(100)];
        let script = "out=/proc/$$/fd/63
            for n in 0 1 2 $LEAKS; do test -e /proc/$$/fd/$n && echo $n > $out; done
            echo $A $(pwd) > $out; exit 7";
        let child = shell(script)
            .env("A", "b")
            .env("LEAKS", leaks.each_ref().map(|fd| fd.as_raw_fd().to_string()).join(" "))
            .dir(Path::new("/tmp"))
            .fd(write, 63)
            .start()
            .unwrap();
        drop(leaks);
        let status = child.wait().await.unwrap();
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(status.code(), Some(7));
        assert_eq!(text, "0\n1\n2\nb /tmp\n");
        assert!(child.wait().await.is_err());
    }

    #[tokio::test]
    async fn signals_are_default_and_reported() {
        // The Rust runtime ignores SIGPIPE; a program must not inherit that.
        let child = shell("kill -PIPE $$; sleep 5").env("PATH", "/bin").start().unwrap();
        assert_eq!(child.wait().await.unwrap().signal(), Some(libc::SIGPIPE));
        let child = shell("sleep 60").env("PATH", "/usr/bin:/bin").start().unwrap();
        child.signal(Signal::KILL).unwrap();
        assert_eq!(child.wait().await.unwrap().signal(), Some(libc::SIGKILL));
        child.signal(Signal::KILL).unwrap();
        let child = shell("sleep 60").env("PATH", "/usr/bin:/bin").start().unwrap();
        child.kill_and_reap().unwrap();
    }

    #[test]
    fn what_is_missing_is_an_error() {
        let missing = Spawn::new(Path::new("/nonexistent")).start().unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let dir = shell("true").dir(Path::new("/nonexistent")).start().unwrap_err();
        assert_eq!(dir.kind(), io::ErrorKind::NotFound);
        assert!(shell("a\0b").start().is_err());
    }
}
