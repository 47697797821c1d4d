use super::*;

fn open(dir: &Path) -> Result<Volumes, EngineError> {
    Volumes::open(dir, Arc::new(Guard::of_nothing()))
}

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

#[test]
fn life_of_a_volume() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = open(dir.path()).unwrap();
    let labels = Labels::from([("a".to_owned(), "b".to_owned())]);
    let (made, new) = volumes.create("data", "local", &none(), &labels).unwrap();
    assert!(new && made.mountpoint.is_dir());
    let (again, new) = volumes.create("data", "", &none(), &none()).unwrap();
    assert!(!new);
    assert_eq!(again, made);
    let container = ContainerId::generate();
    volumes.acquire("data", &container).unwrap();
    let error = volumes.remove("data").unwrap_err();
    assert_eq!(error.to_string(), format!("remove data: volume is in use - [{container}]"));
    let reopened = open(dir.path()).unwrap();
    assert_eq!(reopened.get("data").unwrap(), made);
    volumes.release("data", &container);
    volumes.remove("data").unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(volumes.get("data").unwrap_err().to_string(), "get data: no such volume");
}

#[test]
fn anonymous_ones_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = open(dir.path()).unwrap();
    let (made, _) = volumes.create("", "local", &none(), &none()).unwrap();
    assert!(made.is_anonymous());
    assert_eq!(made.name.len(), 64);
}

#[test]
fn bad_requests() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = open(dir.path()).unwrap();
    assert!(volumes.create("x y", "", &none(), &none()).is_err());
    assert!(volumes.create("../x", "", &none(), &none()).is_err());
    assert!(volumes.create("x1", "nope", &none(), &none()).is_err());
    let options = BTreeMap::from([("bogus".to_owned(), "1".to_owned())]);
    let error = volumes.create("x1", "", &options, &none()).unwrap_err();
    assert_eq!(error.to_string(), "create x1: invalid option: \"bogus\"");
    assert!(volumes.list().is_empty());
}

#[test]
fn what_is_mounted_over_a_removed_volume_is_kept() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("precious"), "x").unwrap();
    let options = BTreeMap::from([
        ("type".to_owned(), "none".to_owned()),
        ("o".to_owned(), "bind".to_owned()),
        ("device".to_owned(), outside.path().display().to_string()),
    ]);
    let before = open(dir.path()).unwrap();
    before.create("data", "", &options, &none()).unwrap();
    before.activate("data", &ContainerId::generate()).unwrap();
    // The daemon was killed and the container is gone when the next one comes up.
    let after = open(dir.path()).unwrap();
    after.remove("data").unwrap();
    assert!(outside.path().join("precious").exists());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A file system whose server never answers, until it is dropped: looking anything up on it
/// hangs in the kernel, as with a file server that is gone.
struct Silent {
    dir: tempfile::TempDir,
    _server: std::fs::File,
}

impl Silent {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = std::fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let data = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            std::os::fd::AsRawFd::as_raw_fd(&server)
        );
        let data = std::ffi::CString::new(data).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("silent", dir.path(), "fuse", flags, data.as_c_str()).unwrap();
        Self { dir, _server: server }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = brig_sys::mount::unmount(self.dir.path(), true);
    }
}

#[test]
fn a_file_server_that_does_not_answer_holds_up_its_own_volume_only() {
    let dir = tempfile::tempdir().unwrap();
    let silent = Silent::mount();
    let mut volumes = open(dir.path()).unwrap();
    volumes.patience = Duration::from_secs(1);
    let volumes = Arc::new(volumes);
    let options = BTreeMap::from([
        ("type".to_owned(), "none".to_owned()),
        ("o".to_owned(), "bind".to_owned()),
        ("device".to_owned(), silent.dir.path().join("export").display().to_string()),
    ]);
    volumes.create("hangs", "", &options, &none()).unwrap();
    volumes.create("works", "", &none(), &none()).unwrap();
    let container = ContainerId::generate();
    let hanging = {
        let (volumes, container) = (Arc::clone(&volumes), container.clone());
        std::thread::spawn(move || volumes.activate("hangs", &container))
    };
    let other = ContainerId::generate();
    volumes.activate("works", &other).unwrap();
    assert!(!hanging.is_finished(), "nobody else waited for it");
    assert_eq!(volumes.list().len(), 2);
    volumes.deactivate("works", &other);
    volumes.remove("works").unwrap();
    let error = hanging.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("hangs") && error.contains("did not answer"), "{error}");
    let error = volumes.activate("hangs", &other).unwrap_err().to_string();
    assert!(error.contains("still being mounted"), "{error}");
    // The server is gone for good: the kernel lets the mount fail, and the turn is free.
    drop(silent);
    let error = volumes.activate("hangs", &other).unwrap_err();
    assert!(matches!(error, EngineError::VolumeMount { .. }), "{error}");
    volumes.remove("hangs").unwrap();
}

#[test]
fn volumes_of_containers_that_were_never_recorded_go() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = open(dir.path()).unwrap();
    let (settled, recorded, lost) =
        (ContainerId::generate(), ContainerId::generate(), ContainerId::generate());
    let make = |owner: &ContainerId, name: &str| {
        volumes.create_for(Some(owner), name, "", &none(), &none()).unwrap().0.name
    };
    let kept = [make(&settled, ""), make(&recorded, ""), make(&lost, "named")];
    volumes.settle(&kept[0]).unwrap();
    let goes = make(&lost, "");
    // The daemon is killed, and finds one container's record only.
    let volumes = open(dir.path()).unwrap();
    volumes.remove_unowned(|id| *id == recorded);
    volumes.remove_unowned(|_| false);
    for name in &kept {
        volumes.get(name).unwrap();
    }
    assert!(volumes.get(&goes).is_err());
}

#[test]
fn a_copy_that_was_cut_off_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let volumes = open(dir.path()).unwrap();
    volumes.create("data", "", &none(), &none()).unwrap();
    let cut = volumes.fill("data", |data, cut_off| {
        assert!(!cut_off);
        std::fs::write(data.join("first"), "x")?;
        Err(io::ErrorKind::StorageFull.into())
    });
    cut.unwrap_err();
    let volumes = open(dir.path()).unwrap();
    let mut again = false;
    volumes
        .fill("data", |_, cut_off| {
            again = cut_off;
            Ok(())
        })
        .unwrap();
    assert!(again);
    volumes.fill("data", |_, _| panic!("it has all its content")).unwrap();
}

#[test]
fn what_a_killed_daemon_left_is_cleared_but_data_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    for half in ["half/_data", ".removing-1/_data", "kept/_data"] {
        std::fs::create_dir_all(dir.path().join(half)).unwrap();
    }
    std::fs::write(dir.path().join("kept/_data/file"), "x").unwrap();
    let volumes = open(dir.path()).unwrap();
    assert!(volumes.list().is_empty());
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["kept"]);
}
