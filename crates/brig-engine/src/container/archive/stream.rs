//! Archives on their way to a client: written by a thread that blocks, read by an async task.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

/// Bytes of an archive as they come; an error cuts it off.
pub type ByteStream = mpsc::Receiver<io::Result<Bytes>>;

/// Bytes of one piece.
const PIECE: usize = 64 << 10;
/// Pieces that wait for a slow client.
const PIECES: usize = 8;

/// A pipe for an archive.
pub(super) fn pipe() -> (PipeWriter, ByteStream) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (PipeWriter { sender, piece: BytesMut::with_capacity(PIECE) }, receiver)
}

/// The end that is written to. Must not be used by a thread of the async runtime.
#[derive(Debug)]
pub(super) struct PipeWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: BytesMut,
}

impl PipeWriter {
    /// A way to tell the reader that the archive ends here, too early.
    pub(super) fn breaker(&self) -> mpsc::Sender<io::Result<Bytes>> {
        self.sender.clone()
    }

    fn send(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, BytesMut::with_capacity(PIECE)).freeze();
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for PipeWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let space = PIECE.saturating_sub(self.piece.len());
        let taken = bytes.get(..space.min(bytes.len())).unwrap_or_default();
        self.piece.extend_from_slice(taken);
        if self.piece.len() >= PIECE {
            self.send()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}
