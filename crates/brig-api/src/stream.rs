//! The multiplexed stream of attach, exec and logs without a TTY.
//!
//! A frame is 8 header bytes and a payload: the stream's number, three zeroes, the payload's
//! length as a big-endian u32.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before each payload.
pub const HEADER_LEN: usize = 8;
/// The longest payload that a decoder takes; docker's frames are far smaller.
pub const MAX_FRAME: usize = 16 * 1024 * 1024;

/// Which stream a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StdStream {
    /// Never sent by engines, but legal.
    Stdin,
    /// The process's output.
    Stdout,
    /// The process's errors.
    Stderr,
    /// An error of the engine: clients stop with its text.
    SystemErr,
}

impl StdStream {
    const fn number(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::SystemErr => 3,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::SystemErr),
            _ => None,
        }
    }
}

/// A stream that is not made of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not a stream's number.
    #[error("Unrecognized input header: {0}")]
    UnknownStream(u8),
    /// Longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
}

/// The 8 bytes before a payload of `len` bytes.
#[must_use]
pub fn header(stream: StdStream, len: u32) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = len.to_be_bytes();
    [stream.number(), 0, 0, 0, a, b, c, d]
}

/// One frame; payloads longer than [`MAX_FRAME`] become several.
#[must_use]
pub fn encode_frame(stream: StdStream, payload: &[u8]) -> Bytes {
    let frames = payload.len().div_ceil(MAX_FRAME).max(1);
    let mut out = BytesMut::with_capacity(payload.len() + frames * HEADER_LEN);
    if payload.is_empty() {
        out.put_slice(&header(stream, 0));
    }
    for chunk in payload.chunks(MAX_FRAME) {
        out.put_slice(&header(stream, u32::try_from(chunk.len()).unwrap_or(u32::MAX)));
        out.put_slice(chunk);
    }
    out.freeze()
}

/// Takes a stream apart again, however it was cut.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`]; the stream cannot be read any further.
    pub fn next_frame(&mut self) -> Result<Option<(StdStream, Bytes)>, FrameError> {
        let Some(&[number, _, _, _, a, b, c, d]) = self.buffer.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let stream = StdStream::from_number(number).ok_or(FrameError::UnknownStream(number))?;
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        if len > MAX_FRAME {
            return Err(FrameError::TooLong(len));
        }
        if self.buffer.len() < HEADER_LEN + len {
            return Ok(None);
        }
        self.buffer.advance(HEADER_LEN);
        Ok(Some((stream, self.buffer.split_to(len).freeze())))
    }

    /// Whether the stream may end here: no frame is half read.
    #[must_use]
    pub fn is_at_boundary(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_looks_as_documented() {
        let frame = encode_frame(StdStream::Stdout, b"hi\n");
        assert_eq!(&frame[..], b"\x01\0\0\0\0\0\0\x03hi\n");
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let mut decoder = FrameDecoder::new();
        decoder.push(b"plain text");
        assert_eq!(decoder.next_frame(), Err(FrameError::UnknownStream(b'p')));
        let mut decoder = FrameDecoder::new();
        decoder.push(&[1, 0, 0, 0, 255, 255, 255, 255]);
        assert!(matches!(decoder.next_frame(), Err(FrameError::TooLong(_))));
    }

    fn streams() -> impl Strategy<Value = StdStream> {
        (0..4_u8).prop_map(|n| StdStream::from_number(n).unwrap())
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same_frames(
            frames in prop::collection::vec((streams(), prop::collection::vec(any::<u8>(), 0..50)), 0..8),
            cut in 1..40_usize,
        ) {
            let wire: Vec<u8> =
                frames.iter().flat_map(|(s, p)| encode_frame(*s, p).to_vec()).collect();
            let mut decoder = FrameDecoder::new();
            let mut read = Vec::new();
            for chunk in wire.chunks(cut) {
                decoder.push(chunk);
                while let Some((stream, payload)) = decoder.next_frame().unwrap() {
                    read.push((stream, payload.to_vec()));
                }
            }
            prop_assert_eq!(read, frames);
            prop_assert!(decoder.is_at_boundary());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = FrameDecoder::new();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }
}
