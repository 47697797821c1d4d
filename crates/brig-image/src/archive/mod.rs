//! Image archives: `docker save`'s layout and the OCI image layout, in a tar that may be
//! compressed.
//!
//! An archive is copied, decompressed, to one nameless file on disk while its entries are noted;
//! then what it holds is read by offset. Names in the archive therefore never become paths of this
//! machine, and its symbolic links are looked up in the notes only.

mod layout;
mod spool;

pub(crate) use layout::{ArchivedImage, ArchivedLayer, read_images};
pub(crate) use spool::Spool;

/// Reads what images an archive has; for fuzzing only.
#[cfg(fuzzing)]
pub fn fuzz_archive(archive: &[u8], dir: &std::path::Path) {
    let limits = crate::limits::Limits { archive: 1 << 20, ..Default::default() };
    if let Ok(spool) = Spool::fill(archive, dir, &limits) {
        let _ = read_images(&spool, &crate::platform::Platform::host());
    }
}
