//! Published ports of the cluster: each belongs to one service.
//!
//! Ports in host mode belong to nodes and are none of this module's business.

use std::collections::BTreeSet;
use std::sync::Arc;

use brig_proto::swarm::{PortConfig, Service, port_config::PublishMode};

use crate::task;

/// First port given to services that leave the choice to the cluster.
pub(crate) const FIRST_DYNAMIC: u32 = 30_000;
/// Last one.
pub(crate) const LAST_DYNAMIC: u32 = 32_767;

/// Why ports could not be allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortError {
    /// Another service has the port.
    Taken { port: u32, service: String, id: String },
    /// All dynamic ports are in use.
    Exhausted,
}

impl std::fmt::Display for PortError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken { port, service, id } => {
                write!(f, "port '{port}' is already in use by service '{service}' ({id})")
            }
            Self::Exhausted => f.write_str("no dynamic port is left"),
        }
    }
}

/// The ports of a service with every published port filled in; what it had stays.
pub(crate) fn allocate(
    service: &Service,
    others: &[Arc<Service>],
) -> Result<Vec<PortConfig>, PortError> {
    let mut taken: BTreeSet<(i32, u32)> = BTreeSet::new();
    for other in others {
        taken.extend(ingress_ports(other));
    }
    let endpoint = service.spec.as_ref().and_then(|spec| spec.endpoint.as_ref());
    let wanted = endpoint.map_or(&[][..], |endpoint| endpoint.ports.as_slice());
    let before = service.endpoint.as_ref().map_or(&[][..], |endpoint| endpoint.ports.as_slice());
    // Fixed ports first, so that no dynamic one takes theirs.
    for port in wanted.iter().filter(|port| is_ingress(port) && port.published_port != 0) {
        if !taken.insert((port.protocol, port.published_port)) {
            return Err(holder(others, port));
        }
    }
    wanted
        .iter()
        .map(|port| {
            if !is_ingress(port) || port.published_port != 0 {
                return Ok(port.clone());
            }
            let same = |old: &&PortConfig| {
                is_ingress(old)
                    && old.name == port.name
                    && old.protocol == port.protocol
                    && old.target_port == port.target_port
                    && (FIRST_DYNAMIC..=LAST_DYNAMIC).contains(&old.published_port)
                    && !taken.contains(&(old.protocol, old.published_port))
            };
            let number = before
                .iter()
                .find(same)
                .map(|old| old.published_port)
                .or_else(|| {
                    (FIRST_DYNAMIC..=LAST_DYNAMIC)
                        .find(|number| !taken.contains(&(port.protocol, *number)))
                })
                .ok_or(PortError::Exhausted)?;
            taken.insert((port.protocol, number));
            Ok(PortConfig { published_port: number, ..port.clone() })
        })
        .collect()
}

/// The ports that a service holds, allocated or at least asked for.
fn ingress_ports(service: &Service) -> impl Iterator<Item = (i32, u32)> {
    let allocated = service.endpoint.as_ref().map_or(&[][..], |endpoint| endpoint.ports.as_slice());
    let wanted = service
        .spec
        .as_ref()
        .and_then(|spec| spec.endpoint.as_ref())
        .map_or(&[][..], |endpoint| endpoint.ports.as_slice());
    allocated
        .iter()
        .chain(wanted)
        .filter(|port| is_ingress(port) && port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
}

fn holder(others: &[Arc<Service>], port: &PortConfig) -> PortError {
    let wanted = (port.protocol, port.published_port);
    let other = others.iter().find(|other| ingress_ports(other).any(|taken| taken == wanted));
    PortError::Taken {
        port: port.published_port,
        service: other.map_or_else(String::new, |other| task::service_name(other).to_owned()),
        id: other.map_or_else(String::new, |other| other.id.clone()),
    }
}

fn is_ingress(port: &PortConfig) -> bool {
    port.publish_mode == PublishMode::Ingress as i32
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::{Annotations, Endpoint, EndpointSpec, ServiceSpec};
    use proptest::prelude::*;

    use super::*;

    fn service(id: &str, ports: &[u32]) -> Service {
        Service {
            id: id.to_owned(),
            spec: Some(ServiceSpec {
                annotations: Some(Annotations {
                    name: format!("name-{id}"),
                    ..Annotations::default()
                }),
                endpoint: Some(EndpointSpec {
                    ports: ports
                        .iter()
                        .enumerate()
                        .map(|(i, published)| PortConfig {
                            target_port: 80 + u32::try_from(i).unwrap(),
                            published_port: *published,
                            ..PortConfig::default()
                        })
                        .collect(),
                    ..EndpointSpec::default()
                }),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    fn allocated(mut service: Service, others: &[Arc<Service>]) -> Arc<Service> {
        let ports = allocate(&service, others).unwrap();
        service.endpoint = Some(Endpoint { ports, ..Endpoint::default() });
        Arc::new(service)
    }

    #[test]
    fn dynamic_ports_come_from_the_range_and_stay() {
        let first = allocated(service("a", &[0, 0]), &[]);
        let numbers: Vec<u32> =
            first.endpoint.as_ref().unwrap().ports.iter().map(|port| port.published_port).collect();
        assert_eq!(numbers, [30_000, 30_001]);
        let second = allocated(service("b", &[0]), std::slice::from_ref(&first));
        assert_eq!(second.endpoint.as_ref().unwrap().ports[0].published_port, 30_002);
        assert_eq!(allocate(&second, &[]).unwrap()[0].published_port, 30_002);
    }

    #[test]
    fn a_taken_port_names_its_holder() {
        let first = Arc::new(service("a", &[8080]));
        let error = allocate(&service("b", &[8080]), &[first]).unwrap_err();
        assert_eq!(error.to_string(), "port '8080' is already in use by service 'name-a' (a)");
    }

    #[test]
    fn host_ports_are_left_alone() {
        let mut host = service("b", &[8080]);
        host.spec.as_mut().unwrap().endpoint.as_mut().unwrap().ports[0].publish_mode =
            PublishMode::Host as i32;
        assert!(allocate(&host, &[Arc::new(service("a", &[8080]))]).is_ok());
    }

    proptest! {
        #[test]
        fn no_port_is_given_twice(
            wanted in prop::collection::vec(prop::collection::vec(
                prop_oneof![Just(0_u32), 30_000_u32..30_006], 0..4), 0..6)
        ) {
            let mut services: Vec<Arc<Service>> = Vec::new();
            for (i, ports) in wanted.iter().enumerate() {
                let mut next = service(&i.to_string(), ports);
                if let Ok(ports) = allocate(&next, &services) {
                    next.endpoint = Some(Endpoint { ports, ..Endpoint::default() });
                    services.push(Arc::new(next));
                }
            }
            let mut seen = BTreeSet::new();
            for service in &services {
                for port in &service.endpoint.as_ref().unwrap().ports {
                    prop_assert!(port.published_port != 0);
                    prop_assert!(seen.insert(port.published_port));
                }
            }
        }
    }
}
