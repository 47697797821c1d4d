//! The folders of kept inventories, and which names are in them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use brig_files::Durability;
use brig_scan::kept::{self, Kept, MAX_KEPT};
use brig_scan::package::DETECTOR_VERSION;
use brig_types::digest::Digest;

use super::InventoryError;

/// Bytes of a kept inventory that say which version made it.
const HEAD: u64 = 64;

/// Which folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// One layer's files, by diff id.
    Layer,
    /// An image of this node, by id.
    Image,
    /// An image that other nodes have, by id and by the digests of its names.
    Node,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Layer, Self::Image, Self::Node];

    const fn folder(self) -> &'static str {
        match self {
            Self::Layer => "layers",
            Self::Image => "images",
            Self::Node => "nodes",
        }
    }
}

/// What is kept, and what of it is there.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    /// Hexadecimal digests.
    known: Mutex<HashSet<(Kind, String)>>,
}

impl Files {
    /// Makes the folders, and removes what an ended process left unfinished and what another
    /// version's readers made of this node's images.
    pub(super) fn open(root: &Path) -> Result<Self, InventoryError> {
        let mut known = HashSet::new();
        for kind in Kind::ALL {
            let folder = root.join(kind.folder());
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(InventoryError::io("creating", &folder))?;
            let listed = || -> std::io::Result<Vec<String>> {
                let mut names = Vec::new();
                for entry in fs::read_dir(&folder)? {
                    if let Ok(name) = entry?.file_name().into_string() {
                        names.push(name);
                    }
                }
                Ok(names)
            };
            for name in listed().map_err(InventoryError::io("listing", &folder))? {
                let path = folder.join(&name);
                let digest = Digest::parse(&format!("sha256:{name}"));
                let made_by = digest.is_ok().then(|| head(&path)).flatten();
                let good = match kind {
                    Kind::Node => made_by.is_some(),
                    Kind::Layer | Kind::Image => made_by == Some(DETECTOR_VERSION),
                };
                if good {
                    known.insert((kind, name));
                } else {
                    fs::remove_file(&path).map_err(InventoryError::io("removing", &path))?;
                }
            }
        }
        Ok(Self { root: root.to_owned(), known: Mutex::new(known) })
    }

    fn known(&self) -> MutexGuard<'_, HashSet<(Kind, String)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, kind: Kind, hex: &str) -> PathBuf {
        self.root.join(kind.folder()).join(hex)
    }

    /// Whether there is one of this digest.
    pub(super) fn has(&self, kind: Kind, digest: &Digest) -> bool {
        self.known().contains(&(kind, digest.hex().to_owned()))
    }

    /// Hexadecimal digests of all that are there.
    pub(super) fn names(&self, kind: Kind) -> Vec<String> {
        let known = self.known();
        known.iter().filter(|(of, _)| *of == kind).map(|(_, hex)| hex.clone()).collect()
    }

    /// What is kept. A damaged file is removed, and counts as none. Blocks.
    pub(super) fn read<T: Kept>(&self, kind: Kind, digest: &Digest) -> Option<T> {
        let value = kept::decode(&self.bytes(kind, digest)?);
        match value {
            Ok(value) => Some(value),
            Err(error) => {
                let error = brig_types::error::chain(&error);
                tracing::warn!(%digest, error, "a kept inventory is damaged and made anew");
                self.remove(kind, digest.hex());
                None
            }
        }
    }

    /// What is kept, as it is kept. Blocks.
    pub(super) fn bytes(&self, kind: Kind, digest: &Digest) -> Option<Vec<u8>> {
        if !self.has(kind, digest) {
            return None;
        }
        let path = self.path(kind, digest.hex());
        let mut bytes = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(MAX_KEPT + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) => Some(bytes),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a kept inventory cannot be read");
                self.remove(kind, digest.hex());
                None
            }
        }
    }

    /// Keeps an inventory, durably. Blocks.
    pub(super) fn write<T: Kept>(
        &self,
        kind: Kind,
        digest: &Digest,
        value: &T,
    ) -> Result<(), InventoryError> {
        let bytes = kept::encode(value).map_err(InventoryError::Kept)?;
        self.write_bytes(kind, digest, &bytes)
    }

    /// [`Files::write`] of what is in its form already.
    pub(super) fn write_bytes(
        &self,
        kind: Kind,
        digest: &Digest,
        bytes: &[u8],
    ) -> Result<(), InventoryError> {
        let folder = self.root.join(kind.folder());
        let path = folder.join(digest.hex());
        brig_files::replace(&path, bytes, 0o600, Durability::Synced)
            .map_err(InventoryError::io("writing", &path))?;
        self.known().insert((kind, digest.hex().to_owned()));
        Ok(())
    }

    /// Notes that a file is still of use.
    pub(super) fn touch(&self, kind: Kind, hex: &str) {
        let path = self.path(kind, hex);
        let touched = File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(path = %path.display(), %error, "a file's time cannot be set");
        }
    }

    /// How long ago a file was of use.
    pub(super) fn age(&self, kind: Kind, hex: &str) -> Option<Duration> {
        let modified =
            fs::metadata(self.path(kind, hex)).and_then(|known| known.modified()).ok()?;
        SystemTime::now().duration_since(modified).ok()
    }

    /// Removes what is kept under a digest.
    pub(super) fn remove(&self, kind: Kind, hex: &str) {
        self.known().remove(&(kind, hex.to_owned()));
        let path = self.path(kind, hex);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "an inventory that nobody needs stays");
            }
            _ => {}
        }
    }
}

/// Which version's readers made a file.
fn head(path: &Path) -> Option<u32> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(HEAD).read_to_end(&mut bytes).ok()?;
    kept::detector(&bytes)
}

#[cfg(test)]
mod tests {
    use brig_scan::inventory::layer::LayerInventory;

    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::from_sha256([byte; 32])
    }

    #[test]
    fn what_is_kept_is_there_for_the_next_process_unless_it_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path()).unwrap();
        let layer = LayerInventory::unreadable("x");
        for byte in [1, 2, 3] {
            files.write(Kind::Layer, &digest(byte), &layer).unwrap();
        }
        // A version whose readers find other things, a cut file, an unfinished one.
        let path = |byte: u8| dir.path().join("layers").join(digest(byte).hex());
        let mut bytes = fs::read(path(2)).unwrap();
        bytes[20] = bytes[20].wrapping_add(1);
        fs::write(path(2), &bytes).unwrap();
        let short = fs::read(path(3)).unwrap();
        fs::write(path(3), &short[..short.len() - 1]).unwrap();
        fs::write(dir.path().join("layers/.0123.tmp"), "x").unwrap();

        let files = Files::open(dir.path()).unwrap();
        assert_eq!(files.read(Kind::Layer, &digest(1)), Some(layer));
        assert!(!files.has(Kind::Layer, &digest(2)));
        assert!(files.has(Kind::Layer, &digest(3)));
        assert_eq!(files.read::<LayerInventory>(Kind::Layer, &digest(3)), None);
        assert!(!files.has(Kind::Layer, &digest(3)));
        let left = fs::read_dir(dir.path().join("layers")).unwrap().count();
        assert_eq!(left, 1);
    }

    #[test]
    fn removing_what_is_gone_already_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::open(dir.path()).unwrap();
        files.remove(Kind::Image, digest(1).hex());
        assert!(files.names(Kind::Image).is_empty());
        assert_eq!(files.bytes(Kind::Image, &digest(1)), None);
    }
}
