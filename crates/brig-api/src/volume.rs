//! Volumes.

use std::collections::BTreeMap;

model! {
    /// A volume.
    pub struct Volume {
        created_at: String = omitempty,
        driver: String,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] labels: BTreeMap<String, String>,
        mountpoint: String,
        name: String,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] options: BTreeMap<String, String>,
        /// `local` or `global`.
        scope: String,
        status: BTreeMap<String, serde_json::Value> = omitempty,
        /// Only in `system df`.
        usage_data: Option<UsageData> = omitempty,
    }

    /// How much a volume is used.
    pub struct UsageData {
        ref_count: i64,
        size: i64,
    }

    /// `POST /volumes/create`.
    pub struct VolumeCreateRequest {
        /// Empty: the engine makes one up.
        name: String = omitempty,
        driver: String = omitempty,
        driver_opts: BTreeMap<String, String> = omitempty,
        labels: BTreeMap<String, String> = omitempty,
        cluster_volume_spec: Option<serde_json::Value> = omitempty,
    }

    /// `GET /volumes`.
    pub struct VolumeListResponse {
        volumes: Vec<Volume>,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] warnings: Vec<String>,
    }

    /// `POST /volumes/prune`.
    pub struct VolumesPruneReport {
        #[serde(serialize_with = "crate::nullable::null_when_empty")] volumes_deleted: Vec<String>,
        space_reclaimed: u64,
    }
}
