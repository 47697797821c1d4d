//! Random bytes for keys, nonces and token secrets.

use crate::PkiError;

/// Fills `bytes` from the system's generator.
///
/// # Errors
/// [`PkiError::Random`] when the generator refuses.
pub fn fill(bytes: &mut [u8]) -> Result<(), PkiError> {
    aws_lc_rs::rand::fill(bytes).map_err(|_| PkiError::Random)
}

/// `N` random bytes.
///
/// # Errors
/// [`PkiError::Random`] when the generator refuses.
pub fn bytes<const N: usize>() -> Result<[u8; N], PkiError> {
    let mut bytes = [0_u8; N];
    fill(&mut bytes)?;
    Ok(bytes)
}
