//! Who is at the other end of a unix socket.

use std::io;
use std::os::fd::AsFd;

/// The credentials that the peer had when it connected (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCred {
    /// Process id, as seen from this process's pid namespace; 0 when it is not visible there.
    pub pid: i32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// The peer of a connected unix socket.
///
/// # Errors
/// When the descriptor is not such a socket.
pub fn of(fd: impl AsFd) -> io::Result<PeerCred> {
    // rustix's typed credentials cannot express a pid of 0, which the kernel reports for peers in
    // other pid namespaces.
    let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    let raw = std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd());
    // SAFETY: the descriptor is borrowed for the call; the buffer is a plain struct of the size
    // that `length` says.
    let answer = unsafe {
        libc::getsockopt(
            raw,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut cred).cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(PeerCred { pid: cred.pid, uid: cred.uid, gid: cred.gid })
}

/// How much of what was written to a connected unix socket its peer has not read yet, in bytes of
/// the kernel's memory: 0 means that all of it is read.
///
/// # Errors
/// When the descriptor is not a socket.
pub fn unread(fd: impl AsFd) -> io::Result<usize> {
    let mut left: libc::c_int = 0;
    let raw = std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd());
    // SAFETY: the descriptor is borrowed for the call, which writes one integer to where it is told.
    let answer = unsafe { libc::ioctl(raw, libc::TIOCOUTQ, &raw mut left) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(left).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_knows_its_owner() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        let cred = of(&a).unwrap();
        assert_eq!(cred.pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(cred.uid, rustix::process::getuid().as_raw());
        assert!(of(std::fs::File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn what_the_peer_has_not_read_is_known() {
        use std::io::{Read as _, Write as _};
        let (mut a, mut b) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(unread(&a).unwrap(), 0);
        a.write_all(b"head").unwrap();
        assert!(unread(&a).unwrap() > 0);
        b.read_exact(&mut [0; 3]).unwrap();
        assert!(unread(&a).unwrap() > 0, "a part is not all");
        b.read_exact(&mut [0; 1]).unwrap();
        assert_eq!(unread(&a).unwrap(), 0);
        assert!(unread(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
