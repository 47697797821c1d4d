//! Ports that a container exposes and publishes: reading requests, showing results.

use std::collections::BTreeSet;
use std::net::IpAddr;

use brig_api::container::{ContainerConfig, HostConfig, PortBinding, PortMap, PortSummary};

use crate::error::EngineError;

/// Most ports that one container publishes. Each takes a socket on the host: without a limit an
/// image that exposes everything would take all of the daemon's.
pub(crate) const MAX_PUBLICATIONS: usize = 4096;

/// A transport protocol that ports are published for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// One port of a container, `80/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ContainerPort {
    pub(crate) number: u16,
    pub(crate) protocol: Protocol,
}

impl std::fmt::Display for ContainerPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol.as_str())
    }
}

/// A port to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) port: ContainerPort,
    /// `None`: on every address; unspecified: on every one of its family.
    pub(crate) host_ip: Option<IpAddr>,
    /// First and last acceptable port; both 0: any free one.
    pub(crate) host_ports: (u16, u16),
}

fn invalid(text: &str) -> EngineError {
    EngineError::Invalid(format!(
        "invalid port specification: \"{}\"",
        text.chars().take(80).collect::<String>()
    ))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// Reads `80`, `80/udp` or `80-90/tcp`.
pub(crate) fn parse_ports(text: &str) -> Result<Vec<ContainerPort>, EngineError> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(invalid(text)),
    };
    match range(numbers) {
        Some((first, last)) if first > 0 => {
            Ok((first..=last).map(|number| ContainerPort { number, protocol }).collect())
        }
        _ => Err(invalid(text)),
    }
}

/// Every port that image and request expose or publish.
pub(crate) fn exposed(
    config: &ContainerConfig,
    host: &HostConfig,
) -> Result<BTreeSet<ContainerPort>, EngineError> {
    let mut ports = BTreeSet::new();
    for text in config.exposed_ports.keys().chain(host.port_bindings.keys()) {
        ports.extend(parse_ports(text)?);
    }
    Ok(ports)
}

/// Every port to publish.
pub(crate) fn publications(
    config: &ContainerConfig,
    host: &HostConfig,
) -> Result<Vec<Publication>, EngineError> {
    let mut wanted = Vec::new();
    for (text, bindings) in &host.port_bindings {
        let ports = parse_ports(text)?;
        for binding in bindings.iter().flatten() {
            let host_ip = match binding.host_ip.as_str() {
                "" => None,
                ip => Some(ip.parse().map_err(|_| {
                    EngineError::Invalid(format!("invalid IP address {ip:?} in a port binding"))
                })?),
            };
            let host_ports = match binding.host_port.as_str() {
                "" | "0" => (0, 0),
                text => range(text).ok_or_else(|| invalid(text))?,
            };
            for port in &ports {
                wanted.push(Publication { port: *port, host_ip, host_ports });
            }
        }
    }
    if host.publish_all_ports {
        let named: BTreeSet<ContainerPort> = wanted.iter().map(|one| one.port).collect();
        let others = exposed(config, host)?.into_iter().filter(|port| !named.contains(port));
        wanted.extend(others.map(|port| Publication { port, host_ip: None, host_ports: (0, 0) }));
    }
    if wanted.len() > MAX_PUBLICATIONS {
        return Err(EngineError::Invalid(format!(
            "{} ports to publish are too many: one container may have {MAX_PUBLICATIONS}; publish the ones that are needed with -p",
            wanted.len()
        )));
    }
    Ok(wanted)
}

/// A port that was bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) port: ContainerPort,
    pub(crate) host_ip: String,
    pub(crate) host_port: u16,
}

/// `NetworkSettings.Ports`: every exposed port, `null` where it isn't published.
pub(crate) fn port_map(exposed: &BTreeSet<ContainerPort>, published: &[Published]) -> PortMap {
    let mut map: PortMap = exposed.iter().map(|port| (port.to_string(), None)).collect();
    for one in published {
        map.entry(one.port.to_string()).or_default().get_or_insert_default().push(PortBinding {
            host_ip: one.host_ip.clone(),
            host_port: one.host_port.to_string(),
        });
    }
    map
}

/// The list's form of the same.
pub(crate) fn summaries(map: &PortMap) -> Vec<PortSummary> {
    let mut list = Vec::new();
    for (text, bindings) in map {
        let Some(port) = parse_ports(text).ok().and_then(|ports| ports.first().copied()) else {
            continue;
        };
        let plain = PortSummary {
            private_port: port.number,
            kind: port.protocol.as_str().to_owned(),
            ..PortSummary::default()
        };
        match bindings.as_deref() {
            None | Some([]) => list.push(plain),
            Some(bindings) => list.extend(bindings.iter().map(|binding| PortSummary {
                ip: binding.host_ip.clone(),
                public_port: binding.host_port.parse().unwrap_or(0),
                ..plain.clone()
            })),
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use brig_api::Empty;

    use super::*;

    fn binding(ip: &str, port: &str) -> Option<Vec<PortBinding>> {
        Some(vec![PortBinding { host_ip: ip.to_owned(), host_port: port.to_owned() }])
    }

    fn port(number: u16, protocol: Protocol) -> ContainerPort {
        ContainerPort { number, protocol }
    }

    #[test]
    fn notations() {
        assert_eq!(parse_ports("80").unwrap(), [port(80, Protocol::Tcp)]);
        assert_eq!(parse_ports("53/UDP").unwrap(), [port(53, Protocol::Udp)]);
        assert_eq!(parse_ports("8-10/tcp").unwrap().len(), 3);
        for bad in ["", "0", "x", "80/icmp", "9-8", "70000", "-1"] {
            assert!(parse_ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn requests() {
        let config = ContainerConfig {
            exposed_ports: [("80/tcp".to_owned(), Empty {}), ("53/udp".to_owned(), Empty {})]
                .into(),
            ..ContainerConfig::default()
        };
        let host = HostConfig {
            port_bindings: [
                ("80/tcp".to_owned(), binding("", "8080")),
                ("90".to_owned(), binding("127.0.0.1", "")),
                ("91/tcp".to_owned(), binding("0.0.0.0", "9000-9010")),
            ]
            .into(),
            publish_all_ports: true,
            ..HostConfig::default()
        };
        let got = publications(&config, &host).unwrap();
        let short: Vec<(u16, Option<String>, (u16, u16))> = got
            .iter()
            .map(|p| (p.port.number, p.host_ip.map(|ip| ip.to_string()), p.host_ports))
            .collect();
        assert_eq!(
            short,
            [
                (80, None, (8080, 8080)),
                (90, Some("127.0.0.1".to_owned()), (0, 0)),
                (91, Some("0.0.0.0".to_owned()), (9000, 9010)),
                (53, None, (0, 0)),
            ]
        );
    }

    #[test]
    fn an_image_that_exposes_everything() {
        let range = |text: &str| ContainerConfig {
            exposed_ports: [(text.to_owned(), Empty {})].into(),
            ..ContainerConfig::default()
        };
        let host = HostConfig { publish_all_ports: true, ..HostConfig::default() };
        let many = publications(&range("1-4096/tcp"), &host).unwrap();
        assert_eq!(many.len(), MAX_PUBLICATIONS);
        let error = publications(&range("1-65535/tcp"), &host).unwrap_err().to_string();
        assert!(error.starts_with("65535 ports to publish are too many"), "{error}");
        // Exposing costs nothing.
        assert!(publications(&range("1-65535/tcp"), &HostConfig::default()).unwrap().is_empty());
    }

    #[test]
    fn results() {
        let exposed = [port(80, Protocol::Tcp), port(53, Protocol::Udp)].into();
        let published = [Published {
            port: port(80, Protocol::Tcp),
            host_ip: "0.0.0.0".into(),
            host_port: 8080,
        }];
        let map = port_map(&exposed, &published);
        assert_eq!(map.get("53/udp"), Some(&None));
        let list = summaries(&map);
        assert_eq!(
            list.iter().map(|p| (p.private_port, p.public_port, p.ip.as_str())).collect::<Vec<_>>(),
            [(53, 0, ""), (80, 8080, "0.0.0.0")]
        );
    }
}
