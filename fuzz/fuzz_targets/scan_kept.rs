//! Inventories as they are kept, and as nodes send them: an error or what can be kept again. The first
//! byte says what the rest is: the whole file, what is packed in it, or the JSON that is packed; the
//! header is made right around it, as a forger would.
#![no_main]

use brig_pki::hash::Sha256;
use brig_scan::inventory::layer::LayerInventory;
use brig_scan::kept::{self, Kept};
use brig_scan::package::{INVENTORY_FORMAT, Inventory};
use libfuzzer_sys::fuzz_target;

/// Largest JSON that is read here.
const LIMIT: u64 = 1 << 20;
/// Largest block of a zstd frame.
const BLOCK: usize = 128 << 10;

/// A zstd frame that holds bytes as they are.
fn frame(json: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    let blocks = json.len().div_ceil(BLOCK).max(1);
    for at in 0..blocks {
        let block = &json[at * BLOCK..json.len().min((at + 1) * BLOCK)];
        let header = (block.len() as u32) << 3 | u32::from(at + 1 == blocks);
        bytes.extend_from_slice(&header.to_le_bytes()[..3]);
        bytes.extend_from_slice(block);
    }
    bytes
}

fn forged(kind: u8, length: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = b"brig-inventory\0".to_vec();
    bytes.push(kind);
    bytes.extend_from_slice(&INVENTORY_FORMAT.to_le_bytes());
    bytes.extend_from_slice(&1_u32.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    let mut hash = Sha256::new();
    hash.update(&bytes);
    hash.update(body);
    bytes.extend_from_slice(&hash.finish());
    bytes.extend_from_slice(body);
    bytes
}

fn read<T: Kept + PartialEq + std::fmt::Debug>(how: u8, data: &[u8]) {
    let bytes = match how {
        0 => data.to_vec(),
        1 => {
            let Some((length, body)) = data.split_first_chunk() else { return };
            forged(T::KIND, u64::from_le_bytes(*length), body)
        }
        _ => forged(T::KIND, data.len() as u64, &frame(data)),
    };
    let _ = (kept::detector(&bytes), kept::plain_length(&bytes));
    let Ok(found) = kept::decode_within::<T>(&bytes, LIMIT) else { return };
    let again = kept::encode(&found).expect("what was read can be kept");
    assert_eq!(kept::decode::<T>(&again).expect("what is kept is read"), found);
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    read::<Inventory>(first % 3, rest);
    read::<LayerInventory>(first % 3, rest);
});
