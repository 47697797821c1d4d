//! What is kept about a container on disk, and how it is kept.
//!
//! One JSON file in the container's directory. It holds no secret: those are given to each start
//! and live in memory only.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use brig_api::container::{
    ContainerConfig, EndpointSettings, Health, HostConfig, MountPoint, NetworkingConfig, PortMap,
};
use brig_types::digest::Digest;
use brig_types::id::ContainerId;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::state::State;
use crate::disk::{self, Durability};
use crate::guard::Reach;

/// The file's name in the container's directory.
pub(crate) const RECORD_FILE: &str = "config.json";
/// Largest record that is read back.
const MAX_RECORD_BYTES: u64 = 16 << 20;
const VERSION: u32 = 1;

/// A container's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The layout of this record.
    pub(crate) version: u32,
    pub(crate) id: ContainerId,
    /// Without the leading slash.
    pub(crate) name: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created: OffsetDateTime,
    pub(crate) image_id: Digest,
    /// As sent, with the image's defaults merged in: what inspect shows.
    pub(crate) config: ContainerConfig,
    /// As sent, with docker's defaults filled in.
    pub(crate) host_config: HostConfig,
    /// As sent.
    pub(crate) networking: NetworkingConfig,
    pub(crate) mounts: Vec<MountRecord>,
    pub(crate) state: State,
    /// Automatic starts since the last one by hand.
    #[serde(default)]
    pub(crate) restart_count: i64,
    /// Somebody stopped it: no automatic start.
    #[serde(default)]
    pub(crate) stopped_by_hand: bool,
    /// A start needs secrets handed in; without them it is refused.
    #[serde(default)]
    pub(crate) needs_secrets: bool,
    /// Its anonymous volumes go with it. Only of meaning while it is being removed.
    #[serde(default)]
    pub(crate) remove_volumes: bool,
    /// What the health checks of the last run found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_health: Option<Health>,
    /// The networks it is in, by name, with the addresses of the present run.
    #[serde(default)]
    pub(crate) networks: BTreeMap<String, EndpointSettings>,
    /// The ports of the present run.
    #[serde(default)]
    pub(crate) ports: PortMap,
}

/// Where a mount's content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MountKind {
    Volume,
    Bind,
    Tmpfs,
    /// The engine's own socket, in a role.
    Engine,
}

impl MountKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Bind => "bind",
            Self::Tmpfs => "tmpfs",
            Self::Engine => "engine",
        }
    }
}

/// One mount of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountRecord {
    pub(crate) kind: MountKind,
    /// The volume's name.
    #[serde(default)]
    pub(crate) name: String,
    /// The host's path.
    #[serde(default)]
    pub(crate) source: String,
    /// The container's path.
    pub(crate) destination: String,
    pub(crate) rw: bool,
    /// The options as the caller wrote them.
    #[serde(default)]
    pub(crate) mode: String,
    #[serde(default)]
    pub(crate) propagation: String,
    /// Don't fill an empty volume with the image's content.
    #[serde(default)]
    pub(crate) no_copy: bool,
    /// A directory inside the volume.
    #[serde(default)]
    pub(crate) subpath: String,
    /// The volume was made for this container without a name.
    #[serde(default)]
    pub(crate) anonymous: bool,
    /// Binds: leave out what is mounted below the source.
    #[serde(default)]
    pub(crate) non_recursive: bool,
    /// Binds: a missing source is created.
    #[serde(default)]
    pub(crate) create_source: bool,
    /// Tmpfs: mount options.
    #[serde(default)]
    pub(crate) tmpfs_options: Vec<String>,
}

impl MountRecord {
    /// How far a bind goes.
    pub(crate) fn reach(&self) -> Reach {
        Reach {
            recursive: !self.non_recursive,
            shared: matches!(self.propagation.as_str(), "shared" | "rshared"),
        }
    }

    /// As inspect and list show it.
    pub(crate) fn point(&self) -> MountPoint {
        MountPoint {
            kind: self.kind.as_str().to_owned(),
            name: self.name.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            driver: match self.kind {
                MountKind::Volume => crate::volumes::LOCAL_DRIVER.to_owned(),
                MountKind::Bind | MountKind::Tmpfs | MountKind::Engine => String::new(),
            },
            mode: self.mode.clone(),
            rw: self.rw,
            propagation: self.propagation.clone(),
        }
    }
}

impl Record {
    /// The layout that this engine writes.
    pub(crate) const fn current_version() -> u32 {
        VERSION
    }

    /// The command line: entry point and command.
    pub(crate) fn command(&self) -> Vec<String> {
        // A client's way to say "no entry point" is one empty word.
        let entrypoint = match self.config.entrypoint.as_slice() {
            [one] if one.is_empty() => &[][..],
            words => words,
        };
        entrypoint.iter().chain(&self.config.cmd).cloned().collect()
    }

    /// Writes the record into the container's directory.
    pub(crate) fn save(&self, dir: &Path, durability: Durability) -> io::Result<()> {
        let json = serde_json::to_vec(self).map_err(io::Error::other)?;
        disk::write_file(&dir.join(RECORD_FILE), &json, 0o600, durability)
    }

    /// Reads the record of a container's directory.
    pub(crate) fn load(dir: &Path) -> io::Result<Self> {
        let json = disk::read_limited(&dir.join(RECORD_FILE), MAX_RECORD_BYTES)?;
        let record: Self = serde_json::from_slice(&json)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if record.version > VERSION {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("written by a newer engine (layout {})", record.version),
            ));
        }
        Ok(record)
    }

    /// How a new or changed configuration is written. A container that removes itself has nothing
    /// to tell after a loss of power.
    pub(crate) fn durability(&self) -> Durability {
        if self.host_config.auto_remove { Durability::Cached } else { Durability::Synced }
    }

    /// How a start or stop is written: after a loss of power nothing runs, and only those that
    /// start with the machine need to know whether they did.
    pub(crate) fn state_durability(&self) -> Durability {
        match self.host_config.restart_policy.name.as_str() {
            "" | "no" => Durability::Cached,
            _ => Durability::Synced,
        }
    }
}

/// The files of one container.
#[derive(Clone, Debug)]
pub(crate) struct ContainerPaths {
    /// Record, log and generated files; survives a restart of the machine.
    pub(crate) dir: PathBuf,
    /// The runtime's bundle; ends with the run.
    pub(crate) bundle: PathBuf,
    /// Where the root file system is mounted while it runs.
    pub(crate) rootfs: PathBuf,
    /// Below it, parts of volumes are mounted while it runs.
    pub(crate) subpaths: PathBuf,
}

impl ContainerPaths {
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("container.log")
    }

    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.dir.join("resolv.conf")
    }

    /// What was written to it: whoever changed it since wants it that way.
    pub(crate) fn resolv_conf_written(&self) -> PathBuf {
        self.dir.join("resolv.conf.written")
    }

    pub(crate) fn hostname(&self) -> PathBuf {
        self.dir.join("hostname")
    }

    pub(crate) fn hosts(&self) -> PathBuf {
        self.dir.join("hosts")
    }

    /// The shared memory of a container that lends its IPC namespace.
    pub(crate) fn shm(&self) -> PathBuf {
        self.dir.join("shm")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Record {
        Record {
            version: VERSION,
            id: ContainerId::generate(),
            name: "web".to_owned(),
            created: OffsetDateTime::UNIX_EPOCH,
            image_id: Digest::from_sha256([1; 32]),
            config: ContainerConfig { image: "busybox".to_owned(), ..ContainerConfig::default() },
            host_config: HostConfig::default(),
            networking: NetworkingConfig::default(),
            mounts: Vec::new(),
            state: State::default(),
            restart_count: 0,
            stopped_by_hand: false,
            needs_secrets: false,
            last_health: None,
            remove_volumes: false,
            networks: BTreeMap::new(),
            ports: PortMap::new(),
        }
    }

    #[test]
    fn a_record_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = sample();
        record.state.started_at = Some(OffsetDateTime::now_utc());
        record.save(dir.path(), Durability::Synced).unwrap();
        assert_eq!(Record::load(dir.path()).unwrap(), record);
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record { version: VERSION + 1, ..sample() };
        record.save(dir.path(), Durability::Cached).unwrap();
        assert_eq!(Record::load(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_command_line() {
        let mut record = sample();
        record.config.cmd = vec!["b".into()];
        record.config.entrypoint = vec!["a".into()];
        assert_eq!(record.command(), ["a", "b"]);
        record.config.entrypoint = vec![String::new()];
        assert_eq!(record.command(), ["b"]);
    }
}
