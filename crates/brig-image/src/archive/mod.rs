//! Image archives: `docker save`'s layout and the OCI image layout, in a tar that may be
//! compressed.
//!
//! An archive is copied, decompressed, to one nameless file on disk while its entries are noted;
//! then what it holds is read by offset. Names in the archive therefore never become paths of this
//! machine, and its symbolic links are looked up in the notes only.
//!
//! What looks like a layer is unpacked as it passes rather than copied: what an archive says of its
//! layers mostly comes after them. Nothing of it is used before it was found to be what the image
//! names.

mod layout;
mod spool;
mod staging;

pub(crate) use layout::{ArchivedImage, ArchivedLayer, read_images};
pub(crate) use spool::Spool;
pub(crate) use staging::{Staged, Staging};

/// Reads what images an archive has; for fuzzing only.
#[cfg(feature = "fuzzing")]
pub fn fuzz_archive(archive: &[u8], dir: &std::path::Path) {
    let limits = crate::limits::Limits { archive: 1 << 20, ..Default::default() };
    if let Ok(spool) = Spool::fill(archive, dir, &limits) {
        let _ = read_images(&spool, &crate::platform::Platform::host());
    }
}
