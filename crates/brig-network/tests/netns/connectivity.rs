//! Who reaches whom.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use brig_network::{HostPort, NetworkError, PortRequest, Protocol};
use brig_sys::ns;
use brig_types::error::chain;

use crate::support::{Container, World, fetch, isolated, run, spec, start, tcp, with_subnet};

#[test]
fn the_default_bridge() {
    isolated("connectivity::the_default_bridge", || async {
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        let world = World::new();
        world.ns.serve(9000, "world");
        let (web, client) = (Container::new("web"), Container::new("client"));
        let (endpoints, ports) =
            web.connect(&networks, &["default"], &[tcp(80, 8080)]).await.unwrap();
        let endpoint = &endpoints[0];
        let (ip, gateway) = (endpoint.ip.unwrap(), endpoint.gateway.unwrap());
        assert_eq!((ip.to_string().as_str(), endpoint.prefix_len), ("172.17.0.2", 16));
        assert_eq!(endpoint.mac.unwrap().to_string(), "02:42:ac:11:00:02");
        assert_eq!(ports[0].host_port, 8080);
        let other = client.join(&networks, "bridge").await;
        assert_eq!(other, Ipv4Addr::new(172, 17, 0, 3));
        web.ns.serve(80, "web");

        let (_, shown) = web.ns.exec(&["ip", "-o", "addr", "show", "dev", "eth0"]);
        assert!(shown.contains("172.17.0.2/16 brd 172.17.255.255"), "{shown}");
        assert!(!shown.contains("inet6"), "{shown}");
        let (_, shown) = web.ns.exec(&["ip", "link", "show", "dev", "eth0"]);
        assert!(shown.contains("02:42:ac:11:00:02"), "{shown}");
        let (_, shown) = web.ns.exec(&["ip", "route"]);
        assert!(shown.contains("default via 172.17.0.1 dev eth0"), "{shown}");

        assert!(client.ns.ping(ip) && web.ns.ping(other) && web.ns.ping(gateway));
        assert_eq!(client.ns.fetch((ip, 80)).unwrap(), format!("web {other}"));
        // The published port: from the host by every address, a neighbour, containers, itself.
        assert!(fetch((gateway, 8080)).unwrap().starts_with("web"));
        assert!(fetch((World::HOST, 8080)).unwrap().starts_with("web"));
        assert!(fetch(("127.0.0.1", 8080)).unwrap().starts_with("web"));
        assert_eq!(world.ns.fetch((World::HOST, 8080)).unwrap(), format!("web {}", World::ADDRESS));
        assert!(client.ns.fetch((World::HOST, 8080)).unwrap().starts_with("web"));
        assert!(client.ns.fetch((gateway, 8080)).unwrap().starts_with("web"));
        assert!(web.ns.fetch((World::HOST, 8080)).unwrap().starts_with("web"));
        // The way out hides the container.
        assert_eq!(
            client.ns.fetch((World::ADDRESS, 9000)).unwrap(),
            format!("world {}", World::HOST)
        );
        // A neighbour that routes past the translation gets nothing.
        world.route_to("172.17.0.0/16");
        assert!(world.ns.fetch((ip, 80)).is_err());
        assert!(!world.ns.ping(ip));

        networks.disconnect(&web.id).await.unwrap();
        assert!(fetch((gateway, 8080)).is_err());
        assert!(fetch(("127.0.0.1", 8080)).is_err());
        networks.shutdown().await;
    });
}

#[test]
fn ports_at_one_address_and_udp() {
    isolated("connectivity::ports_at_one_address_and_udp", || async {
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        let world = World::new();
        let web = Container::new("web");
        let request = |protocol, host_ip: Ipv4Addr, port| PortRequest {
            container_port: 80,
            protocol,
            host_ip: Some(IpAddr::V4(host_ip)),
            host_port: port,
        };
        let ports = [
            request(Protocol::Tcp, Ipv4Addr::LOCALHOST, HostPort::Fixed(81)),
            request(Protocol::Tcp, World::HOST, HostPort::Range(82, 90)),
            request(Protocol::Udp, Ipv4Addr::UNSPECIFIED, HostPort::Ephemeral),
        ];
        let (_, bound) = web.connect(&networks, &["bridge"], &ports).await.unwrap();
        assert_eq!(bound[1].host_port, 82);
        assert_eq!(networks.ports(&web.id), bound);
        web.ns.serve(80, "web");
        assert!(fetch(("127.0.0.1", 81)).is_ok());
        assert!(fetch((World::HOST, 81)).is_err());
        assert!(world.ns.fetch((World::HOST, 81)).is_err());
        assert!(world.ns.fetch((World::HOST, 82)).is_ok());
        assert!(fetch(("127.0.0.1", 82)).is_err());

        let server = ns::in_net(web.ns.ns().as_fd(), || UdpSocket::bind(("0.0.0.0", 80))).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        client.send_to(b"ping", ("127.0.0.1", bound[2].host_port)).unwrap();
        let mut buffer = [0; 16];
        let (length, peer) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&buffer[..length], peer).unwrap();
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"ping");
        assert_eq!(from.port(), bound[2].host_port);
        networks.shutdown().await;
    });
}

#[test]
fn networks_are_apart() {
    isolated("connectivity::networks_are_apart", || async {
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        let world = World::new();
        world.ns.serve(9000, "world");
        networks.create(with_subnet("front", "10.77.0.0/24")).await.unwrap();
        let mut inner = spec("inner");
        inner.internal = true;
        networks.create(inner).await.unwrap();
        let mut quiet = spec("quiet");
        quiet.options.insert("com.docker.network.bridge.enable_icc".into(), "false".into());
        networks.create(quiet).await.unwrap();

        let (web, plain) = (Container::new("web"), Container::new("plain"));
        let (endpoints, _) = web.connect(&networks, &["front"], &[tcp(80, 8080)]).await.unwrap();
        let web_ip = endpoints[0].ip.unwrap();
        assert_eq!(web_ip, Ipv4Addr::new(10, 77, 0, 2));
        let plain_ip = plain.join(&networks, "bridge").await;
        web.ns.serve(80, "web");
        web.ns.serve(81, "hidden");
        plain.ns.serve(80, "plain");
        assert!(!plain.ns.ping(web_ip) && !web.ns.ping(plain_ip));
        assert!(plain.ns.fetch((web_ip, 81)).is_err() && web.ns.fetch((plain_ip, 80)).is_err());
        // What is published is published for neighbours too.
        assert!(plain.ns.fetch((World::HOST, 8080)).unwrap().starts_with("web"));

        let (first, second) = (Container::new("a"), Container::new("b"));
        let (endpoints, ports) =
            first.connect(&networks, &["inner"], &[tcp(80, 8081)]).await.unwrap();
        assert!(ports.is_empty() && endpoints[0].gateway.is_none());
        let second_ip = second.join(&networks, "inner").await;
        second.ns.serve(80, "second");
        assert!(first.ns.ping(second_ip));
        assert!(first.ns.fetch((second_ip, 80)).is_ok());
        assert!(!first.ns.exec(&["ip", "route"]).1.contains("default"));
        let host = networks.get("inner").unwrap().record.ipam.unwrap().gateway.to_string();
        assert!(first.ns.exec(&["ip", "route", "add", "default", "via", &host]).0);
        assert!(first.ns.fetch((World::ADDRESS, 9000)).is_err());
        assert!(first.ns.fetch((web_ip, 81)).is_err());

        let (third, fourth) = (Container::new("c"), Container::new("d"));
        let third_ip = third.join(&networks, "quiet").await;
        fourth.join(&networks, "quiet").await;
        assert!(!fourth.ns.ping(third_ip));
        assert!(fourth.ns.fetch((World::ADDRESS, 9000)).is_ok());
        networks.shutdown().await;
    });
}

#[test]
fn the_hosts_loopback_is_out_of_reach() {
    isolated("connectivity::the_hosts_loopback_is_out_of_reach", || async {
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        let evil = Container::new("evil");
        let (endpoints, _) = evil.connect(&networks, &["bridge"], &[]).await.unwrap();
        let gateway = endpoints[0].gateway.unwrap().to_string();
        let listener = std::net::TcpListener::bind("127.0.0.1:7000").unwrap();
        // Root in a container with NET_ADMIN routes the host's loopback address out of eth0.
        for arguments in [
            &["ip", "addr", "flush", "dev", "lo"][..],
            &["ip", "route", "flush", "table", "local", "dev", "lo"],
            &["ip", "route", "replace", "127.0.0.1/32", "via", &gateway, "dev", "eth0"],
        ] {
            evil.ns.exec(arguments);
        }
        let local = "/proc/sys/net/ipv4/conf/all/route_localnet";
        evil.ns.exec(&["busybox", "sh", "-c", &format!("echo 1 > {local}")]);
        assert!(evil.ns.fetch(("127.0.0.1", 7000)).is_err());
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err());
        // The way is open but for our rule: without it the same attempt gets through.
        run("nft", &["flush", "chain", "ip", "brig", "raw"]);
        assert!(evil.ns.fetch(("127.0.0.1", 7000)).is_err());
        assert!(listener.accept().is_ok(), "the test does not attack what it means to");
        networks.shutdown().await;
    });
}

#[test]
fn a_port_goes_to_one_container_only() {
    isolated("connectivity::a_port_goes_to_one_container_only", || async {
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        let (web, other) = (Container::new("web"), Container::new("other"));
        web.connect(&networks, &["bridge"], &[tcp(80, 8080)]).await.unwrap();
        let error = other
            .connect(&networks, &["bridge"], &[tcp(80, 8082), tcp(80, 8080)])
            .await
            .unwrap_err();
        let NetworkError::Publish { id, .. } = &error else { panic!("{error}") };
        assert_eq!(
            chain(&error),
            format!(
                "driver failed programming external connectivity on endpoint other ({id}): Bind for \
                 0.0.0.0:8080 failed: port is already allocated"
            )
        );
        networks.disconnect(&other.id).await.unwrap();
        let _server = std::net::TcpListener::bind("0.0.0.0:8081").unwrap();
        let error = other.connect(&networks, &["bridge"], &[tcp(80, 8081)]).await.unwrap_err();
        let text = chain(&error);
        assert!(
            text.ends_with(": listen tcp4 0.0.0.0:8081: bind: address already in use"),
            "{text}"
        );
        networks.disconnect(&other.id).await.unwrap();
        // Nothing of the failed attempts is left.
        other.connect(&networks, &["bridge"], &[tcp(80, 8082)]).await.unwrap();
        other.ns.serve(80, "other");
        assert!(fetch(("127.0.0.1", 8082)).unwrap().starts_with("other"));
        let links = run("ip", &["-br", "link", "show", "type", "veth"]);
        assert_eq!(links.lines().count(), 2, "{links}");
        networks.shutdown().await;
    });
}

#[test]
fn udp_clients_follow_the_port() {
    isolated("connectivity::udp_clients_follow_the_port", || async {
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let request = PortRequest { protocol: Protocol::Udp, ..tcp(53, 5353) };
        // A client that never stops sending, from before the first container to the second.
        let _ = client.send_to(b"early", ("127.0.0.1", 5353));
        for name in ["first", "second"] {
            let container = Container::new(name);
            container.connect(&networks, &["bridge"], &[request]).await.unwrap();
            let bind = || UdpSocket::bind(("0.0.0.0", 53));
            let server = ns::in_net(container.ns.ns().as_fd(), bind).unwrap();
            server.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            client.send_to(name.as_bytes(), ("127.0.0.1", 5353)).unwrap();
            let mut buffer = [0; 16];
            let (length, _) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], name.as_bytes());
            networks.disconnect(&container.id).await.unwrap();
        }
        networks.shutdown().await;
    });
}

#[test]
fn another_firewall_drops_by_default() {
    isolated("connectivity::another_firewall_drops_by_default", || async {
        let world = World::new();
        world.ns.serve(9000, "world");
        run("iptables", &["-P", "FORWARD", "DROP"]);
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        let (web, other) = (Container::new("web"), Container::new("other"));
        web.connect(&networks, &["bridge"], &[tcp(80, 8080)]).await.unwrap();
        web.ns.serve(80, "web");
        networks.create(spec("apart")).await.unwrap();
        other.join(&networks, "apart").await;
        let works = || {
            assert!(world.ns.fetch((World::HOST, 8080)).unwrap().starts_with("web"));
            assert!(other.ns.fetch((World::ADDRESS, 9000)).is_ok());
            assert!(other.ns.fetch((networks.endpoints(&web.id)[0].ip.unwrap(), 80)).is_err());
        };
        works();
        let rules = |chain: &str| run("iptables", &["-S", chain]).matches("ACCEPT").count();
        assert_eq!(rules("FORWARD"), 1);
        // Once dockerd is there, its chain for others' rules is used, once.
        run("iptables", &["-F", "FORWARD"]);
        run("iptables", &["-N", "DOCKER-USER"]);
        run("iptables", &["-A", "FORWARD", "-j", "DOCKER-USER"]);
        for name in ["more", "even-more"] {
            networks.create(spec(name)).await.unwrap();
        }
        assert_eq!((rules("FORWARD"), rules("DOCKER-USER")), (0, 1));
        works();
        networks.shutdown().await;
    });
}
