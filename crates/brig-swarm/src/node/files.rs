//! The swarm's directory, laid out like Docker's.
//!
//! | path | what |
//! | --- | --- |
//! | `docker-state.json` | the addresses this node was given |
//! | `state.json` | the managers it knows |
//! | `certificates/` | its identity, see `brig_pki::keyfile` |
//! | `cluster.redb`, `cluster.wal` | the sealed store of a swarm with one manager, and its log |
//! | `store.json` | where the store is, once that is not this file |
//! | `etcd/` | the member of the replicated store on this manager, with its certificates |
//! | `worker/tasks/` | the tasks it has |

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use brig_files::Durability;
use brig_proto::swarm::Peer;
use brig_store::RedbBackend;
use serde::{Deserialize, Serialize};

use crate::error::SwarmError;
use crate::replica::Place;

const ADDRESSES: &str = "docker-state.json";
const MANAGERS: &str = "state.json";
const STORE_PLACE: &str = "store.json";
/// Largest file that is read back.
const MAX_FILE: u64 = 1 << 20;

/// The addresses that a node was given; `docker-state.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Addresses {
    /// Address of this node towards the others.
    pub(crate) local_addr: String,
    /// The manager that was joined; empty on the first one.
    pub(crate) remote_addr: String,
    /// Where the manager listens.
    pub(crate) listen_addr: String,
    /// Where others reach the manager.
    pub(crate) advertise_addr: String,
    /// Where the traffic of cluster networks goes.
    pub(crate) data_path_addr: String,
    /// Subnets that cluster networks are cut from.
    pub(crate) default_address_pool: Option<Vec<String>>,
    /// Prefix length of such a network.
    pub(crate) subnet_size: u32,
    /// Port of the traffic of cluster networks.
    pub(crate) data_path_port: u32,
    /// Whether a join was interrupted.
    pub(crate) join_in_progress: bool,
}

#[derive(Serialize, Deserialize)]
struct KnownManager {
    node_id: String,
    addr: String,
}

/// Paths within a swarm's directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout(pub(crate) PathBuf);

impl Layout {
    pub(crate) fn certificates(&self) -> PathBuf {
        self.0.join("certificates")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.0.join("cluster.redb")
    }

    /// Of the replicated store's member.
    pub(crate) fn replica(&self) -> PathBuf {
        self.0.join("etcd")
    }

    /// Where the store is; `None` when that was never written, as in a swarm of one manager.
    pub(crate) fn read_store_place(&self) -> Result<Option<Place>, SwarmError> {
        if self.0.join(STORE_PLACE).exists() {
            self.read_json(STORE_PLACE).map(Some)
        } else {
            Ok(None)
        }
    }

    pub(crate) fn write_store_place(&self, place: &Place) -> Result<(), SwarmError> {
        self.write_json(STORE_PLACE, place)
    }

    /// Removes the sealed store; fine if there is none.
    pub(crate) fn remove_store(&self) -> Result<(), SwarmError> {
        let path = self.store();
        RedbBackend::remove(&path).map_err(|source| failed("remove", &path, source))
    }

    pub(crate) fn remove_store_place(&self) -> Result<(), SwarmError> {
        remove_file(&self.0.join(STORE_PLACE))
    }

    pub(crate) fn tasks(&self) -> PathBuf {
        self.0.join("worker/tasks")
    }

    pub(crate) fn write_addresses(&self, addresses: &Addresses) -> Result<(), SwarmError> {
        self.write_json(ADDRESSES, addresses)
    }

    pub(crate) fn read_addresses(&self) -> Result<Addresses, SwarmError> {
        self.read_json(ADDRESSES)
    }

    pub(crate) fn write_managers(&self, managers: &[Peer]) -> Result<(), SwarmError> {
        let known: Vec<KnownManager> = managers
            .iter()
            .map(|peer| KnownManager { node_id: peer.node_id.clone(), addr: peer.addr.clone() })
            .collect();
        self.write_json(MANAGERS, &known)
    }

    pub(crate) fn read_managers(&self) -> Result<Vec<Peer>, SwarmError> {
        let known: Vec<KnownManager> = self.read_json(MANAGERS)?;
        Ok(known.into_iter().map(|KnownManager { node_id, addr }| Peer { node_id, addr }).collect())
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), SwarmError> {
        let path = self.0.join(name);
        let write =
            || brig_files::replace(&path, &serde_json::to_vec(value)?, 0o600, Durability::Synced);
        write().map_err(|source| failed("write", &path, source))
    }

    fn read_json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, SwarmError> {
        let path = self.0.join(name);
        let mut bytes = Vec::new();
        File::open(&path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)).map_err(
            |source| match source.kind() {
                io::ErrorKind::NotFound => self.damaged(format!("{name} is missing")),
                _ => failed("read", &path, source),
            },
        )?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.damaged(format!("{name} cannot be read: {error}")))
    }

    /// The state is there but not usable.
    pub(crate) fn damaged(&self, problem: String) -> SwarmError {
        SwarmError::Damaged { directory: self.0.display().to_string(), problem }
    }
}

/// Whether anything of a swarm is there.
pub(crate) fn is_occupied(dir: &Path) -> Result<bool, SwarmError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(failed("read", dir, source)),
    }
}

/// A new private directory beside `dir`, to become it.
pub(crate) fn prepare_beside(dir: &Path) -> Result<PathBuf, SwarmError> {
    let beside = beside(dir, "new");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&beside)
        .map_err(|source| failed("create", &beside, source))?;
    Ok(beside)
}

/// Moves a finished directory to its place.
pub(crate) fn move_into_place(finished: &Path, dir: &Path) -> Result<(), SwarmError> {
    fs::rename(finished, dir)
        .and_then(|()| brig_files::sync_folder_of(dir))
        .map_err(|source| failed("create", dir, source))
}

/// Takes a directory away in one step, then deletes it at leisure.
pub(crate) fn discard(dir: &Path) -> Result<(), SwarmError> {
    let gone = beside(dir, "removed");
    match fs::rename(dir, &gone) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed("remove", dir, source)),
        Ok(()) => {}
    }
    brig_files::sync_folder_of(dir).map_err(|source| failed("remove", dir, source))?;
    fs::remove_dir_all(&gone).map_err(|source| failed("remove", &gone, source))
}

/// Deletes what an interrupted change left beside `dir`.
pub(crate) fn remove_leftovers(dir: &Path) -> Result<(), SwarmError> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Ok(());
    };
    let prefix = format!("{}.", name.to_string_lossy());
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed("read", parent, source)),
    };
    for entry in entries.flatten() {
        let is_leftover = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix(&prefix))
            .is_some_and(|rest| rest.starts_with("new-") || rest.starts_with("removed-"));
        if is_leftover {
            fs::remove_dir_all(entry.path())
                .map_err(|source| failed("remove", &entry.path(), source))?;
        }
    }
    Ok(())
}

/// A folder that nobody else looks into; fine if it is there.
pub(crate) fn create_private_dir(dir: &Path) -> Result<(), SwarmError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| failed("create", dir, source))
}

/// Replaces a file that nobody else reads: old or new, never something between.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), SwarmError> {
    brig_files::replace(path, content, 0o600, Durability::Synced)
        .map_err(|source| failed("write", path, source))
}

/// Removes a file; fine if there is none.
pub(crate) fn remove_file(path: &Path) -> Result<(), SwarmError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a folder and all in it; fine if there is none.
pub(crate) fn remove_dir(dir: &Path) -> Result<(), SwarmError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", dir, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn beside(dir: &Path, what: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(format!(".{what}-{}", brig_types::id::random_swarm_id()));
    PathBuf::from(name)
}

pub(crate) fn failed(action: &'static str, path: &Path, source: io::Error) -> SwarmError {
    SwarmError::File { action, path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_appears_and_goes_as_a_whole() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("swarm");
        assert!(!is_occupied(&dir).unwrap());
        let new = prepare_beside(&dir).unwrap();
        fs::write(new.join("x"), b"x").unwrap();
        assert!(!is_occupied(&dir).unwrap());
        move_into_place(&new, &dir).unwrap();
        assert!(is_occupied(&dir).unwrap());
        discard(&dir).unwrap();
        discard(&dir).unwrap();
        assert!(!is_occupied(&dir).unwrap());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn leftovers_go_and_neighbours_stay() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("swarm");
        prepare_beside(&dir).unwrap();
        fs::create_dir(temp.path().join("swarm.removed-x")).unwrap();
        fs::create_dir(temp.path().join("swarm.backup")).unwrap();
        fs::create_dir(temp.path().join("image")).unwrap();
        remove_leftovers(&dir).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["image", "swarm.backup"]);
    }

    #[test]
    fn state_files_have_dockers_shape() {
        let temp = tempfile::tempdir().unwrap();
        let layout = Layout(temp.path().to_owned());
        let addresses =
            Addresses { listen_addr: "0.0.0.0:2377".to_owned(), ..Addresses::default() };
        layout.write_addresses(&addresses).unwrap();
        let text = fs::read_to_string(temp.path().join(ADDRESSES)).unwrap();
        assert!(text.contains("\"ListenAddr\":\"0.0.0.0:2377\""), "{text}");
        assert_eq!(layout.read_addresses().unwrap(), addresses);
        let peer = Peer { node_id: "n".to_owned(), addr: "a:1".to_owned() };
        layout.write_managers(std::slice::from_ref(&peer)).unwrap();
        let text = fs::read_to_string(temp.path().join(MANAGERS)).unwrap();
        assert_eq!(text, r#"[{"node_id":"n","addr":"a:1"}]"#);
        assert_eq!(layout.read_managers().unwrap(), [peer]);
    }

    #[test]
    fn damage_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let layout = Layout(temp.path().to_owned());
        let error = layout.read_addresses().unwrap_err();
        assert!(error.to_string().contains("docker-state.json is missing"));
        fs::write(temp.path().join(ADDRESSES), b"{").unwrap();
        let error = layout.read_addresses().unwrap_err();
        assert!(error.to_string().contains("docker-state.json cannot be read"));
    }
}
