//! A container's networks: which it wants, and what it gets at each start.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use brig_api::container::EndpointSettings;
use brig_network::{
    Driver, Endpoint, EndpointRequest, HostPort, NetworkError, PortRequest, Protocol,
    SandboxRequest,
};
use brig_types::id::ContainerId;

use super::links::Link;
use super::ports::{self, Published};
use super::record::Record;
use super::{Container, files};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::events::kind;

const BRIDGE: &str = "bridge";

/// The networks that a container's configuration names, with the settings sent for each.
pub(crate) fn configured(record: &Record) -> BTreeMap<String, EndpointSettings> {
    let real = |name: &str| if matches!(name, "" | "default") { BRIDGE } else { name }.to_owned();
    let mode = record.host_config.network_mode.as_str();
    if mode.starts_with("container:") || record.config.network_disabled {
        return BTreeMap::new();
    }
    let mut wanted: BTreeMap<String, EndpointSettings> = record
        .networking
        .endpoints_config
        .iter()
        .map(|(name, settings)| (real(name), settings.clone().unwrap_or_default()))
        .collect();
    // A request that leaves the mode open and names a network means that one.
    let open = matches!(mode, "" | "default");
    if !open || wanted.is_empty() {
        wanted.entry(real(mode)).or_default();
    }
    wanted
}

/// What a start has reserved.
#[derive(Debug, Default)]
pub(crate) struct Reserved {
    pub(crate) endpoints: Vec<Endpoint>,
}

impl Reserved {
    /// The container's own addresses, the default route's network first.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.endpoints.iter().flat_map(Endpoint::addresses).collect()
    }

    fn has_interface(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.driver == Driver::Bridge)
    }
}

pub(super) fn request(
    record: &Record,
    name: &str,
    settings: &EndpointSettings,
) -> Result<EndpointRequest, EngineError> {
    let invalid = |what: &str, text: &str| EngineError::Invalid(format!("invalid {what}: {text}"));
    let ip = settings
        .ipam_config
        .as_ref()
        .map(|ipam| ipam.ipv4_address.as_str())
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().map_err(|_| invalid("IPv4 address", text)))
        .transpose()?;
    let ip6 = settings
        .ipam_config
        .as_ref()
        .map(|ipam| ipam.ipv6_address.as_str())
        .filter(|text| !text.is_empty())
        .map(|text| text.parse::<Ipv6Addr>().map_err(|_| invalid("IPv6 address", text)))
        .transpose()?;
    let mac = [settings.mac_address.as_str(), record.config.mac_address.as_str()]
        .into_iter()
        .find(|text| !text.is_empty())
        .map(|text| text.parse().map_err(|_| invalid("MAC address", text)))
        .transpose()?;
    Ok(EndpointRequest {
        network: name.to_owned(),
        ip,
        ip6,
        mac,
        container_name: record.name.clone(),
        hostname: Some(record.config.hostname.clone()),
        aliases: settings.aliases.clone(),
        links: links(record, settings)?,
        priority: settings.gw_priority.and_then(|p| i32::try_from(p).ok()).unwrap_or(0),
    })
}

/// The links of one network: those asked for with it, and the container's own.
fn links(
    record: &Record,
    settings: &EndpointSettings,
) -> Result<Vec<(String, String)>, EngineError> {
    let all = settings.links.iter().chain(&record.host_config.links);
    all.map(|text| {
        let link = Link::parse(text)?;
        // A container's id is known by its beginning.
        let target = ContainerId::parse(link.target)
            .map_or_else(|_| link.target.to_owned(), |id| id.short().to_owned());
        Ok((link.alias.to_owned(), target))
    })
    .collect()
}

pub(super) fn shown(
    asked: &EndpointSettings,
    endpoint: &Endpoint,
    id: &ContainerId,
) -> EndpointSettings {
    fn text(ip: Option<impl ToString>) -> String {
        ip.map(|ip| ip.to_string()).unwrap_or_default()
    }
    EndpointSettings {
        ipv6_gateway: text(endpoint.v6.and_then(|v6| v6.gateway)),
        global_ipv6_address: text(endpoint.v6.map(|v6| v6.ip)),
        global_ipv6_prefix_len: endpoint.v6.map_or(0, |v6| i64::from(v6.prefix_len)),
        network_id: endpoint.network_id.to_string(),
        endpoint_id: endpoint.endpoint_id.to_string(),
        gateway: text(endpoint.gateway),
        ip_address: text(endpoint.ip),
        ip_prefix_len: i64::from(endpoint.prefix_len),
        mac_address: endpoint.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        dns_names: (endpoint.driver == Driver::Bridge && endpoint.network_name != BRIDGE)
            .then(|| endpoint.dns_names(id)),
        ..asked.clone()
    }
}

/// Settings of a network whose container is down: what was asked for stays, addresses go.
pub(super) fn cleared(settings: &EndpointSettings) -> EndpointSettings {
    EndpointSettings {
        ipam_config: settings.ipam_config.clone(),
        links: settings.links.clone(),
        aliases: settings.aliases.clone(),
        driver_opts: settings.driver_opts.clone(),
        gw_priority: settings.gw_priority,
        network_id: settings.network_id.clone(),
        ..EndpointSettings::default()
    }
}

impl Engine {
    /// Takes addresses in all networks of a container. When one is taken only by a container that
    /// is being taken apart, waits for that and tries again.
    pub(crate) async fn reserve_networks(
        &self,
        container: &Arc<Container>,
        record: &Record,
    ) -> Result<Reserved, EngineError> {
        match self.try_reserve(container, record).await {
            Err(EngineError::Network(
                NetworkError::AddressInUse(_) | NetworkError::AddressesExhausted { .. },
            )) if self.teardowns_done().await => self.try_reserve(container, record).await,
            result => result,
        }
    }

    async fn try_reserve(
        &self,
        container: &Arc<Container>,
        record: &Record,
    ) -> Result<Reserved, EngineError> {
        let mut reserved = Reserved::default();
        for (name, asked) in configured_now(record) {
            let request = request(record, &name, &asked)?;
            match self.networks().reserve(&container.id, request).await {
                Ok(endpoint) => reserved.endpoints.push(endpoint),
                Err(error) => {
                    self.drop_endpoints(&container.id).await;
                    return Err(error.into());
                }
            }
        }
        let first = |endpoint: &Endpoint| {
            (std::cmp::Reverse(endpoint.priority), endpoint.network_name.clone())
        };
        reserved.endpoints.sort_by_key(first);
        Ok(reserved)
    }

    /// Puts a created container's interfaces in place and publishes its ports.
    pub(crate) async fn connect_networks(
        &self,
        container: &Arc<Container>,
        record: &Record,
        reserved: Reserved,
        pid: i32,
    ) -> Result<(), EngineError> {
        let id = &container.id;
        let asked = configured_now(record);
        let networks: BTreeMap<String, EndpointSettings> = reserved
            .endpoints
            .iter()
            .map(|endpoint| {
                let name = &endpoint.network_name;
                let settings = asked.get(name).cloned().unwrap_or_default();
                (name.clone(), shown(&settings, endpoint, id))
            })
            .collect();
        let mut published = Vec::new();
        if reserved.has_interface() {
            let ports = requests(record)?;
            let connect = || async {
                let ns = brig_sys::ns::open(pid, brig_sys::ns::NsKind::Net)
                    .map_err(|source| EngineError::system("open the network namespace", source))?;
                let request = SandboxRequest {
                    container: id.clone(),
                    ns,
                    ports: ports.clone(),
                    dns_servers: files::dns_options(record, &self.config().dns)?.servers,
                };
                Ok::<_, EngineError>(self.networks().connect_sandbox(request).await?)
            };
            let bound = match connect().await {
                // Its last owner may be on its way out.
                Err(EngineError::Network(NetworkError::Publish { .. }))
                    if self.teardowns_done().await =>
                {
                    connect().await?
                }
                result => result?,
            };
            published.extend(bound.into_iter().filter_map(|bound| {
                let text = format!("{}/{}", bound.container_port, bound.protocol.as_str());
                let port = ports::parse_ports(&text).ok()?.first().copied()?;
                Some(Published {
                    port,
                    host_ip: bound.host_ip.to_string(),
                    host_port: bound.host_port,
                })
            }));
        }
        let exposed = ports::exposed(&record.config, &record.host_config)?;
        {
            let mut cell = container.cell();
            cell.record.networks = networks;
            cell.record.ports = if record.host_config.network_mode == "host" {
                Default::default()
            } else {
                ports::port_map(&exposed, &published)
            };
        }
        Ok(())
    }

    /// Gives a container's addresses, ports and names back.
    pub(crate) async fn release_network(&self, container: &Arc<Container>) {
        self.drop_endpoints(&container.id).await;
    }

    async fn drop_endpoints(&self, id: &ContainerId) {
        if let Err(error) = self.networks().disconnect(id).await {
            tracing::warn!(container = %id, error = brig_types::error::chain(&error), "network resources stay");
        }
    }

    /// Other containers find it by its new name.
    pub(crate) async fn rename_on_networks(&self, container: &Arc<Container>, new: &str) {
        if let Err(error) = self.networks().rename(&container.id, new).await {
            tracing::warn!(container = %container.id, error = brig_types::error::chain(&error), "a container keeps its old name on its networks");
        }
    }

    /// Tells of the networks that a container joined or left; a container that left shows no
    /// addresses any more.
    pub(crate) fn network_events(&self, container: &Arc<Container>, action: &str) {
        let networks = {
            let mut cell = container.cell();
            let networks = cell.record.networks.clone();
            if action == "disconnect" {
                for settings in cell.record.networks.values_mut() {
                    *settings = cleared(settings);
                }
                cell.record.ports.clear();
            }
            networks
        };
        for (name, settings) in networks {
            self.network_event(container, action, &name, &settings.network_id);
        }
    }

    /// Tells of one network that a container joined or left.
    pub(super) fn network_event(
        &self,
        container: &Container,
        action: &str,
        name: &str,
        network_id: &str,
    ) {
        let driver = match name {
            "host" => "host",
            "none" => "null",
            _ => BRIDGE,
        };
        let attributes = [
            ("container".to_owned(), container.id.to_string()),
            ("name".to_owned(), name.to_owned()),
            ("type".to_owned(), driver.to_owned()),
        ];
        self.events().emit(kind::NETWORK, action, network_id, attributes.into());
    }
}

/// The networks at this moment: those of the record, which connect and disconnect change.
fn configured_now(record: &Record) -> BTreeMap<String, EndpointSettings> {
    record.networks.iter().map(|(name, settings)| (name.clone(), cleared(settings))).collect()
}

fn requests(record: &Record) -> Result<Vec<PortRequest>, EngineError> {
    ports::publications(&record.config, &record.host_config)?
        .into_iter()
        .map(|publication| {
            let protocol = Protocol::parse(publication.port.protocol.as_str())
                .map_err(|error| EngineError::Invalid(error.to_string()))?;
            let host_port = match publication.host_ports {
                (0, 0) => HostPort::Ephemeral,
                (first, last) if first == last => HostPort::Fixed(first),
                (first, last) => HostPort::Range(first, last),
            };
            Ok(PortRequest {
                container_port: publication.port.number,
                protocol,
                host_ip: publication.host_ip,
                host_port,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::tests::sample;

    fn names(record: &Record) -> Vec<String> {
        configured(record).into_keys().collect()
    }

    #[test]
    fn which_networks() {
        let mut record = sample();
        for (mode, expected) in [
            ("default", vec!["bridge"]),
            ("bridge", vec!["bridge"]),
            ("host", vec!["host"]),
            ("none", vec!["none"]),
            ("mynet", vec!["mynet"]),
            ("container:x", vec![]),
        ] {
            record.host_config.network_mode = mode.to_owned();
            assert_eq!(names(&record), expected, "{mode}");
        }
        record.host_config.network_mode = "default".to_owned();
        record.networking.endpoints_config.insert("default".to_owned(), None);
        assert_eq!(names(&record), ["bridge"]);
        record.networking.endpoints_config.clear();
        record.networking.endpoints_config.insert("mynet".to_owned(), None);
        assert_eq!(names(&record), ["mynet"]);
        record.host_config.network_mode = "other".to_owned();
        assert_eq!(names(&record), ["mynet", "other"]);
    }

    #[test]
    fn a_stopped_container_keeps_what_was_asked_for() {
        let settings = EndpointSettings {
            aliases: vec!["a".into()],
            ip_address: "1.2.3.4".into(),
            network_id: "n".into(),
            ..EndpointSettings::default()
        };
        let left = cleared(&settings);
        assert_eq!(
            (left.aliases.as_slice(), left.network_id.as_str()),
            (&["a".to_owned()][..], "n")
        );
        assert_eq!(left.ip_address, "");
    }
}
