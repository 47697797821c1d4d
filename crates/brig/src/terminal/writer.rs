//! Stdout and stderr behind a thread: a reader that is slow or stopped holds up the container's
//! output, never its input, its signals or its size.

use std::io::{self, Write as _};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};

/// Pieces of output that may wait for the reader.
const QUEUE: usize = 16;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The sending side.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: mpsc::Sender<(Target, Bytes)>,
    done: oneshot::Receiver<io::Result<()>>,
}

impl Writer {
    /// Starts the thread. It ends with [`Writer::finish`], or when the writer is dropped.
    pub(crate) fn start() -> Result<Self> {
        let (queue, mut pieces) = mpsc::channel::<(Target, Bytes)>(QUEUE);
        let (result, done) = oneshot::channel();
        std::thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                let mut write_all = || -> io::Result<()> {
                    while let Some((target, piece)) = pieces.blocking_recv() {
                        match target {
                            Target::Stdout => {
                                let mut out = io::stdout().lock();
                                out.write_all(&piece)?;
                                out.flush()?;
                            }
                            Target::Stderr => io::stderr().lock().write_all(&piece)?,
                        }
                    }
                    Ok(())
                };
                // Nobody listens any more when the command has already failed.
                let _ = result.send(write_all());
            })
            .map_err(|source| Error::io("starting the output thread", source))?;
        Ok(Self { queue, done })
    }

    /// Hands a piece on; waits while the queue is full. `false`: the reader has gone.
    pub(crate) async fn write(&self, target: Target, piece: Bytes) -> bool {
        piece.is_empty() || self.queue.send((target, piece)).await.is_ok()
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) -> Result<()> {
        drop(self.queue);
        match self.done.await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::BrokenPipe),
            Ok(Err(source)) => Err(Error::io("writing output", source)),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}
