//! Streaming a layer to whoever unpacks it, going on where a broken transfer stopped.

use std::time::Duration;

use brig_types::error::{Categorized, ErrorKind};
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::session::Session;
use crate::error::RegistryError;
use crate::manifest::Descriptor;
use crate::progress::LayerState;
use crate::unpack::stream::Chunk;

/// Time between two reports of progress.
const REPORT_EVERY: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// One layer on its way.
pub(crate) struct Transfer<'a> {
    pub(crate) session: &'a Session<'a>,
    pub(crate) layer: &'a Descriptor,
    pub(crate) report: &'a (dyn Fn(LayerState) + Send + Sync),
}

/// Why one attempt ended early.
enum Stop {
    /// Worth another attempt.
    Broken(RegistryError),
    /// Not worth one.
    Final(RegistryError),
    /// Nobody reads any more; the reader knows why.
    Unwanted,
}

impl Transfer<'_> {
    /// Sends the layer's bytes and its end into `sink`. Returns whether all of it was sent: a
    /// closed sink is its reader's error.
    ///
    /// Dropping the future closes the sink without an end.
    pub(crate) async fn run(self, sink: mpsc::Sender<Chunk>) -> Result<bool, RegistryError> {
        let settings = self.session.client().settings();
        let mut offset = 0_u64;
        let mut attempt = 0_u32;
        let mut pause = settings.retry_pause;
        loop {
            let before = offset;
            match self.attempt(&mut offset, &sink).await {
                Ok(()) => return Ok(sink.send(Chunk::End).await.is_ok()),
                Err(Stop::Unwanted) => return Ok(false),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Broken(error)) => {
                    if offset > before {
                        // It moves: only attempts without any progress count.
                        attempt = 0;
                        pause = settings.retry_pause;
                    }
                    attempt += 1;
                    if attempt >= settings.download_attempts.max(1) {
                        return Err(error);
                    }
                    tracing::debug!(
                        digest = %self.layer.digest,
                        offset,
                        error = %brig_types::error::chain(&error),
                        "layer transfer broke off"
                    );
                    (self.report)(LayerState::Retrying {
                        seconds: u64::try_from(pause.as_millis().div_ceil(1000)).unwrap_or(1),
                    });
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = sink.closed() => return Ok(false),
                    }
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }

    async fn attempt(&self, offset: &mut u64, sink: &mpsc::Sender<Chunk>) -> Result<(), Stop> {
        let size = self.layer.size;
        if *offset >= size {
            return Ok(());
        }
        let mut response = match self.session.open_blob(&self.layer.digest, *offset).await {
            Ok(response) => response,
            Err(error) if is_passing(&error) => return Err(Stop::Broken(error)),
            Err(error) => return Err(Stop::Final(error)),
        };
        let mut skip = self.skip(&response, *offset)?;
        let url = response.url().to_string();
        let mut reported = Instant::now();
        self.report_at(*offset);
        loop {
            let chunk = match response.chunk().await {
                Ok(chunk) => chunk,
                Err(source) => {
                    let source = source.without_url();
                    return Err(Stop::Broken(RegistryError::Request {
                        method: "Get",
                        url,
                        source,
                    }));
                }
            };
            let Some(mut chunk) = chunk else { break };
            if skip > 0 {
                let drop = chunk.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
                let _ = chunk.split_to(drop);
                skip -= u64::try_from(drop).unwrap_or(skip);
            }
            if chunk.is_empty() {
                continue;
            }
            let length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
            let reached = offset.saturating_add(length);
            if reached > size {
                return Err(Stop::Final(RegistryError::WrongSize {
                    what: "layer",
                    expected: size,
                    actual: reached,
                }));
            }
            if sink.send(Chunk::Data(chunk)).await.is_err() {
                return Err(Stop::Unwanted);
            }
            *offset = reached;
            if reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                self.report_at(*offset);
            }
        }
        if *offset < size {
            let digest = self.layer.digest.clone();
            return Err(Stop::Broken(RegistryError::Broken { digest, at: *offset, size }));
        }
        self.report_at(*offset);
        Ok(())
    }

    /// How many bytes of the answer are known already: none if the registry honours ranges.
    fn skip(&self, response: &Response, offset: u64) -> Result<u64, Stop> {
        if response.status() != StatusCode::PARTIAL_CONTENT {
            let whole = response.content_length();
            if let Some(actual) = whole.filter(|&actual| actual != self.layer.size) {
                return Err(Stop::Final(RegistryError::WrongSize {
                    what: "layer",
                    expected: self.layer.size,
                    actual,
                }));
            }
            return Ok(offset);
        }
        let range = response
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let from = range
            .strip_prefix("bytes ")
            .and_then(|rest| rest.split('-').next())
            .and_then(|from| from.parse::<u64>().ok());
        if from == Some(offset) {
            return Ok(0);
        }
        let range: String = range.chars().take(80).collect();
        Err(Stop::Final(RegistryError::Invalid(format!("unexpected content range {range:?}"))))
    }

    fn report_at(&self, current: u64) {
        (self.report)(LayerState::Downloading { current, total: self.layer.size });
    }
}

/// Whether the same request may do better a little later.
pub(super) fn is_passing(error: &RegistryError) -> bool {
    match error {
        RegistryError::Request { .. }
        | RegistryError::NoAnswer { .. }
        | RegistryError::Broken { .. }
        | RegistryError::TooManyRequests(_) => true,
        RegistryError::Status { status, .. } => status.starts_with('5'),
        other => other.kind() == ErrorKind::Unavailable,
    }
}
