//! Names of containers, as docker's embedded name server at 127.0.0.11 serves them.
//!
//! [`Directory`] knows the names of every user-defined network; [`answer`] decides what to do with
//! one packet; [`server`] owns a container's sockets; [`forward`] asks the servers of the outside.
//! Every packet from a container is hostile: limits everywhere, and nothing in it can panic.

mod answer;
mod forward;
mod server;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, PoisonError, RwLock};

use brig_types::id::{EndpointId, NetworkId};

pub(crate) use forward::{Origin, Upstream};
pub(crate) use server::{Resolver, ResolverService, ResolverSockets};

/// Where containers on user-defined networks find their name server.
pub const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The names of all user-defined networks of this node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory(Arc<RwLock<HashMap<NetworkId, NetworkNames>>>);

#[derive(Debug, Default)]
struct NetworkNames {
    /// The network's name in lower case, which may follow a container's name.
    name: String,
    /// Names in lower case.
    addresses: HashMap<String, Vec<(EndpointId, IpAddr)>>,
    owners: HashMap<IpAddr, Owner>,
}

#[derive(Debug)]
struct Owner {
    endpoint: EndpointId,
    /// `container.network`, the answer to a reverse lookup.
    full_name: String,
}

impl Directory {
    /// Adds an endpoint's names; the first is the one that a reverse lookup gives.
    pub(crate) fn insert(
        &self,
        network: &NetworkId,
        network_name: &str,
        endpoint: &EndpointId,
        addresses: &[IpAddr],
        names: &[String],
    ) {
        let mut networks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let entry = networks.entry(network.clone()).or_default();
        entry.name = network_name.to_ascii_lowercase();
        entry.forget(endpoint);
        for name in names {
            let known = entry.addresses.entry(name.to_ascii_lowercase()).or_default();
            for address in addresses {
                if !known.iter().any(|(_, other)| other == address) {
                    known.push((endpoint.clone(), *address));
                }
            }
        }
        for (first, address) in
            names.first().into_iter().flat_map(|n| addresses.iter().map(move |a| (n, a)))
        {
            let full_name = format!("{first}.{network_name}");
            entry.owners.insert(*address, Owner { endpoint: endpoint.clone(), full_name });
        }
    }

    /// Removes an endpoint's names.
    pub(crate) fn remove(&self, network: &NetworkId, endpoint: &EndpointId) {
        let mut networks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = networks.get_mut(network) {
            entry.forget(endpoint);
            if entry.addresses.is_empty() {
                networks.remove(network);
            }
        }
    }

    /// The addresses of a name on the first of `view`'s networks that knows it.
    fn addresses(&self, view: &[NetworkId], name: &str) -> Option<Vec<IpAddr>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let networks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        view.iter().filter_map(|id| networks.get(id)).find_map(|network| {
            let bare = || {
                let stem = name.strip_suffix(network.name.as_str())?.strip_suffix('.')?;
                network.addresses.get(stem)
            };
            let found = network.addresses.get(&name).or_else(bare)?;
            Some(found.iter().map(|(_, address)| *address).collect())
        })
    }

    /// `container.network` of an address on one of `view`'s networks.
    fn owner(&self, view: &[NetworkId], address: IpAddr) -> Option<String> {
        let networks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        view.iter()
            .filter_map(|id| networks.get(id)?.owners.get(&address))
            .map(|owner| owner.full_name.clone())
            .next()
    }
}

/// Where the names of a container's questions are looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scope {
    /// User-defined networks, in the order in which names are looked up.
    pub(crate) networks: Vec<NetworkId>,
    /// Names that the container alone knows, in small letters, and the names behind them.
    pub(crate) links: Vec<(String, String)>,
}

impl From<Vec<NetworkId>> for Scope {
    fn from(networks: Vec<NetworkId>) -> Self {
        Self { networks, links: Vec::new() }
    }
}

impl Scope {
    /// The name behind a link; any other name is its own.
    fn target<'a>(&'a self, name: &'a str) -> &'a str {
        let bare = name.trim_end_matches('.');
        let link = self.links.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(bare));
        link.map_or(name, |(_, target)| target)
    }
}

impl NetworkNames {
    fn forget(&mut self, endpoint: &EndpointId) {
        self.addresses.retain(|_, addresses| {
            addresses.retain(|(owner, _)| owner != endpoint);
            !addresses.is_empty()
        });
        self.owners.retain(|_, owner| owner.endpoint != *endpoint);
    }
}

/// Hands a packet from a container to the name server's decision; for fuzzing only.
#[cfg(feature = "fuzzing")]
pub fn fuzz_packet(packet: &[u8]) {
    let network = NetworkId::generate();
    for transport in [answer::Transport::Udp, answer::Transport::Tcp] {
        let _ =
            answer::decide(packet, transport, &Directory::default(), &vec![network.clone()].into());
    }
    let _ = answer::failure(packet);
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 18, 0, 2));
    const DB: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 18, 0, 3));

    #[test]
    fn names_are_seen_from_their_networks_only() {
        let directory = Directory::default();
        let (front, back) = (NetworkId::generate(), NetworkId::generate());
        let (web, db) = (EndpointId::generate(), EndpointId::generate());
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        directory.insert(&front, "Front", &web, &[WEB], &names(&["Web", "www"]));
        directory.insert(&front, "Front", &db, &[DB], &names(&["db", "www"]));
        let view = [front.clone()];
        assert_eq!(directory.addresses(&view, "web."), Some(vec![WEB]));
        assert_eq!(directory.addresses(&view, "WEB.front"), Some(vec![WEB]));
        assert_eq!(directory.addresses(&view, "www"), Some(vec![WEB, DB]));
        assert_eq!(directory.addresses(&view, "webfront"), None);
        assert_eq!(directory.addresses(&[back], "web"), None);
        let links = vec![("sql".to_owned(), "db".to_owned())];
        let scope = Scope { networks: view.to_vec(), links };
        for name in ["sql", "SQL.", "db"] {
            assert_eq!(directory.addresses(&view, scope.target(name)), Some(vec![DB]), "{name}");
        }
        assert_eq!(directory.addresses(&view, scope.target("sql.front")), None);
        assert_eq!(directory.owner(&view, WEB), Some("Web.Front".to_owned()));
        directory.remove(&front, &web);
        assert_eq!(directory.addresses(&view, "web"), None);
        assert_eq!(directory.addresses(&view, "www"), Some(vec![DB]));
        assert_eq!(directory.owner(&view, WEB), None);
        directory.remove(&front, &db);
        assert!(directory.0.read().unwrap().is_empty());
    }

    #[test]
    fn an_endpoint_that_is_inserted_again_loses_its_old_names() {
        let directory = Directory::default();
        let (network, endpoint) = (NetworkId::generate(), EndpointId::generate());
        directory.insert(&network, "n", &endpoint, &[WEB], &["old".to_owned()]);
        directory.insert(&network, "n", &endpoint, &[WEB], &["new".to_owned()]);
        let view = [network];
        assert_eq!(directory.addresses(&view, "old"), None);
        assert_eq!(directory.addresses(&view, "new"), Some(vec![WEB]));
    }
}
