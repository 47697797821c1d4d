//! Connecting a running container to one more network, and disconnecting it from one.

use std::net::Ipv6Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use brig_types::id::{ContainerId, EndpointId};

use crate::dns::ResolverSockets;
use crate::endpoint::{Endpoint, EndpointRequest, gateway_endpoint};
use crate::error::NetworkError;
use crate::networks::{Inner, Networks};
use crate::plan::{Plan, default_route, default_route6, name_interfaces};
use crate::ports::{HeldPort, PortBound, Targets};
use crate::spec::Driver;
use crate::store::SandboxRecord;
use crate::wire::{self, DefaultRoute};

impl Networks {
    /// Connects a running container to one more network.
    ///
    /// # Errors
    /// As [`Networks::reserve`] and [`Networks::connect_sandbox`]; the container is unchanged then.
    pub async fn attach(
        &self,
        container: &ContainerId,
        ns: OwnedFd,
        request: EndpointRequest,
    ) -> Result<Endpoint, NetworkError> {
        let (this, container) = (self.clone(), container.clone());
        self.detached(async move {
            let reserved = this.inner.state().reserve(&container, request)?;
            let id = reserved.endpoint_id;
            match this.attach_reserved(&container, ns, &id).await {
                Ok(endpoint) => Ok(endpoint),
                Err(error) => {
                    this.inner.state().release(&container, &id);
                    Err(error)
                }
            }
        })
        .await
    }

    /// Disconnects a container from one network. `ns` is its namespace, if it runs.
    ///
    /// # Errors
    /// [`NetworkError::NotConnected`]; when the kernel refuses.
    pub async fn detach(
        &self,
        container: &ContainerId,
        network: &str,
        ns: Option<OwnedFd>,
    ) -> Result<Endpoint, NetworkError> {
        let (this, container, network) = (self.clone(), container.clone(), network.to_owned());
        self.detached(async move { this.detach_from(&container, &network, ns).await }).await
    }

    async fn attach_reserved(
        &self,
        container: &ContainerId,
        ns: OwnedFd,
        id: &EndpointId,
    ) -> Result<Endpoint, NetworkError> {
        let (plan, redirect) = self.plan_attach(container, id)?;
        let ns = Arc::new(ns);
        let sockets = {
            let (plan, ns) = (plan.clone(), Arc::clone(&ns));
            self.blocking(move |inner| {
                let sockets = wire::connect(ns.as_fd(), &plan.sandbox)?;
                if let Some((target, ports)) = redirect {
                    let moved = inner.firewall().redirect(target, &ports);
                    if let Err(source) = moved {
                        plan.remove_links();
                        return Err(NetworkError::kernel("cannot move published ports")(source));
                    }
                }
                Ok(sockets)
            })
            .await?
        };
        match self.know_attached(container, &plan, id, &ns, sockets) {
            Ok((endpoint, record)) => {
                let container = container.clone();
                self.blocking(move |inner| inner.store.save_sandbox(&container, &record)).await?;
                Ok(endpoint)
            }
            Err(error) => {
                self.blocking(move |_| {
                    plan.remove_links();
                    Ok(())
                })
                .await?;
                Err(error)
            }
        }
    }

    /// Plans the new interface, and where published ports lead from now on if that changes.
    fn plan_attach(
        &self,
        container: &ContainerId,
        id: &EndpointId,
    ) -> Result<(Plan, Option<Redirect>), NetworkError> {
        let mut state = self.inner.state();
        let gone = || NetworkError::EndpointNotFound(id.clone());
        let sandbox = state.sandboxes.get_mut(container).ok_or_else(gone)?;
        name_interfaces(sandbox);
        let has_resolver = sandbox.resolver.is_some();
        let endpoints = sandbox.endpoints.clone();
        let (ports, target) = (sandbox.bound_ports(), sandbox.ports_target());
        let mut plan = Plan::new(&state, endpoints, Some(id));
        plan.sandbox.resolver &= !has_resolver;
        let redirect = plan
            .gateway
            .as_ref()
            .filter(|(_, ip)| !ports.is_empty() && Some(*ip) != target)
            .map(|(_, ip)| (*ip, ports));
        Ok((plan, redirect))
    }

    /// Makes what was wired known: names, name server, state.
    fn know_attached(
        &self,
        container: &ContainerId,
        plan: &Plan,
        id: &EndpointId,
        ns: &Arc<OwnedFd>,
        sockets: Option<ResolverSockets>,
    ) -> Result<(Endpoint, SandboxRecord), NetworkError> {
        let mut state = self.inner.state();
        let view = state.scope(&plan.endpoints);
        let gone = || NetworkError::EndpointNotFound(id.clone());
        let sandbox = state.sandboxes.get_mut(container).ok_or_else(gone)?;
        let endpoint = sandbox
            .endpoints
            .iter()
            .find(|known| known.endpoint_id == *id)
            .cloned()
            .ok_or_else(gone)?;
        let upstreams = self.inner.upstreams(&plan.endpoints, &sandbox.dns_servers, Some(ns));
        if let Some(sockets) = sockets {
            let resolver = self
                .inner
                .resolvers
                .start(sockets, view, upstreams)
                .map_err(NetworkError::kernel("cannot serve names"))?;
            sandbox.resolver = Some(resolver);
            sandbox.resolves = true;
        } else if let Some(resolver) = &sandbox.resolver {
            resolver.set_view(view, upstreams);
        }
        sandbox.connected = true;
        if !sandbox.ports.is_empty() {
            sandbox.ports_endpoint = plan.gateway.as_ref().map(|(id, _)| id.clone());
        }
        let record = sandbox.record();
        self.inner.register_names(&state, container, std::slice::from_ref(&endpoint));
        Ok((endpoint, record))
    }

    async fn detach_from(
        &self,
        container: &ContainerId,
        network: &str,
        ns: Option<OwnedFd>,
    ) -> Result<Endpoint, NetworkError> {
        let ns = ns.map(Arc::new);
        let (removed, leaving) = self.forget_endpoint(container, network, ns.as_ref())?;
        let result = match leaving {
            None => Ok(()),
            Some(leaving) => {
                let (endpoint, container) = (removed.clone(), container.clone());
                self.blocking(move |inner| leaving.run(inner, &container, &endpoint, ns)).await
            }
        };
        // Only now is nobody using it.
        self.inner.state().free_address(&removed);
        result.map(|()| removed)
    }

    /// Takes the endpoint out of the state; says what is left to do if the container runs.
    fn forget_endpoint(
        &self,
        container: &ContainerId,
        network: &str,
        ns: Option<&Arc<OwnedFd>>,
    ) -> Result<(Endpoint, Option<Leaving>), NetworkError> {
        let not_connected = || NetworkError::NotConnected {
            container: container.clone(),
            network: network.to_owned(),
        };
        let mut state = self.inner.state();
        let id = state.find(network)?.record.id.clone();
        let sandbox = state.sandboxes.get_mut(container).ok_or_else(not_connected)?;
        let on_network = |endpoint: &Endpoint| endpoint.network_id == id;
        let at = sandbox.endpoints.iter().position(on_network).ok_or_else(not_connected)?;
        if sandbox.endpoints.iter().any(|endpoint| endpoint.driver == Driver::Host) {
            return Err(NetworkError::PrivateMode(network.to_owned()));
        }
        let removed = sandbox.endpoints.remove(at);
        self.inner.resolvers.directory.remove(&id, &removed.endpoint_id);
        if !sandbox.connected {
            if sandbox.endpoints.is_empty() {
                state.sandboxes.remove(container);
            }
            return Ok((removed, None));
        }
        let (mut closed, mut moved) = (Vec::new(), None);
        if sandbox.ports_endpoint.as_ref() == Some(&removed.endpoint_id) {
            let next = gateway_endpoint(&sandbox.endpoints);
            moved = next.and_then(|next| Some((Targets::of(next)?, sandbox.bound_ports())));
            sandbox.ports_endpoint = next.map(|next| next.endpoint_id.clone());
            if moved.is_none() {
                closed = std::mem::take(&mut sandbox.ports);
            }
        }
        let (endpoints, record) = (sandbox.endpoints.clone(), sandbox.record());
        if let Some(sandbox) = state.sandboxes.get(container)
            && let Some(resolver) = &sandbox.resolver
        {
            let upstreams = self.inner.upstreams(&endpoints, &sandbox.dns_servers, ns);
            resolver.set_view(state.scope(&endpoints), upstreams);
        }
        let (route, route6) = (default_route(&endpoints), default_route6(&endpoints));
        Ok((removed, Some(Leaving { closed, moved, route, route6, record })))
    }
}

/// Where published ports lead from now on.
type Redirect = (Targets, Vec<PortBound>);

/// What is left to do when a running container has left a network.
struct Leaving {
    closed: Vec<HeldPort>,
    moved: Option<Redirect>,
    route: DefaultRoute,
    route6: Option<(Ipv6Addr, String)>,
    record: SandboxRecord,
}

impl Leaving {
    fn run(
        self,
        inner: &Inner,
        container: &ContainerId,
        endpoint: &Endpoint,
        ns: Option<Arc<OwnedFd>>,
    ) -> Result<(), NetworkError> {
        let rules = || NetworkError::kernel("cannot move published ports");
        if let Some((target, ports)) = &self.moved {
            inner.firewall().redirect(*target, ports).map_err(rules())?;
        }
        let closed: Vec<PortBound> = self.closed.iter().map(|held| held.bound).collect();
        inner.firewall().unpublish(&closed).map_err(rules())?;
        if let Some(interface) = &endpoint.interface {
            wire::remove_veth(&interface.host)
                .map_err(NetworkError::kernel("cannot remove the container's interface"))?;
        }
        if let Some(ns) = ns {
            wire::set_default_routes(ns.as_fd(), self.route, self.route6)?;
        }
        inner.store.save_sandbox(container, &self.record)
    }
}
