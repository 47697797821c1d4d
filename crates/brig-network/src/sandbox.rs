//! Connecting containers: reserving, wiring, publishing, and taking all of it back.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use brig_types::error::chain;
use brig_types::id::ContainerId;

use crate::dns::ResolverSockets;
use crate::endpoint::{Endpoint, EndpointRequest};
use crate::error::NetworkError;
use crate::networks::{Inner, Networks};
use crate::plan::{Plan, name_interfaces};
use crate::ports::{HeldPort, PortBound, PortRequest};
use crate::state::Sandbox;
use crate::store::SandboxRecord;
use crate::wire;

/// A container that is about to start.
#[derive(Debug)]
pub struct SandboxRequest {
    /// The container; its endpoints have been reserved.
    pub container: ContainerId,
    /// Its network namespace.
    pub ns: OwnedFd,
    /// The ports to publish.
    pub ports: Vec<PortRequest>,
    /// Name servers that the user wants for this container.
    pub dns_servers: Vec<IpAddr>,
}

impl Networks {
    /// Gives a container a place on a network: an address, and what is derived from it.
    ///
    /// Nothing is connected yet. The first reservation becomes `eth0`.
    ///
    /// # Errors
    /// When there is no such network, or the address cannot be had.
    pub async fn reserve(
        &self,
        container: &ContainerId,
        request: EndpointRequest,
    ) -> Result<Endpoint, NetworkError> {
        self.inner.state().reserve(container, request)
    }

    /// Connects a container with everything that was reserved for it and publishes its ports.
    ///
    /// All of it or nothing; after an error the reservations are still there until
    /// [`Networks::disconnect`]. Ports of containers without a way out (`host`, `none`, internal
    /// networks) are not published, as docker does. Goes on to its end if the caller stops waiting.
    ///
    /// # Errors
    /// [`NetworkError::Publish`] when a port is taken; when the kernel refuses.
    pub async fn connect_sandbox(
        &self,
        request: SandboxRequest,
    ) -> Result<Vec<PortBound>, NetworkError> {
        let this = self.clone();
        self.detached(async move { this.connect(request).await }).await
    }

    /// Takes back everything a container had: names, published ports, addresses.
    ///
    /// Its interfaces are left to the kernel, which removes them with the namespace. A container
    /// that has nothing is fine.
    ///
    /// # Errors
    /// When the rules could not be changed; everything else has been taken back even then.
    pub async fn disconnect(&self, container: &ContainerId) -> Result<(), NetworkError> {
        let (this, container) = (self.clone(), container.clone());
        self.detached(async move {
            let Some(sandbox) = this.inner.state().sandboxes.remove(&container) else {
                return Ok(());
            };
            this.blocking(move |inner| release_sandbox(inner, &container, sandbox)).await
        })
        .await
    }

    /// A container's endpoints.
    #[must_use]
    pub fn endpoints(&self, container: &ContainerId) -> Vec<Endpoint> {
        let state = self.inner.state();
        state.sandboxes.get(container).map(|sandbox| sandbox.endpoints.clone()).unwrap_or_default()
    }

    /// A container's published ports.
    #[must_use]
    pub fn ports(&self, container: &ContainerId) -> Vec<PortBound> {
        let state = self.inner.state();
        state.sandboxes.get(container).map(Sandbox::bound_ports).unwrap_or_default()
    }

    async fn connect(&self, request: SandboxRequest) -> Result<Vec<PortBound>, NetworkError> {
        let SandboxRequest { container, ns, ports, dns_servers } = request;
        let plan = {
            let mut state = self.inner.state();
            let Some(sandbox) = state.sandboxes.get_mut(&container) else { return Ok(Vec::new()) };
            sandbox.dns_servers = dns_servers;
            name_interfaces(sandbox);
            let endpoints = sandbox.endpoints.clone();
            Plan::new(&state, endpoints, None)
        };
        let ns = Arc::new(ns);
        let wired = {
            let (container, plan, ns) = (container.clone(), plan.clone(), Arc::clone(&ns));
            self.blocking(move |inner| inner.wire(&container, &plan, &ns, &ports)).await
        };
        let (sockets, held) = match wired {
            Ok(wired) => wired,
            Err(error) => {
                if let Some(sandbox) = self.inner.state().sandboxes.get_mut(&container) {
                    sandbox.endpoints.iter_mut().for_each(|endpoint| endpoint.interface = None);
                }
                return Err(error);
            }
        };
        let bound = held.iter().map(|held| held.bound).collect();
        self.finish(&container, plan, &ns, sockets, held).await?;
        Ok(bound)
    }

    /// Makes what was wired known: names, name server, state.
    async fn finish(
        &self,
        container: &ContainerId,
        plan: Plan,
        ns: &Arc<OwnedFd>,
        sockets: Option<ResolverSockets>,
        held: Vec<HeldPort>,
    ) -> Result<(), NetworkError> {
        let mut held = Some(held);
        let known = self.know(container, &plan, ns, sockets, &mut held);
        // Taken down while it was being connected: so is this.
        if let Some(held) = held {
            let sandbox = Sandbox { ports: held, connected: true, ..Sandbox::default() };
            let container = container.clone();
            self.blocking(move |inner| {
                plan.remove_links();
                release_sandbox(inner, &container, sandbox)
            })
            .await?;
        }
        known
    }

    /// Takes the ports out of `held` if and only if it succeeds.
    fn know(
        &self,
        container: &ContainerId,
        plan: &Plan,
        ns: &Arc<OwnedFd>,
        sockets: Option<ResolverSockets>,
        held: &mut Option<Vec<HeldPort>>,
    ) -> Result<(), NetworkError> {
        let mut state = self.inner.state();
        let view = state.scope(&plan.endpoints);
        let sandbox = state
            .sandboxes
            .get_mut(container)
            .ok_or_else(|| NetworkError::SandboxGone(container.clone()))?;
        if let Some(sockets) = sockets {
            let upstreams = self.inner.upstreams(&plan.endpoints, &sandbox.dns_servers, Some(ns));
            let resolver = self
                .inner
                .resolvers
                .start(sockets, view, upstreams)
                .map_err(NetworkError::kernel("cannot serve names"))?;
            sandbox.resolver = Some(resolver);
            sandbox.resolves = true;
        }
        sandbox.connected = true;
        sandbox.ports = held.take().unwrap_or_default();
        sandbox.ports_endpoint = plan.gateway.as_ref().map(|(id, _)| id.clone());
        self.inner.register_names(&state, container, &plan.endpoints);
        Ok(())
    }
}

/// Takes back what a container had that is no longer in the state.
pub(crate) fn release_sandbox(
    inner: &Inner,
    container: &ContainerId,
    sandbox: Sandbox,
) -> Result<(), NetworkError> {
    // The sockets hold the namespace: without them the kernel can take it down.
    drop(sandbox.resolver);
    for endpoint in &sandbox.endpoints {
        inner.resolvers.directory.remove(&endpoint.network_id, &endpoint.endpoint_id);
    }
    let mut result = Ok(());
    if !sandbox.ports.is_empty() {
        let bound: Vec<PortBound> = sandbox.ports.iter().map(|held| held.bound).collect();
        result = inner
            .firewall()
            .unpublish(&bound)
            .map_err(NetworkError::kernel("cannot take published ports back"));
        // The rules no longer lead to the container, so the ports may go to others.
        drop(sandbox.ports);
    }
    {
        let mut state = inner.state();
        for endpoint in &sandbox.endpoints {
            state.free_address(endpoint);
        }
    }
    if sandbox.connected {
        result = result.and(inner.store.remove_sandbox(container));
    }
    result
}

impl Inner {
    /// The blocking part of connecting a container: all of it or nothing.
    fn wire(
        &self,
        container: &ContainerId,
        plan: &Plan,
        ns: &OwnedFd,
        ports: &[PortRequest],
    ) -> Result<(Option<ResolverSockets>, Vec<HeldPort>), NetworkError> {
        let held = self.hold_ports(plan, ports)?;
        let bound: Vec<PortBound> = held.iter().map(|held| held.bound).collect();
        let record = SandboxRecord {
            endpoints: plan.endpoints.clone(),
            ports: bound.clone(),
            ports_endpoint: plan.gateway.as_ref().map(|(id, _)| id.clone()),
            dns_servers: self
                .state()
                .sandboxes
                .get(container)
                .map(|sandbox| sandbox.dns_servers.clone())
                .unwrap_or_default(),
            resolves: plan.sandbox.resolver && plan.own_namespace(),
        };
        // Before the interfaces: a crash in between must not leave any that nobody knows.
        self.store.save_sandbox(container, &record)?;
        let wired = (|| {
            let sockets = match plan.own_namespace() {
                true => wire::connect(ns.as_fd(), &plan.sandbox)?,
                false => None,
            };
            if let Some((_, target)) = &plan.gateway
                && let Err(source) = self.firewall().publish(*target, &bound)
            {
                plan.remove_links();
                return Err(NetworkError::kernel("cannot publish ports")(source));
            }
            Ok(sockets)
        })();
        match wired {
            Ok(sockets) => Ok((sockets, held)),
            Err(error) => {
                if let Err(error) = self.store.remove_sandbox(container) {
                    tracing::warn!(error = %chain(&error), "a sandbox record was left behind");
                }
                Err(error)
            }
        }
    }

    fn hold_ports(
        &self,
        plan: &Plan,
        ports: &[PortRequest],
    ) -> Result<Vec<HeldPort>, NetworkError> {
        let Some((id, targets)) = &plan.gateway else { return Ok(Vec::new()) };
        let name = plan
            .endpoints
            .iter()
            .find(|endpoint| endpoint.endpoint_id == *id)
            .map(|endpoint| endpoint.container_name.clone())
            .unwrap_or_default();
        let mut held = Vec::with_capacity(ports.len());
        for request in ports {
            let one = self.ports.hold(request, plan.host_binding, targets.v6.is_some());
            held.extend(one.map_err(|source| NetworkError::Publish {
                endpoint: name.clone(),
                id: id.clone(),
                source,
            })?);
        }
        Ok(held)
    }
}
