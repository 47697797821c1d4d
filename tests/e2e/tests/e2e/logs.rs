//! Log drivers and which lines `logs` gives.

use std::time::Duration;

use brig_e2e::{Brigd, eventually};

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

#[test]
fn rotated_logs_are_compressed_and_read_as_one() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    let counting =
        "i=0; while true; do i=$((i+1)); echo $i; [ $((i % 500)) = 0 ] && sleep 0.3; done";
    let options = "--log-opt max-size=50k --log-opt max-file=20 --log-opt compress=true";
    let mut args = vec!["run", "-d", "--name", "counts"];
    args.extend(options.split(' '));
    args.extend(["busybox", "sh", "-c", counting]);
    let id = brig.run(&args).ok().to_owned();
    let folder = daemon.data_root().join("containers").join(id);
    let packed = folder.join("container.log.2.gz");
    eventually("two files are compressed", Duration::from_secs(40), || packed.exists());
    let _ = brig.run(&["kill", "counts"]).ok();
    let _ = brig.run(&["wait", "counts"]).ok();
    let said = brig.run(&["logs", "counts"]);
    let numbers: Vec<usize> = said.ok().lines().map(|line| line.parse().unwrap()).collect();
    let expected: Vec<usize> = (1..=numbers.len()).collect();
    assert_eq!(numbers, expected);
    let last = brig.run(&["logs", "--tail", "2000", "counts"]);
    assert_eq!(last.ok().lines().count(), 2000);
    assert!(last.ok().ends_with(&numbers.len().to_string()));
    let _ = brig.run(&["rm", "counts"]).ok();
}
