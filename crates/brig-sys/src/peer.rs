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
}
