//! Streams of JSON lines for work that takes time: pull, load, import.

use std::future::Future;

use brig_api::progress::{JsonMessage, ProgressDetail};
use brig_image::{LayerState, Progress};
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::server::body::{self, JSON};
use crate::server::{ApiError, Response};
use crate::state::AppState;

/// Lines that wait for a slow client.
const PENDING_LINES: usize = 4096;
/// Room that lines with mere numbers leave to those that say something.
const RESERVED_LINES: usize = 3072;

/// Sends lines to the client.
#[derive(Clone, Debug)]
pub struct Lines(mpsc::Sender<JsonMessage>);

impl Lines {
    /// Sends a line, waiting for a slow client.
    pub async fn send(&self, line: JsonMessage) {
        // A client that is gone ends the work by itself.
        let _ = self.0.send(line).await;
    }

    /// Sends a step of an image's way; never waits.
    pub fn report(&self, progress: &Progress) {
        let moving = matches!(progress, Progress::Layer { state, .. } if state.bytes().is_some());
        for line in lines_of(progress) {
            if (moving && self.0.capacity() <= RESERVED_LINES) || self.0.try_send(line).is_err() {
                tracing::trace!("a progress line was left out");
            }
        }
    }
}

/// Runs `work` and streams its lines. The answer begins with the first line: an error before it
/// is an ordinary error answer, a later one the stream's last line.
///
/// The work ends when the client hangs up, as docker's does.
///
/// # Errors
/// What `work` fails with before its first line.
pub async fn stream<F, W>(state: &AppState, work: F) -> Result<Response, ApiError>
where
    F: FnOnce(Lines) -> W,
    W: Future<Output = Result<(), ApiError>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(PENDING_LINES);
    let worker = AbortOnDropHandle::new(state.tasks.spawn(work(Lines(sender))));
    let first = match receiver.recv().await {
        Some(line) => line,
        None => {
            finish(worker).await?;
            return Ok(body::stream(Some(JSON), stream::empty(), state.stop.clone()));
        }
    };
    let rest = stream::unfold(Some((receiver, worker)), |progress| async move {
        let (mut receiver, worker) = progress?;
        match receiver.recv().await {
            Some(line) => Some((line, Some((receiver, worker)))),
            None => match finish(worker).await {
                Ok(()) => None,
                Err(error) => {
                    let code = i64::from(error.status().as_u16());
                    Some((JsonMessage::error(code, error.message()), None))
                }
            },
        }
    });
    let lines = stream::iter([first]).chain(rest).map(|line| Ok(line.to_line()));
    Ok(body::stream(Some(JSON), lines, state.stop.clone()))
}

async fn finish(worker: AbortOnDropHandle<Result<(), ApiError>>) -> Result<(), ApiError> {
    worker.await.unwrap_or_else(|_| Err(ApiError::system("the work ended unexpectedly")))
}

/// The lines that docker shows for a step.
fn lines_of(progress: &Progress) -> Vec<JsonMessage> {
    match progress {
        Progress::PullingFrom { repository, tag } => {
            vec![JsonMessage::status(tag, format!("Pulling from {repository}"))]
        }
        Progress::PushingTo { repository } => {
            vec![JsonMessage::status("", format!("The push refers to repository [{repository}]"))]
        }
        Progress::Pushed { tag, digest, size } => vec![
            JsonMessage::status("", format!("{tag}: digest: {digest} size: {size}")),
            JsonMessage {
                progress_detail: Some(ProgressDetail::default()),
                aux: Some(serde_json::json!({
                    "Tag": tag, "Digest": digest.as_str(), "Size": size,
                })),
                ..JsonMessage::default()
            },
        ],
        Progress::Mounted { id, from } => {
            vec![JsonMessage::state(id, format!("Mounted from {from}"))]
        }
        Progress::Layer { id, state } => vec![layer_line(id, state)],
        Progress::Digest(digest) => vec![JsonMessage::status("", format!("Digest: {digest}"))],
        Progress::Done { reference, up_to_date: true } => {
            vec![JsonMessage::status("", format!("Status: Image is up to date for {reference}"))]
        }
        Progress::Done { reference, up_to_date: false } => {
            vec![JsonMessage::status("", format!("Status: Downloaded newer image for {reference}"))]
        }
        Progress::Renamed { reference, old } => vec![JsonMessage::stream(format!(
            "The image {} already exists, renaming the old one with ID {old} to empty string\n",
            reference.familiar()
        ))],
    }
}

fn layer_line(id: &str, state: &LayerState) -> JsonMessage {
    match state.bytes() {
        Some((current, total)) => JsonMessage::progress(id, state.status(), current, total),
        None => JsonMessage::state(id, state.status()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(progress: &Progress) -> String {
        lines_of(progress)
            .iter()
            .map(|line| String::from_utf8(line.to_line().to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn the_lines_are_dockers() {
        let from = Progress::PullingFrom { repository: "lay".into(), tag: "1".into() };
        assert_eq!(text(&from), "{\"status\":\"Pulling from lay\",\"id\":\"1\"}\r\n");
        let id = "0dcc68f6b88d".to_owned();
        let layer = Progress::Layer { id: id.clone(), state: LayerState::PullComplete };
        assert_eq!(
            text(&layer),
            "{\"status\":\"Pull complete\",\"progressDetail\":{},\"id\":\"0dcc68f6b88d\"}\r\n"
        );
        let state = LayerState::Downloading { current: 131_072, total: 10_489_230 };
        let line = text(&Progress::Layer { id, state });
        assert!(line.contains("131.1kB/10.49MB"), "{line}");
        let done = Progress::Done { reference: "127.0.0.1:5000/lay:1".into(), up_to_date: false };
        assert_eq!(
            text(&done),
            "{\"status\":\"Status: Downloaded newer image for 127.0.0.1:5000/lay:1\"}\r\n"
        );
    }
}
