//! Mounts as requests ask for them (`--mount`), shared by containers and services.

use std::collections::BTreeMap;

model! {
    /// One requested mount.
    pub struct Mount {
        /// `bind`, `volume`, `tmpfs`, `npipe`, `cluster`, `image`.
        #[serde(rename = "Type")] kind: String = omitempty,
        source: String = omitempty,
        target: String = omitempty,
        read_only: bool = omitempty,
        /// `consistent`, `cached`, `delegated`: accepted, without effect on Linux.
        consistency: String = omitempty,
        bind_options: Option<BindOptions> = omitempty,
        volume_options: Option<VolumeOptions> = omitempty,
        image_options: Option<ImageOptions> = omitempty,
        tmpfs_options: Option<TmpfsOptions> = omitempty,
        cluster_options: Option<crate::Empty> = omitempty,
    }

    /// Options of a bind mount.
    pub struct BindOptions {
        propagation: String = omitempty,
        non_recursive: bool = omitempty,
        create_mountpoint: bool = omitempty,
        read_only_non_recursive: bool = omitempty,
        read_only_force_recursive: bool = omitempty,
    }

    /// Options of a volume mount.
    pub struct VolumeOptions {
        no_copy: bool = omitempty,
        labels: BTreeMap<String, String> = omitempty,
        subpath: String = omitempty,
        driver_config: Option<Driver> = omitempty,
    }

    /// A driver and its options.
    pub struct Driver {
        name: String = omitempty,
        options: BTreeMap<String, String> = omitempty,
    }

    /// Options of an image mount.
    pub struct ImageOptions {
        subpath: String = omitempty,
    }

    /// Options of a tmpfs mount.
    pub struct TmpfsOptions {
        /// Bytes; 0 is no limit.
        size_bytes: i64 = omitempty,
        /// Permission bits; 0 is the default, 1777.
        mode: u32 = omitempty,
        options: Vec<Vec<String>> = omitempty,
    }
}
