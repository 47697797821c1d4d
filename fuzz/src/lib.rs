//! What several targets use.

use std::fmt::Write as _;

/// Wraps bytes as PEM, so that a target reaches the DER below without having to guess base64.
#[must_use]
pub fn pem(tag: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {tag}-----\n");
    for (index, chunk) in der.chunks(3).enumerate() {
        let mut bits = [0_u8; 3];
        bits[..chunk.len()].copy_from_slice(chunk);
        let value = u32::from(bits[0]) << 16 | u32::from(bits[1]) << 8 | u32::from(bits[2]);
        for digit in 0..4 {
            let sextet = (value >> (18 - 6 * digit)) & 63;
            text.push(if digit > chunk.len() { '=' } else { ALPHABET[sextet as usize].into() });
        }
        if index % 16 == 15 {
            text.push('\n');
        }
    }
    let _ = write!(text, "\n-----END {tag}-----\n");
    text
}
