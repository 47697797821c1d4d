//! Small files on disk: written whole or not at all, with their final mode from the start.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

// What a killed daemon wrote stays in the page cache. A flush is needed only for facts that still
// matter when every container is gone with the machine.
pub(crate) use brig_files::{Durability, make_folder as create_dir, replace as write_file};

/// Reads a file of at most `limit` bytes; a larger one is an error.
pub(crate) fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut data)?;
    if u64::try_from(data.len()).unwrap_or(u64::MAX) > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than its limit"));
    }
    Ok(data)
}

/// Removes a file or a tree; what isn't there is fine.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match brig_sys::remove::remove_tree(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_replaced_whole_with_their_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        for (data, durability) in [(&b"one"[..], Durability::Synced), (b"2", Durability::Cached)] {
            write_file(&path, data, 0o600, durability).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), data);
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn reads_are_limited() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_limited(&path, 5).unwrap(), b"12345");
        assert!(read_limited(&path, 4).is_err());
    }
}
