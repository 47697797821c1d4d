//! Bounds on everything that is read from registries and archives.

/// Largest manifest or manifest list (the distribution spec's recommendation), in bytes.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// Largest answer of a token server, in bytes.
pub const MAX_TOKEN: u64 = 1 << 20;
/// Largest image configuration, in bytes.
pub const MAX_CONFIG: u64 = 8 << 20;
/// Largest error answer of a registry that is looked at, in bytes.
pub const MAX_ERROR_BODY: u64 = 64 << 10;
/// Most layers of an image: what overlayfs stacks (`OVL_MAX_STACK`).
pub const MAX_LAYERS: usize = 500;
/// Longest path inside a layer, in bytes (`PATH_MAX` with its terminator).
pub const MAX_PATH: usize = 4095;
/// Longest single path component, in bytes (`NAME_MAX`).
pub const MAX_COMPONENT: usize = 255;
/// Most bytes of headers (long names, PAX records, sparse maps) before one entry.
pub const MAX_ENTRY_HEADERS: u64 = 1 << 20;
/// Largest value of an extended attribute (the kernel's `XATTR_SIZE_MAX`), in bytes.
pub const MAX_XATTR: usize = 64 << 10;
/// Most extended attributes of one entry.
pub const MAX_XATTRS: usize = 64;
/// Most segments of one sparse file.
pub const MAX_SPARSE_SEGMENTS: usize = 64 << 10;
/// Most entries of an image archive (`docker save`, OCI layout) or of a build's context.
pub const MAX_ARCHIVE_ENTRIES: usize = 1_000_000;
/// Most images named by one archive.
pub const MAX_ARCHIVE_IMAGES: usize = 1_000;
/// Largest configurations of all images of one archive, in bytes.
pub const MAX_ARCHIVE_CONFIGS: u64 = 64 << 20;
/// Most bytes of names that are kept while an archive is read: of an image archive's entries, of a
/// layer's directories.
pub const MAX_KEPT_NAMES: usize = 128 << 20;
/// What a kept name costs beside its bytes.
pub const KEPT_NAME_COST: usize = 96;
/// Most values of an image configuration. Three bytes of text are a value that takes a hundred in
/// memory.
pub const MAX_CONFIG_VALUES: usize = 200_000;
/// Deepest tree that becomes a layer: each level holds a descriptor and a part of the stack.
pub const MAX_DEPTH: usize = 512;

/// The bounds that an operator may want to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest compressed layer, in bytes.
    pub layer_compressed: u64,
    /// Largest layer once unpacked: both its archive and the sum of its files, in bytes.
    pub layer_unpacked: u64,
    /// Most entries of one layer.
    pub layer_entries: u64,
    /// Most unpacked bytes for each compressed byte, once `ratio_floor` is passed.
    pub ratio: u64,
    /// Unpacked bytes of a layer or archive below which the ratio is not looked at.
    pub ratio_floor: u64,
    /// Largest image archive once decompressed, in bytes.
    pub archive: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            layer_compressed: 64 << 30,
            layer_unpacked: 256 << 30,
            layer_entries: 4_000_000,
            // Deflate cannot exceed about 1032:1; long runs of zeros in disk images come close.
            ratio: 250,
            ratio_floor: 2 << 30,
            archive: 256 << 30,
        }
    }
}
