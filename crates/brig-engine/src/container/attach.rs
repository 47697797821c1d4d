//! Attaching a client to a container's or an exec's input and output.

use std::sync::Arc;

use brig_api::stream::StdStream;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::detach_keys::{DetachFilter, DetachKeys};
use super::io::{IoSession, IoState};
use super::logs::{LogsRequest, Tail};
use crate::engine::Engine;
use crate::error::EngineError;

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputChunk {
    /// Which stream it was written to; a terminal has only one.
    pub stream: StdStream,
    /// What was written.
    pub bytes: Bytes,
}

impl From<brig_runtime::OutputChunk> for OutputChunk {
    fn from(chunk: brig_runtime::OutputChunk) -> Self {
        let stream = match chunk.stream {
            brig_runtime::StdStream::Stdout => StdStream::Stdout,
            brig_runtime::StdStream::Stderr => StdStream::Stderr,
        };
        Self { stream, bytes: chunk.bytes }
    }
}

/// Chunks that wait for a slow client.
const BUFFERED_CHUNKS: usize = 64;

/// What a client wants to be attached to.
#[derive(Clone, Debug, Default)]
pub struct AttachRequest {
    /// Send input.
    pub stdin: bool,
    /// Get the standard output.
    pub stdout: bool,
    /// Get the standard error.
    pub stderr: bool,
    /// What was printed before comes first.
    pub logs: bool,
    /// Go on with what comes; without it only the past is given.
    pub stream: bool,
    /// Keys that detach; empty: none.
    pub detach_keys: String,
}

/// A client's end of an attachment.
#[derive(Debug)]
pub struct AttachedStreams {
    /// Whether there is a terminal: the output is one raw stream.
    pub tty: bool,
    /// The output; it ends with the run.
    pub output: mpsc::Receiver<OutputChunk>,
    /// The input, if it was asked for and the process has one.
    pub input: Option<StdinWriter>,
}

/// When an output that has nothing more to say ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastByte {
    /// With its last byte.
    AtOnce,
    /// When the exit code is known too: clients ask for it as soon as the output has ended.
    WithExit,
}

/// What became of written input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It went to the process.
    Forwarded,
    /// The detach keys were in it: the client is to be let go.
    Detached,
    /// The process takes none any more.
    Closed,
}

/// A client's way to a process's standard input.
#[derive(Debug)]
pub struct StdinWriter {
    state: watch::Receiver<IoState>,
    filter: Option<DetachFilter>,
    /// The end of this client's input is the end of the process's.
    close_on_eof: bool,
    on_detach: OnDetach,
}

/// Tells the engine that a client detached.
struct OnDetach(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for OnDetach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnDetach")
    }
}

impl StdinWriter {
    pub(crate) fn new(
        session: &IoSession,
        keys: Option<DetachKeys>,
        close_on_eof: bool,
        on_detach: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            state: session.state(),
            filter: keys.map(DetachFilter::new),
            close_on_eof,
            on_detach: OnDetach(Box::new(on_detach)),
        }
    }

    async fn console(&mut self) -> Option<brig_runtime::Console> {
        let state = self.state.wait_for(|state| !matches!(state, IoState::Waiting)).await.ok()?;
        match &*state {
            IoState::Live(console) => Some(console.clone()),
            IoState::Waiting | IoState::Ended => None,
        }
    }

    /// Writes input; waits for the process to be started, and for room. Not cancel safe: what was
    /// partly written is lost.
    pub async fn write(&mut self, input: Bytes) -> Written {
        let (input, detach) = match &mut self.filter {
            Some(filter) => {
                let filtered = filter.feed(&input);
                (Bytes::from(filtered.forward), filtered.detach)
            }
            None => (input, false),
        };
        if !input.is_empty() {
            let Some(console) = self.console().await else { return Written::Closed };
            if let Err(error) = console.write_stdin(&input).await {
                tracing::debug!(%error, "input for a process that takes none");
                return Written::Closed;
            }
        }
        if detach {
            (self.on_detach.0)();
            return Written::Detached;
        }
        Written::Forwarded
    }

    /// The client's input ended. The process's ends too where docker says so.
    pub async fn finish(mut self) {
        if !self.close_on_eof {
            return;
        }
        if let Some(console) = self.console().await
            && let Err(error) = console.close_stdin()
        {
            tracing::debug!(%error, "an input that was closed already");
        }
    }
}

impl Engine {
    /// Attaches to a container, running or about to be started.
    ///
    /// # Errors
    /// Unknown container, paused or restarting, bad detach keys.
    pub async fn attach(
        &self,
        key: &str,
        request: AttachRequest,
    ) -> Result<AttachedStreams, EngineError> {
        let container = self.registry().find(key)?;
        let keys = DetachKeys::parse(&request.detach_keys)?;
        let record = container.record();
        match record.state.status {
            super::state::Status::Paused => {
                return Err(EngineError::Conflict(format!(
                    "Container {} is paused, unpause the container before attach.",
                    container.id
                )));
            }
            super::state::Status::Restarting => {
                return Err(EngineError::Conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    container.id
                )));
            }
            _ => {}
        }
        let session = Arc::clone(&container.cell().io);
        // A container that never ran has no past, and its log would end at once.
        let past = request.logs
            && !(request.stream && record.state.status == super::state::Status::Created);
        let output = if past {
            // By way of the log, which has past and present without gap or repetition.
            let logs = LogsRequest {
                stdout: request.stdout,
                stderr: request.stderr,
                follow: request.stream,
                tail: Tail::All,
                since: None,
                until: None,
            };
            let mut lines = self.follow_log(&container, logs).await?;
            let (sender, receiver) = mpsc::channel(BUFFERED_CHUNKS);
            self.spawn(async move {
                loop {
                    let line = tokio::select! {
                        line = lines.recv() => line,
                        // Of a silent container no line tells that the client is gone.
                        () = sender.closed() => return,
                    };
                    let Some(line) = line else { return };
                    let chunk = OutputChunk { stream: line.stream, bytes: line.data };
                    if sender.send(chunk).await.is_err() {
                        return;
                    }
                }
            });
            receiver
        } else if request.stream {
            self.pump_output(&session, request.stdout, request.stderr, LastByte::AtOnce)
        } else {
            mpsc::channel(1).1
        };
        let input = (request.stdin && request.stream && record.config.open_stdin).then(|| {
            let (engine, this) = (self.clone(), Arc::clone(&container));
            let once = record.config.stdin_once && !record.config.tty;
            StdinWriter::new(&session, keys, once, move || {
                engine.container_event(&this, "detach", &[]);
            })
        });
        self.container_event(&container, "attach", &[]);
        Ok(AttachedStreams { tty: record.config.tty, output, input })
    }

    /// Hands a session's output on, from before its start if it lies ahead.
    pub(crate) fn pump_output(
        &self,
        session: &IoSession,
        stdout: bool,
        stderr: bool,
        last: LastByte,
    ) -> mpsc::Receiver<OutputChunk> {
        let subscription = session.subscribe();
        let mut state = session.state();
        let (sender, receiver) = mpsc::channel(BUFFERED_CHUNKS);
        let stop = self.child_token();
        self.spawn(async move {
            let pump = async {
                let Some(mut output) = subscription.ready().await else { return };
                while let Some(chunk) = output.recv().await {
                    let chunk = match chunk {
                        Ok(chunk) => OutputChunk::from(chunk),
                        Err(error) => {
                            tracing::info!(%error, "a client was cut off");
                            return;
                        }
                    };
                    let wanted = match chunk.stream {
                        StdStream::Stderr => stderr,
                        StdStream::Stdin | StdStream::Stdout | StdStream::SystemErr => stdout,
                    };
                    if wanted && sender.send(chunk).await.is_err() {
                        return;
                    }
                }
                if last == LastByte::WithExit {
                    // An error means that the session is gone, which is an end too.
                    let _ = state.wait_for(|state| matches!(state, IoState::Ended)).await;
                }
            };
            tokio::select! {
                () = pump => {}
                () = sender.closed() => {}
                () = stop.cancelled() => {}
            }
        });
        receiver
    }

    /// Tells a container's terminal its size in characters.
    ///
    /// # Errors
    /// Unknown container, not running; the monitor.
    pub async fn resize(&self, key: &str, height: u16, width: u16) -> Result<(), EngineError> {
        let container = self.registry().find(key)?;
        let console =
            container.console().ok_or_else(|| EngineError::NotRunning(container.id.to_string()))?;
        match console.resize(height, width).await {
            // COMPAT: clients resize without asking whether there is a terminal.
            Ok(()) | Err(brig_runtime::ConsoleError::NoTerminal) => {}
            Err(error) => return Err(error.into()),
        }
        self.container_event(
            &container,
            "resize",
            &[("height", height.to_string()), ("width", width.to_string())],
        );
        Ok(())
    }
}
