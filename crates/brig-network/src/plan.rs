//! What connecting a container will do.

use std::net::{Ipv4Addr, Ipv6Addr};

use brig_types::id::EndpointId;

use crate::endpoint::{Endpoint, Interface, gateway_endpoint, gateway6_endpoint};
use crate::ports::Targets;
use crate::spec::Driver;
use crate::state::{Sandbox, State};
use crate::subnet::Ipv4Net;
use crate::wire::{DefaultRoute, LinkPlan, SandboxPlan, remove_veth};

/// What connecting a container will do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) sandbox: SandboxPlan,
    /// The endpoint that takes the published ports, and its addresses.
    pub(crate) gateway: Option<(EndpointId, Targets)>,
    /// Where ports are published that name no address.
    pub(crate) host_binding: Option<Ipv4Addr>,
}

impl Plan {
    /// Plans links for all endpoints, or for one of a container that has the others already.
    pub(crate) fn new(state: &State, endpoints: Vec<Endpoint>, only: Option<&EndpointId>) -> Self {
        let links = endpoints
            .iter()
            .filter(|endpoint| only.is_none_or(|id| endpoint.endpoint_id == *id))
            .filter_map(|endpoint| link_plan(state, endpoint))
            .collect();
        let resolver = !state.scope(&endpoints).networks.is_empty();
        let gateway = gateway_endpoint(&endpoints);
        let host_binding = gateway
            .and_then(|endpoint| state.networks.get(&endpoint.network_id))
            .and_then(|network| network.record.bridge.as_ref()?.host_binding);
        let gateway = gateway
            .and_then(|endpoint| Some((endpoint.endpoint_id.clone(), Targets::of(endpoint)?)));
        let sandbox = SandboxPlan {
            links,
            default_route: default_route(&endpoints),
            default_route6: default_route6(&endpoints),
            resolver,
        };
        Self { endpoints, sandbox, gateway, host_binding }
    }

    pub(crate) fn remove_links(&self) {
        for link in &self.sandbox.links {
            if let Err(error) = remove_veth(&link.host_name) {
                tracing::warn!(link = link.host_name, %error, "an interface was left behind");
            }
        }
    }

    /// Whether the container has a namespace that is ours to change.
    pub(crate) fn own_namespace(&self) -> bool {
        !self.endpoints.iter().any(|endpoint| endpoint.driver == Driver::Host)
    }
}

fn link_plan(state: &State, endpoint: &Endpoint) -> Option<LinkPlan> {
    let settings = state.networks.get(&endpoint.network_id)?.record.bridge.as_ref()?;
    let interface = endpoint.interface.as_ref()?;
    let ip = endpoint.ip?;
    Some(LinkPlan {
        host_name: interface.host.clone(),
        container_name: interface.name.clone(),
        bridge: settings.name.clone(),
        isolated: !settings.icc,
        mtu: settings.mtu,
        mac: endpoint.mac?,
        ip,
        subnet: Ipv4Net::new(ip, endpoint.prefix_len),
        v6: endpoint.v6.map(|v6| (v6.ip, v6.prefix_len)),
    })
}

/// The way out of a container with these endpoints.
pub(crate) fn default_route(endpoints: &[Endpoint]) -> DefaultRoute {
    gateway_endpoint(endpoints)
        .and_then(|endpoint| {
            let interface = endpoint.interface.as_ref()?;
            Some(DefaultRoute::Via(endpoint.gateway?, interface.name.clone()))
        })
        .unwrap_or(DefaultRoute::None)
}

/// The way out of IPv6.
pub(crate) fn default_route6(endpoints: &[Endpoint]) -> Option<(Ipv6Addr, String)> {
    let endpoint = gateway6_endpoint(endpoints)?;
    Some((endpoint.v6?.gateway?, endpoint.interface.as_ref()?.name.clone()))
}

/// Names the interfaces that have no name yet: the first free `ethN`.
pub(crate) fn name_interfaces(sandbox: &mut Sandbox) {
    for at in 0..sandbox.endpoints.len() {
        let taken = |name: &str| {
            let names = sandbox.endpoints.iter().filter_map(|known| known.interface.as_ref());
            names.into_iter().any(|interface| interface.name == name)
        };
        let free = (0_u32..).map(|number| format!("eth{number}")).find(|name| !taken(name));
        if let (Some(endpoint), Some(name)) = (sandbox.endpoints.get_mut(at), free)
            && endpoint.driver == Driver::Bridge
            && endpoint.interface.is_none()
        {
            let random = brig_types::id::random_hex();
            let host = format!("veth{}", random.get(..7).unwrap_or_default());
            endpoint.interface = Some(Interface { name, host });
        }
    }
}
