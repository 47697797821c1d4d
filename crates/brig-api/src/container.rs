//! Containers: the create request, and the smaller requests and answers around it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Empty;
pub use crate::host_config::*;
pub use crate::inspect::*;
pub use crate::mount::*;
pub use crate::network::{EndpointIpamConfig, EndpointSettings, NetworkingConfig};
use crate::nullable::{is_default, null_when_empty, or_default, string_or_list};

/// What runs in a container, independent of the host: `Config`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[allow(missing_docs)]
pub struct ContainerConfig {
    #[serde(deserialize_with = "or_default")]
    pub hostname: String,
    #[serde(deserialize_with = "or_default")]
    pub domainname: String,
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    #[serde(deserialize_with = "or_default")]
    pub attach_stdin: bool,
    #[serde(deserialize_with = "or_default")]
    pub attach_stdout: bool,
    #[serde(deserialize_with = "or_default")]
    pub attach_stderr: bool,
    /// A set of `80/tcp`.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub exposed_ports: BTreeMap<String, Empty>,
    #[serde(deserialize_with = "or_default")]
    pub tty: bool,
    #[serde(deserialize_with = "or_default")]
    pub open_stdin: bool,
    /// Whether the container's stdin closes when the first attached client ends its own.
    #[serde(deserialize_with = "or_default")]
    pub stdin_once: bool,
    #[serde(deserialize_with = "or_default", serialize_with = "null_when_empty")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "string_or_list", serialize_with = "null_when_empty")]
    pub cmd: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub healthcheck: Option<HealthConfig>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub args_escaped: bool,
    #[serde(deserialize_with = "or_default")]
    pub image: String,
    /// A set of paths with an anonymous volume.
    #[serde(deserialize_with = "or_default", serialize_with = "null_when_empty")]
    pub volumes: BTreeMap<String, Empty>,
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    /// `[""]` means none, not even the image's.
    #[serde(deserialize_with = "string_or_list", serialize_with = "null_when_empty")]
    pub entrypoint: Vec<String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub network_disabled: bool,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub mac_address: String,
    #[serde(deserialize_with = "or_default", serialize_with = "null_when_empty")]
    pub on_build: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub stop_signal: String,
    /// Seconds.
    #[serde(deserialize_with = "or_default", skip_serializing_if = "is_default")]
    pub stop_timeout: Option<i64>,
    #[serde(deserialize_with = "string_or_list", skip_serializing_if = "is_default")]
    pub shell: Vec<String>,
}

model! {
    /// A health check. Durations are nanoseconds, 0 is the default.
    pub struct HealthConfig {
        /// `[]` inherits, `["NONE"]` disables, `["CMD", …]`, `["CMD-SHELL", "line"]`.
        test: Vec<String> = omitempty,
        interval: i64 = omitempty,
        timeout: i64 = omitempty,
        start_period: i64 = omitempty,
        start_interval: i64 = omitempty,
        retries: i64 = omitempty,
    }

    /// The answer to create.
    pub struct ContainerCreateResponse {
        id: String,
        warnings: Vec<String>,
    }

    /// The answer to wait, sent when the condition is met.
    pub struct WaitResponse {
        status_code: i64,
        error: Option<WaitError>,
    }

    /// Why a wait ended without an exit.
    pub struct WaitError {
        message: String,
    }

    /// A changed path of a container's file system.
    pub struct ChangeItem {
        path: String,
        /// 0 changed, 1 added, 2 deleted.
        kind: u8,
    }

    /// The answer to top.
    pub struct TopResponse {
        titles: Vec<String>,
        processes: Vec<Vec<String>>,
    }

    /// The answer to updates of containers and services.
    pub struct UpdateResponse {
        #[serde(serialize_with = "crate::nullable::null_when_empty")] warnings: Vec<String>,
    }
}

/// `POST /containers/create`: the config, with two more objects beside its fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ContainerCreateRequest {
    #[serde(flatten)]
    pub config: ContainerConfig,
    #[serde(rename = "HostConfig", default, deserialize_with = "or_default")]
    pub host_config: HostConfig,
    #[serde(rename = "NetworkingConfig", default, deserialize_with = "or_default")]
    pub networking_config: NetworkingConfig,
}

/// `POST /containers/{id}/update`: the resources to change, with the restart policy beside them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UpdateRequest(
    /// Only resources and `RestartPolicy` are looked at.
    #[serde(deserialize_with = "or_default")]
    pub HostConfig,
);

#[cfg(test)]
mod tests;
