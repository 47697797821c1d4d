//! `system df`, `system prune` and the prunes of each kind, by every client.

use brig_e2e::{Brigd, image};

#[test]
fn usage_is_told_and_pruned() {
    let daemon = Brigd::start();
    let archive = image::busybox().display().to_string();
    for client in daemon.clients() {
        let _ = client.run(&["load", "-q", "-i", &archive]).ok();
        let _ = client
            .run(&[
                "run",
                "--name",
                "done",
                "--network",
                "none",
                "-v",
                "/anonymous",
                "busybox",
                "sh",
                "-c",
                "echo data >/file && echo data >/anonymous/file",
            ])
            .ok();
        let _ = client.run(&["volume", "create", "mine"]).ok();
        let _ = client.run(&["network", "create", "unused"]).ok();
        let table = client.run(&["system", "df"]);
        let lines: Vec<&str> = table.ok().lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>(),
            ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
        );
        let row = |kind: &str| {
            let line = lines.iter().find(|line| line.starts_with(kind)).unwrap();
            line[kind.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("Images")[..2], ["1", "1"], "{}", client.name);
        assert_eq!(row("Containers")[..2], ["1", "0"]);
        assert_eq!(row("Local Volumes")[..2], ["2", "1"]);
        let verbose = client.run(&["system", "df", "-v"]);
        for title in
            ["Images space usage:", "Containers space usage:", "Local Volumes space usage:", "mine"]
        {
            assert!(verbose.ok().contains(title), "{}", verbose.stdout);
        }
        let json = client.run(&["system", "df", "--format", "{{json .}}"]);
        assert_eq!(json.ok().lines().count(), 4);

        let declined = client.run_with(&["system", "prune"], b"n\n");
        assert!(declined.stdout.contains("WARNING!") || declined.stderr.contains("WARNING!"));
        assert_eq!(client.run(&["ps", "-aq"]).ok().lines().count(), 1);
        let pruned = client.run(&["system", "prune", "-f"]);
        let text = pruned.ok();
        assert!(text.contains("Deleted Containers:\n"), "{text}");
        assert!(text.contains("Deleted Networks:\nunused\n"), "{text}");
        assert!(text.contains("Total reclaimed space: "), "{text}");
        assert_eq!(client.run(&["images", "-q"]).ok().lines().count(), 1);
        let volumes = client.run(&["volume", "prune", "-f"]);
        assert!(volumes.ok().contains("Total reclaimed space: "), "{}", volumes.stdout);
        assert_eq!(client.run(&["volume", "ls", "-q", "--filter", "name=mine"]).code, 0);
        let images = client.run(&["image", "prune", "-a", "-f"]);
        assert!(
            images.ok().starts_with("Deleted Images:\nuntagged: busybox:latest\ndeleted: sha256:"),
            "{}",
            images.stdout
        );
        assert_eq!(client.run(&["images", "-q"]).ok(), "");
        let _ = client.run(&["volume", "rm", "-f", "mine"]).ok();
        let nothing = client.run(&["network", "prune", "-f"]);
        assert_eq!(nothing.ok(), "");
    }
}
