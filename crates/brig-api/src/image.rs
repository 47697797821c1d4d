//! Images: list, inspect, history, removal, and what a registry knows of one.

use std::collections::BTreeMap;

use crate::container::ContainerConfig;
use crate::inspect::GraphDriver;

model! {
    /// One element of `GET /images/json`.
    pub struct ImageSummary {
        /// -1: not counted.
        containers: i64,
        /// Unix seconds.
        created: i64,
        id: String,
        labels: BTreeMap<String, String>,
        parent_id: String,
        repo_digests: Vec<String>,
        repo_tags: Vec<String>,
        /// -1: not computed.
        shared_size: i64,
        size: i64,
        /// Until API 1.43.
        virtual_size: Option<i64> = omitempty,
    }

    /// `GET /images/{name}/json`.
    pub struct ImageInspect {
        id: String,
        repo_tags: Vec<String>,
        repo_digests: Vec<String>,
        parent: String,
        comment: String,
        created: String = omitempty,
        /// Until API 1.44.
        container: Option<String> = omitempty,
        /// Until API 1.44.
        container_config: Option<ContainerConfig> = omitempty,
        docker_version: String,
        author: String,
        config: Option<ContainerConfig>,
        architecture: String,
        variant: String = omitempty,
        os: String,
        size: i64,
        /// Until API 1.43.
        virtual_size: Option<i64> = omitempty,
        graph_driver: GraphDriver,
        #[serde(rename = "RootFS")] root_fs: RootFs,
        metadata: ImageMetadata,
        /// From API 1.48.
        descriptor: Option<serde_json::Value> = omitempty,
    }

    /// The layers of an image, as digests of their uncompressed tars.
    pub struct RootFs {
        #[serde(rename = "Type")] kind: String,
        layers: Vec<String> = omitempty,
    }

    /// What the engine remembers about an image beside its content.
    pub struct ImageMetadata {
        last_tag_time: String,
    }

    /// One element of `GET /images/{name}/history`, newest first.
    pub struct HistoryItem {
        /// `<missing>` for layers without an image.
        id: String,
        /// Unix seconds.
        created: i64,
        created_by: String,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] tags: Vec<String>,
        size: i64,
        comment: String,
    }

    /// One step of an image's removal; exactly one of the fields is set.
    pub struct ImageDeleteItem {
        untagged: Option<String> = omitempty,
        deleted: Option<String> = omitempty,
    }

    /// `GET /distribution/{name}/json`.
    pub struct DistributionInspect {
        descriptor: Descriptor,
        platforms: Vec<OciPlatform>,
    }

    /// An OCI content descriptor.
    pub struct Descriptor {
        #[serde(rename = "mediaType")] media_type: String,
        #[serde(rename = "digest")] digest: String,
        #[serde(rename = "size")] size: i64,
    }

    /// A platform under the OCI image spec's names.
    pub struct OciPlatform {
        #[serde(rename = "architecture")] architecture: String,
        #[serde(rename = "os")] os: String,
        #[serde(rename = "os.version")] os_version: String = omitempty,
        #[serde(rename = "os.features")] os_features: Vec<String> = omitempty,
        #[serde(rename = "variant")] variant: String = omitempty,
    }

    /// `POST /images/prune`.
    pub struct ImagesPruneReport {
        #[serde(serialize_with = "crate::nullable::null_when_empty")] images_deleted: Vec<ImageDeleteItem>,
        space_reclaimed: u64,
    }
}
