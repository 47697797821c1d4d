//! What containers may use and do use: update, stats, and limits of create.

use std::time::Duration;

use brig_e2e::{Brigd, eventually};

const USED: &str = "{{.Name}} {{.MemUsage}} {{.PIDs}}";

#[test]
fn limits_change_while_it_runs_and_are_kept() {
    let mut daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        let run = [
            "run",
            "-d",
            "--name",
            "ct",
            "-m",
            "64m",
            "--network",
            "none",
            "busybox",
            "sleep",
            "1000",
        ];
        let _ = client.run(&run).ok();
        let update = [
            "update",
            "-m",
            "100m",
            "--memory-swap",
            "200m",
            "--pids-limit",
            "50",
            "--cpus",
            "0.5",
            "--restart",
            "on-failure:3",
            "ct",
        ];
        assert_eq!(client.run(&update).ok(), "ct");
        let stats = client.run(&["stats", "--no-stream", "--format", USED, "ct"]);
        assert!(
            stats.ok().starts_with("ct ") && stats.stdout.contains("/ 100MiB 1"),
            "{}",
            stats.stdout
        );
        let format = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.PidsLimit}} {{.HostConfig.NanoCpus}} {{.HostConfig.RestartPolicy.Name}}";
        assert_eq!(
            client.run(&["inspect", "-f", format, "ct"]).ok(),
            "104857600 209715200 50 500000000 on-failure"
        );
        // Down again, swap with it.
        let _ = client.run(&["update", "-m", "32m", "--memory-swap", "32m", "ct"]).ok();
        assert!(
            client.run(&["stats", "--no-stream", "--format", USED, "ct"]).ok().contains("/ 32MiB")
        );
        let swap = client.run(&["update", "-m", "1g", "ct"]);
        assert!(
            swap.fails(1)
                .contains("Memory limit should be smaller than already set memoryswap limit"),
            "{}",
            swap.stderr
        );
        assert!(
            client
                .run(&["update", "-m", "1m", "ct"])
                .fails(1)
                .contains("Minimum memory limit allowed is 6MB")
        );
        assert!(
            client
                .run(&["update", "--cpu-quota", "5000", "ct"])
                .fails(1)
                .contains("CPU Quota cannot be updated as NanoCPUs has already been set")
        );
        assert!(
            client.run(&["update", "ct"]).fails(1).contains("you must provide one or more flags")
        );
        assert!(
            client
                .run(&["update", "-m", "64m", "nope"])
                .fails(1)
                .contains("No such container: nope")
        );
        let _ = client.run(&["kill", "ct"]).ok();
        let _ = client.run(&["update", "--cpus", "1", "ct"]).ok();
        let _ = client.run(&["rm", "-f", "ct"]).ok();
        let _ = client.run(&["run", "-d", "--rm", "--name", "ct", "busybox", "sleep", "1000"]).ok();
        assert!(
            client
                .run(&["update", "--restart", "always", "ct"])
                .fails(1)
                .contains("AutoRemove is enabled")
        );
        let _ = client.run(&["rm", "-f", "ct"]).ok();
    }
    let brig = daemon.brig();
    let _ = brig.run(&["run", "-d", "--name", "kept", "busybox", "sleep", "1000"]).ok();
    let _ = brig.run(&["update", "--restart", "always", "--cpu-shares", "512", "kept"]).ok();
    daemon.kill();
    daemon.spawn();
    let kept = brig.run(&[
        "inspect",
        "-f",
        "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.CpuShares}}",
        "kept",
    ]);
    assert_eq!(kept.ok(), "always 512");
}

#[test]
fn statistics_of_many_and_of_none() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    for n in 0..5 {
        let _ = brig
            .run(&[
                "run",
                "-d",
                "--name",
                &format!("c{n}"),
                "busybox",
                "sh",
                "-c",
                "while :; do :; done",
            ])
            .ok();
    }
    let _ = brig.run(&["create", "--name", "idle", "busybox", "true"]).ok();
    for client in daemon.clients() {
        let format = "{{.Name}} {{.CPUPerc}} {{.PIDs}} {{.NetIO}}";
        let busy = client.run(&["stats", "--no-stream", "--format", format]);
        let lines: Vec<&str> = busy.ok().lines().collect();
        assert_eq!(lines.len(), 5, "{}", busy.stdout);
        assert!(lines.iter().any(|line| !line.contains(" 0.00%")), "{}", busy.stdout);
        assert!(lines.iter().all(|line| line.contains("% 1 ")), "{}", busy.stdout);
        let all = client.run(&["stats", "--no-stream", "-a", "--format", "{{.Name}} {{.PIDs}}"]);
        assert_eq!(all.ok().lines().count(), 6);
        assert!(
            client
                .run(&["stats", "--no-stream", "nope"])
                .fails(1)
                .contains("No such container: nope")
        );
    }
    // A stream goes on over the container's end, and ends with its removal.
    let mut stream = brig
        .command(&["stats", "--format", "{{.Name}}={{.PIDs}}", "c0"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let _ = brig.run(&["kill", "c0"]).ok();
    assert!(stream.try_wait().unwrap().is_none());
    let _ = brig.run(&["rm", "c0"]).ok();
    eventually("the stream ends", Duration::from_secs(10), || stream.try_wait().unwrap().is_some());
}

#[test]
fn prune_takes_what_stopped_and_filters_chose() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        let _ = client.run(&["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).ok();
        let _ = client.run(&["run", "--name", "kept", "--label", "keep=1", "busybox", "true"]).ok();
        let gone = client.run(&["create", "--name", "gone", "busybox", "true"]).ok().to_owned();
        let until = client.run(&["container", "prune", "-f", "--filter", "until=1h"]);
        assert_eq!(until.ok(), "Total reclaimed space: 0B");
        let pruned = client.run(&["container", "prune", "-f", "--filter", "label!=keep"]);
        assert!(
            pruned
                .ok()
                .starts_with(&format!("Deleted Containers:\n{gone}\n\nTotal reclaimed space: ")),
            "{}",
            pruned.stdout
        );
        assert!(
            client
                .run(&["container", "prune", "-f", "--filter", "bogus=1"])
                .fails(1)
                .to_lowercase()
                .contains("invalid filter 'bogus'")
        );
        let _ = client.run(&["container", "prune", "-f"]).ok();
        assert_eq!(client.run(&["ps", "-a", "--format", "{{.Names}}"]).ok(), "up");
        let _ = client.run(&["rm", "-f", "up"]).ok();
    }
}

#[test]
fn lists_are_filtered_as_dockers() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    let _ = brig
        .run(&[
            "run",
            "-d",
            "--name",
            "web-1",
            "-p",
            "127.0.0.1::80",
            "--expose",
            "90",
            "-v",
            "data:/d",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    let _ = brig.run(&["create", "--name", "web-2", "--label", "a=b", "busybox", "true"]).ok();
    let _ = brig.run(&["run", "--name", "api", "busybox", "sh", "-c", "exit 3"]);
    let id = brig.run(&["inspect", "-f", "{{.Id}}", "web-1"]).ok().to_owned();
    for client in daemon.clients() {
        let names = |filters: &[&str]| {
            let mut args = vec!["ps", "-a", "--format", "{{.Names}}"];
            for filter in filters {
                args.extend(["--filter", filter]);
            }
            let mut names: Vec<String> =
                client.run(&args).ok().lines().map(str::to_owned).collect();
            names.sort();
            names.join(" ")
        };
        for (filter, want) in [
            ("name=web", "web-1 web-2"),
            ("name=^/web-[13]$", "web-1"),
            ("name=^(api|web-2)$", "api web-2"),
            ("name=(", ""),
            ("label=a", "web-2"),
            ("exited=3", "api"),
            ("status=created", "web-2"),
            ("ancestor=busybox", "api web-1 web-2"),
            ("before=web-2", "web-1"),
            ("since=web-2", "api"),
            ("volume=/d", "web-1"),
            ("volume=data", "web-1"),
            ("network=bridge", "api web-1 web-2"),
            ("publish=80", ""),
            ("expose=80", "web-1"),
            ("expose=85-95/tcp", "web-1"),
            ("health=none", "api web-1 web-2"),
            ("is-task=true", ""),
        ] {
            assert_eq!(names(&[filter]), want, "{}: {filter}", client.name);
        }
        assert_eq!(names(&[&format!("id={}", &id[3..20])]), "web-1");
        assert_eq!(names(&["name=web", "label=a=b"]), "web-2");
        for bad in ["bogus=1", "status=bogus", "exited=x", "before=nope"] {
            assert_eq!(client.run(&["ps", "--filter", bad]).code, 1, "{bad}");
        }
        assert_eq!(client.run(&["ps", "-lq", "--no-trunc"]).ok().len(), 64);
        assert_eq!(client.run(&["ps", "-n", "2", "-q"]).ok().lines().count(), 2);
        assert!(client.run(&["ps", "-as", "--format", "{{.Size}}"]).ok().contains("virtual"));
        assert!(
            client
                .run(&["inspect", "--size", "-f", "{{.SizeRootFs}}", "web-1"])
                .ok()
                .parse::<u64>()
                .unwrap()
                > 100_000
        );
    }
}

#[test]
fn options_of_create_reach_the_kernel() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let other = daemon.brig();
    let _ = other
        .run(&[
            "run",
            "-d",
            "--name",
            "other",
            "--ipc",
            "shareable",
            "--hostname",
            "far",
            "busybox",
            "sleep",
            "1000",
        ])
        .ok();
    let address =
        other.run(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "other"]).ok().to_owned();
    for client in daemon.clients() {
        let says = |flags: &str, script: &str| {
            let mut args = vec!["run", "--rm"];
            args.extend(flags.split_whitespace());
            args.extend(["busybox", "sh", "-c", script]);
            client.run(&args).ok().to_owned()
        };
        assert_eq!(says("--ulimit nofile=100:200", "ulimit -Sn; ulimit -Hn"), "100\n200");
        assert_eq!(
            says("--sysctl net.ipv4.ip_default_ttl=77", "cat /proc/sys/net/ipv4/ip_default_ttl"),
            "77"
        );
        assert!(says("--shm-size 8m", "df -k /dev/shm | tail -1").contains(" 8192 "));
        assert_eq!(
            says("--group-add 1234 --group-add 55", "id -G"),
            "0 10 55 1234".replace("10 ", "")
        );
        assert_eq!(says("--oom-score-adj 321", "cat /proc/self/oom_score_adj"), "321");
        assert_eq!(
            says("--security-opt no-new-privileges", "grep NoNewPrivs /proc/self/status"),
            "NoNewPrivs:\t1"
        );
        assert_eq!(
            says(
                "--security-opt seccomp=unconfined --security-opt label=disable",
                "grep Seccomp: /proc/self/status"
            ),
            "Seccomp:\t0"
        );
        assert_eq!(
            says(
                "--read-only --tmpfs /t:size=1m",
                "touch /x 2>/dev/null || echo ro; touch /t/x && echo rw"
            ),
            "ro\nrw"
        );
        assert_eq!(
            says(
                "--dns 192.0.2.1 --dns-search example.org --dns-opt ndots:3",
                "cat /etc/resolv.conf | sort"
            ),
            "nameserver 192.0.2.1\noptions ndots:3\nsearch example.org"
        );
        assert!(
            says("--add-host there:host-gateway --add-host here:192.0.2.9", "cat /etc/hosts")
                .contains("192.0.2.9\there")
        );
        assert!(says("--device /dev/null:/dev/nil:rw", "ls -l /dev/nil").contains("1,   3"));
        assert_eq!(says("--pid container:other", "cat /proc/1/comm"), "sleep");
        assert!(!says("--ipc container:other", "ls -d /dev/shm").is_empty());
        assert_eq!(
            says("--uts host", "hostname"),
            std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim()
        );
        assert_eq!(says("--network container:other", "hostname"), "far");
        assert!(says("--link other:near", "cat /etc/hosts").contains(&format!("{address}\tnear")));
        let refused = |flags: &str| {
            let mut args = vec!["run", "--rm"];
            args.extend(flags.split_whitespace());
            args.push("busybox");
            client.run(&args).fails(125).to_owned()
        };
        assert!(
            refused("--storage-opt size=1g")
                .contains("is supported only for overlay over xfs with 'pquota' mount option")
        );
        assert!(refused("--log-driver syslog").contains("plugin \"syslog\" not found"));
        assert!(
            refused("--log-opt bogus=1")
                .contains("unknown log opt 'bogus' for json-file log driver")
        );
        assert!(refused("--runtime nope").contains("unknown or invalid runtime name: nope"));
        assert!(refused("--link nope").contains("could not get container for nope"));
        assert!(refused("--userns keep").to_lowercase().contains("invalid user"));
    }
}
