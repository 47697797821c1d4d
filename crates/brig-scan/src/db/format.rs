//! The index file's layout, shared by its writer and its reader. All numbers are little endian.
//!
//! A header (magic, format, lengths, sections, a CRC-32 of each block of the rest, a SHA-256 of the
//! header) is followed by tables of fixed-size records, sorted so that they are searched as they
//! lie, and by one table of strings. The header's SHA-256 covers the blocks' checksums and thereby
//! names the content.

/// First bytes of an index.
pub(super) const MAGIC: &[u8; 8] = b"BRIGVDB\0";
/// Grows with every change of the layout.
pub(super) const FORMAT: u32 = 1;
/// Bytes that one checksum covers.
pub(super) const BLOCK: usize = 64 << 10;
/// Bytes of the fixed part of the header.
pub(super) const FIXED: usize = 32;
/// Bytes of a section's entry in the header.
pub(super) const SECTION: usize = 16;
/// Bytes of the header's own hash.
pub(super) const HASH: usize = 32;
/// Largest index that is read.
pub(super) const MAX_INDEX: usize = 4 << 30;

/// The sections, in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Strings,
    Spaces,
    Packages,
    Rows,
    Ranges,
    Flaws,
    Names,
    Meta,
}

pub(super) const SECTIONS: usize = 8;

impl Section {
    /// Bytes of one record; 1 where there are none of a fixed size.
    pub(super) const fn record(self) -> usize {
        match self {
            Self::Strings | Self::Meta => 1,
            // name, scheme, first package, packages
            Self::Spaces => 16,
            // name, first row, rows
            Self::Packages => 12,
            // flaw, advisory, module, note, first range, ranges u16, feed u16, state, severity, flags, 0
            Self::Rows => 28,
            // from, end, flags
            Self::Ranges => 12,
            // id, names, summary, published, v2, v3, v4, severity source, kev added, kev due,
            // epss, percentile, severity u8, score u8, flags u8, 0
            Self::Flaws => 52,
            // name, flaw
            Self::Names => 8,
        }
    }
}

/// Range flags.
pub(super) const FROM_EXCLUSIVE: u32 = 1;
pub(super) const END_BEFORE: u32 = 2;
pub(super) const END_WITH: u32 = 4;
/// Row flags.
pub(super) const MALICIOUS: u8 = 1;
/// Flaw flags.
pub(super) const EXPLOITED: u8 = 1;
pub(super) const RANSOMWARE: u8 = 2;
pub(super) const HAS_EPSS: u8 = 4;
pub(super) const HAS_SCORE: u8 = 8;
