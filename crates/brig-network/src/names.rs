//! How containers resolve names: the files they get, the names they are found by, the servers that
//! are asked for everything else.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use brig_types::id::ContainerId;

use crate::dns::{Origin, Upstream};
use crate::endpoint::{Endpoint, gateway_endpoint};
use crate::error::NetworkError;
use crate::files::{DnsOptions, ExtraHost, ResolvConf, ResolvMode, extra_host, resolv_conf};
use crate::networks::{Inner, Networks};
use crate::spec::Driver;
use crate::state::State;

/// Far above any real resolv.conf.
const MAX_RESOLV_CONF: u64 = 64 * 1024;
/// Where systemd-resolved keeps what is behind its own address.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";
const RESOLVED_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

impl Networks {
    /// Changes the name that others find a container by.
    ///
    /// # Errors
    /// When the change cannot be recorded.
    pub async fn rename(&self, container: &ContainerId, name: &str) -> Result<(), NetworkError> {
        let record = {
            let mut state = self.inner.state();
            let Some(sandbox) = state.sandboxes.get_mut(container) else { return Ok(()) };
            for endpoint in &mut sandbox.endpoints {
                name.clone_into(&mut endpoint.container_name);
            }
            let (endpoints, record) = (sandbox.endpoints.clone(), sandbox.record());
            if !sandbox.connected {
                return Ok(());
            }
            self.inner.register_names(&state, container, &endpoints);
            record
        };
        let container = container.clone();
        self.blocking(move |inner| inner.store.save_sandbox(&container, &record)).await
    }

    /// Builds a container's resolv.conf from its reservations and the user's options.
    #[must_use]
    pub fn resolv_conf(&self, container: &ContainerId, dns: &DnsOptions) -> String {
        let host = self.inner.host_resolv_conf();
        let mode = {
            let state = self.inner.state();
            let sandbox = state.sandboxes.get(container);
            let endpoints = sandbox.map(|sandbox| &sandbox.endpoints[..]).unwrap_or_default();
            if endpoints.iter().any(|endpoint| endpoint.driver == Driver::Host) {
                ResolvMode::Host
            } else if sandbox.is_some_and(|sandbox| sandbox.resolves)
                || endpoints.iter().any(|endpoint| state.has_names(endpoint))
            {
                ResolvMode::Embedded
            } else {
                ResolvMode::Direct
            }
        };
        let mut dns = dns.clone();
        if dns.servers.is_empty() {
            dns.servers.clone_from(&self.inner.config.dns_upstreams);
        }
        resolv_conf(&host, mode, &dns)
    }

    /// Whether a name server is there for a running container, at an address inside it.
    #[must_use]
    pub fn serves_names(&self, container: &ContainerId) -> bool {
        let state = self.inner.state();
        state.sandboxes.get(container).is_some_and(|sandbox| sandbox.resolver.is_some())
    }

    /// Reads `--add-host` values; `host-gateway` is the default bridge's address.
    ///
    /// # Errors
    /// [`NetworkError::ExtraHost`].
    pub fn extra_hosts(&self, hosts: &[String]) -> Result<Vec<ExtraHost>, NetworkError> {
        let gateway = self.host_gateway();
        hosts.iter().map(|text| extra_host(text, gateway)).collect()
    }
}

impl Inner {
    /// Makes endpoints on user-defined networks known by name.
    pub(crate) fn register_names(
        &self,
        state: &State,
        container: &ContainerId,
        endpoints: &[Endpoint],
    ) {
        for endpoint in endpoints.iter().filter(|endpoint| state.has_names(endpoint)) {
            let addresses: Vec<IpAddr> = endpoint.addresses().collect();
            if !addresses.is_empty() {
                self.resolvers.directory.insert(
                    &endpoint.network_id,
                    &endpoint.network_name,
                    &endpoint.endpoint_id,
                    &addresses,
                    &endpoint.dns_names(container),
                );
            }
        }
    }

    /// The servers that a container's name server asks. None without a way out: names must not
    /// leak from internal networks.
    ///
    /// COMPAT: when the host names no server, docker asks 8.8.8.8; here the answer is SERVFAIL.
    pub(crate) fn upstreams(
        &self,
        endpoints: &[Endpoint],
        own: &[IpAddr],
        ns: Option<&Arc<OwnedFd>>,
    ) -> Vec<Upstream> {
        if gateway_endpoint(endpoints).is_none() {
            return Vec::new();
        }
        if !own.is_empty() {
            return own
                .iter()
                .map(|ip| match ns {
                    Some(ns) if ip.is_loopback() => {
                        Upstream::new(*ip, Origin::Container(Arc::clone(ns)))
                    }
                    _ => Upstream::new(*ip, Origin::Host),
                })
                .collect();
        }
        let servers = match self.config.dns_upstreams.as_slice() {
            [] => ResolvConf::parse(&self.host_resolv_conf()).servers,
            configured => configured.to_vec(),
        };
        servers.into_iter().map(|ip| Upstream::new(ip, Origin::Host)).collect()
    }

    /// The host's resolv.conf, or what is behind systemd-resolved if that is all it names.
    fn host_resolv_conf(&self) -> String {
        let text = read_limited(&self.config.resolv_conf);
        if ResolvConf::parse(&text).servers == [RESOLVED_ADDRESS] {
            let behind = read_limited(Path::new(RESOLVED_CONF));
            if !ResolvConf::parse(&behind).servers.is_empty() {
                return behind;
            }
        }
        text
    }
}

fn read_limited(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_RESOLV_CONF).read_to_end(&mut bytes));
    if let Err(error) = read {
        tracing::debug!(file = %path.display(), %error, "cannot read the host's resolv.conf");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
