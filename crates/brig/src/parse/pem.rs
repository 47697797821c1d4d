//! Files with a certificate or a key, as flags name them.

use std::fs::File;
use std::io::Read as _;

use brig_api::data::SecretText;
use brig_types::secret::SecretBytes;

use super::{BadValue, bad};

/// Largest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// Reads a file that holds PEM; nothing else is known about it here.
pub(crate) fn file(path: &str) -> Result<SecretText, BadValue> {
    // A buffer that never grows leaves no copies behind.
    let mut bytes = Vec::with_capacity(64 * 1024);
    File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
        .map_err(|error| BadValue(format!("{path}: {error}")))?;
    let bytes = SecretBytes::new(bytes);
    match std::str::from_utf8(bytes.expose_secret()) {
        Ok(text) if text.contains("-----BEGIN ") => Ok(SecretText::from(text.to_owned())),
        _ => bad(format!("{path}: file contents must be in PEM format")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pem_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f").display().to_string();
        assert!(file(&path).unwrap_err().0.contains("No such file"));
        std::fs::write(&path, [0xff, 0, 1]).unwrap();
        assert!(file(&path).unwrap_err().0.contains("PEM"));
        std::fs::write(&path, "-----BEGIN X-----\n-----END X-----\n").unwrap();
        assert!(file(&path).unwrap().expose_secret().starts_with("-----BEGIN X"));
    }
}
