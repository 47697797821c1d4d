//! Clients that send the head of a request byte by byte.
//!
//! A connection may wait long for its next request. Once a request has begun to arrive, its head
//! has to be complete soon.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::pool::Slot;

/// Time from the first byte of a request to the last one of its head.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// When the head that is arriving began, and whether its first line is there.
#[derive(Clone, Debug, Default)]
pub(super) struct Head(Arc<Mutex<Arriving>>);

#[derive(Debug, Default)]
struct Arriving {
    since: Option<Instant>,
    past_first_line: bool,
}

impl Head {
    fn lock(&self) -> MutexGuard<'_, Arriving> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes notice of what has arrived of a head; what of it belongs to its first line.
    fn begun<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let mut arriving = self.lock();
        arriving.since.get_or_insert_with(Instant::now);
        if arriving.past_first_line {
            return &[];
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        arriving.past_first_line = end.is_some();
        end.and_then(|end| bytes.get(..end)).unwrap_or(bytes)
    }

    /// The head is there.
    pub(super) fn complete(&self) {
        *self.lock() = Arriving::default();
    }

    /// Returns once a head has taken too long.
    pub(super) async fn overdue(&self) {
        loop {
            let since = self.lock().since;
            match since.map(|since| since + HEAD_TIMEOUT) {
                Some(end) if end <= Instant::now() => return,
                Some(end) => tokio::time::sleep_until(end).await,
                None => tokio::time::sleep(HEAD_TIMEOUT / 4).await,
            }
        }
    }
}

/// A connection that notes when a head begins.
///
/// COMPAT: a quotation mark in a request's first line becomes `%22`. Filters are JSON, so people
/// type `curl '…/containers/json?filters={"status":["running"]}'`; Go's server takes it, the HTTP
/// library here does not. Nothing else has seen the request yet.
#[derive(Debug)]
pub(super) struct Paced<IO> {
    io: IO,
    head: Head,
    slot: Slot,
    /// What was read and did not fit when it became longer.
    carried: Vec<u8>,
}

fn without_quotation_marks(bytes: &[u8], line: usize) -> Vec<u8> {
    let (line, rest) = bytes.split_at(line.min(bytes.len()));
    let mut plain = Vec::with_capacity(bytes.len() + line.len());
    for byte in line {
        match byte {
            b'"' => plain.extend_from_slice(b"%22"),
            byte => plain.push(*byte),
        }
    }
    plain.extend_from_slice(rest);
    plain
}

impl<IO> Paced<IO> {
    pub(super) const fn new(io: IO, head: Head, slot: Slot) -> Self {
        Self { io, head, slot, carried: Vec::new() }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Paced<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.carried.is_empty() {
            let fits = buf.remaining().min(self.carried.len());
            buf.put_slice(&self.carried.drain(..fits).collect::<Vec<u8>>());
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let new = buf.filled().get(before..).unwrap_or_default();
        if read.is_ready() && !new.is_empty() && self.slot.is_waiting() {
            let line = self.head.begun(new);
            if line.contains(&b'"') {
                let mut plain = without_quotation_marks(new, line.len());
                buf.set_filled(before);
                let fits = buf.remaining().min(plain.len());
                self.carried = plain.split_off(fits);
                buf.put_slice(&plain);
            }
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Paced<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::super::pool::a_place;
    use super::*;

    #[tokio::test]
    async fn quotation_marks_in_the_first_line_are_escaped() {
        let slot = a_place();
        slot.established();
        let head = Head::default();
        for piece in [1, 3, 64] {
            let (mut near, far) = duplex(256);
            let mut paced = Paced::new(far, head.clone(), slot.clone());
            near.write_all(b"GET /x?f={\"a\":[\"b\"]} HTTP/1.1\r\nHost: \"h\"\r\n\r\n")
                .await
                .unwrap();
            drop(near);
            let mut read = Vec::new();
            let mut buffer = vec![0; piece];
            loop {
                match paced.read(&mut buffer).await.unwrap() {
                    0 => break,
                    length => read.extend_from_slice(&buffer[..length]),
                }
            }
            let expected = "GET /x?f={%22a%22:[%22b%22]} HTTP/1.1\r\nHost: \"h\"\r\n\r\n";
            assert_eq!(String::from_utf8(read).unwrap(), expected);
            head.complete();
        }
        // A body is nobody's first line.
        let (mut near, far) = duplex(64);
        let mut paced = Paced::new(far, head.clone(), slot.clone());
        let work = slot.begin();
        near.write_all(b"{\"a\":1}").await.unwrap();
        let mut body = [0; 7];
        paced.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"{\"a\":1}");
        drop(work);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_head_that_has_begun_is_overdue() {
        let slot = a_place();
        slot.established();
        let (mut near, far) = duplex(64);
        let head = Head::default();
        let mut paced = Paced::new(far, head.clone(), slot.clone());
        let soon = |limit: u64| tokio::time::timeout(Duration::from_secs(limit), head.overdue());
        assert!(soon(600).await.is_err());
        near.write_all(b"GET").await.unwrap();
        paced.read_exact(&mut [0; 3]).await.unwrap();
        assert!(soon(10).await.is_err());
        // More of it does not start the clock again.
        near.write_all(b" ").await.unwrap();
        paced.read_exact(&mut [0; 1]).await.unwrap();
        assert!(soon(10).await.is_ok());
        head.complete();
        // A body may take its time.
        let work = slot.begin();
        near.write_all(b"x").await.unwrap();
        paced.read_exact(&mut [0; 1]).await.unwrap();
        assert!(soon(600).await.is_err());
        drop(work);
    }
}
