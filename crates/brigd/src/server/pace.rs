//! Clients that send the head of a request byte by byte.
//!
//! A connection may wait long for its next request. Once a request has begun to arrive, its head
//! has to be complete soon.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::pool::Slot;

/// Time from the first byte of a request to the last one of its head.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// When the head that is arriving began.
#[derive(Clone, Debug, Default)]
pub(super) struct Head(Arc<Mutex<Option<Instant>>>);

impl Head {
    fn begun(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
    }

    /// The head is there.
    pub(super) fn complete(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns once a head has taken too long.
    pub(super) async fn overdue(&self) {
        loop {
            let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match since.map(|since| since + HEAD_TIMEOUT) {
                Some(end) if end <= Instant::now() => return,
                Some(end) => tokio::time::sleep_until(end).await,
                None => tokio::time::sleep(HEAD_TIMEOUT / 4).await,
            }
        }
    }
}

/// A connection that notes when a head begins.
#[derive(Debug)]
pub(super) struct Paced<IO> {
    io: IO,
    head: Head,
    slot: Slot,
}

impl<IO> Paced<IO> {
    pub(super) const fn new(io: IO, head: Head, slot: Slot) -> Self {
        Self { io, head, slot }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Paced<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if read.is_ready() && buf.filled().len() > before && self.slot.is_waiting() {
            self.head.begun();
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
