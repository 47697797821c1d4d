//! A connected `SOCK_SEQPACKET` unix socket.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
    connect, recv, send, shutdown, socket_with,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::reactor::register;

/// One end of a sequenced-packet connection. All methods take `&self`: one task may receive while
/// another sends.
#[derive(Debug)]
pub struct SeqPacket {
    fd: AsyncFd<OwnedFd>,
}

impl SeqPacket {
    /// Connects to the socket `name` in `dir`. The path goes through a descriptor of `dir`, so its
    /// length does not matter. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the kernel answers; `WouldBlock` when the listener's queue is full.
    pub fn connect(dir: &Path, name: &str) -> io::Result<Self> {
        if name.contains('/') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a socket's name has no slash",
            ));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, dir, flags, Mode::empty())?;
        let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::from_fd(socket)
    }

    /// Takes over a connected, non-blocking socket. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the reactor answers.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { fd: register(fd, Interest::READABLE | Interest::WRITABLE)? })
    }

    /// Receives one packet and returns its length; 0 means that the peer closed. What does not fit
    /// is lost. Cancel-safe.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.fd.readable().await?;
            match recv(self.fd.as_fd(), &mut *buffer, RecvFlags::empty()) {
                Ok((length, _)) => return Ok(length),
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends one packet. Cancel-safe: it is sent whole or not at all.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn send(&self, packet: &[u8]) -> io::Result<()> {
        loop {
            let mut ready = self.fd.writable().await?;
            match send(self.fd.as_fd(), packet, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tells the peer that nothing more will be sent; receiving goes on.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn shutdown_write(&self) -> io::Result<()> {
        shutdown(self.fd.as_fd(), Shutdown::Write)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{bind, listen, socketpair};

    #[tokio::test]
    async fn packets_keep_their_borders() {
        let (a, b) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .unwrap();
        let (a, b) = (SeqPacket::from_fd(a).unwrap(), SeqPacket::from_fd(b).unwrap());
        a.send(b"one").await.unwrap();
        a.send(b"two!").await.unwrap();
        a.shutdown_write().unwrap();
        let mut buffer = [0; 16];
        assert_eq!(b.recv(&mut buffer).await.unwrap(), 3);
        assert_eq!(b.recv(&mut buffer).await.unwrap(), 4);
        assert_eq!(&buffer[..4], b"two!");
        assert_eq!(b.recv(&mut buffer).await.unwrap(), 0);
        b.send(b"back").await.unwrap();
        assert_eq!(a.recv(&mut buffer).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn long_paths_connect() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("d".repeat(200));
        std::fs::create_dir(&dir).unwrap();
        let listener = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .unwrap();
        let fd = std::fs::File::open(&dir).unwrap();
        let address =
            SocketAddrUnix::new(format!("/proc/self/fd/{}/attach", fd.as_raw_fd())).unwrap();
        bind(&listener, &address).unwrap();
        listen(&listener, 1).unwrap();
        SeqPacket::connect(&dir, "attach").unwrap();
        assert!(SeqPacket::connect(&dir, "../attach").is_err());
        assert!(SeqPacket::connect(&dir, "other").is_err());
    }
}
