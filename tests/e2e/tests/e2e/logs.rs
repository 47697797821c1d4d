//! Log drivers and which lines `logs` gives.

use brig_e2e::Brigd;

#[test]
fn drivers_and_lines() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        let none = ["run", "--name", "nn", "--log-driver", "none", "busybox", "echo", "x"];
        assert_eq!(client.run(&none).ok(), "x");
        let unread = client.run(&["logs", "nn"]);
        assert!(unread.fails(1).contains("configured logging driver does not support reading"));
        let local = [
            "run",
            "--name",
            "ll",
            "--log-driver",
            "local",
            "--log-opt",
            "max-size=1m",
            "--log-opt",
            "max-file=2",
            "busybox",
            "seq",
            "3",
        ];
        let _ = client.run(&local).ok();
        assert_eq!(client.run(&["logs", "ll"]).ok(), "1\n2\n3");
        assert_eq!(
            client.run(&["inspect", "-f", "{{.HostConfig.LogConfig.Type}}", "ll"]).ok(),
            "local"
        );
        let tagged = [
            "run",
            "--name",
            "tt",
            "--label",
            "team=a b",
            "-e",
            "LC_X=1",
            "--log-opt",
            "labels=team",
            "--log-opt",
            "env-regex=^LC_",
            "--log-opt",
            "tag={{.Name}}",
            "busybox",
            "sh",
            "-c",
            "echo one; sleep 1.2; echo two",
        ];
        let _ = client.run(&tagged).ok();
        assert_eq!(
            client.run(&["logs", "--details", "--tail", "1", "tt"]).ok(),
            "LC_X=1,tag=tt,team=a+b two"
        );
        let stamped = client.run(&["logs", "--timestamps", "tt"]).ok().to_owned();
        let times: Vec<&str> = stamped.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(times.len(), 2, "{stamped}");
        assert_eq!(client.run(&["logs", "--since", times[1], "tt"]).ok(), "two");
        assert_eq!(client.run(&["logs", "--until", times[0], "tt"]).ok(), "one");
        let _ = client.run(&["rm", "nn", "ll", "tt"]).ok();
    }
}
