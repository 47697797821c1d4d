//! Published and exposed ports: `[ip:][host:]container[/proto]`, ranges included.

use std::collections::BTreeMap;
use std::net::IpAddr;

use brig_api::Empty;
use brig_api::container::{PortBinding, PortMap};
use brig_api::swarm::PortConfig;

use super::{BadValue, bad, csv};

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u16,
    end: u16,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
                .then(|| text.parse::<u16>().ok())
                .flatten()
        };
        let range = match text.split_once('-') {
            Some((start, end)) => Self { start: number(start)?, end: number(end)? },
            None => number(text).map(|port| Self { start: port, end: port })?,
        };
        (range.start <= range.end).then_some(range)
    }

    const fn len(self) -> u16 {
        self.end - self.start
    }
}

/// One binding of one container port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Binding {
    port: u16,
    protocol: String,
    host_ip: String,
    host_port: String,
}

/// Ports as the create request has them.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Ports {
    pub(crate) exposed: BTreeMap<String, Empty>,
    pub(crate) bindings: PortMap,
}

/// Reads all `--publish` and `--expose` flags.
pub(crate) fn container_ports(publish: &[String], expose: &[String]) -> Result<Ports, BadValue> {
    let mut ports = Ports::default();
    for spec in publish {
        let spec = if spec.contains('=') { short_form(spec)? } else { spec.clone() };
        for binding in bindings(&spec)? {
            let key = format!("{}/{}", binding.port, binding.protocol);
            ports.exposed.insert(key.clone(), Empty {});
            ports
                .bindings
                .entry(key)
                .or_default()
                .get_or_insert_default()
                .push(PortBinding { host_ip: binding.host_ip, host_port: binding.host_port });
        }
    }
    for spec in expose {
        if spec.contains(':') {
            return bad(format!("invalid port format for --expose: {spec}"));
        }
        let (range, protocol) = port_and_protocol(spec)?;
        let range = Range::parse(range)
            .ok_or_else(|| BadValue(format!("invalid range format for --expose: {spec}")))?;
        for port in range.start..=range.end {
            ports.exposed.entry(format!("{port}/{protocol}")).or_default();
        }
    }
    Ok(ports)
}

fn port_and_protocol(spec: &str) -> Result<(&str, String), BadValue> {
    let (port, protocol) = spec.split_once('/').unwrap_or((spec, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    match protocol.as_str() {
        "tcp" | "udp" | "sctp" => Ok((port, protocol)),
        _ => bad(format!("invalid proto: {protocol}")),
    }
}

fn bindings(spec: &str) -> Result<Vec<Binding>, BadValue> {
    let (address, protocol) = port_and_protocol(spec)?;
    let (front, container) = match address.rsplit_once(':') {
        Some((front, container)) => (Some(front), container),
        None => (None, address),
    };
    let (host_ip, host) = match front {
        None => ("", ""),
        Some(front) => match front.rsplit_once(':') {
            Some((ip, host)) => (ip, host),
            None => ("", front),
        },
    };
    let host_ip = host_ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(host_ip);
    if !host_ip.is_empty() && host_ip.parse::<IpAddr>().is_err() {
        return bad(format!("invalid IP address: {host_ip}"));
    }
    if container.is_empty() {
        return bad(format!("no port specified: {spec}<empty>"));
    }
    let range = Range::parse(container)
        .ok_or_else(|| BadValue(format!("invalid containerPort: {container}")))?;
    let host_range = match host {
        "" => None,
        host => {
            Some(Range::parse(host).ok_or_else(|| BadValue(format!("invalid hostPort: {host}")))?)
        }
    };
    if let Some(host_range) = host_range
        && host_range.len() != range.len()
        && range.len() != 0
    {
        return bad(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        ));
    }
    Ok((0..=range.len())
        .map(|offset| Binding {
            port: range.start + offset,
            protocol: protocol.clone(),
            host_ip: host_ip.to_owned(),
            host_port: match host_range {
                None => String::new(),
                // One container port on any port of a range.
                Some(host) if range.len() == 0 && host.len() != 0 => {
                    format!("{}-{}", host.start, host.end)
                }
                Some(host) => (host.start + offset).to_string(),
            },
        })
        .collect())
}

/// Turns `published=8080,target=80,protocol=tcp` into `8080:80/tcp`.
fn short_form(spec: &str) -> Result<String, BadValue> {
    let (mut target, mut published, mut protocol) = (None, None, None);
    for (key, value) in csv::pairs(spec)? {
        match key.as_str() {
            "target" => target = value,
            "published" => published = value,
            "protocol" => protocol = value,
            "mode" => {}
            _ => {
                return bad(format!(
                    "invalid publish opts format (should be name=value but got '{key}')"
                ));
            }
        }
    }
    let target = target.ok_or_else(|| BadValue("missing mandatory field target".to_owned()))?;
    let front = published.map(|p| format!("{p}:")).unwrap_or_default();
    Ok(format!("{front}{target}/{}", protocol.unwrap_or_else(|| "tcp".to_owned())))
}

/// Reads a service's `--publish`.
pub(crate) fn service_ports(spec: &str) -> Result<Vec<PortConfig>, BadValue> {
    if !spec.contains('=') {
        let found = bindings(spec)?;
        return found
            .into_iter()
            .map(|binding| {
                if !binding.host_ip.is_empty() {
                    return bad("hostip is not supported");
                }
                let published =
                    if binding.host_port.is_empty() { Ok(0) } else { binding.host_port.parse() };
                Ok(PortConfig {
                    protocol: binding.protocol,
                    target_port: binding.port.into(),
                    published_port: published.map_err(|_| {
                        BadValue(format!(
                            "invalid hostport binding ({}) for port",
                            binding.host_port
                        ))
                    })?,
                    publish_mode: "ingress".to_owned(),
                    ..PortConfig::default()
                })
            })
            .collect();
    }
    let mut port = PortConfig {
        protocol: "tcp".to_owned(),
        publish_mode: "ingress".to_owned(),
        ..PortConfig::default()
    };
    for (key, value) in csv::pairs(spec)? {
        let Some(value) = value else {
            return bad(format!("invalid field: {key}"));
        };
        let number = || {
            value.parse::<u16>().map(u32::from).map_err(|_| {
                BadValue(format!("invalid {key} port ({value}): value must be an integer"))
            })
        };
        match key.as_str() {
            "protocol" => match value.to_ascii_lowercase().as_str() {
                p @ ("tcp" | "udp" | "sctp") => port.protocol = p.to_owned(),
                _ => return bad(format!("invalid protocol value '{value}'")),
            },
            "mode" => match value.to_ascii_lowercase().as_str() {
                m @ ("ingress" | "host") => port.publish_mode = m.to_owned(),
                _ => {
                    return bad(format!(
                        "invalid publish mode value ({value}): must be either 'ingress' or 'host'"
                    ));
                }
            },
            "target" => port.target_port = number()?,
            "published" => port.published_port = number()?,
            _ => return bad(format!("invalid field key: {key}")),
        }
    }
    if port.target_port == 0 {
        return bad("missing mandatory field \"target\"");
    }
    Ok(vec![port])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(spec: &str) -> PortMap {
        container_ports(&[spec.to_owned()], &[]).unwrap().bindings
    }

    fn bound(ip: &str, port: &str) -> Option<Vec<PortBinding>> {
        Some(vec![PortBinding { host_ip: ip.to_owned(), host_port: port.to_owned() }])
    }

    #[test]
    fn every_short_form() {
        assert_eq!(one("80")["80/tcp"], bound("", ""));
        assert_eq!(one("8080:80")["80/tcp"], bound("", "8080"));
        assert_eq!(one("127.0.0.1:81:81/udp")["81/udp"], bound("127.0.0.1", "81"));
        assert_eq!(one("127.0.0.1::81")["81/tcp"], bound("127.0.0.1", ""));
        assert_eq!(one("[::1]:80:80/SCTP")["80/sctp"], bound("::1", "80"));
        assert_eq!(one("8000-8010:80")["80/tcp"], bound("", "8000-8010"));
        let ranges = one("8000-8001:90-91");
        assert_eq!(ranges["91/tcp"], bound("", "8001"));
        assert_eq!(ranges.len(), 2);
        assert_eq!(one("published=8080,target=80")["80/tcp"], bound("", "8080"));
        for spec in [
            "",
            "x",
            "1:2:3:x",
            "0-x:1",
            "80/icmp",
            "300.1.1.1:1:1",
            "1-3:5-6",
            "5-4",
            "99999",
            "1:",
            "+1:2",
        ] {
            assert!(container_ports(&[spec.to_owned()], &[]).is_err(), "{spec}");
        }
    }

    #[test]
    fn exposed_ports_are_a_set() {
        let ports = container_ports(&[], &["80".to_owned(), "90-92/udp".to_owned()]).unwrap();
        assert_eq!(
            ports.exposed.keys().collect::<Vec<_>>(),
            ["80/tcp", "90/udp", "91/udp", "92/udp"]
        );
        assert!(ports.bindings.is_empty());
        assert!(container_ports(&[], &["80:80".to_owned()]).is_err());
    }

    #[test]
    fn services_take_both_forms() {
        let short = service_ports("18090:80").unwrap();
        let long = service_ports("published=18090,target=80").unwrap();
        assert_eq!(short, long);
        assert_eq!(short[0].publish_mode, "ingress");
        let host = service_ports("mode=host,target=53,protocol=udp").unwrap();
        assert_eq!((host[0].published_port, host[0].protocol.as_str()), (0, "udp"));
        for spec in ["1.2.3.4:80:80", "published=1", "target=x", "target=1,mode=z", "a=b"] {
            assert!(service_ports(spec).is_err(), "{spec}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(spec in ".*", digits in "[0-9:/.-]{0,20}") {
            for spec in [spec, digits] {
                let _ = container_ports(std::slice::from_ref(&spec), std::slice::from_ref(&spec));
                let _ = service_ports(&spec);
            }
        }
    }
}
