//! Processes started in running containers.

model! {
    /// `POST /containers/{id}/exec`.
    pub struct ExecConfig {
        user: String,
        privileged: bool,
        tty: bool,
        /// Height, width; from API 1.42, with a TTY.
        console_size: Option<[u32; 2]> = omitempty,
        attach_stdin: bool,
        attach_stderr: bool,
        attach_stdout: bool,
        detach: bool,
        detach_keys: String,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] env: Vec<String>,
        working_dir: String,
        #[serde(serialize_with = "crate::nullable::null_when_empty")] cmd: Vec<String>,
    }

    /// `POST /exec/{id}/start`.
    pub struct ExecStartRequest {
        detach: bool,
        tty: bool,
        /// Height, width; from API 1.42, with a TTY.
        console_size: Option<[u32; 2]> = omitempty,
    }

    /// `GET /exec/{id}/json`.
    pub struct ExecInspect {
        #[serde(rename = "ID")] id: String,
        running: bool,
        exit_code: Option<i64>,
        process_config: ExecProcessConfig,
        open_stdin: bool,
        open_stderr: bool,
        open_stdout: bool,
        can_remove: bool,
        #[serde(rename = "ContainerID")] container_id: String,
        detach_keys: String,
        pid: i64,
    }

    /// What the exec runs. This one object has lower-case names.
    pub struct ExecProcessConfig {
        #[serde(rename = "tty")] tty: bool,
        #[serde(rename = "entrypoint")] entrypoint: String,
        #[serde(rename = "arguments")] arguments: Vec<String>,
        #[serde(rename = "privileged")] privileged: Option<bool> = omitempty,
        #[serde(rename = "user")] user: String = omitempty,
    }

    /// An answer that is only an id (`exec`, `commit`).
    pub struct IdResponse {
        id: String,
    }
}
