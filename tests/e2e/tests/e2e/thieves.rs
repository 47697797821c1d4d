//! What somebody learns who gets hold of an autolocked manager's data, of a backup, or of etcd with
//! all rights: ids and sizes. Every name and value that was used is searched for, in clear and as
//! base64.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use brig_e2e::hosts::{HostNode, Hosts, Kind};
use brig_e2e::{Client, eventually, http, traces};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// Words that are used below, each for another thing.
const WORDS: [&str; 16] = [
    "wd-secret-name-01",
    "wd-secret-value-02",
    "wd-config-name-03",
    "wd-config-value-04",
    "wd-user-05",
    "wd-service-name-06",
    "wd-service-label-07",
    "wd-container-label-08",
    "wd-environment-09",
    "wd-image-name-10",
    "wd-command-11",
    "wd-node-label-12",
    "wd-secret-label-13",
    "wd-mount-target-14",
    "wd-host-name-15",
    "wd-after-16",
];

/// Keys that are known by their beginnings, with what is in a data root of any cluster.
const ALWAYS: [&str; 3] = ["SWMTKN-1-", "SWMKEY-1-", "busybox"];

fn fill(node: &HostNode) {
    let client = node.client();
    let [
        secret,
        secret_value,
        config,
        config_value,
        user,
        service,
        service_label,
        container_label,
        environment,
        image,
        command,
        node_label,
        secret_label,
        target,
        host_name,
        ..,
    ] = WORDS;
    let label = |word: &str| format!("{word}={word}");
    let made = ["secret", "create", "--label", &label(secret_label), secret, "-"];
    let _ = client.run_with(&made, secret_value.as_bytes()).ok();
    let _ = client.run_with(&["config", "create", config, "-"], config_value.as_bytes()).ok();
    let _ = client.run(&["node", "update", "--label-add", &label(node_label), "self"]).ok();
    let _ = client
        .run(&[
            "service",
            "create",
            "-d",
            "-q",
            "--no-resolve-image",
            "--name",
            service,
            "--label",
            &label(service_label),
            "--container-label",
            &label(container_label),
            "--env",
            &label(environment),
            "--secret",
            secret,
            "--config",
            config,
            "--mount",
            &format!("type=volume,src={target},dst=/{target}"),
            "--user",
            user,
            "--hostname",
            host_name,
            "--constraint",
            "node.role==worker",
            &format!("127.0.0.1:1/{image}:latest"),
            command,
        ])
        .ok();
}

/// All words, the join tokens and the unlock key.
fn words(node: &HostNode) -> Vec<String> {
    let mut words: Vec<String> =
        WORDS.iter().chain(&ALWAYS).map(|word| (*word).to_owned()).collect();
    let swarm = http::get(&node.socket(), "/v1.41/swarm");
    for role in ["Worker", "Manager"] {
        let token = swarm["JoinTokens"][role].as_str().unwrap();
        // What is secret in it is its last part.
        words.push(token.rsplit('-').next().unwrap().to_owned());
    }
    let key = node.ok(&["swarm", "unlock-key", "-q"]);
    words.push(key.trim_start_matches("SWMKEY-1-").to_owned());
    words
}

/// A copy of the data root, as somebody takes it who pulls the disk out.
fn steal(hosts: &Hosts, node: &HostNode) -> PathBuf {
    let copy = hosts.log(node.host, "stolen");
    let copied = Command::new("cp").arg("-a").arg(node.data()).arg(&copy).status();
    assert!(copied.unwrap().success());
    copy
}

fn etcdctl(hosts: &Hosts, node: &HostNode, args: &[&str]) -> String {
    let file = |name: &str| node.data().join("swarm/etcd").join(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let tls = ["--cacert", &ca, "--cert", &cert, "--key", &key];
    let endpoint = ["--endpoints", "https://127.0.0.1:2379"];
    let program = ["env", "ETCDCTL_API=3", "etcdctl"];
    hosts.exec(node.host, &[&program[..], &endpoint, &tls, args].concat()).ok().to_owned()
}

/// The longest piece of text in some bytes.
fn longest_text(bytes: &[u8]) -> usize {
    let is_text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    bytes.split(|byte| !is_text(byte)).map(<[u8]>::len).max().unwrap_or_default()
}

fn look_into_etcd(dump: &str, words: &[String]) {
    let dump: Value = serde_json::from_str(dump).unwrap();
    let pairs = dump["kvs"].as_array().unwrap();
    assert!(pairs.len() > 20, "{}", pairs.len());
    let mut all = Vec::new();
    for pair in pairs {
        let bytes = |field: &str| traces::from_base64(pair[field].as_str().unwrap_or_default());
        let (key, value) = (bytes("key"), bytes("value"));
        all.extend_from_slice(&key);
        all.extend_from_slice(&value);
        let Some(place) = key.windows(5).position(|part| part == b"/s/o/") else { continue };
        let place = String::from_utf8(key[place + 5..].to_vec()).unwrap();
        let (kind, id) = place.split_once('/').unwrap();
        let is_id = id.len() == 25 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        assert!(is_id && kind.bytes().all(|byte| byte.is_ascii_lowercase()), "{place}");
        assert!(longest_text(&value) < 24, "{place}: {:?}", String::from_utf8_lossy(&value));
    }
    for word in words {
        for word in traces::disguises(word) {
            let found = all.windows(word.len()).any(|part| part == word.as_bytes());
            assert!(!found, "{word} is in etcd");
        }
    }
}

#[test]
fn thieves_learn_ids_and_sizes() {
    let hosts = Hosts::up(3);
    let nodes: Vec<HostNode> = (1..=3).map(|host| hosts.start(host, Kind::Brigd)).collect();
    let [first, second, worker] = &nodes[..] else { unreachable!() };
    let _ = first.ok(&["swarm", "init", "--autolock", "--advertise-addr", &first.address]);
    let _ = worker.join(first);
    fill(first);
    let mut words = words(first);
    words.push("host3".to_owned());

    // The store in one file.
    let embedded = steal(&hosts, first);
    assert!(embedded.join("swarm/cluster.redb").exists());
    assert_eq!(traces::files_with(&embedded, &words), Vec::<PathBuf>::new());

    // In etcd.
    let token = first.ok(&["swarm", "join-token", "-q", "manager"]);
    let peer = format!("{}:2377", first.address);
    let address = ["--advertise-addr", &second.address];
    let _ = second.ok(&[&["swarm", "join", "--token", &token][..], &address, &[&peer]].concat());
    let after = WORDS[15];
    let _ = second.client().run_with(&["secret", "create", after, "-"], after.as_bytes()).ok();
    // The data key changes, and with it every record.
    let brig = Client::brig(&second.socket(), &hosts.log(2, "client"));
    let _ = brig.run(&["cluster", "keys", "rotate"]).ok();
    look_into_etcd(&etcdctl(&hosts, first, &["get", "", "--prefix", "-w", "json"]), &words);

    let (file, phrase) = (hosts.log(2, "cluster.backup"), hosts.log(2, "phrase"));
    std::fs::write(&phrase, "a long enough passphrase\n").unwrap();
    let (out, phrase) = (file.display().to_string(), phrase.display().to_string());
    let _ = brig.run(&["cluster", "backup", "-o", &out, "--passphrase-file", &phrase]).ok();
    let folder = hosts.log(2, "backups");
    std::fs::create_dir(&folder).unwrap();
    std::fs::rename(&file, folder.join("cluster.backup")).unwrap();
    assert_eq!(traces::files_with(&folder, &words), Vec::<PathBuf>::new());

    // Until it was sealed with the unlock key, the second one's key file opens by itself.
    let key_file = second.data().join("swarm/certificates/swarm-node.key");
    eventually("the second manager is locked", PATIENCE, || {
        let text = std::fs::read_to_string(&key_file).unwrap();
        !text.contains("brig-kek") && !text.contains("escrow")
    });
    for node in [first, second] {
        let _ = hosts.script(&["kill", &node.host.to_string()]).ok();
        let stolen = hosts.log(node.host, "stolen2");
        std::fs::rename(node.data(), &stolen).unwrap();
        assert!(stolen.join("swarm/etcd/data/member/snap/db").exists());
        assert_eq!(traces::files_with(&stolen, &words), Vec::<PathBuf>::new());
        // Started somewhere, it is locked, and its etcd does not run.
        std::fs::rename(&stolen, node.data()).unwrap();
    }
    let _ = hosts.script(&["boot", "2"]).ok();
    let thief = hosts.start(2, Kind::Brigd);
    let info = http::get(&thief.socket(), "/v1.41/info");
    assert_eq!(info["Swarm"]["LocalNodeState"], "locked");
    let refused = http::get_raw(&thief.socket(), "/v1.41/secrets");
    assert!(refused.contains("503") && refused.contains("locked"), "{refused}");
}
