//! What a client still sends when its answer is ready.
//!
//! A request may be refused before its body was read. A connection that is closed at that moment
//! fails the client's write, and many clients then tell of a broken pipe instead of the reason for
//! the refusal. So a body that a handler let go of is read away first, as far as it is short.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::oneshot;

/// Most bytes that are read away.
const MAX_BYTES: u64 = 256 << 10;
/// Longest time for it.
const MAX_TIME: Duration = Duration::from_millis(500);

/// A request's body, which comes back when it is dropped before its end.
#[derive(Debug)]
pub(super) struct RequestBody {
    incoming: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
    /// Set when it is dropped before its end.
    cut_short: Arc<AtomicBool>,
}

/// Where a body comes back to.
#[derive(Debug)]
pub(super) struct Unread(Option<oneshot::Receiver<Incoming>>);

/// Parts a body from what will be left of it.
pub(super) fn split(
    incoming: Incoming,
    headers: &HeaderMap,
    cut_short: Arc<AtomicBool>,
) -> (RequestBody, Unread) {
    // Who waits to be asked for the body has not begun to send it.
    if incoming.is_end_stream() || headers.contains_key(header::EXPECT) {
        return (RequestBody { incoming: Some(incoming), back: None, cut_short }, Unread(None));
    }
    let (back, left) = oneshot::channel();
    (RequestBody { incoming: Some(incoming), back: Some(back), cut_short }, Unread(Some(left)))
}

impl Unread {
    /// Reads away what was left, if anything came back and it is not much.
    pub(super) async fn drain(self) {
        let Some(Ok(mut body)) = self.0.map(|mut left| left.try_recv()) else {
            return;
        };
        if body.size_hint().lower() > MAX_BYTES {
            return;
        }
        let read = async {
            let mut rest = MAX_BYTES;
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                match rest.checked_sub(length as u64) {
                    Some(left) => rest = left,
                    None => break,
                }
            }
        };
        // Too slow is as good as too long: the answer goes out without it.
        let _ = tokio::time::timeout(MAX_TIME, read).await;
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(incoming), Some(back)) = (self.incoming.take(), self.back.take())
            && !incoming.is_end_stream()
        {
            self.cut_short.store(true, Ordering::Relaxed);
            // Nobody waits for it any more when the connection is gone.
            let _ = back.send(incoming);
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.incoming {
            Some(incoming) => Pin::new(incoming).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}
