//! A container's logs, from disk and as they come.

mod part;
mod reader;
mod record;
pub(crate) mod rotate;
mod tags;

use std::sync::Arc;
use std::time::Duration;

use brig_api::stream::StdStream;
use time::OffsetDateTime;
use tokio::sync::mpsc;

pub use self::reader::Tail;
use self::reader::{Batch, Reader};
pub use self::record::LogLine;
use super::Container;
use super::io::Subscription;
use crate::engine::Engine;
use crate::error::EngineError;

/// Lines that wait for a slow client.
const BUFFERED_LINES: usize = 256;
/// How often a followed log is looked at when nothing tells that there is more.
const POLL: Duration = Duration::from_millis(500);
/// The monitor writes the log and the console one after the other: look again shortly after a
/// console's output.
const SETTLE: Duration = Duration::from_millis(5);

/// Which lines of a log to read.
#[derive(Clone, Debug, Default)]
pub struct LogsRequest {
    /// Lines of the standard output.
    pub stdout: bool,
    /// Lines of the standard error.
    pub stderr: bool,
    /// Go on until the container stops.
    pub follow: bool,
    /// Where to begin.
    pub tail: Tail,
    /// Nothing older.
    pub since: Option<OffsetDateTime>,
    /// Nothing newer; with `follow`, the end.
    pub until: Option<OffsetDateTime>,
}

/// Lines of a log, as they are read.
#[derive(Debug)]
pub struct LogStream {
    /// Whether the container has a terminal: its output is one raw stream.
    pub tty: bool,
    /// The container's log tags for `details`, `k=v,k=v`.
    pub details: String,
    lines: mpsc::Receiver<LogLine>,
}

impl LogStream {
    /// The next line; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<LogLine> {
        self.lines.recv().await
    }
}

impl Engine {
    /// Reads a container's log.
    ///
    /// # Errors
    /// Unknown container, no stream chosen, a container that keeps no log, disk.
    pub async fn logs(&self, key: &str, request: LogsRequest) -> Result<LogStream, EngineError> {
        let container = self.registry().find(key)?;
        if !request.stdout && !request.stderr {
            return Err(EngineError::Invalid(
                "Bad parameters: you must choose at least one stream".to_owned(),
            ));
        }
        let record = container.record();
        if record.host_config.log_config.kind == "none" {
            return Err(EngineError::NotImplemented(
                "configured logging driver does not support reading",
            ));
        }
        let details = tags::details(&record);
        let lines = self.follow_log(&container, request).await?;
        Ok(LogStream { tty: record.config.tty, details, lines })
    }

    /// Reads a log in a task of its own, which ends when the receiver is dropped.
    pub(crate) async fn follow_log(
        &self,
        container: &Arc<Container>,
        request: LogsRequest,
    ) -> Result<mpsc::Receiver<LogLine>, EngineError> {
        let path = container.paths.log();
        let tail = request.tail;
        let (reader, batch) = self
            .blocking(move || {
                Reader::open(&path, tail)
                    .and_then(|mut reader| reader.next().map(|batch| (reader, batch)))
                    .map_err(|source| EngineError::disk("read", &path, source))
            })
            .await?;
        let (sender, receiver) = mpsc::channel(BUFFERED_LINES);
        let (engine, container) = (self.clone(), Arc::clone(container));
        self.spawn(async move {
            let stop = engine.child_token();
            tokio::select! {
                () = stop.cancelled() => {}
                () = sender.closed() => {}
                () = engine.pump_log(&container, request, reader, batch, &sender) => {}
            }
        });
        Ok(receiver)
    }

    async fn pump_log(
        &self,
        container: &Container,
        request: LogsRequest,
        mut reader: Reader,
        mut batch: Batch,
        sender: &mpsc::Sender<LogLine>,
    ) {
        let mut phase = container.phase.subscribe();
        let mut activity: Option<brig_runtime::ConsoleOutput> = None;
        // Seen down before a read that finds nothing more: the log is complete then.
        let mut down = !request.follow || !phase.borrow_and_update().up;
        let until = request.until.map(|until| until - OffsetDateTime::now_utc());
        let deadline = until
            .map(|left| tokio::time::Instant::now() + Duration::try_from(left).unwrap_or_default());
        loop {
            for line in std::mem::take(&mut batch.lines) {
                match select(&request, &line) {
                    Selection::Skip => {}
                    Selection::End => return,
                    Selection::Give => {
                        if sender.send(line).await.is_err() {
                            return;
                        }
                    }
                }
            }
            if batch.at_end {
                if down || deadline.is_some_and(|at| at <= tokio::time::Instant::now()) {
                    return;
                }
                if activity.is_none() {
                    activity = match container.cell().io.subscribe() {
                        Subscription::Now(output) => Some(output),
                        Subscription::Later(_) => None,
                    };
                }
                let nap = tokio::time::Instant::now() + POLL;
                let nap = deadline.map_or(nap, |deadline| deadline.min(nap));
                tokio::select! {
                    () = tokio::time::sleep_until(nap) => {}
                    _ = phase.changed() => {}
                    more = hear(&mut activity) => {
                        if !more {
                            activity = None;
                        }
                        tokio::time::sleep(SETTLE).await;
                    }
                }
                down = !phase.borrow_and_update().up;
            }
            let read = tokio::task::spawn_blocking(move || {
                let batch = reader.next();
                (reader, batch)
            })
            .await;
            match read {
                Ok((next_reader, Ok(next_batch))) => (reader, batch) = (next_reader, next_batch),
                Ok((_, Err(error))) => {
                    tracing::warn!(container = %container.id, %error, "a log cannot be read on");
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "reading a log was interrupted");
                    return;
                }
            }
        }
    }
}

/// Reads a container's log as it may lie on the disk; for fuzzing only.
#[cfg(feature = "fuzzing")]
pub fn fuzz_log(log: &[u8]) {
    for line in log.split(|byte| *byte == b'\n') {
        if let Some(record) = record::parse(line) {
            let _ = record::api_time(record.time);
        }
    }
}

/// Waits for output; for ever when there is no console. `false` when it ended.
async fn hear(activity: &mut Option<brig_runtime::ConsoleOutput>) -> bool {
    match activity {
        Some(output) => matches!(output.recv().await, Some(Ok(_))),
        None => std::future::pending().await,
    }
}

enum Selection {
    Skip,
    Give,
    End,
}

fn select(request: &LogsRequest, line: &LogLine) -> Selection {
    let wanted = match line.stream {
        StdStream::Stderr => request.stderr,
        StdStream::Stdin | StdStream::Stdout | StdStream::SystemErr => request.stdout,
    };
    if !wanted {
        return Selection::Skip;
    }
    if request.since.is_none() && request.until.is_none() {
        return Selection::Give;
    }
    let Ok(at) = brig_api::time::parse(&line.time) else { return Selection::Give };
    if request.until.is_some_and(|until| at > until) {
        return Selection::End;
    }
    if request.since.is_some_and(|since| at < since) { Selection::Skip } else { Selection::Give }
}
