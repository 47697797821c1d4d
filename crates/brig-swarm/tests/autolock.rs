//! Managers whose keys are not on their disks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::path::Path;

use brig_proto::swarm::ClusterSpec;
use brig_swarm::{Control, InitRequest, LocalNodeState, Swarm, SwarmError, TokenRotation};
use common::*;

fn locked() -> ClusterSpec {
    let mut spec = ClusterSpec::default();
    spec.encryption_config.get_or_insert_default().auto_lock_managers = true;
    spec
}

async fn set_autolock(control: &Control, on: bool, rotate: bool) {
    let cluster = control.cluster().unwrap();
    let mut spec = cluster.spec.clone().unwrap();
    spec.encryption_config.get_or_insert_default().auto_lock_managers = on;
    let version = cluster.meta.as_ref().unwrap().version.as_ref().unwrap().index;
    let rotation = TokenRotation { unlock_key: rotate, ..TokenRotation::default() };
    control.update_cluster(version, spec, rotation).await.unwrap();
}

/// The unlock key as somebody reads it.
async fn key(control: &Control) -> String {
    control.show_unlock_key().await.unwrap().unwrap().expose_secret().to_owned()
}

/// The daemon is started again; what it was before is shut down.
async fn restart(swarm: Swarm, dir: &Path, machine: &Machine) -> Swarm {
    swarm.shutdown().await;
    drop(swarm);
    open(dir, machine).await
}

fn key_file(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("swarm/certificates/swarm-node.key")).unwrap()
}

fn assert_locked(swarm: &Swarm) {
    let status = swarm.status();
    assert_eq!(status.local_node_state, LocalNodeState::Locked, "{}", status.error);
    assert_eq!(status.node_id, "");
    assert!(!status.control_available);
    assert!(status.error.starts_with("Swarm is encrypted and needs to be unlocked"));
    assert!(matches!(swarm.control(), Err(SwarmError::Locked)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_manager_does_nothing_until_it_is_unlocked() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let swarm = open(temp.path(), &machine).await;
    swarm.init(InitRequest { spec: locked(), ..on_loopback() }).await.unwrap();
    let control = swarm.control().unwrap();
    let unlock = key(&control).await;
    assert!(unlock.starts_with("SWMKEY-1-") && unlock.len() == 52, "{unlock}");
    assert!(matches!(swarm.unlock(&unlock).await, Err(SwarmError::NotLocked)));
    let file = key_file(temp.path());
    assert!(file.contains("BRIG ENCRYPTED PRIVATE KEY") && !file.contains("brig-kek"));
    let id = control.create_service(service("web", "busybox", 1)).await.unwrap();
    eventually("one runs", || running_tasks(&control, &id), |t| t.len() == 1).await;
    drop(control);

    let swarm = restart(swarm, temp.path(), &machine).await;
    assert_locked(&swarm);
    assert_eq!(machine.running().len(), 1, "what runs goes on");
    assert!(matches!(swarm.init(on_loopback()).await, Err(SwarmError::AlreadyInSwarm)));
    assert!(matches!(swarm.leave(false).await, Err(SwarmError::LeaveLocked)));
    assert!(matches!(swarm.unlock("SWMKEY-1-AAAA").await, Err(SwarmError::BadUnlockKey)));
    let wrong = "SWMKEY-1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    assert!(matches!(swarm.unlock(wrong).await, Err(SwarmError::WrongUnlockKey)));
    assert_locked(&swarm);
    swarm.unlock(&unlock).await.unwrap();
    assert_eq!(swarm.status().local_node_state, LocalNodeState::Active);
    let control = swarm.control().unwrap();
    assert_eq!(key(&control).await, unlock);
    assert_eq!(running_tasks(&control, &id).len(), 1);
    assert_eq!(machine.running().len(), 1);
    assert_eq!(machine.running()[0].1.starts, 1, "it was not started again");
    drop(control);

    let swarm = restart(swarm, temp.path(), &machine).await;
    swarm.leave(true).await.unwrap();
    assert_eq!(machine.running().len(), 0);
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn autolock_comes_changes_and_goes() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    let before = key_file(temp.path());
    let header = |file: &str, name: &str| {
        file.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned))
    };
    let on_disk = header(&before, "brig-kek: ").unwrap();
    let data_key = control.data_keys().await.unwrap().current;
    assert!(control.unlock_key().unwrap().is_none());

    set_autolock(&control, true, false).await;
    drop(control);
    let swarm = restart(swarm, temp.path(), &machine).await;
    assert_eq!(swarm.status().local_node_state, LocalNodeState::Active, "nobody has the key");
    let control = swarm.control().unwrap();
    let first = key(&control).await;
    let file = key_file(temp.path());
    assert!(header(&file, "brig-kek: ").is_none() && !file.contains(&on_disk));
    // The keys that lay beside what they protect are replaced.
    let generation = || async { control.data_keys().await.unwrap() };
    let mut keys = generation().await;
    for _ in 0..200 {
        if !keys.rotating && keys.generation == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        keys = generation().await;
    }
    assert_eq!((keys.generation, keys.rotating, keys.records.len()), (1, false, 1), "{keys:?}");
    assert_ne!(keys.current, data_key);
    assert_eq!(keys.reason, "autolock was turned on");
    set_autolock(&control, true, false).await;
    assert_eq!(key(&control).await, first, "it stays on");
    drop(control);

    let swarm = restart(swarm, temp.path(), &machine).await;
    assert_locked(&swarm);
    swarm.unlock(&first).await.unwrap();
    let control = swarm.control().unwrap();
    set_autolock(&control, true, true).await;
    drop(control);
    // Nobody has seen the new key when the daemon is started again: the old one does.
    let swarm = restart(swarm, temp.path(), &machine).await;
    swarm.unlock(&first).await.unwrap();
    let control = swarm.control().unwrap();
    let second = key(&control).await;
    assert_ne!(second, first);
    drop(control);

    let swarm = restart(swarm, temp.path(), &machine).await;
    assert!(matches!(swarm.unlock(&first).await, Err(SwarmError::WrongUnlockKey)));
    swarm.unlock(&second).await.unwrap();
    let control = swarm.control().unwrap();
    set_autolock(&control, false, false).await;
    assert!(control.unlock_key().unwrap().is_none());
    assert!(key_file(temp.path()).contains("brig-kek: "));
    drop(control);

    let swarm = restart(swarm, temp.path(), &machine).await;
    assert_eq!(swarm.status().local_node_state, LocalNodeState::Active);
    swarm.leave(true).await.unwrap();
}
