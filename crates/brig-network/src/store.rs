//! The files of the network state.
//!
//! `networks/ID.json` must survive a power cut. `sandboxes/CONTAINER.json` says what a running
//! container has; it only has to survive the daemon, because after a power cut no container runs,
//! so starting a container waits for no disk.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use brig_files::Durability;
use brig_types::id::{ContainerId, EndpointId, NetworkId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::error::NetworkError;
use crate::ports::PortBound;
use crate::spec::NetworkRecord;

/// Far above any real record; a longer file is damaged.
const MAX_FILE: u64 = 4 * 1024 * 1024;
const EXTENSION: &str = "json";

/// What a connected container has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) ports: Vec<PortBound>,
    /// The endpoint that the ports lead to.
    pub(crate) ports_endpoint: Option<EndpointId>,
    pub(crate) dns_servers: Vec<IpAddr>,
    /// Whether a name server was opened inside.
    #[serde(default)]
    pub(crate) resolves: bool,
}

/// The state directory.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    networks: PathBuf,
    sandboxes: PathBuf,
}

impl Store {
    pub(crate) fn open(root: &Path) -> Result<Self, NetworkError> {
        let store = Self { networks: root.join("networks"), sandboxes: root.join("sandboxes") };
        for dir in [&store.networks, &store.sandboxes] {
            brig_files::make_folder(dir, 0o700).map_err(file_error("cannot create", dir))?;
            brig_files::remove_temporary(dir).map_err(file_error("cannot clean", dir))?;
        }
        Ok(store)
    }

    /// Every network; a damaged file is an error, because its containers would lose their network.
    pub(crate) fn networks(&self) -> Result<Vec<NetworkRecord>, NetworkError> {
        let mut records = Vec::new();
        for path in self.files(&self.networks)? {
            records.push(read::<NetworkRecord>(&path)?);
        }
        Ok(records)
    }

    pub(crate) fn save_network(&self, record: &NetworkRecord) -> Result<(), NetworkError> {
        let path = file_name(&self.networks, record.id.as_str());
        write(&path, record, Durability::Synced)
    }

    pub(crate) fn remove_network(&self, id: &NetworkId) -> Result<(), NetworkError> {
        remove(&file_name(&self.networks, id.as_str()))?;
        sync_dir(&self.networks)
    }

    /// Every connected container; what cannot be read was cut off by a power cut and runs no more.
    pub(crate) fn sandboxes(&self) -> Result<Vec<(ContainerId, SandboxRecord)>, NetworkError> {
        let mut records = Vec::new();
        for path in self.files(&self.sandboxes)? {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            match (ContainerId::parse(stem), read(&path)) {
                (Ok(container), Ok(record)) => records.push((container, record)),
                (_, result) => {
                    let error = result.err().map(|error| brig_types::error::chain(&error));
                    tracing::warn!(file = %path.display(), error, "dropped a sandbox record");
                    remove(&path)?;
                }
            }
        }
        Ok(records)
    }

    pub(crate) fn save_sandbox(
        &self,
        container: &ContainerId,
        record: &SandboxRecord,
    ) -> Result<(), NetworkError> {
        let path = file_name(&self.sandboxes, container.as_str());
        write(&path, record, Durability::Cached)
    }

    pub(crate) fn remove_sandbox(&self, container: &ContainerId) -> Result<(), NetworkError> {
        remove(&file_name(&self.sandboxes, container.as_str()))
    }

    fn files(&self, dir: &Path) -> Result<Vec<PathBuf>, NetworkError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(file_error("cannot list", dir))? {
            let path = entry.map_err(file_error("cannot list", dir))?.path();
            if path.extension().is_some_and(|extension| extension == EXTENSION) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

fn file_name(dir: &Path, stem: &str) -> PathBuf {
    dir.join(format!("{stem}.{EXTENSION}"))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, NetworkError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
        .map_err(file_error("cannot read", path))?;
    serde_json::from_slice(&bytes)
        .map_err(|source| NetworkError::Damaged { path: path.to_owned(), source })
}

fn write<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<(), NetworkError> {
    let bytes = serde_json::to_vec(value)
        .map_err(|source| NetworkError::Damaged { path: path.to_owned(), source })?;
    brig_files::replace(path, &bytes, 0o600, durability).map_err(file_error("cannot write", path))
}

fn remove(path: &Path) -> Result<(), NetworkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(file_error("cannot remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn sync_dir(dir: &Path) -> Result<(), NetworkError> {
    brig_files::sync_folder(dir).map_err(file_error("cannot sync", dir))
}

fn file_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> NetworkError {
    let path = path.to_owned();
    move |source| NetworkError::File { action, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::tests::endpoint;
    use crate::spec::Driver;

    fn record() -> NetworkRecord {
        NetworkRecord {
            id: NetworkId::generate(),
            name: "none".to_owned(),
            driver: Driver::Null,
            created_unix_nanos: 1,
            internal: false,
            attachable: false,
            labels: Default::default(),
            options: Default::default(),
            ipam: None,
            bridge: None,
        }
    }

    #[test]
    fn networks_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let record = record();
        store.save_network(&record).unwrap();
        assert_eq!(store.networks().unwrap(), std::slice::from_ref(&record));
        store.remove_network(&record.id).unwrap();
        store.remove_network(&record.id).unwrap();
        assert!(store.networks().unwrap().is_empty());
    }

    #[test]
    fn a_damaged_network_is_an_error_and_a_damaged_sandbox_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let container = ContainerId::generate();
        let sandbox = SandboxRecord {
            endpoints: vec![endpoint("a", 0, true)],
            ports: Vec::new(),
            ports_endpoint: None,
            dns_servers: Vec::new(),
            resolves: true,
        };
        store.save_sandbox(&container, &sandbox).unwrap();
        let sandbox_again = sandbox.clone();
        let torn = dir.path().join(format!("sandboxes/{}.json", ContainerId::generate()));
        fs::write(&torn, b"{\"endpoints\":[").unwrap();
        fs::write(dir.path().join("sandboxes/.x.json.tmp"), b"").unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.sandboxes().unwrap(), [(container, sandbox)]);
        assert_eq!(fs::read_dir(dir.path().join("sandboxes")).unwrap().count(), 1);
        // What cannot be put in its place leaves nothing.
        let taken = ContainerId::generate();
        fs::create_dir(dir.path().join(format!("sandboxes/{taken}.json"))).unwrap();
        store.save_sandbox(&taken, &sandbox_again).unwrap_err();
        assert_eq!(fs::read_dir(dir.path().join("sandboxes")).unwrap().count(), 2);
        fs::write(dir.path().join("networks/x.json"), b"{").unwrap();
        assert!(matches!(store.networks(), Err(NetworkError::Damaged { .. })));
    }
}
