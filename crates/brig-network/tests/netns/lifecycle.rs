//! Coming and going: of networks, of many containers, of the daemon.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;

use brig_network::{NetworkSpec, Networks};
use brig_types::error::{Categorized, ErrorKind};
use brig_types::id::ContainerId;

use crate::support::{
    Container, Namespace, config, eventually, fetch, isolated, run, spec, start, tcp, with_subnet,
};

#[test]
fn networks_come_and_go() {
    isolated("lifecycle::networks_come_and_go", || async {
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        let names = |networks: &Networks| {
            let list = networks.list();
            list.into_iter().map(|network| network.record.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&networks), ["bridge", "host", "none"]);
        let id = networks.create(with_subnet("mine", "10.9.0.0/24")).await.unwrap();
        let bridge = format!("br-{}", id.short());
        assert!(run("ip", &["-br", "addr", "show", &bridge]).contains("10.9.0.1/24"));
        let error = |result: Result<_, brig_network::NetworkError>| {
            let error = result.map(|_: brig_types::id::NetworkId| ()).unwrap_err();
            (error.kind(), error.to_string())
        };
        assert_eq!(
            error(networks.create(spec("mine")).await),
            (ErrorKind::Conflict, "network with name mine already exists".into())
        );
        let (kind, text) = error(networks.create(with_subnet("other", "10.9.0.128/25")).await);
        assert_eq!(kind, ErrorKind::Forbidden);
        assert!(text.contains("Pool overlaps with other one on this address space"), "{text}");
        for name in ["bridge", "host", "none"] {
            assert_eq!(
                error(networks.remove(name).await),
                (
                    ErrorKind::Forbidden,
                    format!("{name} is a pre-defined network and cannot be removed")
                )
            );
        }
        let mut foreign: NetworkSpec = spec("foreign");
        foreign.options.insert("com.docker.network.bridge.name".into(), "lo".into());
        assert_eq!(error(networks.create(foreign).await).0, ErrorKind::Forbidden);
        assert_eq!(names(&networks), ["bridge", "host", "mine", "none"]);

        let web = Container::new("web");
        web.join(&networks, "mine").await;
        assert_eq!(
            error(networks.remove(&id.as_str()[..5]).await),
            (
                ErrorKind::Forbidden,
                format!("error while removing network: network mine id {id} has active endpoints")
            )
        );
        let info = networks.get("mine").unwrap();
        assert_eq!(info.containers.keys().collect::<Vec<_>>(), [&web.id]);
        networks.disconnect(&web.id).await.unwrap();
        assert!(networks.get("mine").unwrap().containers.is_empty());
        assert_eq!(networks.remove("mine").await.unwrap(), id);
        assert_eq!(
            error(networks.remove("mine").await),
            (ErrorKind::NotFound, "network mine not found".into())
        );
        assert!(!run("ip", &["-br", "link"]).contains(&bridge));
        assert!(!run("nft", &["list", "table", "ip", "brig"]).contains(&bridge));
        // Containers without interfaces of ours.
        let (lonely, shared) = (Container::new("lonely"), Container::new("shared"));
        lonely.connect(&networks, &["none"], &[tcp(80, 8080)]).await.unwrap();
        shared.connect(&networks, &["host"], &[tcp(80, 8080)]).await.unwrap();
        let (_, links) = lonely.ns.exec(&["ip", "-br", "link"]);
        assert!(links.lines().count() == 1 && links.contains("lo "), "{links}");
        assert!(networks.get("none").unwrap().containers.contains_key(&lonely.id));
        networks.shutdown().await;
    });
}

#[test]
fn instances_live_side_by_side() {
    isolated("lifecycle::instances_live_side_by_side", || async {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, two) = tokio::join!(
            Networks::start(config("", first.path())),
            Networks::start(config("a1b2c3", second.path()))
        );
        let (one, two) = (one.unwrap(), two.unwrap());
        let subnet =
            |networks: &Networks| networks.get("bridge").unwrap().record.ipam.unwrap().subnet;
        assert!(!subnet(&one).overlaps(subnet(&two)));
        let (created, other) = tokio::join!(one.create(spec("net")), two.create(spec("net")));
        created.unwrap();
        other.unwrap();
        let all: BTreeSet<_> = [&one, &two]
            .iter()
            .flat_map(|networks| networks.list())
            .filter_map(|network| Some(network.record.ipam?.subnet))
            .collect();
        assert_eq!(all.len(), 4);
        let (a, b) = (Container::new("a"), Container::new("b"));
        a.connect(&one, &["bridge"], &[tcp(80, 8080)]).await.unwrap();
        b.connect(&two, &["bridge"], &[tcp(80, 8081)]).await.unwrap();
        a.ns.serve(80, "a");
        b.ns.serve(80, "b");
        assert!(fetch(("127.0.0.1", 8080)).unwrap().starts_with("a "));
        assert!(fetch(("127.0.0.1", 8081)).unwrap().starts_with("b "));
        // Cleaning up after a restart does not touch the neighbour.
        two.shutdown().await;
        drop(two);
        let two = Networks::start(config("a1b2c3", second.path())).await.unwrap();
        two.reattach(Vec::new()).await.unwrap();
        assert!(fetch(("127.0.0.1", 8080)).unwrap().starts_with("a "));
        assert!(fetch(("127.0.0.1", 8081)).is_err());
        assert_eq!(run("ip", &["-br", "link", "show", "type", "veth"]).lines().count(), 1);
        one.shutdown().await;
        two.shutdown().await;
    });
}

#[test]
fn running_containers_survive_the_daemon() {
    isolated("lifecycle::running_containers_survive_the_daemon", || async {
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        let kept = networks.create(spec("kept")).await.unwrap();
        networks.create(spec("lost")).await.unwrap();
        let (web, client) = (Container::new("web"), Container::new("client"));
        let (endpoints, _) = web.connect(&networks, &["kept"], &[tcp(80, 8080)]).await.unwrap();
        let ip = endpoints[0].ip.unwrap();
        web.ns.serve(80, "web");
        client.join(&networks, "kept").await;
        let dead = Container::new("dead");
        dead.connect(&networks, &["kept"], &[tcp(80, 8090)]).await.unwrap();
        networks.shutdown().await;
        drop(networks);
        assert!(fetch(("127.0.0.1", 8080)).unwrap().starts_with("web"));

        // While nobody looks: a container dies, a network's record goes, a link appears.
        let lost = std::fs::read_dir(dir.path().join("state/networks"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| std::fs::read_to_string(path).unwrap().contains("\"lost\""))
            .unwrap();
        std::fs::remove_file(lost).unwrap();
        let bridge = format!("br-{}", kept.short());
        run("ip", &["link", "add", "veth0000000", "type", "veth", "peer", "name", "stale1"]);
        run("ip", &["link", "set", "veth0000000", "master", &bridge]);
        let bridges = || run("ip", &["-br", "link", "show", "type", "bridge"]).lines().count();
        assert_eq!(bridges(), 3);

        let networks = start(dir.path()).await;
        // Reachable before anybody was asked who lives.
        assert!(fetch(("127.0.0.1", 8080)).unwrap().starts_with("web"));
        let running = vec![(web.id.clone(), web.ns.pid()), (client.id.clone(), client.ns.pid())];
        assert!(networks.reattach(running).await.unwrap().is_empty());
        let (found, text) =
            client.ns.exec(&["busybox", "nslookup", "-type=a", "web", "127.0.0.11"]);
        assert!(found && text.contains(&ip.to_string()), "{text}");
        assert_eq!(bridges(), 2);
        assert!(!run("ip", &["-br", "link"]).contains("veth0000000"));
        let rules = run("nft", &["list", "table", "ip", "brig"]);
        assert!(rules.contains("8080") && !rules.contains("8090"), "{rules}");
        // What runs keeps its port and address; what died gives both to others.
        let next = Container::new("next");
        let error = next.connect(&networks, &["kept"], &[tcp(80, 8080)]).await.unwrap_err();
        assert!(matches!(error, brig_network::NetworkError::Publish { .. }), "{error}");
        networks.disconnect(&next.id).await.unwrap();
        let (endpoints, _) = next.connect(&networks, &["kept"], &[tcp(80, 8090)]).await.unwrap();
        let taken: BTreeSet<_> =
            networks.get("kept").unwrap().containers.values().map(|e| e.ip).collect();
        assert_eq!(taken.len(), 3);
        assert!(endpoints[0].ip.is_some_and(|other| other != ip));
        networks.shutdown().await;
    });
}

#[test]
fn many_at_once_leave_nothing_behind() {
    isolated("lifecycle::many_at_once_leave_nothing_behind", || async {
        const COUNT: u16 = 50;
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        networks.create(spec("front")).await.unwrap();
        let spaces: Vec<Namespace> = (0..COUNT).map(|_| Namespace::new()).collect();
        let mut tasks = tokio::task::JoinSet::new();
        for (number, space) in (0_u16..).zip(spaces) {
            let networks = networks.clone();
            let id = ContainerId::generate();
            let container = Container { id, ns: space, name: format!("c{number}") };
            tasks.spawn(async move {
                let ports = [tcp(80, 9000 + number)];
                let network = if number % 2 == 0 { "front" } else { "bridge" };
                let (endpoints, _) =
                    container.connect(&networks, &[network], &ports).await.unwrap();
                (container, endpoints[0].ip.unwrap())
            });
        }
        let connected = tasks.join_all().await;
        let addresses: BTreeSet<_> = connected.iter().map(|(_, ip)| *ip).collect();
        assert_eq!(addresses.len(), usize::from(COUNT));
        let (last, _) = connected.last().unwrap();
        let port = networks.ports(&last.id)[0].host_port;
        let rules = run("nft", &["list", "table", "ip", "brig"]);
        assert_eq!(rules.matches("tcp . 9").count(), usize::from(COUNT), "{rules}");
        {
            // Not `serve`: its listener would keep the namespace.
            let bind = || std::net::TcpListener::bind("0.0.0.0:80");
            let _server = brig_sys::ns::in_net(last.ns.ns().as_fd(), bind).unwrap();
            std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        }

        let mut tasks = tokio::task::JoinSet::new();
        for (container, _) in connected {
            let networks = networks.clone();
            tasks.spawn(async move {
                networks.disconnect(&container.id).await.unwrap();
                drop(container);
            });
        }
        tasks.join_all().await;
        eventually("interfaces are left", || {
            run("ip", &["-br", "link", "show", "type", "veth"]).is_empty()
        });
        let rules = run("nft", &["list", "table", "ip", "brig"]);
        assert!(!rules.contains("tcp . 9"), "{rules}");
        assert_eq!(std::fs::read_dir(dir.path().join("state/sandboxes")).unwrap().count(), 0);
        networks.remove("front").await.unwrap();
        for port in [9000, 9000 + COUNT - 1] {
            std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
        }
        networks.shutdown().await;
    });
}

#[test]
fn a_thousand_ports() {
    isolated("lifecycle::a_thousand_ports", || async {
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        let web = Container::new("web");
        let ports: Vec<_> = (20_000..21_200).map(|port| tcp(port, port)).collect();
        let (_, bound) = web.connect(&networks, &["bridge"], &ports).await.unwrap();
        assert_eq!(bound.len(), ports.len());
        let count =
            || run("nft", &["list", "map", "ip", "brig", "ports"]).matches("tcp . 2").count();
        assert_eq!(count(), ports.len());
        web.ns.serve(21_199, "web");
        assert!(fetch(("127.0.0.1", 21_199)).unwrap().starts_with("web"));
        // A repaired table has them all as well.
        networks.create(spec("other")).await.unwrap();
        assert_eq!(count(), ports.len());
        networks.disconnect(&web.id).await.unwrap();
        assert_eq!(count(), 0);
        networks.shutdown().await;
    });
}
