//! Telling compressions apart by their first bytes, whatever the media type claims.

use std::io::{self, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

use crate::error::UnpackError;

const BUFFER: usize = 64 << 10;
const MAGIC: usize = 6;
/// Largest zstd window, as a power of two: 128 MiB, what the format asks every decoder to support
/// at the most and `zstd` itself allows without a flag.
const ZSTD_WINDOW_LOG: u32 = 27;

type Source<R> = BufReader<io::Chain<Cursor<Vec<u8>>, R>>;

/// A stream, decompressed if it needs to be.
#[allow(clippy::large_enum_variant)] // one value for each layer
pub enum Decoder<R: Read> {
    /// Not compressed.
    Plain(Source<R>),
    /// RFC 1952, one or more members.
    Gzip(MultiGzDecoder<Source<R>>),
    /// RFC 8878, one or more frames.
    Zstd(zstd::stream::read::Decoder<'static, Source<R>>),
}

impl<R: Read> std::fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain",
            Self::Gzip(_) => "Gzip",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl<R: Read> Decoder<R> {
    /// Whether what comes out is what goes in.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Looks at the first bytes and picks the decoder.
    ///
    /// # Errors
    /// [`UnpackError::Compression`] for bzip2 and xz, [`UnpackError::Read`] when the source fails.
    pub fn detect(mut source: R) -> Result<Self, UnpackError> {
        let mut head = Vec::with_capacity(MAGIC);
        source.by_ref().take(MAGIC as u64).read_to_end(&mut head).map_err(UnpackError::Read)?;
        let kind = Kind::of(&head);
        let source = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(source));
        match kind {
            Kind::Plain => Ok(Self::Plain(source)),
            Kind::Gzip => Ok(Self::Gzip(MultiGzDecoder::new(source))),
            Kind::Zstd => {
                let mut decoder =
                    zstd::stream::read::Decoder::with_buffer(source).map_err(UnpackError::Read)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(UnpackError::Read)?;
                Ok(Self::Zstd(decoder))
            }
            Kind::Unsupported(name) => Err(UnpackError::Compression(name)),
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(inner) => inner.read(buf),
            Self::Gzip(inner) => inner.read(buf),
            Self::Zstd(inner) => inner.read(buf),
        }
    }
}

/// Whether bytes begin as those of a compression that layers use.
#[must_use]
pub fn is_compressed(head: &[u8]) -> bool {
    matches!(Kind::of(head), Kind::Gzip | Kind::Zstd)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Gzip,
    Zstd,
    Unsupported(&'static str),
}

impl Kind {
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame: zstd files made in chunks may begin with one.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0x42, 0x5a, 0x68, ..] => Self::Unsupported("bzip2"),
            [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00] => Self::Unsupported("xz"),
            _ => Self::Plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decoder::detect(bytes).map_err(io::Error::other)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn every_compression_gives_the_same_bytes() {
        let text = b"layer bytes ".repeat(10_000);
        assert_eq!(read(&text).unwrap(), text);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let mut gzip = gzip.finish().unwrap();
        assert_eq!(read(&gzip).unwrap(), text);
        // A second member follows the first.
        gzip.extend(gzip.clone());
        assert_eq!(read(&gzip).unwrap().len(), 2 * text.len());
        let mut zstd = zstd::encode_all(&text[..], 1).unwrap();
        assert_eq!(read(&zstd).unwrap(), text);
        zstd.extend(zstd.clone());
        assert_eq!(read(&zstd).unwrap().len(), 2 * text.len());
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9][..], &zstd].concat();
        assert_eq!(read(&skippable).unwrap().len(), 2 * text.len());
        assert!(read(&gzip[..gzip.len() - 5]).is_err());
        assert!(read(&zstd[..zstd.len() - 5]).is_err());
        assert!(read(b"BZh91AY").is_err());
        assert_eq!(read(b"").unwrap(), b"");
    }
}
