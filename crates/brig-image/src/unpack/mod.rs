//! Unpacking layer archives into directories that overlayfs can use as lower layers.
//!
//! A layer's bytes pass once: hashed as they come (digest), decompressed, hashed again (diff id),
//! and written by an extractor that resolves every path beneath the layer's directory. Nothing is
//! trusted before both hashes were compared; the caller throws the directory away on any error.
//!
//! Everything here blocks and belongs on a blocking thread.

pub mod compression;
pub mod path;
pub mod stream;

mod extract;
mod node;
mod pax;
mod split;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::os::fd::BorrowedFd;

use brig_types::digest::Digest;

use crate::error::UnpackError;
use crate::limits::Limits;
use compression::Decoder;
use extract::Extractor;
use split::{Recording, RecordingReader};
use stream::{HashingReader, HeaderBudget};

pub(crate) use split::LayerTar;

/// What a layer must turn out to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected<'a> {
    /// Digest and size of the bytes as they come.
    pub blob: Option<(&'a Digest, u64)>,
    /// Digest of the uncompressed archive.
    pub diff_id: Option<&'a Digest>,
}

impl Expected<'_> {
    /// Compares it with what came: digest and size of the bytes, digest of the archive.
    pub(crate) fn check(&self, blob: (&Digest, u64), diff_id: &Digest) -> Result<(), UnpackError> {
        let (digest, size) = blob;
        if let Some((expected_digest, expected_size)) = self.blob {
            if size != expected_size {
                return Err(UnpackError::WrongSize { expected: expected_size, actual: size });
            }
            if digest != expected_digest {
                return Err(UnpackError::WrongDigest {
                    expected: expected_digest.clone(),
                    actual: digest.clone(),
                });
            }
        }
        match self.diff_id {
            Some(expected) if diff_id != expected => Err(UnpackError::WrongDiffId {
                expected: expected.clone(),
                actual: diff_id.clone(),
            }),
            _ => Ok(()),
        }
    }
}

/// What was unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// Digest of the bytes as they came.
    pub digest: Digest,
    /// Number of those bytes.
    pub compressed: u64,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Sum of the files' sizes, in bytes.
    pub size: u64,
    /// Number of entries.
    pub entries: u64,
    /// Size of the uncompressed archive, in bytes.
    pub archive: u64,
    /// How many things of the layer were replaced by its own later entries, as far as they were
    /// kept.
    pub replaced: u64,
}

/// Where to note what the archive has beside its files, so that it can be put together again.
#[derive(Debug)]
pub(crate) struct Notes<'a> {
    /// An empty file.
    pub(crate) log: File,
    /// An empty directory of the same file system.
    pub(crate) attic: BorrowedFd<'a>,
}

/// Unpacks one layer into the empty directory `root`.
///
/// # Errors
/// [`UnpackError`]; what was written by then stays for the caller to remove.
pub fn unpack_layer<R: Read>(
    source: R,
    root: BorrowedFd<'_>,
    expected: Expected<'_>,
    limits: &Limits,
) -> Result<Unpacked, UnpackError> {
    unpack(source, root, expected, limits, None)
}

/// [`unpack_layer`], taking notes.
pub(crate) fn unpack<R: Read>(
    source: R,
    root: BorrowedFd<'_>,
    expected: Expected<'_>,
    limits: &Limits,
    notes: Option<Notes<'_>>,
) -> Result<Unpacked, UnpackError> {
    let (recording, attic) = match notes {
        Some(Notes { log, attic }) => {
            (Some(Recording::begin(log).map_err(UnpackError::Log)?), Some(attic))
        }
        None => (None, None),
    };
    let compressed_limit = expected
        .blob
        .map_or(limits.layer_compressed, |(_, size)| size.min(limits.layer_compressed));
    let compressed = HashingReader::new(source, compressed_limit, "compressed bytes");
    let compressed_meter = compressed.meter();

    let decoder = Decoder::detect(compressed)?;
    let plain = decoder.is_plain();
    let mut content = HashingReader::new(decoder, limits.layer_unpacked, "unpacked bytes")
        .with_ratio(compressed_meter.clone(), limits.ratio, limits.ratio_floor);
    if plain {
        // The same bytes again.
        content = content.without_hash();
    }
    let content_meter = content.meter();

    let budget = HeaderBudget::default();
    let recorded = RecordingReader { inner: content, recording: recording.clone() };
    let mut archive = tar::Archive::new(budget.limit(recorded));
    let mut extractor = Extractor::new(root, limits, recording.clone().zip(attic));
    let walked = extractor.run(&mut archive, &budget);
    // A bound that was passed reaches the extractor as a plain read error.
    if let Some(limit) = compressed_meter.exceeded().or_else(|| content_meter.exceeded()) {
        return Err(match expected.blob {
            Some((_, size)) if limit.what == "compressed bytes" && limit.limit == size => {
                UnpackError::WrongSize { expected: size, actual: size.saturating_add(1) }
            }
            _ => limit.into(),
        });
    }
    let stats = walked?;

    // Padding after the archive's end belongs to the diff id.
    let mut rest = archive.into_inner();
    let drained = std::io::copy(&mut rest, &mut std::io::sink());
    if let Some(limit) = compressed_meter.exceeded().or_else(|| content_meter.exceeded()) {
        return Err(limit.into());
    }
    drained.map_err(UnpackError::Read)?;

    let (digest, compressed) = compressed_meter.finish();
    let (content_digest, archive) = content_meter.finish();
    let diff_id = if plain { digest.clone() } else { content_digest };
    expected.check((&digest, compressed), &diff_id)?;
    let replaced = match recording {
        Some(recording) => recording.finish().map_err(UnpackError::Log)?,
        None => 0,
    };
    Ok(Unpacked {
        digest,
        compressed,
        diff_id,
        size: stats.size,
        entries: stats.entries,
        archive,
        replaced,
    })
}
