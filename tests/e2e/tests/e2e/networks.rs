//! Networks: none, host, the default bridge, user-defined bridges with names, published ports.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use brig_e2e::{Brigd, Client, eventually};

fn get(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn none_host_and_bridge() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    let none = brig.run(&["run", "--rm", "--network", "none", "busybox", "ip", "-o", "link"]);
    assert_eq!(none.ok().lines().count(), 1, "{}", none.stdout);
    let host = brig.run(&["run", "--rm", "--network", "host", "busybox", "hostname"]);
    assert_eq!(host.ok(), rustix::system::uname().nodename().to_str().unwrap());
    let bridge = brig.run(&[
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "ip -o -4 addr show eth0 && ip route && cat /etc/hosts",
    ]);
    assert!(
        bridge.ok().contains("inet ") && bridge.ok().contains("default via"),
        "{}",
        bridge.stdout
    );
}

#[test]
fn containers_find_each_other_by_name() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        let _ = client.run(&["network", "create", "app"]).ok();
        let _ = client
            .run(&[
                "run",
                "-d",
                "--name",
                "web",
                "--network",
                "app",
                "--network-alias",
                "www",
                "busybox",
                "httpd",
                "-f",
                "-h",
                "/var/www",
            ])
            .ok();
        let resolv =
            client.run(&["run", "--rm", "--network", "app", "busybox", "cat", "/etc/resolv.conf"]);
        assert!(resolv.ok().contains("nameserver 127.0.0.11"), "{}", resolv.stdout);
        for name in ["web", "www"] {
            // The name is looked up by nslookup: a static program's own resolver cannot load what
            // glibc wants.
            let script = format!(
                "address=$(nslookup {name} | sed -n 's/^Address: //p' | tail -n 1); \
                 printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 $address 80 | tail -n 1"
            );
            let fetched =
                client.run(&["run", "--rm", "--network", "app", "busybox", "sh", "-c", &script]);
            assert_eq!(fetched.ok(), "brig", "{name}");
        }
        let unknown =
            client.run(&["run", "--rm", "--network", "app", "busybox", "nslookup", "nosuch"]);
        assert_ne!(unknown.code, 0, "a name that nobody has");
        let _ = client.run(&["network", "create", "other"]).ok();
        let elsewhere =
            client.run(&["run", "--rm", "--network", "other", "busybox", "nslookup", "web"]);
        assert_ne!(elsewhere.code, 0, "another network does not know the name");
        let _ = client.run(&["network", "rm", "other"]).ok();
        assert!(client.run(&["network", "rm", "app"]).fails(1).contains("has active endpoints"));
        let _ = client.run(&["rm", "-f", "web"]).ok();
        assert_eq!(client.run(&["network", "rm", "app"]).ok(), "app");
    }
}

#[test]
fn published_ports_answer_and_conflicts_are_named() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        let port = free_port();
        let publish = format!("{port}:80");
        let _ = client
            .run(&[
                "run", "-d", "--name", "web", "-p", &publish, "busybox", "httpd", "-f", "-h",
                "/var/www",
            ])
            .ok();
        eventually("the published port answers", Duration::from_secs(5), || {
            get(&format!("127.0.0.1:{port}")).is_some_and(|answer| answer.ends_with("brig\n"))
        });
        assert!(client.run(&["port", "web"]).ok().contains(&format!("80/tcp -> 0.0.0.0:{port}")));
        let taken = client.run(&["run", "--rm", "-p", &publish, "busybox", "true"]);
        assert!(taken.fails(125).contains("port is already allocated"), "{}", taken.stderr);
        let _ = client.run(&["rm", "-f", "web"]).ok();
        let listener = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
        let busy = client.run(&["run", "--rm", "-p", &publish, "busybox", "true"]);
        assert!(busy.fails(125).contains("address already in use"), "{}", busy.stderr);
        drop(listener);
        assert_eq!(client.run(&["ps", "-aq"]).ok(), "", "nothing half-made is left");
    }
}

#[test]
fn connected_and_disconnected_while_running() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        let _ = client.run(&["network", "create", "late"]).ok();
        let _ = client.run(&["run", "-d", "--name", "mover", "busybox", "sleep", "1000"]).ok();
        let _ = client.run(&["network", "connect", "--alias", "moved", "late", "mover"]).ok();
        let links = client.run(&["exec", "mover", "ip", "-o", "-4", "addr"]);
        assert!(links.ok().contains("eth0") && links.ok().contains("eth1"), "{}", links.stdout);
        let found =
            client.run(&["run", "--rm", "--network", "late", "busybox", "nslookup", "moved"]);
        assert!(found.ok().contains("Address"), "{}", found.stdout);
        let _ = client.run(&["network", "disconnect", "late", "mover"]).ok();
        let links = client.run(&["exec", "mover", "ip", "-o", "-4", "addr"]);
        assert!(!links.ok().contains("eth1"), "{}", links.stdout);
        let _ = client.run(&["rm", "-f", "mover"]).ok();
        let _ = client.run(&["network", "rm", "late"]).ok();
    }
}

#[test]
fn names_resolve_at_once_on_a_network_connected_late() {
    // Nobody is there, and says so at once.
    let mut daemon = Brigd::start_with(&["--dns", "127.0.0.1"]);
    daemon.load_busybox();
    let conf = |client: &Client, name: &str| {
        client.run(&["exec", name, "cat", "/etc/resolv.conf"]).ok().to_owned()
    };
    let finds_web = |client: &Client, name: &str, server: &[&str]| {
        client.run(&[&["exec", name, "nslookup", "web."], server].concat()).code == 0
    };
    let start = |client: &Client, name: &str, flags: &[&str]| {
        let run = [&["run", "-d", "--name", name], flags, &["busybox", "sleep", "1000"]].concat();
        let _ = client.run(&run).ok();
    };
    for client in daemon.clients() {
        let _ = client.run(&["network", "create", "late"]).ok();
        start(&client, "web", &["--network", "late"]);

        start(&client, "plain", &[]);
        let before = conf(&client, "plain");
        assert!(!before.contains("127.0.0.11"), "{before}");
        let _ = client.run(&["network", "connect", "late", "plain"]).ok();
        assert!(conf(&client, "plain").contains("nameserver 127.0.0.11"));
        assert!(finds_web(&client, "plain", &[]));

        let own = ["--dns", "192.0.2.9", "--dns-search", "example.org", "--dns-option", "ndots:3"];
        start(&client, "strict", &[&["--read-only"], &own[..]].concat());
        let _ = client.run(&["network", "connect", "late", "strict"]).ok();
        let expected = "search example.org\nnameserver 127.0.0.11\noptions ndots:3";
        assert_eq!(conf(&client, "strict"), expected);
        assert!(finds_web(&client, "strict", &[]));

        // Whoever has changed the file wants it that way; the server is there all the same.
        start(&client, "own", &[]);
        let change = "echo nameserver 192.0.2.77 > /etc/resolv.conf";
        let _ = client.run(&["exec", "own", "sh", "-c", change]).ok();
        let _ = client.run(&["network", "connect", "late", "own"]).ok();
        assert_eq!(conf(&client, "own"), "nameserver 192.0.2.77");
        assert!(finds_web(&client, "own", &["127.0.0.11"]));

        // Without the network its names are gone, and the server stays until the container ends.
        let _ = client.run(&["network", "disconnect", "late", "plain"]).ok();
        assert!(conf(&client, "plain").contains("nameserver 127.0.0.11"));
        assert!(!finds_web(&client, "plain", &[]));
        let _ = client.run(&["network", "connect", "late", "plain"]).ok();
        assert!(finds_web(&client, "plain", &[]));
        let _ = client.run(&["network", "disconnect", "late", "plain"]).ok();
        let _ = client.run(&["restart", "-t", "0", "plain"]).ok();
        assert_eq!(conf(&client, "plain"), before);
        let _ = client.run(&["rm", "-f", "plain", "strict", "own", "web"]).ok();
        let _ = client.run(&["network", "rm", "late"]).ok();
    }

    // A daemon that takes the container over serves what its file names.
    let brig = daemon.brig();
    brig.run(&["network", "create", "late"]).ok();
    start(&brig, "web", &["--network", "late"]);
    for name in ["stays", "left"] {
        start(&brig, name, &[]);
        brig.run(&["network", "connect", "late", name]).ok();
    }
    brig.run(&["network", "disconnect", "late", "left"]).ok();
    let served = |name: &str| {
        // 127.0.0.11 as the kernel writes it.
        let sockets = brig.run(&["exec", name, "grep", "-c", " 0B00007F:", "/proc/net/udp"]);
        sockets.stdout.trim().to_owned()
    };
    assert_eq!(served("left"), "1");
    daemon.kill();
    daemon.spawn();
    assert!(finds_web(&brig, "stays", &[]));
    assert_eq!(served("left"), "1");
    brig.run(&["network", "connect", "late", "left"]).ok();
    assert!(finds_web(&brig, "left", &[]));
}

#[test]
fn links_on_networks_follow_who_they_name() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    brig.run(&["network", "create", "back"]).ok();
    let serve = |name: &str, text: &str| {
        let script = format!("mkdir /w; echo {text} > /w/who; exec httpd -f -h /w");
        let run = ["run", "-d", "--name", name, "--network", "back", "busybox", "sh", "-c"];
        brig.run(&[&run[..], &[script.as_str()]].concat()).ok();
    };
    serve("db", "first");
    let run = ["run", "-d", "--name", "web", "--network", "back", "--link", "db:sql"];
    brig.run(&[&run[..], &["busybox", "sleep", "1000"]].concat()).ok();
    brig.run(&["network", "create", "front"]).ok();
    let run = ["run", "-d", "--name", "late", "--network", "front"];
    brig.run(&[&run[..], &["busybox", "sleep", "1000"]].concat()).ok();
    brig.run(&["network", "connect", "--link", "db:store", "back", "late"]).ok();
    let ask = |from: &str, host: &str| {
        let url = format!("http://{host}/who");
        brig.run(&["exec", from, "wget", "-qO-", &url]).stdout.trim().to_owned()
    };
    eventually("the link is known", Duration::from_secs(10), || ask("web", "sql") == "first");
    assert_eq!(ask("late", "store"), "first");
    assert_eq!(ask("late", "sql"), "", "another container's name for it");
    // Another container of that name, at another address.
    brig.run(&["rm", "-f", "db"]).ok();
    brig.run(&["run", "-d", "--name", "between", "--network", "back", "busybox", "sleep", "1000"])
        .ok();
    serve("db", "second");
    eventually("the link follows", Duration::from_secs(10), || ask("web", "sql") == "second");
    assert_eq!(ask("late", "store"), "second");
}
