//! Stdin behind a thread of its own, so that nothing else waits for it.
//!
//! The thread sits in a blocking read: a terminal's flags are shared with other processes, so
//! stdin is not made non-blocking. It ends with the process.

use std::io::{self, Read as _};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Pieces that may wait for the connection.
const QUEUE: usize = 4;
/// Size of reads, in bytes.
const BUFFER: usize = 32 * 1024;

/// An async stdin.
#[derive(Debug)]
pub(crate) struct Stdin {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
}

impl Stdin {
    /// Starts reading the process's stdin.
    pub(crate) fn open() -> io::Result<Self> {
        let (sender, pieces) = mpsc::channel(QUEUE);
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            let mut stdin = io::stdin().lock();
            let mut buffer = vec![0; BUFFER];
            loop {
                let piece = match stdin.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(n) => Ok(Bytes::copy_from_slice(buffer.get(..n).unwrap_or_default())),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    // A terminal whose other side has gone.
                    Err(error)
                        if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) =>
                    {
                        return;
                    }
                    Err(error) => Err(error),
                };
                let failed = piece.is_err();
                if sender.blocking_send(piece).is_err() || failed {
                    return;
                }
            }
        })?;
        Ok(Self { pieces })
    }

    /// The next piece, `None` at the end.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Bytes>> {
        self.pieces.recv().await.transpose()
    }
}
