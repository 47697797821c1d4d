//! A database file that somebody else made: an error or an answer, whatever is in it. Its lengths and
//! checksums are made right first, as a forger would.
#![no_main]

use brig_pki::hash::sha256;
use brig_scan::db::Index;
use libfuzzer_sys::fuzz_target;

/// Where the header's table of checksums begins, what its own takes, and what each covers.
const SUMS: usize = 32 + 8 * 16;
const HASH: usize = 32;
const BLOCK: usize = 64 << 10;

fn forged(data: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = data.to_vec();
    let (header, blocks) = (0..8).find_map(|blocks| {
        let header = SUMS + 4 * blocks + HASH;
        let rest = bytes.len().checked_sub(header)?;
        (rest.div_ceil(BLOCK) == blocks).then_some((header, blocks))
    })?;
    let total = bytes.len() as u64;
    bytes[..8].copy_from_slice(b"BRIGVDB\0");
    bytes[8..12].copy_from_slice(&1_u32.to_le_bytes());
    bytes[12..16].copy_from_slice(&(header as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&total.to_le_bytes());
    bytes[24..28].copy_from_slice(&(BLOCK as u32).to_le_bytes());
    bytes[28..32].copy_from_slice(&(blocks as u32).to_le_bytes());
    let sums: Vec<u32> = bytes[header..]
        .chunks(BLOCK)
        .map(|block| {
            let mut crc = flate2::Crc::new();
            crc.update(block);
            crc.sum()
        })
        .collect();
    for (at, sum) in sums.into_iter().enumerate() {
        bytes[SUMS + 4 * at..][..4].copy_from_slice(&sum.to_le_bytes());
    }
    let hash = sha256(&bytes[..header - HASH]);
    bytes[header - HASH..header].copy_from_slice(&hash);
    Some(bytes)
}

fn read(bytes: Vec<u8>) {
    let Ok(index) = Index::from_bytes(bytes) else { return };
    let _ = index.verify();
    let _ = index.find("CVE-2026-1");
    for space in index.spaces().unwrap_or_default() {
        for name in space.package_names().unwrap_or_default() {
            for row in space.rows(name, &mut 0).unwrap_or_default() {
                let _ = index.intervals(&row);
                let _ = index.vulnerability(row.flaw);
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    read(data.to_vec());
    if let Some(bytes) = forged(data) {
        read(bytes);
    }
});
