//! An attached terminal: output to stdout and stderr, stdin to the container, the detach keys,
//! the terminal's size, signals.

use brig_api::stream::{FrameDecoder, StdStream};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::client::{Call, Client, Connection, Hijacked};
use crate::error::{Error, Result, message};
use crate::terminal::detach::{self, Filter};
use crate::terminal::stdin::Stdin;
use crate::terminal::writer::{Target, Writer};

/// Size of reads, in bytes.
const BUFFER: usize = 32 * 1024;

/// How an attached stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The other side closed it.
    Output,
    /// The detach keys were typed.
    Detached,
}

/// What of the local side is connected.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    /// Stdin is sent.
    pub(crate) stdin: bool,
    /// The container has a terminal: output is raw.
    pub(crate) tty: bool,
    /// The keys that detach, where there is a terminal.
    pub(crate) detach_keys: Option<String>,
}

/// Copies both ways until the output ends or the user detaches.
pub(crate) async fn run(hijacked: Hijacked, streams: &Streams) -> Result<Ended> {
    let writer = Writer::start()?;
    let Hijacked { first, reader, writer: input } = hijacked;
    let keys = if streams.tty && streams.stdin {
        detach::parse(streams.detach_keys.as_deref().unwrap_or(detach::DEFAULT))?
    } else {
        Vec::new()
    };
    let ended = {
        let output = copy_output(first, reader, streams.tty, &writer);
        let input = copy_input(input, streams.stdin, Filter::new(keys));
        tokio::pin!(output, input);
        let mut input_open = true;
        loop {
            tokio::select! {
                result = &mut output => {
                    result?;
                    break Ended::Output;
                }
                result = &mut input, if input_open => {
                    input_open = false;
                    if result? == Input::Detached {
                        break Ended::Detached;
                    }
                }
            }
        }
    };
    writer.finish().await?;
    Ok(ended)
}

async fn copy_output(
    first: Bytes,
    mut reader: ReadHalf<Connection>,
    tty: bool,
    writer: &Writer,
) -> Result<()> {
    let mut sink = Sink::new(tty, writer);
    if !sink.take(first).await? {
        return Ok(());
    }
    let mut buffer = vec![0; BUFFER];
    loop {
        let n = match reader.read(&mut buffer).await {
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(source) => return Err(Error::io("reading the container's output", source)),
        };
        let piece = buffer.get(..n).unwrap_or_default();
        if n == 0 || !sink.take(Bytes::copy_from_slice(piece)).await? {
            return Ok(());
        }
    }
}

/// Where output goes: raw to stdout, or by frames to both.
struct Sink<'a> {
    frames: Option<FrameDecoder>,
    writer: &'a Writer,
}

impl<'a> Sink<'a> {
    fn new(tty: bool, writer: &'a Writer) -> Self {
        Self { frames: (!tty).then(FrameDecoder::new), writer }
    }

    /// `false`: whoever reads our output has gone.
    async fn take(&mut self, piece: Bytes) -> Result<bool> {
        let Some(frames) = &mut self.frames else {
            return Ok(self.writer.write(Target::Stdout, piece).await);
        };
        frames.push(&piece);
        while let Some((stream, payload)) =
            frames.next_frame().map_err(|e| message(e.to_string()))?
        {
            let target = match stream {
                StdStream::Stdin | StdStream::Stdout => Target::Stdout,
                StdStream::Stderr => Target::Stderr,
                StdStream::SystemErr => {
                    return Err(message(format!(
                        "error from daemon in stream: {}",
                        String::from_utf8_lossy(&payload)
                    )));
                }
            };
            if !self.writer.write(target, payload).await {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Copies an answer's body (logs) to stdout and stderr.
pub(crate) async fn copy_frames(mut answer: crate::client::Answer<'_>, tty: bool) -> Result<()> {
    let writer = Writer::start()?;
    let mut sink = Sink::new(tty, &writer);
    while let Some(chunk) = answer.chunk().await? {
        if !sink.take(chunk).await? {
            break;
        }
    }
    writer.finish().await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Ended,
    Detached,
}

/// Sends stdin; without one, the container's is closed at once.
async fn copy_input(
    mut writer: WriteHalf<Connection>,
    stdin: bool,
    mut filter: Filter,
) -> Result<Input> {
    if stdin {
        let mut stdin = Stdin::open().map_err(|source| Error::io("opening stdin", source))?;
        while let Some(piece) =
            stdin.next().await.map_err(|source| Error::io("reading stdin", source))?
        {
            let (passed, detached) = filter.feed(&piece);
            // The container may close its side first: what it said still has to be read.
            if writer.write_all(&passed).await.is_err() {
                return Ok(Input::Ended);
            }
            if detached {
                return Ok(Input::Detached);
            }
        }
    }
    // Half-close: the other direction goes on.
    let _ = writer.shutdown().await;
    Ok(Input::Ended)
}

/// What has a terminal that can be resized.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resizable<'a> {
    /// A container.
    Container(&'a str),
    /// An exec.
    Exec(&'a str),
}

impl Resizable<'_> {
    fn path(&self) -> String {
        match self {
            Self::Container(id) => format!("/containers/{id}/resize"),
            Self::Exec(id) => format!("/exec/{id}/resize"),
        }
    }
}

/// Sends a size; a container that has just gone is no error.
pub(crate) async fn resize(
    client: &Client,
    target: Resizable<'_>,
    [height, width]: [u32; 2],
) -> Result<()> {
    if height == 0 && width == 0 {
        return Ok(());
    }
    client
        .none(
            Call::post(target.path()).query("h", height.to_string()).query("w", width.to_string()),
        )
        .await
}

/// Sends the terminal's size now and whenever it changes. Never ends.
pub(crate) async fn follow_size(client: &Client, target: Resizable<'_>) -> Result<()> {
    /// Docker's pause between attempts, and how many there are.
    const RETRY: (std::time::Duration, u32) = (std::time::Duration::from_millis(10), 10);
    let mut changes = signal(SignalKind::window_change())
        .map_err(|source| Error::io("watching the terminal", source))?;
    // The process may not be there yet.
    for _ in 0..RETRY.1 {
        if resize(client, target, crate::terminal::size()).await.is_ok() {
            break;
        }
        tokio::time::sleep(RETRY.0).await;
    }
    while changes.recv().await.is_some() {
        let _ = resize(client, target, crate::terminal::size()).await;
    }
    std::future::pending().await
}

/// Signals that are passed on, with docker's names.
const FORWARDED: [(i32, &str); 12] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (18, "CONT"),
    (20, "TSTP"),
    (28, "WINCH"),
    (29, "IO"),
    (30, "PWR"),
];

/// Signals as they arrive, by name. Created before the container starts, so that none is lost.
#[derive(Debug)]
pub(crate) struct Signals {
    names: mpsc::Receiver<&'static str>,
    _watchers: tokio::task::JoinSet<()>,
}

impl Signals {
    /// Watches all signals that are passed on.
    pub(crate) fn watch() -> Result<Self> {
        Self::watch_only(FORWARDED.iter())
    }

    /// Watches only what would end this process.
    pub(crate) fn watch_ending() -> Result<Self> {
        Self::watch_only(
            FORWARDED.iter().filter(|(_, name)| matches!(*name, "HUP" | "QUIT" | "TERM" | "INT")),
        )
    }

    fn watch_only<'a>(signals: impl Iterator<Item = &'a (i32, &'static str)>) -> Result<Self> {
        let (sender, names) = mpsc::channel(16);
        let mut watchers = tokio::task::JoinSet::new();
        for &(number, name) in signals {
            let mut stream = signal(SignalKind::from_raw(number))
                .map_err(|source| Error::io("watching signals", source))?;
            let sender = sender.clone();
            watchers.spawn(async move {
                while stream.recv().await.is_some() && sender.send(name).await.is_ok() {}
            });
        }
        Ok(Self { names, _watchers: watchers })
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> &'static str {
        match self.names.recv().await {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }

    /// Passes signals on to a container. Never ends.
    pub(crate) async fn forward(&mut self, client: &Client, container: &str) -> Result<()> {
        loop {
            let name = self.next().await;
            let call = Call::post(format!("/containers/{container}/kill")).query("signal", name);
            // A container that has just ended cannot be killed any more.
            if let Err(error @ (Error::Connect { .. } | Error::Http { .. })) =
                client.none(call).await
            {
                return Err(error);
            }
        }
    }

    /// Ends with an error at the first signal, so that the terminal is put back on the way out.
    pub(crate) async fn end(&mut self) -> Result<()> {
        let name = self.next().await;
        let number =
            FORWARDED.iter().find(|(_, known)| *known == name).map_or(0, |(number, _)| *number);
        Err(Error::Status(u8::try_from(128 + number).unwrap_or(1)))
    }
}
