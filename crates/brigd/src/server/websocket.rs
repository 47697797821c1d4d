//! Attaching over a websocket (RFC 6455), for clients that can't take over a connection.
//!
//! A process's input and output have no messages: payloads go on as they come, whatever frames
//! they were in, and nothing is collected but the headers and control frames.

use std::future::pending;
use std::pin::pin;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::body::{self, Response};
use super::call::Call;
use super::error::ApiError;
use super::hijack::{Chunk, INPUT_CHUNK, Input, feed};
use super::peer::PeerWatch;

/// Longest payload of a control frame.
const MAX_CONTROL: usize = 125;
/// Pongs that wait for the writer; a client that sends more pings than it reads waits itself.
const PONGS: usize = 4;
/// Code for an orderly end.
const NORMAL: u16 = 1000;
/// Code for a client that breaks the protocol.
const VIOLATION: u16 = 1002;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Connects the client with a process: payloads both ways, output of both kinds mixed.
///
/// # Errors
/// When the request is no websocket handshake.
pub async fn connect<I, O>(
    mut call: Call,
    input: Option<I>,
    output: O,
) -> Result<Response, ApiError>
where
    I: Input,
    O: Stream<Item = Chunk> + Send + 'static,
{
    let accept = handshake(&call.headers)
        .ok_or_else(|| ApiError::invalid("this is no websocket handshake of version 13"))?;
    let upgrade = call
        .upgrade
        .take()
        .ok_or_else(|| ApiError::invalid("this connection can't become a websocket"))?;
    // COMPAT: docker sends text frames, whatever is in them, to clients before 1.28.
    let kind = if call.speaks(1, 28) { BINARY } else { TEXT };
    let output = output.map(move |(_, bytes)| frame(kind, &bytes));
    let (peer, stop) = (call.peer.clone(), call.state.stop.clone());
    call.state.tasks.spawn(upgraded(upgrade, input, output, peer, stop));
    let mut response = body::empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

/// The answer to a client's handshake.
fn handshake(headers: &HeaderMap) -> Option<HeaderValue> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let upgrade = text(header::UPGRADE)?;
    if !upgrade.eq_ignore_ascii_case("websocket")
        || text(header::SEC_WEBSOCKET_VERSION)?.trim() != "13"
    {
        return None;
    }
    let key = text(header::SEC_WEBSOCKET_KEY)?.trim();
    // Sixteen random bytes, as the protocol has them.
    if STANDARD.decode(key).ok()?.len() != 16 {
        return None;
    }
    HeaderValue::from_str(&STANDARD.encode(brig_pki::hash::websocket_accept(key))).ok()
}

async fn upgraded<I: Input>(
    upgrade: OnUpgrade,
    input: Option<I>,
    output: impl Stream<Item = Bytes> + Send,
    peer: PeerWatch,
    stop: CancellationToken,
) {
    let connection = match upgrade.await {
        Ok(connection) => connection,
        Err(error) => {
            // The client left before it had the answer.
            tracing::debug!(%error, "connection was not upgraded");
            return;
        }
    };
    let (reader, mut writer) = tokio::io::split(TokioIo::new(connection));
    let (pipe, process) = tokio::io::duplex(INPUT_CHUNK);
    let (pongs, mut answers) = mpsc::channel(PONGS);
    let mut output = pin!(output);
    let mut code = NORMAL;
    {
        let send = async {
            loop {
                let bytes = tokio::select! {
                    Some(pong) = answers.recv() => pong,
                    chunk = output.next() => match chunk {
                        Some(bytes) => bytes,
                        None => return,
                    },
                };
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    return;
                }
            }
        };
        let receive = async {
            if unframe(reader, pipe, pongs).await.is_err() {
                code = VIOLATION;
            }
            // The end of the pipe ends what reads it.
            pending::<()>().await;
        };
        tokio::select! {
            () = send => {}
            _ = feed(process, input, &peer) => {}
            () = receive => {}
            () = stop.cancelled() => {}
        }
    }
    // Fails only when the client is gone, which is as good.
    let _ = writer.write_all(&frame(CLOSE, &code.to_be_bytes())).await;
    let _ = writer.shutdown().await;
}

/// A frame as servers send them: whole and not masked.
fn frame(kind: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 10);
    frame.put_u8(0x80 | kind);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length), _) if usize::from(length) <= MAX_CONTROL => frame.put_u8(length),
        (_, Ok(length)) => {
            frame.put_u8(126);
            frame.put_u16(length);
        }
        _ => {
            frame.put_u8(127);
            frame.put_u64(payload.len() as u64);
        }
    }
    frame.extend_from_slice(payload);
    frame.freeze()
}

/// Copies payloads from a client into a pipe until the client closes, leaves or breaks the rules.
async fn unframe(
    mut reader: impl AsyncRead + Send + Unpin,
    mut pipe: DuplexStream,
    pongs: mpsc::Sender<Bytes>,
) -> Result<(), Violation> {
    let mut decoder = Decoder::default();
    loop {
        while let Some(event) = decoder.next()? {
            match event {
                Event::Data(bytes) => {
                    if pipe.write_all(&bytes).await.is_err() {
                        return Ok(());
                    }
                }
                // Without a writer the connection ends anyway.
                Event::Ping(bytes) => drop(pongs.send(frame(PONG, &bytes)).await),
                Event::Close => return Ok(()),
            }
        }
        decoder.buffer.reserve(INPUT_CHUNK);
        // A client that vanishes has no more input, as one that ends it.
        if matches!(reader.read_buf(&mut decoder.buffer).await, Ok(0) | Err(_)) {
            return Ok(());
        }
    }
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// Part of a message.
    Data(Bytes),
    /// To be answered with the same bytes.
    Ping(Bytes),
    /// No more.
    Close,
}

/// The client broke the protocol.
#[derive(Debug, PartialEq, Eq)]
struct Violation;

/// Takes a client's frames apart. Bytes go into `buffer`, events come out of [`Self::next`].
#[derive(Debug, Default)]
struct Decoder {
    buffer: BytesMut,
    /// The data frame that is being read.
    payload: Option<Payload>,
}

#[derive(Debug)]
struct Payload {
    left: u64,
    mask: [u8; 4],
}

impl Decoder {
    /// The next event, if all of it is there.
    fn next(&mut self) -> Result<Option<Event>, Violation> {
        loop {
            if let Some(payload) = &mut self.payload {
                if payload.left == 0 {
                    self.payload = None;
                    continue;
                }
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                let there = self.buffer.len();
                let take = usize::try_from(payload.left).map_or(there, |left| left.min(there));
                let mut bytes = self.buffer.split_to(take);
                unmask(&mut bytes, payload.mask);
                payload.left -= take as u64;
                payload.mask.rotate_left(take % 4);
                return Ok(Some(Event::Data(bytes.freeze())));
            }
            let Some(header) = Header::read(&self.buffer)? else { return Ok(None) };
            if header.kind < CLOSE {
                self.buffer.advance(header.size);
                self.payload = Some(Payload { left: header.length, mask: header.mask });
                continue;
            }
            let length = usize::try_from(header.length).map_err(|_| Violation)?;
            if self.buffer.len() < header.size + length {
                return Ok(None);
            }
            self.buffer.advance(header.size);
            let mut bytes = self.buffer.split_to(length);
            unmask(&mut bytes, header.mask);
            match header.kind {
                PING => return Ok(Some(Event::Ping(bytes.freeze()))),
                CLOSE => return Ok(Some(Event::Close)),
                // Nobody asked for this pong; that is allowed.
                _ => {}
            }
        }
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in bytes.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

/// What stands before a payload.
#[derive(Debug)]
struct Header {
    kind: u8,
    /// Of the payload.
    length: u64,
    mask: [u8; 4],
    /// Of the header itself.
    size: usize,
}

impl Header {
    /// Reads a client's header; `None` while it is not all there.
    fn read(mut bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let all = bytes.len();
        let Ok(first) = bytes.try_get_u8() else { return Ok(None) };
        let (last, reserved, kind) = (first & 0x80 != 0, first & 0x70, first & 0x0f);
        if reserved != 0 || !matches!(kind, 0..=BINARY | CLOSE..=PONG) {
            return Err(Violation);
        }
        let Ok(second) = bytes.try_get_u8() else { return Ok(None) };
        let length = match second & 0x7f {
            126 => bytes.try_get_u16().map(u64::from),
            127 => bytes.try_get_u64(),
            short => Ok(u64::from(short)),
        };
        let too_long = u64::from(second & 0x7f) > MAX_CONTROL as u64;
        // Clients mask; control frames are short and whole.
        if second & 0x80 == 0 || (kind >= CLOSE && (too_long || !last)) {
            return Err(Violation);
        }
        let (Ok(length), Some(mask)) = (length, bytes.first_chunk::<4>()) else { return Ok(None) };
        Ok(Some(Self { kind, length, mask: *mask, size: all - bytes.len() + 4 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame as clients send them.
    fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let plain = frame(first & 0x0f, payload);
        let mut frame = plain[..plain.len() - payload.len()].to_vec();
        frame[0] = first;
        frame[1] |= 0x80;
        frame.extend(mask);
        let start = frame.len();
        frame.extend(payload);
        unmask(&mut frame[start..], mask);
        frame
    }

    fn read(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<Event>), Violation> {
        let (mut decoder, mut data, mut others) = (Decoder::default(), Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            decoder.buffer.extend_from_slice(piece);
            while let Some(event) = decoder.next()? {
                match event {
                    Event::Data(bytes) => data.extend(bytes),
                    other => others.push(other),
                }
            }
        }
        Ok((data, others))
    }

    #[test]
    fn the_handshake_of_the_rfc() {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        assert_eq!(handshake(&headers), None);
        headers.insert(
            header::SEC_WEBSOCKET_KEY,
            HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="),
        );
        assert_eq!(handshake(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static("c2hvcnQ="));
        assert_eq!(handshake(&headers), None);
    }

    #[test]
    fn control_frames_come_between_parts_of_a_message() {
        let mask = [1, 2, 3, 4];
        let bytes = [
            masked(TEXT, b"one ", mask),
            masked(0x80 | PING, b"there?", mask),
            masked(0x80, b"two", [9; 4]),
            masked(0x80 | PONG, b"", mask),
            masked(0x80 | CLOSE, &NORMAL.to_be_bytes(), mask),
        ]
        .concat();
        for piece in [1, 2, 3, 7, 1000] {
            let (data, others) = read(&bytes, piece).unwrap();
            assert_eq!(data, b"one two");
            assert_eq!(others, [Event::Ping(Bytes::from_static(b"there?")), Event::Close]);
        }
    }

    #[test]
    fn the_rules_are_kept() {
        for bad in [
            &[0x82, 0x01, b'x'][..],
            &[0xc2, 0x81, 0, 0, 0, 0, b'x'],
            &[0x83, 0x80, 0, 0, 0, 0],
            &[0x09, 0x80, 0, 0, 0, 0],
            &[0x89, 0xfe, 0, 126],
        ] {
            assert_eq!(read(bad, 1), Err(Violation), "{bad:?}");
        }
        // The longest frame there is: what of it is there goes on, the rest is waited for.
        let long = [&[0x82, 0xff][..], &[0xff; 8], &[0; 4], b"start"].concat();
        assert_eq!(read(&long, 3).unwrap().0, b"start");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(16))]

        #[test]
        fn payloads_arrive_whole_in_whatever_pieces(
            parts in proptest::collection::vec(proptest::collection::vec(0_u8.., 0..300), 1..4),
            mask: [u8; 4],
            piece in 1_usize..500,
            long in 65_530_usize..65_540,
        ) {
            let parts = [parts, vec![vec![7; long]]].concat();
            let bytes: Vec<u8> =
                parts.iter().flat_map(|part| masked(0x80 | BINARY, part, mask)).collect();
            proptest::prop_assert_eq!(read(&bytes, piece).unwrap().0, parts.concat());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, piece in 1_usize..9) {
            let _ = read(&bytes, piece);
        }
    }
}
