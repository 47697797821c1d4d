//! Netlink, the kernel's interface for links, addresses, routes and packet rules.
//!
//! Requests are blocking: the kernel works on them inside `sendto`, so that the answers wait in the
//! socket when it returns. A socket belongs to the network namespace of the thread that opened it
//! and stays there wherever it is used afterwards.

pub(crate) mod conntrack;
pub(crate) mod nftables;
pub(crate) mod route;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto,
    socket_with,
};

/// Length of `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The kernel sends dumps in pieces of at most 32 KiB.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Answers are there at once; this only keeps a kernel bug from hanging a thread for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A netlink socket of one family.
#[derive(Debug)]
pub(crate) struct NetlinkSocket {
    fd: OwnedFd,
    sequence: u32,
}

/// The fields of `struct nlmsghdr` that matter in an answer, and what follows it.
#[derive(Debug)]
struct Frame<'a> {
    kind: u16,
    sequence: u32,
    /// The whole message with its header.
    message: &'a [u8],
}

impl NetlinkSocket {
    /// Opens a socket in the calling thread's network namespace; no protocol means rtnetlink, whose
    /// number is zero.
    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let fd =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self { fd, sequence: 0 })
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        sendto(&self.fd, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }

    /// Reads one datagram; `false` when `flags` forbid waiting and there is none.
    fn receive(&self, buffer: &mut Vec<u8>, flags: RecvFlags) -> io::Result<bool> {
        buffer.resize(RECEIVE_BUFFER, 0);
        loop {
            match recv(&self.fd, &mut buffer[..], flags) {
                Ok((length, _)) => {
                    buffer.truncate(length);
                    return Ok(true);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) if flags.contains(RecvFlags::DONTWAIT) => {
                    return Ok(false);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A socket for packet rules and connections of one network namespace.
///
/// Closing one makes the kernel wait until every rule that was removed shortly before, by whomever,
/// is really gone: milliseconds. So it is kept where rules are removed often.
#[derive(Debug)]
pub(crate) struct NetfilterSocket(NetlinkSocket);

impl NetfilterSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        NetlinkSocket::open(Some(rustix::net::netlink::NETFILTER)).map(Self)
    }
}

/// Splits a datagram into its messages; a length that makes no sense ends it.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = bytes.get(..length).filter(|message| message.len() >= HEADER_LEN)?;
        let frame = Frame { kind: u16_at(message, 4)?, sequence: u32_at(message, 8)?, message };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(frame)
    })
}

impl Frame<'_> {
    /// The error number of an NLMSG_ERROR message, zero for an acknowledgement.
    fn error_number(&self) -> Option<i32> {
        let bytes: [u8; 4] = self.message.get(HEADER_LEN..HEADER_LEN + 4)?.try_into().ok()?;
        (self.kind == NLMSG_ERROR).then(|| i32::from_ne_bytes(bytes).saturating_neg())
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_split_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let total: usize = frames(&bytes).map(|frame| frame.message.len()).sum();
            prop_assert!(total <= bytes.len());
            for frame in frames(&bytes) {
                let _ = frame.error_number();
            }
        }
    }
}
