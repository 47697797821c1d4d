//! A layer's bytes, decompressed on a thread of their own and bounded, so that hashing and reading
//! go on at the same time.

use std::io::{self, BufReader, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::Scope;

use flate2::read::MultiGzDecoder;

use super::layer::Place;
use super::{Limits, ScanError};
use crate::parse::ReadAt as _;

/// Pieces that are handed from the decompressing thread to the reading one.
const PIECE: usize = 256 << 10;
/// How many may wait.
const PIECES: usize = 4;
const BUFFER: usize = 64 << 10;
/// Largest zstd window, as a power of two: what the format asks decoders to support at the most.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Plain,
    Gzip,
    Zstd,
}

/// Tells compressions apart by their first bytes, whatever a media type claims.
pub(super) fn compression(head: &[u8]) -> Result<Compression, ScanError> {
    match head {
        [0x1f, 0x8b, 8, ..] => Ok(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Compression::Zstd),
        [0x42, 0x5a, 0x68, ..] => Err(ScanError::Compression("bzip2")),
        [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, ..] => Err(ScanError::Compression("xz")),
        _ => Ok(Compression::Plain),
    }
}

/// Reads a place in order.
pub(super) struct PlaceReader<'a> {
    place: Place<'a>,
    at: u64,
}

impl<'a> PlaceReader<'a> {
    pub(super) fn new(place: Place<'a>) -> Self {
        Self { place, at: 0 }
    }
}

impl Read for PlaceReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.place.read_at(buf, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// What goes wrong on the decompressing thread travels as this.
type Piece = io::Result<Vec<u8>>;

/// The reading end.
pub(super) struct Pieces {
    pieces: Receiver<Piece>,
    empty: Sender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

/// Begins to decompress.
///
/// # Errors
/// [`ScanError::Thread`].
pub(super) fn start<'s, R: Read + Send + 's>(
    scope: &'s Scope<'s, '_>,
    source: R,
    compression: Compression,
    limits: Limits,
    compressed: u64,
) -> Result<Pieces, ScanError> {
    let (full, pieces) = sync_channel(PIECES);
    let (empty, spare) = channel();
    std::thread::Builder::new()
        .name("brig-unpack".to_owned())
        .spawn_scoped(scope, move || {
            feed(source, compression, limits, compressed, &full, &spare);
        })
        .map_err(ScanError::Thread)?;
    Ok(Pieces { pieces, empty, piece: Vec::new(), at: 0 })
}

fn feed<R: Read>(
    source: R,
    compression: Compression,
    limits: Limits,
    compressed: u64,
    full: &SyncSender<Piece>,
    spare: &Receiver<Vec<u8>>,
) {
    let mut reader = match decoder(source, compression) {
        Ok(reader) => reader,
        Err(error) => {
            let _ = full.send(Err(error));
            return;
        }
    };
    let mut total = 0_u64;
    loop {
        let mut piece = spare.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let filled = fill(&mut reader, &mut piece);
        let (last, message) = match filled {
            Ok(0) => return,
            Ok(count) => {
                total += count as u64;
                piece.truncate(count);
                match over(total, compressed, &limits) {
                    None => (false, Ok(piece)),
                    Some(error) => (true, Err(error)),
                }
            }
            Err(error) => (true, Err(error)),
        };
        // Nobody reads any more: there is nothing left to do.
        if full.send(message).is_err() || last {
            return;
        }
    }
}

fn over(total: u64, compressed: u64, limits: &Limits) -> Option<io::Error> {
    let limit = |what, limit| Some(io::Error::other(Over { what, limit }));
    if total > limits.layer_bytes {
        return limit("unpacked bytes", limits.layer_bytes);
    }
    if total > limits.ratio_floor && total > compressed.saturating_mul(limits.ratio) {
        return limit("unpacked bytes for each compressed byte", limits.ratio);
    }
    None
}

/// A bound that was passed, on its way through a reader.
#[derive(Debug, thiserror::Error)]
#[error("more than {limit} {what}")]
struct Over {
    what: &'static str,
    limit: u64,
}

/// Gives an error that came through a reader its meaning back.
pub(super) fn explain(error: ScanError) -> ScanError {
    match error {
        ScanError::Read(error) => match error.get_ref().and_then(|e| e.downcast_ref::<Over>()) {
            Some(over) => ScanError::Limit { what: over.what, limit: over.limit },
            None => ScanError::Read(error),
        },
        other => other,
    }
}

pub(super) fn decoder<'r, R: Read + 'r>(
    source: R,
    compression: Compression,
) -> io::Result<Box<dyn Read + 'r>> {
    Ok(match compression {
        Compression::Plain => Box::new(source),
        Compression::Gzip => {
            Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, source)))
        }
        Compression::Zstd => {
            let source = BufReader::with_capacity(BUFFER, source);
            let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
    })
}

fn fill(reader: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.piece.len() {
            let next = match self.pieces.recv() {
                Ok(piece) => piece?,
                Err(_) => return Ok(0),
            };
            let used = std::mem::replace(&mut self.piece, next);
            self.at = 0;
            // The thread may have ended.
            let _ = self.empty.send(used);
        }
        let rest = self.piece.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}
