//! Connections that turn into a process's input and output (attach, exec).

use std::pin::pin;
use std::time::Duration;

use brig_api::stream::{StdStream, encode_frame};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{HeaderValue, StatusCode, header};
use hyper::ext::ReasonPhrase;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::body::{self, MULTIPLEXED_STREAM, RAW_STREAM, Response};
use super::call::Call;
use super::error::ApiError;
use super::peer::PeerWatch;

/// Bytes of input taken at a time.
pub(super) const INPUT_CHUNK: usize = 32 << 10;

/// How long a process may leave the input of a client that is gone unread.
const LINGER: Duration = Duration::from_secs(10);

/// What became of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is on its way to the process.
    Forwarded,
    /// Nobody reads it any more.
    Closed,
    /// The client typed the keys that let it go.
    Detached,
}

/// Where a client's input goes.
pub trait Input: Send + 'static {
    /// Hands over bytes.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Taken> + Send;
    /// The client has no more input.
    fn end(self) -> impl Future<Output = ()> + Send;
}

/// Output of a process, by stream.
pub type Chunk = (StdStream, Bytes);

/// Bytes on the wire: raw for a terminal, else in frames.
#[must_use]
pub fn encode(tty: bool, (stream, bytes): &Chunk) -> Bytes {
    if tty { bytes.clone() } else { encode_frame(*stream, bytes) }
}

/// The media type of a process's output.
#[must_use]
pub fn media_type(call: &Call, tty: bool) -> HeaderValue {
    // COMPAT: before 1.42 clients knew frames from the container's configuration alone.
    if !tty && call.speaks(1, 42) { MULTIPLEXED_STREAM } else { RAW_STREAM }
}

/// Connects the client with a process.
///
/// A client that asked for an upgrade gets `101 UPGRADED` and both directions; one that did not
/// gets `200 OK` with the output as the body, and its request's body is the input.
///
/// `process` is what gives them. The upgrade's answer does not wait for it, and without a client
/// that takes the answer it is dropped.
///
/// # Errors
/// When the request's body can't be read.
pub async fn connect<P, I, O>(mut call: Call, tty: bool, process: P) -> Result<Response, ApiError>
where
    P: Future<Output = (Option<I>, O)> + Send + 'static,
    I: Input,
    O: Stream<Item = Chunk> + Send + 'static,
{
    let media_type = media_type(&call, tty);
    let process = async move {
        let (input, output) = process.await;
        (input, output.map(move |chunk| encode(tty, &chunk)))
    };
    let stop = call.state.stop.clone();
    let Some(upgrade) = call.upgrade.take() else {
        let (input, output) = process.await;
        if let Some(input) = input {
            let reader = call.reader();
            let peer = call.peer.clone();
            call.state.tasks.spawn(async move {
                stop.run_until_cancelled(feed(reader, Some(input), &peer)).await;
            });
        }
        let stop = call.state.stop.clone();
        return Ok(body::stream(Some(media_type), output.map(Ok), stop));
    };
    call.drain_body().await?;
    let peer = call.peer.clone();
    // COMPAT: docker's SDK for Python drops what it read together with the answer's head.
    let head_first = call.header("user-agent").is_some_and(drops_early_output);
    call.state.tasks.spawn(async move {
        upgraded(upgrade, head_first, process, peer, stop).await;
    });
    let mut response = body::empty(StatusCode::SWITCHING_PROTOCOLS);
    response.extensions_mut().insert(ReasonPhrase::from_static(b"UPGRADED"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    Ok(response)
}

fn drops_early_output(agent: &str) -> bool {
    ["docker-sdk-python/", "docker-py/", "docker-compose/1."]
        .iter()
        .any(|name| agent.starts_with(name))
}

async fn upgraded<I: Input, O: Stream<Item = Bytes> + Send>(
    upgrade: OnUpgrade,
    head_first: bool,
    process: impl Future<Output = (Option<I>, O)>,
    peer: PeerWatch,
    stop: CancellationToken,
) {
    match upgrade.await {
        Ok(connection) => {
            // The head is sent by now. Its reader catches up while the process starts.
            let caught_up = async {
                if head_first {
                    peer.caught_up().await;
                }
            };
            let both = async { tokio::join!(process, caught_up) };
            let Some(((input, output), ())) = stop.run_until_cancelled(both).await else { return };
            let (reader, writer) = tokio::io::split(TokioIo::new(connection));
            pump(reader, writer, input, output, peer, stop).await;
        }
        // The client left before it had the answer.
        Err(error) => tracing::debug!(%error, "connection was not upgraded"),
    }
}

/// Copies both ways until the output ends, the client is gone, or the daemon stops.
async fn pump<I: Input>(
    reader: impl AsyncRead + Send + Unpin,
    mut writer: impl AsyncWrite + Send + Unpin,
    input: Option<I>,
    output: impl Stream<Item = Bytes> + Send,
    peer: PeerWatch,
    stop: CancellationToken,
) {
    let mut output = pin!(output);
    let send = async {
        while let Some(bytes) = output.next().await {
            if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                break;
            }
        }
    };
    let receive = async {
        if feed(reader, input, &peer).await == Taken::Detached {
            return;
        }
        // The client may have closed only its sending side, and still listen.
        peer.gone().await;
    };
    let unwelcome = async {
        peer.unwelcome().await;
        peer.sever_if_unwelcome();
    };
    tokio::select! {
        () = send => {}
        () = receive => {}
        () = unwelcome => {}
        () = stop.cancelled() => {}
    }
    // Fails only when the client is gone, which is as good.
    let _ = writer.shutdown().await;
}

/// Copies a client's input until its end, or until the client is let go.
///
/// Without a process that takes it, input is read and dropped, so that the end is seen. A process
/// that reads nothing keeps its client's input waiting, but not longer than [`LINGER`] once the
/// client is gone.
pub(super) async fn feed<I: Input>(
    mut reader: impl AsyncRead + Send + Unpin,
    mut input: Option<I>,
    peer: &PeerWatch,
) -> Taken {
    let left_behind = || async {
        peer.gone().await;
        tokio::time::sleep(LINGER).await;
    };
    let mut buffer = bytes::BytesMut::with_capacity(INPUT_CHUNK);
    loop {
        buffer.reserve(INPUT_CHUNK);
        match reader.read_buf(&mut buffer).await {
            // A client that vanishes has no more input, as one that ends it.
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let bytes = buffer.split().freeze();
        let Some(process) = &mut input else { continue };
        let taken = tokio::select! {
            taken = process.write(bytes) => taken,
            () = left_behind() => break,
        };
        match taken {
            Taken::Forwarded => {}
            Taken::Closed => input = None,
            Taken::Detached => return Taken::Detached,
        }
    }
    if let Some(process) = input {
        tokio::select! {
            () = process.end() => {}
            () = left_behind() => {}
        }
    }
    Taken::Closed
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_util::stream;
    use tokio::net::UnixStream;
    use tokio::task::JoinSet;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    /// A process: takes input if it reads, and remembers it.
    #[derive(Clone, Default)]
    struct Process {
        reads: bool,
        got: Arc<Mutex<Vec<u8>>>,
        ended: Arc<Mutex<bool>>,
    }

    impl Input for Process {
        async fn write(&mut self, bytes: Bytes) -> Taken {
            if !self.reads {
                std::future::pending::<()>().await;
            }
            self.got.lock().unwrap().extend_from_slice(&bytes);
            Taken::Forwarded
        }

        async fn end(self) {
            *self.ended.lock().unwrap() = true;
        }
    }

    fn run(
        process: Process,
        output: impl Stream<Item = Bytes> + Send + 'static,
    ) -> (JoinSet<()>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let peer = PeerWatch::local(&ours, super::super::pool::a_place()).unwrap();
        let (reader, writer) = ours.into_split();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(pump(reader, writer, Some(process), output, peer, stop));
        (tasks, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_left_is_noticed_though_the_process_reads_and_prints_nothing() {
        let process = Process::default();
        let ended = Arc::clone(&process.ended);
        let (mut pump, mut client) = run(process, stream::pending());
        client.write_all(b"never read").await.unwrap();
        assert!(
            tokio::time::timeout(LONG, pump.join_next()).await.is_err(),
            "a client that is there may wait as long as it likes"
        );
        drop(client);
        tokio::time::timeout(LONG, pump.join_next()).await.unwrap().unwrap().unwrap();
        assert!(*ended.lock().unwrap(), "and its input ends");
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_close_ends_the_input_only() {
        let process = Process { reads: true, ..Process::default() };
        let (got, ended) = (Arc::clone(&process.got), Arc::clone(&process.ended));
        let told = Arc::clone(&ended);
        // Answers once it has read to the end, a good while later.
        let output = stream::once(async move {
            while !*told.lock().unwrap() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            tokio::time::sleep(3 * LINGER).await;
            Bytes::from_static(b"answer")
        });
        let (mut pump, mut client) = run(process, output);
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        assert_eq!(*got.lock().unwrap(), b"question");
        pump.join_next().await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_sent_before_it_left_arrives() {
        let process = Process { reads: true, ..Process::default() };
        let got = Arc::clone(&process.got);
        let (mut pump, mut client) = run(process, stream::pending());
        client.write_all(&[7; 100_000]).await.unwrap();
        drop(client);
        tokio::time::timeout(LONG, pump.join_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(got.lock().unwrap().len(), 100_000);
    }
}
