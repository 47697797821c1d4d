//! What this node remembers of its tasks, so that a daemon that was restarted takes up the
//! containers that went on running.
//!
//! One file per task in `worker/tasks/`, named by the task's id, mode 0600: the task without
//! registry credentials and without status, and the last status, sealed with the node's own data
//! key: names and environments of tasks are nobody's business either. Secrets and configs are never
//! in it. Files are replaced whole, but not forced to disk: after a power loss nothing runs any more
//! and the manager's next assignment says what is to be done.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use brig_pki::seal::{KeyRing, Place};
use brig_proto::swarm::{Task, TaskStatus};
use brig_types::id::TaskId;
use prost::Message as _;

use crate::task;

/// Largest record that is read back.
const MAX_RECORD: u64 = 4 << 20;
const TEMPORARY: &str = ".new";
/// What sealed records are bound to, beside the task's id.
const PLACE: &str = "agent-task";

/// A task as this node remembers it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Record {
    /// The task as the manager sent it, without credentials and status.
    #[prost(message, optional, tag = "1")]
    pub(crate) task: Option<Task>,
    /// The last status.
    #[prost(message, optional, tag = "2")]
    pub(crate) status: Option<TaskStatus>,
}

/// What was remembered.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Tasks with their last status.
    pub(crate) records: Vec<(Task, TaskStatus)>,
    /// Tasks whose record is there but cannot be read. They may run.
    pub(crate) unreadable: BTreeSet<String>,
}

/// The directory with one file per task.
#[derive(Clone)]
pub(crate) struct Database {
    dir: PathBuf,
    keys: Arc<KeyRing>,
}

impl Database {
    /// Opens the directory and makes it if it isn't there.
    pub(crate) fn open(dir: &Path, keys: Arc<KeyRing>) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self { dir: dir.to_path_buf(), keys })
    }

    /// Everything that is remembered, sealed with the current key from now on. Files that are no
    /// task's, left by an interrupted write, are deleted.
    pub(crate) fn load(&self) -> io::Result<Loaded> {
        let mut loaded = Loaded::default();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let id = path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| TaskId::parse(name).ok());
            let Some(id) = id else {
                tracing::warn!(file = %path.display(), "deleted a file that is no task's record");
                fs::remove_file(&path)?;
                continue;
            };
            match self.read(&path, id.as_str()) {
                Some(record) => loaded.records.push(record),
                None => {
                    tracing::warn!(task = %id, "a task's record cannot be read, its container stays until a manager says what it wants");
                    loaded.unreadable.insert(id.to_string());
                }
            }
        }
        Ok(loaded)
    }

    /// Remembers a task.
    pub(crate) fn put(&self, task: &Task, status: &TaskStatus) -> io::Result<()> {
        let path = self.path(&task.id)?;
        let record = Record { task: Some(without_credentials(task)), status: Some(status.clone()) };
        self.write(&path, &task.id, &record).map(drop)
    }

    fn write(&self, path: &Path, id: &str, record: &Record) -> io::Result<fs::File> {
        let temporary = path.with_extension(TEMPORARY.trim_start_matches('.'));
        let place = Place { kind: PLACE, id };
        let sealed = self.keys.seal(place, &record.encode_to_vec()).map_err(io::Error::other)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&sealed)?;
        fs::rename(&temporary, path)?;
        Ok(file)
    }

    /// Forgets a task.
    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        match fs::remove_file(self.path(id)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn read(&self, path: &Path, name: &str) -> Option<(Task, TaskStatus)> {
        let mut sealed = Vec::new();
        fs::File::open(path).ok()?.take(MAX_RECORD).read_to_end(&mut sealed).ok()?;
        let plain = self.keys.open(Place { kind: PLACE, id: name }, &sealed).ok()?;
        let record = Record::decode(plain.as_slice()).ok()?;
        if self.keys.is_outdated(&sealed) {
            // The older key may be gone afterwards, so this must not be lost.
            let written = self.write(path, name, &record).and_then(|file| file.sync_all());
            if let Err(error) = written {
                tracing::warn!(%error, task = name, "a task's record is not sealed with the current key");
            }
        }
        let task = record.task.filter(|task| task.id == name)?;
        Some((task, record.status?))
    }

    /// A manager decides the ids, so they are checked before they become file names.
    fn path(&self, id: &str) -> io::Result<PathBuf> {
        TaskId::parse(id)
            .map(|id| self.dir.join(id.as_str()))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }
}

/// A copy that may be written to disk.
fn without_credentials(original: &Task) -> Task {
    let mut copy = original.clone();
    copy.status = None;
    if let Some(container) = copy.spec.as_mut().and_then(task::container_mut) {
        container.pull_options = None;
    }
    copy
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use brig_proto::swarm::{ContainerSpec, TaskSpec, container_spec::PullOptions, task_spec};

    use super::*;

    fn open(dir: &Path) -> Database {
        Database::open(dir, Arc::new(KeyRing::generate().unwrap())).unwrap()
    }

    fn task() -> Task {
        Task {
            id: TaskId::generate().to_string(),
            spec: Some(TaskSpec {
                runtime: Some(task_spec::Runtime::Container(ContainerSpec {
                    image: "busybox".to_owned(),
                    pull_options: Some(PullOptions { registry_auth: "hunter2".to_owned() }),
                    ..ContainerSpec::default()
                })),
                ..TaskSpec::default()
            }),
            ..Task::default()
        }
    }

    #[test]
    fn tasks_come_back_without_credentials() {
        let temp = tempfile::tempdir().unwrap();
        let database = open(&temp.path().join("worker/tasks"));
        let task = task();
        let status = TaskStatus { state: 512, ..TaskStatus::default() };
        database.put(&task, &status).unwrap();
        let path = temp.path().join("worker/tasks").join(&task.id);
        let raw = fs::read(&path).unwrap();
        for plain in ["hunter2", "busybox"] {
            assert!(!raw.windows(7).any(|window| window == plain.as_bytes()), "{plain}");
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let loaded = database.load().unwrap().records;
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].0.id, task.id);
        assert_eq!(loaded[0].1, status);
        database.remove(&task.id).unwrap();
        database.remove(&task.id).unwrap();
        assert!(database.load().unwrap().records.is_empty());
    }

    #[test]
    fn damaged_records_keep_their_ids_and_stray_files_go() {
        let temp = tempfile::tempdir().unwrap();
        let database = open(temp.path());
        let names = ["x".repeat(25), "y".repeat(25)];
        fs::write(temp.path().join(&names[0]), b"\xff\xff").unwrap();
        fs::write(temp.path().join(&names[1]), b"").unwrap();
        fs::write(temp.path().join(format!("{}.new", names[1])), b"half").unwrap();
        let loaded = database.load().unwrap();
        assert!(loaded.records.is_empty());
        assert!(loaded.unreadable.iter().eq(&names));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
        database.remove(&names[0]).unwrap();
        assert_eq!(database.load().unwrap().unreadable.len(), 1);
    }

    #[test]
    fn records_are_sealed_with_the_current_key_once_they_are_read() {
        let temp = tempfile::tempdir().unwrap();
        let old = Arc::new(KeyRing::generate().unwrap());
        let task = task();
        let status = TaskStatus { state: 512, ..TaskStatus::default() };
        Database::open(temp.path(), Arc::clone(&old)).unwrap().put(&task, &status).unwrap();
        let new = Arc::new(old.rotated().unwrap());
        let load = |ring: Arc<KeyRing>| {
            Database::open(temp.path(), ring).unwrap().load().unwrap().records.len()
        };
        assert_eq!(load(Arc::clone(&new)), 1);
        assert_eq!(load(Arc::new(new.without_older().unwrap())), 1);
        assert_eq!(load(old), 0);
    }

    #[test]
    fn ids_cannot_leave_the_directory() {
        let temp = tempfile::tempdir().unwrap();
        let database = open(temp.path());
        let escaping = Task { id: "../../x".to_owned(), ..task() };
        assert!(database.put(&escaping, &TaskStatus::default()).is_err());
        assert!(database.remove("../x").is_err());
    }
}
