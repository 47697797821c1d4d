//! Processes by descriptor, and by pid plus start time where a descriptor cannot be kept.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use brig_types::signal::Signal;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, getrlimit, pidfd_getfd, pidfd_open, prlimit,
};
use tokio::io::Interest;

use crate::reactor::register;

/// When a process started, in clock ticks since boot (field 22 of `/proc/PID/stat`). Together with
/// the pid it names a process for as long as the machine is up.
///
/// # Errors
/// `NotFound` when there is no such process; `InvalidData` when the kernel's line is not
/// understood.
pub fn start_time(pid: i32) -> io::Result<u64> {
    stat(pid).map(|(_, start)| start)
}

fn stat(pid: i32) -> io::Result<(u8, u64)> {
    read_stat(pid, parse_stat)
}

fn read_stat<T>(pid: i32, parse: impl FnOnce(&[u8]) -> Option<T>) -> io::Result<T> {
    let line = fs::read(format!("/proc/{pid}/stat"))?;
    parse(&line).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is not understood"))
    })
}

/// The children of a process that have not ended, as descriptors. Without the kernel's own list,
/// which not every kernel is built with.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn children(parent: i32) -> io::Result<Vec<OwnedFd>> {
    let is_child = |pid: i32| {
        read_stat(pid, parse_parent).is_ok_and(|(state, its)| its == parent && state != b'Z')
    };
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Looked at once more when it is held: the number may have become another's.
        if is_child(pid)
            && let Ok(pidfd) = pidfd(pid)
            && is_child(pid)
        {
            found.push(pidfd);
        }
    }
    Ok(found)
}

/// State and start time.
fn parse_stat(line: &[u8]) -> Option<(u8, u64)> {
    let (state, mut fields) = stat_fields(line)?;
    let start = fields.nth(22 - 4)?.parse().ok()?;
    Some((state, start))
}

/// State and parent.
fn parse_parent(line: &[u8]) -> Option<(u8, i32)> {
    let (state, mut fields) = stat_fields(line)?;
    Some((state, fields.next()?.parse().ok()?))
}

/// The state, which is field 3, and the fields after it. The name in parentheses may hold spaces
/// and parentheses itself.
fn stat_fields(line: &[u8]) -> Option<(u8, std::str::SplitAsciiWhitespace<'_>)> {
    let end = line.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(line.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.bytes().next()?;
    Some((state, fields))
}

/// A descriptor of the process.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a process id"))?;
    pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| {
        if errno == rustix::io::Errno::SRCH {
            io::Error::new(io::ErrorKind::NotFound, errno)
        } else {
            errno.into()
        }
    })
}

/// A descriptor of the process with this pid, if it is the one that started at `started`.
///
/// # Errors
/// `NotFound` when that process is gone, whether or not another one has its pid now.
pub fn pidfd_of(pid: i32, started: u64) -> io::Result<OwnedFd> {
    let fd = pidfd(pid)?;
    // Read after the descriptor is held: now the pid cannot change its owner unnoticed.
    if alive(pid, started) {
        Ok(fd)
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "the process is gone"))
    }
}

/// A copy of a descriptor that another process holds, if it is the process that started at
/// `started`.
///
/// # Errors
/// `NotFound` when that process is gone; what the kernel answers when it holds no such descriptor
/// or does not let us have it.
pub fn take_copy(pid: i32, started: u64, number: i32) -> io::Result<OwnedFd> {
    let process = pidfd_of(pid, started)?;
    Ok(pidfd_getfd(&process, number, PidfdGetfdFlags::empty())?)
}

/// Whether the process that started at this time with this pid still runs. A process that ended
/// and waits to be reaped does not run.
#[must_use]
pub fn alive(pid: i32, started: u64) -> bool {
    stat(pid).is_ok_and(|(state, start)| start == started && !matches!(state, b'Z' | b'X'))
}

/// Waits until the process has ended. Cancel-safe. Does not reap it.
///
/// # Errors
/// What the kernel or the tokio reactor answers.
pub async fn wait_exit(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let fd = register(pidfd.try_clone_to_owned()?, Interest::READABLE)?;
    let _ready = fd.readable().await?;
    Ok(())
}

/// Sends a signal.
///
/// # Errors
/// `ESRCH` when the process is gone (see [`is_gone`]).
pub fn send_signal(pidfd: impl AsFd, signal: Signal) -> io::Result<()> {
    // SAFETY: `Signal` only holds 1 to 64; the number goes to the kernel and to nobody who would
    // install a handler for one of libc's reserved real-time signals.
    let signal = unsafe { rustix::process::Signal::from_raw_unchecked(signal.number()) };
    rustix::process::pidfd_send_signal(pidfd, signal)?;
    Ok(())
}

/// Whether an error says that the process has ended.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Gives another process back the core dump limit that [`crate::hardening::no_core_dumps`] took
/// from this one and that it inherited.
///
/// # Errors
/// What the kernel answers.
pub fn restore_core_limit(pid: i32) -> io::Result<()> {
    let limit = getrlimit(Resource::Core);
    let pid = Pid::from_raw(pid)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a process id"))?;
    prlimit(Some(pid), Resource::Core, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    Ok(())
}

/// The hard limit of this process for a resource by its `RLIMIT_` name; `None` in the option means
/// unlimited.
#[must_use]
pub fn hard_limit(name: &str) -> Option<Option<u64>> {
    let resource = match name {
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_STACK" => Resource::Stack,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        _ => return None,
    };
    Some(getrlimit(resource).maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_do_not_shift_the_fields() {
        let line = b"12 (a) S 1 (b)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        assert_eq!(parse_stat(line), Some((b'S', 777)));
        assert_eq!(parse_parent(line), Some((b'S', 1)));
        assert_eq!(parse_parent(b"12 (a) S"), None);
        assert_eq!(parse_stat(b"12 (a) S 1 2"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[tokio::test]
    async fn a_child_is_watched_and_killed() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start = start_time(pid).unwrap();
        assert!(alive(pid, start));
        assert!(!alive(pid, start + 1));
        let fd = pidfd_of(pid, start).unwrap();
        assert!(pidfd_of(pid, start + 1).is_err());
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!children(own).unwrap().is_empty());
        assert_eq!(children(pid).unwrap().len(), 0);
        send_signal(&fd, Signal::KILL).unwrap();
        wait_exit(fd.as_fd()).await.unwrap();
        assert!(!alive(pid, start));
        child.wait().unwrap();
        assert!(is_gone(&send_signal(&fd, Signal::TERM).unwrap_err()));
        assert!(is_gone(&pidfd(pid).unwrap_err()));
    }
}
