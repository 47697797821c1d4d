//! Inventories as they are kept and sent: JSON, compressed, behind a header that says what it is and
//! what it must add up to.
//!
//! ```text
//!  0  magic      16 bytes  "brig-inventory" 0, then what it holds: 1 a layer, 2 an image
//! 16  format      4 bytes  the form (little-endian, as every number here)
//! 20  detector    4 bytes  version of the readers that made it
//! 24  length      8 bytes  of the JSON
//! 32  checksum   32 bytes  SHA-256 over bytes 0 to 32 and the compressed JSON
//! 64  zstd
//! ```
//!
//! A file that is damaged, or of another form, is no inventory: it is made anew.

use std::io::Read as _;

use brig_pki::hash::Sha256;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::inventory::layer::LayerInventory;
use crate::package::{DETECTOR_VERSION, INVENTORY_FORMAT, Inventory};

/// Largest JSON of a kept inventory, in bytes.
pub const MAX_PLAIN: u64 = 512 << 20;
/// Largest kept inventory, in bytes.
pub const MAX_KEPT: u64 = 128 << 20;

const MAGIC: &[u8; 15] = b"brig-inventory\0";
const CHECKED: usize = 32;
const HEADER: usize = 64;
const LEVEL: i32 = 3;

/// What can be kept.
pub trait Kept: Serialize + DeserializeOwned {
    /// The last byte of the magic.
    const KIND: u8;
}

impl Kept for LayerInventory {
    const KIND: u8 = 1;
}

impl Kept for Inventory {
    const KIND: u8 = 2;
}

/// Why bytes are no kept inventory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    /// Something else, or cut off.
    #[error("it is no kept inventory")]
    Form,
    /// Written by a version that keeps them in another form.
    #[error("it is kept in form {found}; this version reads {INVENTORY_FORMAT}")]
    Format {
        /// Which.
        found: u32,
    },
    /// Not what was written.
    #[error("its checksum is wrong: it is damaged")]
    Checksum,
    /// More than it may be.
    #[error("it is larger than {limit} bytes")]
    Limit {
        /// The bound.
        limit: u64,
    },
    /// It cannot be packed or unpacked.
    #[error("it cannot be packed or unpacked")]
    Packing(#[source] std::io::Error),
    /// It does not say what it must.
    #[error("its content is not understood")]
    Content(#[source] serde_json::Error),
}

/// Which version's readers made what is kept, by its header alone.
#[must_use]
pub fn detector(bytes: &[u8]) -> Option<u32> {
    let head = bytes.get(..CHECKED)?;
    (head.starts_with(MAGIC) && number(head, 16)? == INVENTORY_FORMAT).then(|| number(head, 20))?
}

/// How many bytes of JSON it claims to hold, by its header alone.
#[must_use]
pub fn plain_length(bytes: &[u8]) -> u64 {
    let length = bytes.get(24..CHECKED).and_then(|bytes| bytes.try_into().ok());
    length.map_or(0, u64::from_le_bytes)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Writes an inventory as it is kept.
///
/// # Errors
/// [`KeptError`] when it is too large.
pub fn encode<T: Kept>(value: &T) -> Result<Vec<u8>, KeptError> {
    let json = serde_json::to_vec(value).map_err(KeptError::Content)?;
    let length = json.len() as u64;
    if length > MAX_PLAIN {
        return Err(KeptError::Limit { limit: MAX_PLAIN });
    }
    let body = zstd::bulk::compress(&json, LEVEL).map_err(KeptError::Packing)?;
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.push(T::KIND);
    bytes.extend_from_slice(&INVENTORY_FORMAT.to_le_bytes());
    bytes.extend_from_slice(&DETECTOR_VERSION.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    let sum = checksum(&bytes, &body);
    bytes.extend_from_slice(&sum);
    bytes.extend_from_slice(&body);
    if bytes.len() as u64 > MAX_KEPT {
        return Err(KeptError::Limit { limit: MAX_KEPT });
    }
    Ok(bytes)
}

/// Reads an inventory that was kept, whatever version's readers made it ([`detector`]).
///
/// # Errors
/// [`KeptError`].
pub fn decode<T: Kept>(bytes: &[u8]) -> Result<T, KeptError> {
    decode_within(bytes, MAX_PLAIN)
}

/// [`decode`] of what must not have more than `limit` bytes of JSON: from somebody else.
///
/// # Errors
/// [`KeptError`].
pub fn decode_within<T: Kept>(bytes: &[u8], limit: u64) -> Result<T, KeptError> {
    if bytes.len() as u64 > MAX_KEPT {
        return Err(KeptError::Limit { limit: MAX_KEPT });
    }
    let (head, rest) = bytes.split_at_checked(CHECKED).ok_or(KeptError::Form)?;
    let (sum, body) = rest.split_at_checked(HEADER - CHECKED).ok_or(KeptError::Form)?;
    if !head.starts_with(MAGIC) || head.get(MAGIC.len()) != Some(&T::KIND) {
        return Err(KeptError::Form);
    }
    let format = number(head, 16).ok_or(KeptError::Form)?;
    if format != INVENTORY_FORMAT {
        return Err(KeptError::Format { found: format });
    }
    if checksum(head, body) != sum {
        return Err(KeptError::Checksum);
    }
    let length = plain_length(head);
    if length > limit {
        return Err(KeptError::Limit { limit });
    }
    // SECURITY: the length is the sender's word. It bounds what is unpacked, and is not reserved.
    let mut json = Vec::new();
    zstd::stream::read::Decoder::new(body)
        .and_then(|decoder| decoder.take(length.saturating_add(1)).read_to_end(&mut json))
        .map_err(KeptError::Packing)?;
    if json.len() as u64 != length {
        return Err(KeptError::Form);
    }
    serde_json::from_slice(&json).map_err(KeptError::Content)
}

fn checksum(head: &[u8], body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(head);
    hash.update(body);
    hash.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layer() -> LayerInventory {
        LayerInventory::unreadable("a bomb")
    }

    #[test]
    fn what_was_kept_comes_back() {
        let bytes = encode(&layer()).unwrap();
        assert_eq!(detector(&bytes), Some(DETECTOR_VERSION));
        assert_eq!(decode::<LayerInventory>(&bytes).unwrap(), layer());
        assert!(matches!(decode::<Inventory>(&bytes), Err(KeptError::Form)));
        let image = Inventory::empty();
        assert_eq!(decode::<Inventory>(&encode(&image).unwrap()).unwrap(), image);
    }

    #[test]
    fn another_form_is_told_apart_from_damage() {
        let mut bytes = encode(&layer()).unwrap();
        bytes[16] = 9;
        assert_eq!(detector(&bytes), None);
        let error = decode::<LayerInventory>(&bytes).unwrap_err();
        assert!(matches!(error, KeptError::Format { found: 9 }), "{error}");
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        let good = encode(&layer()).unwrap();
        for length in [0, 1, u64::MAX, MAX_PLAIN] {
            let mut bytes = good.clone();
            bytes[24..32].copy_from_slice(&length.to_le_bytes());
            let sum = checksum(&bytes[..32], &bytes[64..]);
            bytes[32..64].copy_from_slice(&sum);
            assert!(decode::<LayerInventory>(&bytes).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_damage_goes_unnoticed(at in 0_usize..2048, by in 1_u8..) {
            let mut bytes = encode(&layer()).unwrap();
            let at = at % bytes.len();
            bytes[at] = bytes[at].wrapping_add(by);
            // The readers' version is part of what is checked.
            prop_assert!(decode::<LayerInventory>(&bytes).is_err());
        }

        #[test]
        fn any_bytes_end_in_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            prop_assert!(decode::<Inventory>(&bytes).is_err());
        }
    }
}
