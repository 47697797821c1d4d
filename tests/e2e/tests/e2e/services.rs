//! Services on a one-manager swarm.

use std::process::Command;
use std::time::Duration;

use brig_e2e::{Brigd, eventually};

#[test]
fn init_makes_a_ca_and_a_node_certificate() {
    let daemon = Brigd::start();
    daemon.init_swarm();
    let brig = daemon.brig();
    let certificates = daemon.data_root().join("swarm/certificates");
    let openssl = |args: &[&str]| {
        let output =
            Command::new("openssl").args(args).current_dir(&certificates).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(
        openssl(&["verify", "-CAfile", "swarm-root-ca.crt", "swarm-node.crt"]).trim(),
        "swarm-node.crt: OK"
    );
    let subject =
        openssl(&["x509", "-in", "swarm-node.crt", "-noout", "-subject", "-nameopt", "RFC2253"]);
    let node = brig.run(&["info", "--format", "{{.Swarm.NodeID}}"]).ok().to_owned();
    let cluster = brig.run(&["info", "--format", "{{.Swarm.Cluster.ID}}"]).ok().to_owned();
    assert!(subject.contains(&format!("CN={node}")), "{subject}");
    assert!(
        subject.contains("OU=swarm-manager") && subject.contains(&format!("O={cluster}")),
        "{subject}"
    );
    let text = openssl(&["x509", "-in", "swarm-node.crt", "-noout", "-text"]);
    assert!(
        text.contains("prime256v1")
            && text.contains("TLS Web Server Authentication, TLS Web Client Authentication")
    );
    assert!(
        text.contains("DNS:swarm-manager")
            && text.contains("DNS:swarm-ca")
            && text.contains(&format!("DNS:{node}"))
    );
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(certificates.join("swarm-node.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let handshake = Command::new("timeout")
        .args([
            "10",
            "openssl",
            "s_client",
            "-verify_return_error",
            "-CAfile",
            "swarm-root-ca.crt",
            "-servername",
            "swarm-manager",
            "-verify_hostname",
            "swarm-manager",
            "-connect",
        ])
        .arg(format!("127.0.0.1:{}", daemon.swarm_port()))
        .stdin(std::process::Stdio::null())
        .current_dir(&certificates)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&handshake.stdout).into_owned();
    assert!(shown.contains("Verify return code: 0") && shown.contains("TLSv1.3"), "{shown}");
}

#[test]
fn created_scaled_updated_logged_removed_by_every_client() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    daemon.init_swarm();
    let _ = daemon.brig().run(&["tag", "busybox", "busybox:two"]).ok();
    for client in daemon.clients() {
        let create = [
            "service",
            "create",
            "--no-resolve-image",
            "-q",
            "--name",
            "talk",
            "--replicas",
            "2",
            "-e",
            "WHO={{.Service.Name}}.{{.Task.Slot}}",
            "--stop-grace-period",
            "1s",
            "--update-delay",
            "0s",
            "--update-monitor",
            "1s",
            "busybox:latest",
            "sh",
            "-c",
            "echo I am $WHO; exec sleep 1000",
        ];
        let _ = client.run(&create).ok();
        let first = daemon.service_containers("talk", 2);
        let listed = client.run(&[
            "service",
            "ls",
            "--format",
            "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}",
        ]);
        assert_eq!(listed.ok(), "talk replicated 2/2 busybox:latest");
        let tasks = client.run(&[
            "service",
            "ps",
            "--format",
            "{{.Name}} {{.DesiredState}} {{.CurrentState}}",
            "talk",
        ]);
        assert_eq!(
            tasks.ok().lines().filter(|line| line.contains("Running Running")).count(),
            2,
            "{}",
            tasks.stdout
        );
        eventually("both tasks have spoken", Duration::from_secs(10), || {
            let logs = client.run(&["service", "logs", "--raw", "talk"]);
            logs.stdout.contains("I am talk.1") && logs.stdout.contains("I am talk.2")
        });
        let detailed = client.run(&["service", "logs", "talk"]);
        assert!(
            detailed.ok().contains("talk.1.") && detailed.ok().contains("| I am"),
            "{}",
            detailed.stdout
        );
        let _ = client.run(&["service", "scale", "-d", "talk=3"]).ok();
        let three = daemon.service_containers("talk", 3);
        assert!(first.iter().all(|id| three.contains(id)), "scaling up restarts nothing");
        let _ = client
            .run(&[
                "service",
                "update",
                "-q",
                "--no-resolve-image",
                "--image",
                "busybox:two",
                "talk",
            ])
            .ok();
        let _ = daemon.service_containers("talk", 3);
        let images = client.run(&[
            "ps",
            "--filter",
            "label=com.docker.swarm.service.name=talk",
            "--format",
            "{{.Image}}",
        ]);
        assert_eq!(images.ok(), "busybox:two\nbusybox:two\nbusybox:two");
        let inspected = client.run(&["service", "inspect", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Image}} {{.PreviousSpec.TaskTemplate.ContainerSpec.Image}}", "talk"]);
        assert_eq!(inspected.ok(), "busybox:two busybox:latest");
        let _ = client.run(&["service", "rm", "talk"]).ok();
        eventually("its containers are gone", Duration::from_secs(40), || {
            client.run(&["ps", "-aq"]).stdout.trim().is_empty()
        });
        assert_eq!(client.run(&["service", "ls", "-q"]).ok(), "");
    }
}

#[test]
fn a_failed_task_is_replaced() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    daemon.init_swarm();
    let brig = daemon.brig();
    let _ = brig
        .run(&[
            "service",
            "create",
            "-q",
            "-d",
            "--name",
            "phoenix",
            "--restart-delay",
            "100ms",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    let first = daemon.service_containers("phoenix", 1).remove(0);
    let _ = brig.run(&["kill", &first]).ok();
    eventually("another container runs", Duration::from_secs(20), || {
        let ids = brig.run(&[
            "ps",
            "-q",
            "--no-trunc",
            "--filter",
            "label=com.docker.swarm.service.name=phoenix",
        ]);
        !ids.stdout.trim().is_empty() && ids.stdout.trim() != first
    });
    let tasks = brig.run(&[
        "service",
        "ps",
        "--no-trunc",
        "--format",
        "{{.CurrentState}} {{.Error}}",
        "phoenix",
    ]);
    assert!(
        tasks.ok().contains("Failed") && tasks.ok().contains("non-zero exit (137)"),
        "{}",
        tasks.stdout
    );
}

#[test]
fn swarm_rules_are_dockers() {
    let daemon = Brigd::start();
    for client in daemon.clients() {
        assert!(
            client.run(&["service", "ls"]).fails(1).contains("This node is not a swarm manager.")
        );
        daemon.init_swarm();
        assert!(
            client
                .run(&["swarm", "init"])
                .fails(1)
                .contains("This node is already part of a swarm.")
        );
        assert!(client.run(&["swarm", "leave"]).fails(1).contains("--force"));
        assert!(
            client
                .run(&[
                    "node",
                    "ls",
                    "--format",
                    "{{.Status}} {{.Availability}} {{.ManagerStatus}}"
                ])
                .ok()
                .starts_with("Ready Active Leader")
        );
        let token = client.run(&["swarm", "join-token", "-q", "worker"]);
        assert!(token.ok().starts_with("SWMTKN-1-") && token.ok().len() == 85, "{}", token.stdout);
        assert!(client.run(&["service", "rm", "nope"]).fails(1).contains("nope"));
        assert!(
            client
                .run(&["service", "create", "-d", "--name", "x_!", "busybox"])
                .fails(1)
                .contains("name must be valid as a DNS name component")
        );
        let _ = client.run(&["swarm", "leave", "--force"]).ok();
        assert!(!daemon.data_root().join("swarm/certificates/swarm-node.key").exists());
    }
}

/// A container that is under way when its task is given up is nobody's afterwards.
#[test]
fn leaving_takes_along_what_is_just_being_created() {
    let mut daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    for round in 0..4_u64 {
        daemon.init_swarm();
        let args = ["service", "create", "-d", "--name", "many", "--replicas", "16"];
        let more = ["--stop-grace-period", "1s", "busybox", "sleep", "1000"];
        let _ = brig.run(&[&args[..], &more].concat()).ok();
        // Each time at another moment of the tasks' beginning.
        std::thread::sleep(Duration::from_millis(120 * round));
        let _ = brig.run(&["swarm", "leave", "--force"]).ok();
        for _ in 0..2 {
            let left = brig.run(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]);
            assert_eq!(left.ok(), "", "round {round}");
            // What was not waited for would come now.
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}
