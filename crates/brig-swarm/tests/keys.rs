//! The data key of a cluster is changed, and the process is killed while it is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use brig_pki::keyfile::CertificateDir;
use brig_swarm::{Control, DataKeyStatus, LocalNodeState};
use common::*;

const VICTIM_DIR: &str = "BRIG_TEST_KEYS_DIR";
const SECRETS: usize = 400;

async fn settled(control: &Control, generation: u64) -> DataKeyStatus {
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        let keys = control.data_keys().await.unwrap();
        if !keys.rotating && keys.generation >= generation {
            return keys;
        }
        assert!(Instant::now() < give_up, "{keys:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn name(number: usize) -> String {
    format!("confidential-name-{number}")
}

fn value(number: usize) -> Vec<u8> {
    format!("confidential-value-{number}").into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_sealed_anew_and_nothing_changes() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    for number in 0..40 {
        control.create_secret(secret(&name(number), &value(number))).await.unwrap();
    }
    let before = control.data_keys().await.unwrap();
    assert_eq!((before.generation, before.rotating, before.records.len()), (0, false, 1));
    let version = |control: &Control, number: usize| {
        control.secret(&name(number)).unwrap().meta.as_ref().unwrap().version
    };
    let versions: Vec<_> = (0..40).map(|number| version(&control, number)).collect();
    control.rotate_data_key("a test").await.unwrap();
    let after = settled(&control, 1).await;
    assert_eq!(after.records.len(), 1, "{after:?}");
    assert_eq!(after.records[0].0, after.current);
    assert_ne!(after.current, before.current);
    assert_eq!(after.reason, "a test");
    assert_eq!(after.records[0].1, before.records[0].1, "as many records");
    for (number, version_before) in versions.iter().enumerate() {
        assert_eq!(version(&control, number), *version_before, "no object changed");
    }
    // Names are claimed still, and given back.
    let again = control.create_secret(secret(&name(3), b"x")).await;
    assert!(again.unwrap_err().to_string().contains("already exists"));
    control.remove_secret(&name(3)).await.unwrap();
    control.create_secret(secret(&name(3), &value(3))).await.unwrap();
    control.rotate_data_key("once more").await.unwrap();
    control.rotate_data_key("and again").await.unwrap();
    let last = settled(&control, 3).await;
    assert_eq!((last.generation, last.records.len()), (3, 1));
    drop(control);
    swarm.shutdown().await;
    drop(swarm);

    let swarm = open(temp.path(), &machine).await;
    let control = swarm.control().unwrap();
    assert_eq!(control.data_keys().await.unwrap().current, last.current);
    for number in 0..40 {
        control.secret(&name(number)).unwrap();
    }
    swarm.leave(true).await.unwrap();
}

/// Managers once had one ring for the cluster and for what the node remembers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_with_one_ring_for_everything_is_taken_over() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    for number in 0..5 {
        control.create_secret(secret(&name(number), &value(number))).await.unwrap();
    }
    let current = control.data_keys().await.unwrap().current;
    drop(control);
    swarm.shutdown().await;
    drop(swarm);
    let certificates = CertificateDir::new(temp.path().join("swarm/certificates"));
    let mut stored = certificates.load(None).unwrap().unwrap();
    let keys = stored.key.store_keys.as_mut().unwrap();
    keys.node = keys.cluster.take().unwrap();
    certificates.store_key(&stored.key).unwrap();

    for _ in 0..2 {
        let swarm = open(temp.path(), &machine).await;
        assert_eq!(swarm.status().error, "");
        let control = swarm.control().unwrap();
        assert_eq!(control.data_keys().await.unwrap().current, current);
        for number in 0..5 {
            control.secret(&name(number)).unwrap();
        }
        let twice = control.create_secret(secret(&name(0), b"x")).await;
        assert!(twice.is_err(), "names are found");
        drop(control);
        swarm.shutdown().await;
        let keys = certificates.load(None).unwrap().unwrap().key.store_keys.unwrap();
        assert_eq!(keys.cluster.unwrap().current_id().to_string(), current);
        assert_ne!(keys.node.current_id().to_string(), current);
        assert_eq!(keys.node.older_ids().count(), 0, "the node has a key of its own");
    }
}

/// Runs only as the child of the test below: changes keys and writes until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Ok(dir) = std::env::var(VICTIM_DIR) else {
        return;
    };
    let machine = Machine::default();
    let swarm = open(Path::new(&dir), &machine).await;
    let control = swarm.control().unwrap();
    println!("\nready");
    let mut writes = tokio::task::JoinSet::new();
    {
        let control = control.clone();
        writes.spawn(async move {
            for number in 0.. {
                let name = format!("late-{}-{number}", std::process::id());
                control.create_secret(secret(&name, name.as_bytes())).await.unwrap();
                println!("\nstored {name}");
            }
        });
    }
    for round in 0.. {
        control.rotate_data_key(&format!("round {round}")).await.unwrap();
        println!("\nasked");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    writes.abort_all();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_killed_anywhere_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    for number in 0..SECRETS {
        control.create_secret(secret(&name(number), &value(number))).await.unwrap();
    }
    drop(control);
    swarm.shutdown().await;
    drop(swarm);
    let mut stored = Vec::new();
    let mut keys_seen = std::collections::BTreeSet::new();
    for round in 0..14_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["victim", "--exact", "--nocapture"])
            .env(VICTIM_DIR, temp.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some(name) = line.strip_prefix("stored ") {
                stored.push(name.to_owned());
            }
            if line == "asked" {
                break;
            }
        }
        // Every moment of a change is hit by one of the rounds.
        std::thread::sleep(Duration::from_millis(round * 11 % 97));
        child.kill().unwrap();
        child.wait().unwrap();
        let said = lines.map_while(Result::ok);
        stored.extend(said.filter_map(|line| line.strip_prefix("stored ").map(str::to_owned)));

        let swarm = open(temp.path(), &machine).await;
        let status = swarm.status();
        assert_eq!(status.local_node_state, LocalNodeState::Active, "{}", status.error);
        let control = swarm.control().unwrap();
        for name in &stored {
            control.secret(name).unwrap();
        }
        for number in (0..SECRETS).step_by(37) {
            control.secret(&name(number)).unwrap();
        }
        if round % 3 == 2 {
            let wanted = control.data_keys().await.unwrap().wanted;
            let keys = settled(&control, wanted).await;
            assert_eq!(keys.records.len(), 1, "the older keys are gone: {keys:?}");
            assert!(keys_seen.insert(keys.current.clone()), "a new key");
        }
        drop(control);
        swarm.shutdown().await;
        let left: Vec<_> = std::fs::read_dir(temp.path().join("swarm/certificates"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }
    assert!(!stored.is_empty());
}

/// What somebody finds who takes the whole directory of a manager: names, values and environments
/// are in no file, in no form that a search would find.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_directory_says_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let machine = Machine::default();
    let (swarm, control) = new_swarm(temp.path(), &machine).await;
    let id = control.create_secret(secret("zanzibar-secret", b"quetzalcoatl")).await.unwrap();
    let mut web = service("xylophone-service", "wolframite-image", 1);
    grant(&mut web, &control.secret(&id).unwrap());
    container(&mut web).env = vec!["PASSWORD=yggdrasil-env".to_owned()];
    with_auth(&mut web, "kaleidoscope-auth");
    let service = control.create_service(web).await.unwrap();
    eventually("one runs", || running_tasks(&control, &service), |t| t.len() == 1).await;
    let cluster = control.cluster().unwrap();
    let token = cluster.root_ca.as_ref().unwrap().join_tokens.clone().unwrap().manager;
    let mut spec = cluster.spec.clone().unwrap();
    spec.encryption_config.get_or_insert_default().auto_lock_managers = true;
    let version = cluster.meta.as_ref().unwrap().version.as_ref().unwrap().index;
    control.update_cluster(version, spec, Default::default()).await.unwrap();
    let unlock = control.show_unlock_key().await.unwrap().unwrap().expose_secret().to_owned();
    settled(&control, 1).await;
    drop(control);
    swarm.shutdown().await;
    drop(swarm);

    let words = [
        "zanzibar-secret",
        "quetzalcoatl",
        "xylophone-service",
        "wolframite-image",
        "yggdrasil-env",
        "kaleidoscope-auth",
        token.rsplit('-').next().unwrap(),
        unlock.rsplit('-').next().unwrap(),
    ];
    let mut files = 0;
    let mut folders = vec![temp.path().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let content = std::fs::read(&path).unwrap();
            for word in words {
                for form in forms(word) {
                    let found = content.windows(form.len()).any(|w| w == form.as_slice());
                    assert!(!found, "{word} is in {}", path.display());
                }
            }
        }
    }
    assert!(files >= 6, "{files}");
}

/// A text as it is, in other cases, in UTF-16, in hexadecimal, and within base64 at each of its
/// three places.
fn forms(word: &str) -> Vec<Vec<u8>> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    let mut forms = vec![
        word.as_bytes().to_vec(),
        word.to_uppercase().into_bytes(),
        word.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        word.bytes().flat_map(|b| format!("{b:02x}").into_bytes()).collect(),
    ];
    for skip in 0..3 {
        let whole = word.as_bytes().get(skip..).unwrap();
        let whole = &whole[..whole.len() / 3 * 3];
        forms.push(STANDARD_NO_PAD.encode(whole).into_bytes());
    }
    forms
}
