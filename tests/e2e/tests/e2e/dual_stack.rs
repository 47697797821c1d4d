//! Networks with IPv6 by the real clients.

use brig_e2e::{Brigd, eventually};

#[test]
fn a_network_with_both_families() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let third = std::process::id() % 0xffff;
    for (number, client) in daemon.clients().into_iter().enumerate() {
        let subnet = format!("fd5a:{number:x}:{third:x}::");
        let range = format!("{subnet}/64");
        let create = ["network", "create", "--ipv6", "--subnet", &range, "six"];
        let _ = client.run(&create).ok();
        let fixed = format!("{subnet}77");
        let run = ["run", "-d", "--name", "web", "--network", "six", "--ip6", &fixed];
        let rest = ["-p", "80", "busybox", "httpd", "-f", "-h", "/var/www"];
        let _ = client.run(&[&run[..], &rest[..]].concat()).ok();
        let template = "{{.NetworkSettings.Networks.six.GlobalIPv6Address}} \
                        {{.NetworkSettings.Networks.six.IPv6Gateway}}";
        let shown = client.run(&["inspect", "-f", template, "web"]);
        assert_eq!(shown.ok(), format!("{fixed} {subnet}1"), "{}", client.name);
        let shown = client.run(&[
            "network",
            "inspect",
            "-f",
            "{{.EnableIPv6}} {{json .IPAM.Config}}",
            "six",
        ]);
        assert!(shown.ok().starts_with("true ") && shown.ok().contains(&range), "{shown:?}");
        let shown = client.run(&["port", "web", "80/tcp"]);
        // Debian's CLI writes the address without brackets.
        assert!(shown.ok().contains("[::]:") || shown.ok().contains(":::"), "{shown:?}");
        // By its name, which has an address of the family.
        let found = client.run(&["run", "--rm", "--network", "six", "busybox", "nslookup", "web"]);
        assert!(found.stdout.contains(&fixed), "{found:?}");
        eventually("it answers", std::time::Duration::from_secs(10), || {
            let ping = ["run", "--rm", "--network", "six", "busybox", "ping", "-c", "1", &fixed];
            client.run(&ping).code == 0
        });
        let _ = client.run(&["rm", "-f", "web"]).ok();
        let _ = client.run(&["network", "rm", "six"]).ok();
    }
}
