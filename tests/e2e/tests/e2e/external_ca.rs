//! A swarm whose certificates a CFSSL server signs, from the command line.

use std::time::Duration;

use brig_e2e::{Brigd, eventually};

#[path = "../../../../crates/brig-swarm/tests/common/cfssl.rs"]
mod cfssl;

use self::cfssl::{Cfssl, openssl_verifies};

#[test]
fn a_swarm_is_made_under_an_external_ca() {
    let mut cfssl = Cfssl::start();
    let root = cfssl.path("ca.pem").display().to_string();
    let given = format!("protocol=cfssl,url={},cacert={root}", cfssl.url());
    let manager = Brigd::start();
    let listen = format!("127.0.0.1:{}", manager.swarm_port());
    let init = ["swarm", "init", "--listen-addr", &listen, "--external-ca"];
    let brig = manager.brig();
    let refused =
        brig.run(&[init.as_slice(), &[&format!("protocol=cfssl,url={}", cfssl.url())]].concat());
    assert!(refused.fails(1).contains("cacert=FILE"), "{refused:?}");
    let _ = brig.run(&[init.as_slice(), &[&given]].concat()).ok();
    assert_eq!(brig.run(&["swarm", "ca"]).ok().as_bytes(), cfssl.root().trim_ascii());
    let shown = format!("   External CAs:\n     cfssl: {}\n", cfssl.url());
    for client in manager.clients() {
        let info = client.run(&["info"]);
        assert!(info.ok().contains(&shown), "{info:?}");
    }

    let worker = Brigd::start();
    let _ = worker.join_as_worker(&manager).ok();
    let chain = worker.data_root().join("swarm/certificates/swarm-node.crt");
    let subject = openssl_verifies(&cfssl.path("ca.pem"), &chain);
    assert!(subject.contains("OU=swarm-worker"), "{subject}");

    cfssl.policy(Some("^nobody$"));
    cfssl.serve();
    let other = Brigd::start();
    let refused = other.join_as_worker(&manager);
    assert!(refused.fails(1).contains("the server refused: "), "{refused:?}");
    let ids = brig.run(&["node", "ls", "-q"]);
    let ids: Vec<&str> = ids.ok().lines().map(str::trim).collect();
    let nodes = brig.run(&[["node", "inspect"].as_slice(), &ids].concat());
    let told = nodes.ok().matches(r#""Message": "certificate request failed: "#).count();
    assert_eq!(told, 1, "{nodes:?}");
}

#[test]
fn a_swarm_is_moved_to_an_external_ca() {
    let mut cfssl = Cfssl::prepare();
    let daemon = Brigd::start();
    daemon.init_swarm();
    let brig = daemon.brig();
    let old = brig.run(&["swarm", "ca"]).ok().to_owned();
    let node = brig.run(&["info", "--format", "{{.Swarm.NodeID}}"]).ok().to_owned();
    cfssl.demand(&[old.as_bytes(), b"\n", &cfssl.root()].concat(), &format!("^{node}$"));
    cfssl.serve();
    let root = cfssl.path("ca.pem").display().to_string();
    // As docker does, the authority gets the root's certificate if it has none of its own.
    let given = format!("protocol=cfssl,url={}", cfssl.url());
    let rotate =
        ["swarm", "ca", "--rotate", "--quiet", "--ca-cert", &root, "--external-ca", &given];
    let _ = brig.run(&rotate).ok();
    assert_eq!(brig.run(&["swarm", "ca"]).ok().as_bytes(), cfssl.root().trim_ascii());
    let worker = Brigd::start();
    let _ = worker.join_as_worker(&daemon).ok();
    let chain = worker.data_root().join("swarm/certificates/swarm-node.crt");
    openssl_verifies(&cfssl.path("ca.pem"), &chain);
    eventually("both are ready", Duration::from_secs(10), || {
        let nodes = brig.run(&["node", "ls", "--format", "{{.Status}}"]);
        nodes.ok().lines().filter(|status| *status == "Ready").count() == 2
    });
}
