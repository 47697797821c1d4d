//! Feeds that were fetched before, in a folder beside the database: what has not changed is not
//! fetched again, and what broke off goes on where it ended.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use brig_pki::hash::{Sha256, sha256};
use serde::{Deserialize, Serialize};

/// Largest note beside a feed, in bytes.
const MAX_NOTE: u64 = 64 << 10;

/// The folder. One process at a time has it.
#[derive(Debug)]
pub struct Kept {
    folder: PathBuf,
    _lock: File,
}

/// What a server said of a version of its feed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) etag: Option<String>,
    pub(super) modified: Option<String>,
}

impl Version {
    /// What tells this version from all others byte for byte (RFC 9110, 13.1.5).
    pub(super) fn strong(&self) -> Option<&str> {
        let strong = |tag: &&str| !tag.starts_with("W/");
        self.etag.as_deref().filter(strong)
    }

    /// Whether the server can be asked for changes.
    pub(super) const fn is_known(&self) -> bool {
        self.etag.is_some() || self.modified.is_some()
    }
}

/// What is known of a kept file.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    address: String,
    version: Version,
    /// Of a whole feed; of one that broke off there is none.
    digest: Option<String>,
}

impl Kept {
    /// The folder of a database's feeds, made when it is not there.
    ///
    /// # Errors
    /// When another process uses it, or others than its owner may write it.
    pub fn open(database: &Path) -> io::Result<Self> {
        let mut name = database.as_os_str().to_owned();
        name.push(".feeds");
        let folder = PathBuf::from(name);
        match DirBuilder::new().recursive(true).mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let lock = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::DIRECTORY.bits().cast_signed())
            .open(&folder)?;
        let facts = lock.metadata()?;
        if facts.uid() != rustix::process::geteuid().as_raw() || facts.mode() & 0o022 != 0 {
            return Err(io::Error::other("others than its owner may write it"));
        }
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(io::Error::other("another update is at work there"))
            }
            other => other.map_err(io::Error::from).map(|()| Self { folder, _lock: lock }),
        }
    }

    fn path(&self, address: &str, ending: &str) -> PathBuf {
        let name = sha256(address.as_bytes());
        let hex: String = name.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(format!("{hex}.{ending}"))
    }

    fn note(&self, address: &str, ending: &str) -> Option<Note> {
        let mut bytes = Vec::new();
        let file = File::open(self.path(address, ending)).ok()?;
        file.take(MAX_NOTE).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok().filter(|note: &Note| note.address == address)
    }

    /// A feed that was fetched whole, if it still is what was fetched.
    pub(super) fn whole(&self, address: &str) -> Option<(File, Version)> {
        let note = self.note(address, "json")?;
        let mut file = File::open(self.path(address, "feed")).ok()?;
        let (_, digest) = digest_of(&mut file).ok()?;
        (note.digest? == digest && note.version.is_known()).then_some(())?;
        file.rewind().ok()?;
        Some((file, note.version))
    }

    /// A feed that broke off, open behind its last byte, and how many there are.
    pub(super) fn part(&self, address: &str) -> Option<(File, u64, Version)> {
        let note = self.note(address, "part.json")?;
        note.version.strong()?;
        let path = self.path(address, "part");
        let mut file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        let size = file.seek(SeekFrom::End(0)).ok()?;
        (size > 0).then_some((file, size, note.version))
    }

    /// Begins a feed anew.
    pub(super) fn begin(&self, address: &str, version: &Version) -> io::Result<File> {
        self.forget_part(address);
        let note = Note { address: address.to_owned(), version: version.clone(), digest: None };
        self.write_note(address, "part.json", &note)?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path(address, "part"))
    }

    /// A feed has come to its end: it takes the place of the older one.
    pub(super) fn finish(
        &self,
        address: &str,
        mut file: File,
        version: Version,
    ) -> io::Result<File> {
        let (_, digest) = digest_of(&mut file)?;
        let _ = fs::remove_file(self.path(address, "json"));
        fs::rename(self.path(address, "part"), self.path(address, "feed"))?;
        let _ = fs::remove_file(self.path(address, "part.json"));
        let note = Note { address: address.to_owned(), version, digest: Some(digest) };
        self.write_note(address, "json", &note)?;
        file.rewind()?;
        Ok(file)
    }

    /// Drops what broke off.
    pub(super) fn forget_part(&self, address: &str) {
        for ending in ["part.json", "part"] {
            let _ = fs::remove_file(self.path(address, ending));
        }
    }

    /// Drops everything of a feed: it is not what it should be.
    pub fn forget(&self, address: &str) {
        self.forget_part(address);
        for ending in ["json", "feed"] {
            let _ = fs::remove_file(self.path(address, ending));
        }
    }

    /// Drops the feeds of addresses that are not asked any more.
    pub fn keep_only<'a>(&self, addresses: impl Iterator<Item = &'a str>) {
        let wanted: Vec<PathBuf> = addresses.map(|address| self.path(address, "x")).collect();
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        for entry in entries.filter_map(Result::ok) {
            let of = |name: &PathBuf| name.file_stem().map(std::ffi::OsStr::to_owned);
            let name = entry.file_name().to_string_lossy().into_owned();
            let stem = name.split('.').next().unwrap_or_default().to_owned();
            if !wanted.iter().any(|path| of(path).is_some_and(|known| *known == *stem)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Losing a note costs a download: it is replaced whole, and not waited for.
    fn write_note(&self, address: &str, ending: &str, note: &Note) -> io::Result<()> {
        let path = self.path(address, ending);
        let new = self.path(address, "new");
        let _ = fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(note)?)?;
        fs::rename(&new, &path)
    }
}

/// Length and SHA-256 of a whole file.
fn digest_of(file: &mut File) -> io::Result<(u64, String)> {
    file.rewind()?;
    let mut hash = Sha256::new();
    let size = io::copy(file, &mut hash)?;
    Ok((size, hash.finish().iter().map(|byte| format!("{byte:02x}")).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: &str = "https://feeds.example/a.json";

    fn version() -> Version {
        Version { etag: Some("\"1\"".to_owned()), modified: None }
    }

    #[test]
    fn what_is_kept_is_used_while_it_is_what_was_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(&folder.path().join("a.db")).unwrap();
        let mut file = kept.begin(ADDRESS, &version()).unwrap();
        file.write_all(b"half").unwrap();
        assert!(kept.whole(ADDRESS).is_none());
        let (file, size, known) = kept.part(ADDRESS).unwrap();
        assert_eq!((size, known), (4, version()));
        kept.finish(ADDRESS, file, version()).unwrap();
        assert!(kept.part(ADDRESS).is_none());
        assert_eq!(kept.whole(ADDRESS).unwrap().1, version());
        fs::write(kept.path(ADDRESS, "feed"), b"other").unwrap();
        assert!(kept.whole(ADDRESS).is_none(), "a damaged file is no feed");
        kept.keep_only(["https://feeds.example/b.json"].into_iter());
        assert_eq!(fs::read_dir(&kept.folder).unwrap().count(), 0);
    }

    #[test]
    fn weak_versions_are_not_put_together() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(&folder.path().join("a.db")).unwrap();
        let weak = Version { etag: Some("W/\"1\"".to_owned()), modified: None };
        kept.begin(ADDRESS, &weak).unwrap().write_all(b"half").unwrap();
        assert!(kept.part(ADDRESS).is_none());
    }

    #[test]
    fn a_folder_of_others_or_in_use_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a.db");
        let kept = Kept::open(&database).unwrap();
        assert!(Kept::open(&database).unwrap_err().to_string().contains("another update"));
        let path = kept.folder.clone();
        drop(kept);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert!(Kept::open(&database).unwrap_err().to_string().contains("others"));
    }
}
