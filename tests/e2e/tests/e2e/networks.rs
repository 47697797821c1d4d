//! Networks: none, host, the default bridge, user-defined bridges with names, published ports.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use brig_e2e::{Brigd, eventually};

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
