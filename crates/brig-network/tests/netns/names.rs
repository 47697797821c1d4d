//! Names at 127.0.0.11.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use brig_network::{DnsOptions, SandboxRequest};
use brig_sys::ns;

use crate::support::{Container, World, isolated, spec, start};

/// A question for an A record.
fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

/// The response code and the addresses of an answer with compressed or repeated names.
fn parse(answer: &[u8], question: &[u8]) -> (u8, Vec<Ipv4Addr>) {
    assert_eq!(&answer[..2], &question[..2]);
    let count = u16::from_be_bytes([answer[6], answer[7]]);
    let mut addresses = Vec::new();
    let mut at = question.len();
    for _ in 0..count {
        while answer[at] != 0 && answer[at] < 0xc0 {
            at += 1 + usize::from(answer[at]);
        }
        at += if answer[at] == 0 { 1 } else { 2 };
        assert_eq!(&answer[at + 4..at + 8], &600_u32.to_be_bytes(), "time to live");
        addresses.push(Ipv4Addr::new(
            answer[at + 10],
            answer[at + 11],
            answer[at + 12],
            answer[at + 13],
        ));
        at += 14;
    }
    (answer[3] & 0x0f, addresses)
}

fn udp(container: &Container, name: &str) -> Option<(u8, Vec<Ipv4Addr>)> {
    let socket = ns::in_net(container.ns.ns().as_fd(), || UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let packet = question(name);
    // Connected: an answer from anywhere but 127.0.0.11:53 would not be seen.
    socket.connect("127.0.0.11:53").unwrap();
    socket.send(&packet).unwrap();
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).ok()?;
    Some(parse(&buffer[..length], &packet))
}

fn tcp(container: &Container, name: &str) -> (u8, Vec<Ipv4Addr>) {
    let mut stream =
        ns::in_net(container.ns.ns().as_fd(), || TcpStream::connect("127.0.0.11:53")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let packet = question(name);
    stream.write_all(&u16::try_from(packet.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&packet).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    parse(&answer, &packet)
}

#[test]
fn containers_find_each_other() {
    isolated("names::containers_find_each_other", || async {
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        for name in ["front", "back"] {
            networks.create(spec(name)).await.unwrap();
        }
        let (web, client) = (Container::new("web"), Container::new("client"));
        let mut request = web.request("front");
        request.aliases = vec!["www".to_owned()];
        networks.reserve(&web.id, request).await.unwrap();
        let (endpoints, _) = web.connect(&networks, &[], &[]).await.unwrap();
        let ip = endpoints[0].ip.unwrap();
        let client_ip = client.join(&networks, "front").await;
        let conf = networks.resolv_conf(&client.id, &DnsOptions::default());
        assert_eq!(conf, "search example.org\nnameserver 127.0.0.11\noptions ndots:0\n");

        for name in ["web", "WEB", "www", "web.front", web.id.short()] {
            assert_eq!(udp(&client, name), Some((0, vec![ip])), "{name}");
            assert_eq!(tcp(&client, name), (0, vec![ip]), "{name}");
        }
        assert_eq!(udp(&web, "client"), Some((0, vec![client_ip])));
        let (found, text) =
            client.ns.exec(&["busybox", "nslookup", "-type=a", "web", "127.0.0.11"]);
        assert!(found && text.contains(&ip.to_string()), "{text}");
        let reverse = ip.to_string();
        let (found, text) = client.ns.exec(&["busybox", "nslookup", &reverse, "127.0.0.11"]);
        assert!(found && text.contains("web.front"), "{text}");
        let (found, text) =
            client.ns.exec(&["busybox", "nslookup", "-type=aaaa", "web", "127.0.0.11"]);
        assert!(found && !text.contains("NXDOMAIN"), "{text}");

        // Another network sees nothing of it.
        let stranger = Container::new("stranger");
        stranger.join(&networks, "back").await;
        assert_ne!(udp(&stranger, "web").map(|(_, addresses)| addresses), Some(vec![ip]));

        networks.rename(&web.id, "server").await.unwrap();
        assert_eq!(udp(&client, "server"), Some((0, vec![ip])));
        networks.disconnect(&web.id).await.unwrap();
        assert!(udp(&client, "server").is_none_or(|(code, _)| code != 0));
        networks.shutdown().await;
    });
}

#[test]
fn unknown_names_go_outside() {
    isolated("names::unknown_names_go_outside", || async {
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        let world = World::new();
        let upstream = ns::in_net(world.ns.ns().as_fd(), || UdpSocket::bind("0.0.0.0:53")).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, peer)) = upstream.recv_from(&mut buffer) {
                let mut answer = buffer[..length].to_vec();
                answer[2] |= 0x80;
                answer[3] |= 0x80;
                answer[7] = 1;
                answer
                    .extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 203, 0, 113, 9]);
                let _ = upstream.send_to(&answer, peer);
            }
        });
        networks.create(spec("front")).await.unwrap();
        let mut inner = spec("inner");
        inner.internal = true;
        networks.create(inner).await.unwrap();
        let (client, cut_off) = (Container::new("client"), Container::new("cut-off"));
        client.join(&networks, "front").await;
        cut_off.join(&networks, "inner").await;
        let outside = Ipv4Addr::new(203, 0, 113, 9);
        assert_eq!(udp(&client, "example.com"), Some((0, vec![outside])));
        // Nothing leaks from an internal network: SERVFAIL.
        assert_eq!(udp(&cut_off, "example.com"), Some((2, vec![])));

        // The container's own loopback, where the user has a server.
        let own = Container::new("own");
        networks.reserve(&own.id, own.request("front")).await.unwrap();
        networks
            .connect_sandbox(SandboxRequest {
                container: own.id.clone(),
                ns: own.ns.ns(),
                ports: Vec::new(),
                dns_servers: vec!["127.0.0.1".parse().unwrap()],
            })
            .await
            .unwrap();
        let server = ns::in_net(own.ns.ns().as_fd(), || UdpSocket::bind("127.0.0.1:53")).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, peer)) = server.recv_from(&mut buffer) {
                let mut answer = buffer[..length].to_vec();
                answer[2] |= 0x80;
                answer[3] |= 3;
                let _ = server.send_to(&answer, peer);
            }
        });
        assert_eq!(udp(&own, "example.com"), Some((3, vec![])));
        networks.shutdown().await;
    });
}

#[test]
fn a_running_container_joins_and_leaves() {
    isolated("names::a_running_container_joins_and_leaves", || async {
        let dir = tempfile::tempdir().unwrap();
        let networks = start(dir.path()).await;
        for name in ["alpha", "beta"] {
            networks.create(spec(name)).await.unwrap();
        }
        let (web, other) = (Container::new("web"), Container::new("other"));
        let (endpoints, _) =
            web.connect(&networks, &["beta"], &[crate::support::tcp(80, 8080)]).await.unwrap();
        let beta = endpoints[0].clone();
        let other_ip = other.join(&networks, "alpha").await;
        web.ns.serve(80, "web");
        assert_ne!(udp(&web, "other"), Some((0, vec![other_ip])));
        let alpha = networks.attach(&web.id, web.ns.ns(), web.request("alpha")).await.unwrap();
        assert_eq!(alpha.interface.as_ref().unwrap().name, "eth1");
        assert_eq!(udp(&web, "other"), Some((0, vec![other_ip])));
        assert_eq!(udp(&other, "web"), Some((0, vec![alpha.ip.unwrap()])));
        assert!(other.ns.ping(alpha.ip.unwrap()));
        // alpha comes first by name, so it is the way out now, and where published ports lead.
        let route = |gateway: Ipv4Addr, device: &str| format!("default via {gateway} dev {device}");
        let (_, routes) = web.ns.exec(&["ip", "route"]);
        assert!(routes.contains(&route(alpha.gateway.unwrap(), "eth1")), "{routes}");
        assert_eq!(routes.matches("default").count(), 1, "{routes}");
        assert!(crate::support::fetch(("127.0.0.1", 8080)).unwrap().starts_with("web"));
        assert!(networks.attach(&web.id, web.ns.ns(), web.request("alpha")).await.is_err());

        networks.detach(&web.id, "alpha", Some(web.ns.ns())).await.unwrap();
        let (_, routes) = web.ns.exec(&["ip", "route"]);
        assert!(routes.contains(&route(beta.gateway.unwrap(), "eth0")), "{routes}");
        assert!(!web.ns.exec(&["ip", "link", "show", "eth1"]).0);
        assert!(crate::support::fetch(("127.0.0.1", 8080)).unwrap().starts_with("web"));
        assert_ne!(udp(&web, "other"), Some((0, vec![other_ip])));
        let error = networks.detach(&web.id, "alpha", Some(web.ns.ns())).await.unwrap_err();
        assert!(error.to_string().contains("is not connected to network alpha"), "{error}");
        assert_eq!(networks.endpoints(&web.id), [beta]);

        // A container of the default bridge gets its name server with its first named network.
        let plain = Container::new("plain");
        plain.join(&networks, "bridge").await;
        networks.attach(&plain.id, plain.ns.ns(), plain.request("alpha")).await.unwrap();
        assert_eq!(udp(&plain, "other"), Some((0, vec![other_ip])));
        // Everything goes, down to the network.
        for container in [&web, &other, &plain] {
            networks.disconnect(&container.id).await.unwrap();
        }
        networks.remove("alpha").await.unwrap();
        networks.shutdown().await;
    });
}
