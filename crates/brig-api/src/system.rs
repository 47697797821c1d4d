//! The engine itself: version, disk usage, logins.

use std::collections::BTreeMap;

use crate::container::ContainerSummary;
use crate::data::SecretText;
use crate::image::ImageSummary;
pub use crate::image::ImagesPruneReport;
pub use crate::info::*;
pub use crate::network::NetworksPruneReport;
use crate::volume::Volume;
pub use crate::volume::VolumesPruneReport;

model! {
    /// `GET /version`.
    pub struct Version {
        platform: Platform,
        components: Vec<ComponentVersion>,
        version: String,
        api_version: String,
        #[serde(rename = "MinAPIVersion")] min_api_version: String,
        git_commit: String,
        go_version: String,
        os: String,
        arch: String,
        kernel_version: String = omitempty,
        experimental: bool = omitempty,
        build_time: String = omitempty,
    }

    /// The product's name.
    pub struct Platform {
        name: String,
    }

    /// A part of the engine; the first one, named `Engine`, is what clients print as the server.
    pub struct ComponentVersion {
        name: String,
        version: String,
        details: BTreeMap<String, String>,
    }

    /// `GET /system/df`.
    pub struct DiskUsage {
        layers_size: i64,
        images: Vec<ImageSummary>,
        containers: Vec<ContainerSummary>,
        volumes: Vec<Volume>,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] build_cache: Vec<serde_json::Value>,
        builder_size: Option<i64> = omitempty,
    }

    /// `POST /containers/prune`.
    pub struct ContainersPruneReport {
        #[serde(serialize_with = "crate::nullable::null_when_empty")] containers_deleted: Vec<String>,
        space_reclaimed: u64,
    }

    /// `POST /auth`.
    pub struct AuthRequest {
        #[serde(rename = "username")] username: String = omitempty,
        #[serde(rename = "password")] password: SecretText = omitempty,
        #[serde(rename = "email")] email: String = omitempty,
        #[serde(rename = "serveraddress")] serveraddress: String = omitempty,
        #[serde(rename = "identitytoken")] identitytoken: SecretText = omitempty,
        #[serde(rename = "registrytoken")] registrytoken: SecretText = omitempty,
    }

    /// The answer to a login.
    pub struct AuthResponse {
        status: String,
        /// Stored instead of the password when not empty.
        identity_token: SecretText,
    }
}
