//! From bytes to an [`Inventory`](crate::package::Inventory): archives, OCI layouts, directories and
//! single layers.
//!
//! A layer is read once, as a stream; what its files say is a [`layer::LayerInventory`], which
//! depends on nothing but the layer and can be kept by its diff id. [`merge::merge`] puts layers on
//! top of each other, deletes what whiteouts delete, and tells which layer brought each package.

pub mod archive;
pub mod detect;
pub mod layer;
pub mod merge;
pub mod tree;

mod decompress;
mod image;
mod tar;

pub use image::of_layers;

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use brig_types::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::package::Inventory;
use crate::sbom;

/// What is to be read of a source that has a choice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Which image of an archive with several: a reference or an image id's beginning.
    pub image: Option<String>,
    /// `os/architecture[/variant]`; this machine's without one.
    pub platform: Option<String>,
    /// Whether layers are compared with their diff ids.
    pub verify: Verify,
    /// Whether lock files of directories count.
    pub lock_files: bool,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            image: None,
            platform: None,
            verify: Verify::DiffIds,
            lock_files: true,
            limits: Limits::default(),
        }
    }
}

/// Whether layers are compared with their diff ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verify {
    /// A layer that is not what the configuration says is an error.
    DiffIds,
    /// Somebody else has compared them.
    AlreadyDone,
}

/// Bounds on what is read. Those of single files are [`detect::Reader::limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Most entries of a layer, of an archive, of a directory.
    pub entries: u64,
    /// Most unpacked bytes of a layer.
    pub layer_bytes: u64,
    /// Most unpacked bytes for each compressed byte, once `ratio_floor` is passed.
    pub ratio: u64,
    /// Unpacked bytes below which the ratio is not looked at.
    pub ratio_floor: u64,
    /// Largest file that is held in memory, where it cannot be read in place.
    pub held_file: u64,
    /// Most packages of an image.
    pub packages: usize,
    /// Most files with findings in a layer.
    pub files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 4_000_000,
            layer_bytes: 256 << 30,
            ratio: 250,
            ratio_floor: 2 << 30,
            held_file: 160 << 20,
            packages: 1_000_000,
            files: 500_000,
        }
    }
}

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The source could not be opened.
    #[error("{path} cannot be opened")]
    Open {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The source could not be read.
    #[error("reading the input failed")]
    Read(#[source] io::Error),
    /// It is nothing that can be scanned.
    #[error(
        "{0}; what can be scanned is an archive of `docker save`, an OCI layout or archive, a \
         directory, or a bill of materials in CycloneDX or SPDX JSON"
    )]
    Unknown(&'static str),
    /// A tar archive is damaged.
    #[error("the archive is damaged: {0}")]
    Tar(&'static str),
    /// An image archive or layout is not complete or contradicts itself.
    #[error("the image is damaged: {0}")]
    Image(String),
    /// The archive has several images.
    #[error("the archive has several images ({names}): say which with --image")]
    Choice {
        /// Their names.
        names: String,
    },
    /// A layer's bytes are not those that the configuration promises.
    #[error("layer {index} has the digest {actual}, its image says {expected}")]
    WrongDiffId {
        /// Which layer, from the bottom.
        index: usize,
        /// What the configuration says.
        expected: Digest,
        /// What the bytes have.
        actual: Digest,
    },
    /// Bytes are not those of their digest.
    #[error("{what} has the digest {actual}, expected was {expected}")]
    WrongDigest {
        /// What.
        what: &'static str,
        /// What refers to it.
        expected: Digest,
        /// What the bytes have.
        actual: Digest,
    },
    /// A compression that layers do not use.
    #[error("{0} compression is not supported")]
    Compression(&'static str),
    /// A bound was passed: a bomb, or not meant for scanning.
    #[error("it has more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// A thread could not be started.
    #[error("a thread could not be started: is the memory enough?")]
    Thread(#[source] io::Error),
    /// A bill of materials could not be read.
    #[error("the bill of materials cannot be read")]
    Sbom(#[source] sbom::SbomError),
    /// The process that reads foreign bytes could not be had.
    #[error("the process that reads the image could not be started or waited for")]
    Start {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It took longer than it may.
    #[error("reading the image took too long and was ended")]
    TooSlow,
    /// The process that reads foreign bytes was not what it must be, or was ended from outside.
    #[error("{0}")]
    Unable(String),
    /// The process that reads foreign bytes failed.
    #[error("{0}")]
    Sandbox(String),
}

impl ScanError {
    /// Whether another try may end differently: what failed is this machine, not the input.
    #[must_use]
    pub const fn is_of_the_moment(&self) -> bool {
        matches!(
            self,
            Self::Open { .. }
                | Self::Read(_)
                | Self::Thread(_)
                | Self::Start { .. }
                | Self::TooSlow
                | Self::Unable(_)
        )
    }
}

/// Makes the inventory of a file or directory in this process. What is foreign goes through
/// [`crate::sandbox`] instead.
///
/// # Errors
/// [`ScanError`].
pub fn read_path(path: &Path, options: &Options) -> Result<Inventory, ScanError> {
    read_fd(open(path)?, options)
}

/// Opens a source.
///
/// # Errors
/// [`ScanError::Open`].
pub fn open(path: &Path) -> Result<OwnedFd, ScanError> {
    File::open(path)
        .map(OwnedFd::from)
        .map_err(|source| ScanError::Open { path: path.display().to_string(), source })
}

/// Makes the inventory of an open file or directory.
///
/// # Errors
/// [`ScanError`].
pub fn read_fd(source: OwnedFd, options: &Options) -> Result<Inventory, ScanError> {
    let file = File::from(source);
    let metadata = file.metadata().map_err(ScanError::Read)?;
    if metadata.is_dir() {
        // A folder of somebody's files may have an index.json as well.
        let layout = tree::has(&file, "index.json") && tree::has(&file, "blobs");
        if tree::has(&file, "oci-layout") || layout {
            return archive::read_layout(&file, options);
        }
        return tree::read(&file, options);
    }
    if !metadata.is_file() {
        return Err(ScanError::Unknown("it is neither a file nor a directory"));
    }
    read_file(&file, metadata.len(), options)
}

fn read_file(file: &File, size: u64, options: &Options) -> Result<Inventory, ScanError> {
    let mut head = [0_u8; 512];
    let read = file.read_at(&mut head, 0).map_err(ScanError::Read)?;
    let head = head.get(..read).unwrap_or_default();
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    if text.starts_with(b"{") {
        if size > sbom::MAX_DOCUMENT {
            return Err(ScanError::Limit { what: "bytes", limit: sbom::MAX_DOCUMENT });
        }
        let mut bytes = Vec::new();
        file.take(sbom::MAX_DOCUMENT).read_to_end(&mut bytes).map_err(ScanError::Read)?;
        return sbom::read(&bytes).map_err(ScanError::Sbom);
    }
    archive::read_archive(file, size, options)
}
