//! Several daemons on one machine, and one root for one daemon.

use brig_e2e::Brigd;

#[test]
fn two_daemons_do_not_meet() {
    let (first, second) = (Brigd::start(), Brigd::start());
    for daemon in [&first, &second] {
        daemon.load_busybox();
        let _ =
            daemon.brig().run(&["run", "-d", "--name", "same", "busybox", "sleep", "1000"]).ok();
    }
    let address = |daemon: &Brigd| {
        daemon
            .brig()
            .run(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "same"])
            .ok()
            .to_owned()
    };
    assert_ne!(address(&first), address(&second));
    let _ = first.brig().run(&["rm", "-f", "same"]).ok();
    assert_eq!(second.brig().run(&["exec", "same", "echo", "here"]).ok(), "here");
}

#[test]
fn a_root_has_one_daemon() {
    let first = Brigd::start();
    let output = std::process::Command::new(brig_e2e::daemon::built("brigd"))
        .arg("--data-root")
        .arg(first.data_root())
        .arg("--exec-root")
        .arg(first.root().join("other-run"))
        .arg("--config-file")
        .arg(first.root().join("brigd.json"))
        .arg("-H")
        .arg(format!("unix://{}", first.root().join("other.sock").display()))
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains(&first.pid().to_string()), "{message}");
}
