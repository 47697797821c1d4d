//! The random name of this engine, which `/info` tells.

use std::path::{Path, PathBuf};

use brig_files::Durability;

const FILE_NAME: &str = "engine-id";
/// Length of the usual form with four dashes.
const LEN: usize = 36;

/// The name can't be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep the engine's id in {}", path.display())]
pub struct EngineIdError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// The engine's name, made at the first start.
///
/// # Errors
/// When it can neither be read nor written.
pub fn load(data_root: &Path) -> Result<String, EngineIdError> {
    let path = data_root.join(FILE_NAME);
    match std::fs::read_to_string(&path) {
        Ok(text) if is_id(text.trim()) => return Ok(text.trim().to_owned()),
        // Nothing hangs on it, so a damaged one is made anew.
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(EngineIdError { path, source }),
    }
    let id = random_id();
    let written =
        brig_files::replace(&path, format!("{id}\n").as_bytes(), 0o600, Durability::Synced);
    written.map_err(|source| EngineIdError { path, source })?;
    Ok(id)
}

fn random_id() -> String {
    let hex = brig_types::id::random_hex();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn is_id(text: &str) -> bool {
    text.len() == LEN && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = load(dir.path()).unwrap();
        assert!(is_id(&first), "{first}");
        assert_eq!(load(dir.path()).unwrap(), first);
        std::fs::write(dir.path().join(FILE_NAME), "broken").unwrap();
        assert_ne!(load(dir.path()).unwrap(), first);
    }
}
