//! A container's standard streams, through conmon's attach socket.
//!
//! conmon sends output to every client of that socket and waits for the slowest, so a client that
//! stops reading stops the container. Therefore the daemon is its only client: one task per
//! container reads always and hands each piece to whoever subscribed. A subscriber that reads
//! slowly slows the container down, as a full pipe would, and loses nothing; one that reads nothing
//! at all for [`STALL_LIMIT`] is cut off with an error, so that the container goes on.

mod fanout;
mod resize;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use brig_sys::seqpacket::SeqPacket;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use fanout::{ConsoleOutput, PIECE_COST, STALL_LIMIT, SUBSCRIBER_BUFFER};

use fanout::Fanout;
use resize::Resizer;

/// The socket's name in a bundle.
const SOCKET: &str = "attach";
/// A packet of output: the stream's number and conmon's buffer. conmon's is 8 KiB.
const OUTPUT_PACKET: usize = 64 << 10;
/// conmon reads up to 32 KiB at once.
const INPUT_PACKET: usize = 32 << 10;
/// The first byte of a packet (conmon's `STDOUT_PIPE` and `STDERR_PIPE`).
const STDOUT_PIPE: u8 = 2;
const STDERR_PIPE: u8 = 3;

/// Which stream a piece of output belongs to. A terminal has only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdStream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output, at most as long as one read of conmon's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputChunk {
    /// Where it was written to.
    pub stream: StdStream,
    /// What was written.
    pub bytes: Bytes,
}

/// What can go wrong on a console.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsoleError {
    /// The subscriber read nothing for too long and was cut off.
    #[error("output was dropped because it was not read for {} seconds", STALL_LIMIT.as_secs())]
    Stalled,
    /// The process was started without an open standard input, or it was closed.
    #[error("standard input is closed")]
    InputClosed,
    /// The process has no terminal.
    #[error("the process has no terminal")]
    NoTerminal,
    /// The process has ended.
    #[error("the process has ended")]
    Ended,
    /// The kernel said no.
    #[error("talking to the container's monitor")]
    Io(#[source] io::Error),
}

impl brig_types::error::Categorized for ConsoleError {
    fn kind(&self) -> brig_types::error::ErrorKind {
        use brig_types::error::ErrorKind;
        match self {
            Self::InputClosed | Self::NoTerminal | Self::Ended => ErrorKind::Conflict,
            Self::Stalled | Self::Io(_) => ErrorKind::System,
        }
    }
}

/// How a process was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConsoleMode {
    pub(crate) tty: bool,
    pub(crate) open_stdin: bool,
    /// Whether standard input ends when it is closed here.
    pub(crate) stdin_once: bool,
}

/// The streams of one process. Clones are the same console.
#[derive(Clone, Debug)]
pub struct Console {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    socket: Option<SeqPacket>,
    mode: ConsoleMode,
    fanout: Fanout,
    resizer: Resizer,
}

impl Console {
    /// Connects to the process whose conmon works in `bundle`, and starts to read.
    pub(crate) fn connect(
        bundle: &Path,
        mode: ConsoleMode,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> io::Result<Self> {
        let socket = SeqPacket::connect(bundle, SOCKET)?;
        let console = Self::with_socket(Some(socket), bundle.to_owned(), mode);
        let inner = Arc::clone(&console.inner);
        let stop = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = inner.drain() => {}
            }
            inner.fanout.end();
        });
        Ok(console)
    }

    /// The console of a process that has none any more.
    pub(crate) fn ended(bundle: &Path, mode: ConsoleMode) -> Self {
        let console = Self::with_socket(None, bundle.to_owned(), mode);
        console.inner.fanout.end();
        console
    }

    fn with_socket(socket: Option<SeqPacket>, bundle: PathBuf, mode: ConsoleMode) -> Self {
        let inner =
            Inner { socket, mode, fanout: Fanout::default(), resizer: Resizer::new(bundle) };
        Self { inner: Arc::new(inner) }
    }

    /// Everything that is written from now on. Subscribed between create and start, that is
    /// everything.
    #[must_use]
    pub fn output(&self) -> ConsoleOutput {
        self.inner.fanout.subscribe()
    }

    /// Whether the process has a terminal.
    #[must_use]
    pub fn tty(&self) -> bool {
        self.inner.mode.tty
    }

    /// Writes to standard input; waits while the process does not read. Not cancel-safe: a prefix
    /// may have been written.
    ///
    /// # Errors
    /// [`ConsoleError::InputClosed`], [`ConsoleError::Ended`], [`ConsoleError::Io`].
    pub async fn write_stdin(&self, bytes: &[u8]) -> Result<(), ConsoleError> {
        if !self.inner.mode.open_stdin {
            return Err(ConsoleError::InputClosed);
        }
        let socket = self.inner.socket.as_ref().ok_or(ConsoleError::Ended)?;
        for packet in bytes.chunks(INPUT_PACKET) {
            socket.send(packet).await.map_err(|error| match error.raw_os_error() {
                // Shut down here before, or conmon has closed its end.
                _ if error.kind() == io::ErrorKind::BrokenPipe => ConsoleError::InputClosed,
                _ if error.kind() == io::ErrorKind::ConnectionReset => ConsoleError::Ended,
                _ => ConsoleError::Io(error),
            })?;
        }
        Ok(())
    }

    /// Ends standard input. A process that was started to keep it open for later clients does not
    /// notice.
    ///
    /// # Errors
    /// [`ConsoleError::Io`].
    pub fn close_stdin(&self) -> Result<(), ConsoleError> {
        let mode = self.inner.mode;
        let Some(socket) = self.inner.socket.as_ref() else { return Ok(()) };
        // Without this condition later clients could not write any more, although the process
        // still reads.
        if !mode.open_stdin || !mode.stdin_once {
            return Ok(());
        }
        match socket.shutdown_write() {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => {
                Err(ConsoleError::Io(error))
            }
            _ => Ok(()),
        }
    }

    /// Sets the terminal's size, in characters. Of several requests in a short time only the last
    /// counts.
    ///
    /// # Errors
    /// [`ConsoleError::NoTerminal`], [`ConsoleError::Ended`], [`ConsoleError::Io`].
    pub async fn resize(&self, height: u16, width: u16) -> Result<(), ConsoleError> {
        if !self.inner.mode.tty {
            return Err(ConsoleError::NoTerminal);
        }
        if self.inner.socket.is_none() {
            return Err(ConsoleError::Ended);
        }
        self.inner.resizer.resize(height, width).await.map_err(|error| {
            // Nobody reads the pipe any more.
            if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error())
                || error.kind() == io::ErrorKind::NotFound
            {
                ConsoleError::Ended
            } else {
                ConsoleError::Io(error)
            }
        })
    }
}

impl Inner {
    async fn drain(&self) {
        let Some(socket) = self.socket.as_ref() else { return };
        let mut buffer = vec![0; OUTPUT_PACKET];
        loop {
            let length = match socket.recv(&mut buffer).await {
                Ok(0) => return,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
                Err(error) => {
                    tracing::warn!(%error, "reading a container's output failed");
                    return;
                }
            };
            let Some((first, bytes)) = buffer.get(..length).and_then(<[u8]>::split_first) else {
                return;
            };
            let stream = match *first {
                STDOUT_PIPE => StdStream::Stdout,
                STDERR_PIPE => StdStream::Stderr,
                _ => continue,
            };
            if !bytes.is_empty() && self.fanout.has_subscribers() {
                let chunk = OutputChunk { stream, bytes: Bytes::copy_from_slice(bytes) };
                self.fanout.send(&chunk).await;
            }
        }
    }
}
