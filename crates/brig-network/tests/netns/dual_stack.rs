//! Networks with both families.

use std::net::{IpAddr, Ipv6Addr};

use brig_network::{HostPort, NetworkError, NetworkSpec, PortRequest, Protocol, SubnetSpec};

use crate::support::{Container, World, eventually, fetch, isolated, run, spec, start, tcp};

const HOST: &str = "2001:db8:ffff::1";

fn dual(name: &str, subnet: &str) -> NetworkSpec {
    let subnets = match subnet {
        "" => Vec::new(),
        subnet => vec![SubnetSpec { subnet: subnet.to_owned(), ..SubnetSpec::default() }],
    };
    NetworkSpec { ipv6: true, subnets, ..spec(name) }
}

/// A world with an address of the other family too, and a server that tells who asks.
fn world() -> World {
    let world = World::new();
    run("ip", &["addr", "add", "2001:db8:ffff::1/64", "dev", "up0", "nodad"]);
    let add = ["ip", "addr", "add", "2001:db8:ffff::2/64", "dev", "up1", "nodad"];
    assert!(world.ns.exec(&add).0);
    world
}

fn six(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

#[test]
fn both_families_reach_everything() {
    isolated("dual_stack::both_families_reach_everything", || async {
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        let world = world();
        world.ns.serve_at("::", 9000, "world");
        networks.create(dual("net", "fd00:1::/64")).await.unwrap();
        networks.create(dual("other", "")).await.unwrap();
        let (web, client, stranger, plain) = (
            Container::new("web"),
            Container::new("client"),
            Container::new("stranger"),
            Container::new("plain"),
        );
        let (endpoints, ports) = web.connect(&networks, &["net"], &[tcp(80, 8080)]).await.unwrap();
        let v6 = endpoints[0].v6.unwrap();
        assert_eq!(
            (v6.ip, v6.prefix_len, v6.gateway),
            (six("fd00:1::2"), 64, Some(six("fd00:1::1")))
        );
        let at: Vec<IpAddr> = ports.iter().map(|port| port.host_ip).collect();
        assert_eq!(at, ["0.0.0.0".parse::<IpAddr>().unwrap(), "::".parse().unwrap()]);
        assert!(ports.iter().all(|port| port.host_port == 8080));
        client.join(&networks, "net").await;
        stranger.join(&networks, "other").await;
        plain.join(&networks, "bridge").await;
        web.ns.serve_at("::", 80, "web");

        // Neighbours find each other, the way out hides them, names lead to both addresses.
        assert_eq!(client.ns.fetch((v6.ip, 80)).unwrap(), "web fd00:1::3");
        assert_eq!(
            client.ns.fetch((six("2001:db8:ffff::2"), 9000)).unwrap(),
            format!("world {HOST}")
        );
        let (_, found) = client.ns.exec(&["busybox", "nslookup", "web", "127.0.0.11"]);
        assert!(found.contains("fd00:1::2"), "{found}");
        let (_, found) = client.ns.exec(&["busybox", "nslookup", "fd00:1::2", "127.0.0.11"]);
        assert!(found.contains("web.net"), "{found}");

        // The published port at every address of both families, also for other networks.
        for host in [HOST, "fd00:1::1"] {
            assert!(fetch((six(host), 8080)).unwrap().starts_with("web"), "{host}");
        }
        assert!(fetch(("127.0.0.1", 8080)).unwrap().starts_with("web"));
        // Refused at once, so that whoever tries it first goes on.
        let error = fetch((six("::1"), 8080)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(world.ns.fetch((six(HOST), 8080)).unwrap(), "web 2001:db8:ffff::2");
        assert!(stranger.ns.fetch((six(HOST), 8080)).unwrap().starts_with("web"));

        // What is not published is for nobody outside, and networks are apart.
        let route = ["ip", "route", "add", "fd00:1::/64", "via", HOST];
        assert!(world.ns.exec(&route).0);
        assert!(world.ns.fetch((v6.ip, 80)).is_err());
        assert!(stranger.ns.fetch((v6.ip, 80)).is_err());
        let (_, shown) = plain.ns.exec(&["ip", "-o", "addr", "show", "dev", "eth0"]);
        assert!(!shown.contains("inet6"), "{shown}");

        networks.disconnect(&web.id).await.unwrap();
        assert!(fetch((six(HOST), 8080)).is_err());
        networks.shutdown().await;
    });
}

#[test]
fn fixed_addresses_and_ports_at_one_address() {
    isolated("dual_stack::fixed_addresses_and_ports_at_one_address", || async {
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        run("ip", &["addr", "add", "2001:db8:ffff::1/128", "dev", "lo", "nodad"]);
        networks.create(dual("net", "fd00:1::/64")).await.unwrap();
        let (web, plain) = (Container::new("web"), Container::new("plain"));
        let mut request = web.request("net");
        request.ip6 = Some(six("fd00:1::77"));
        let endpoint = networks.reserve(&web.id, request.clone()).await.unwrap();
        assert_eq!(endpoint.v6.unwrap().ip, six("fd00:1::77"));
        let error = networks.reserve(&plain.id, request.clone()).await.unwrap_err();
        assert!(matches!(error, NetworkError::AddressInUse(_)), "{error}");
        request.network = "bridge".to_owned();
        let error = networks.reserve(&plain.id, request).await.unwrap_err();
        assert!(error.to_string().contains("--ipv6"), "{error}");

        let at_one = PortRequest {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: Some(six(HOST).into()),
            host_port: HostPort::Fixed(8080),
        };
        let error = plain.connect(&networks, &["bridge"], &[at_one]).await.unwrap_err();
        assert!(brig_types::error::chain(&error).contains("--ipv6"), "{error}");
        let (_, bound) = web.connect(&networks, &[], &[at_one]).await.unwrap();
        assert_eq!(bound.len(), 1);
        web.ns.serve_at("::", 80, "web");
        // The first question for a neighbour may be lost while the interface is new.
        let served = || fetch((six(HOST), 8080)).is_ok_and(|text| text.starts_with("web"));
        eventually("the port leads to the container", served);
        assert!(fetch(("127.0.0.1", 8080)).is_err());
        networks.shutdown().await;

        // A daemon that comes after it serves the same, and the rules come back when they are lost.
        let networks = start(dir.path()).await;
        let left = networks.reattach(vec![(web.id.clone(), web.ns.pid())]).await.unwrap();
        assert!(left.is_empty());
        eventually("the port still leads to the container", served);
        run("nft", &["flush", "ruleset"]);
        assert!(!served(), "the rules are gone");
        eventually("the rules are back", served);
        networks.shutdown().await;
    });
}

#[test]
fn what_is_in_the_way_is_named() {
    isolated("dual_stack::what_is_in_the_way_is_named", || async {
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        networks.create(dual("net", "fd00:1::/64")).await.unwrap();
        let error = networks.create(dual("again", "fd00::/16")).await.unwrap_err().to_string();
        assert!(error.contains("Pool overlaps") && error.contains("fd00:1::/64"), "{error}");
        let _world = World::new();
        let other = crate::support::with_subnet("x", "198.51.100.0/25");
        let error = networks.create(other).await.unwrap_err().to_string();
        assert!(error.contains("interface up0, which has 198.51.100.0/24"), "{error}");
        // A bridge that a daemon left whose data is gone.
        run("ip", &["link", "add", "br-old", "type", "bridge"]);
        let alias = format!("brig:gone:{}", brig_types::id::NetworkId::generate());
        run("ip", &["link", "set", "br-old", "up", "alias", &alias]);
        run("ip", &["addr", "add", "10.99.0.1/16", "dev", "br-old"]);
        let other = crate::support::with_subnet("x", "10.99.0.0/24");
        let error = networks.create(other).await.unwrap_err().to_string();
        assert!(error.contains("`ip link delete br-old`"), "{error}");
        networks.shutdown().await;
        // One of its own is taken away by the next daemon.
        let alias = format!("brig::{}", brig_types::id::NetworkId::generate());
        run("ip", &["link", "set", "br-old", "alias", &alias]);
        let networks = start(dir.path()).await;
        let other = crate::support::with_subnet("x", "10.99.0.0/24");
        networks.create(other).await.unwrap();
        networks.shutdown().await;
    });
}
