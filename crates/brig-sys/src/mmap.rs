//! Files mapped into memory, for reading only.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;

/// A file's content as bytes, without reading it first.
///
/// Meant for files that are replaced by renaming and never written in place: [`Mapping::open`]
/// refuses what anybody but the caller and root could write to.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is private to the value, read-only and lives as long as it does.
unsafe impl Send for Mapping {}
// SAFETY: shared references only read.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the whole of a file.
    ///
    /// # Errors
    /// The kernel's, `InvalidInput` for what is not a regular file, is empty or too large to map,
    /// and `PermissionDenied` when another user could change it.
    pub fn open(file: &File) -> io::Result<Self> {
        let facts = file.metadata()?;
        if !facts.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let caller = rustix::process::geteuid().as_raw();
        if (facts.uid() != 0 && facts.uid() != caller) || facts.mode() & 0o022 != 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "another user owns it or may write to it",
            ));
        }
        let length = usize::try_from(facts.len())
            .ok()
            .filter(|length| *length > 0 && isize::try_from(*length).is_ok())
            .ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, "empty or too large to map")
            })?;
        // SAFETY: a new mapping at a place of the kernel's choice, of a descriptor that is open for
        // the call; it touches no memory of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<u8>())
            .ok_or_else(|| io::Error::other("the kernel mapped a file at address 0"))?;
        Ok(Self { start, length })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range was mapped readable in `open`, is unmapped only by `drop`, and is no
        // longer than `isize::MAX`. Only the owner and root may write the file, and they replace it.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `open` mapped; nothing borrows from it any more.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.length);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_readable_as_bytes() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"content").unwrap();
        let mapping = Mapping::open(file.as_file()).unwrap();
        assert_eq!(&*mapping, b"content");
    }

    #[test]
    fn empty_files_folders_and_what_others_may_write_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Mapping::open(file.as_file()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let folder = File::open(std::env::temp_dir()).unwrap();
        assert_eq!(Mapping::open(&folder).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let mut shared = tempfile::NamedTempFile::new().unwrap();
        shared.write_all(b"x").unwrap();
        shared.as_file().set_permissions(std::fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(
            Mapping::open(shared.as_file()).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
    }
}
