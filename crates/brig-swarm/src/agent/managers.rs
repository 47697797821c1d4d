//! Which managers there are, and which one to ask next: the more often a manager worked, the more
//! likely it is asked again.

use std::collections::BTreeMap;

use brig_proto::swarm::{Peer, WeightedPeer};

/// What a good or a bad experience counts.
const OBSERVATION: f64 = 10.0;
const MAX_WEIGHT: f64 = 256.0;
/// Keeps a manager with a bad record from never being asked again.
const BIAS: f64 = 0.001;

/// The managers that this node knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Managers {
    peers: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    node_id: String,
    weight: f64,
}

impl Managers {
    /// Managers from before the last stop.
    pub(crate) fn new(peers: impl IntoIterator<Item = Peer>) -> Self {
        let mut managers = Self::default();
        for peer in peers {
            managers.observe(&peer.addr, Some(&peer.node_id), OBSERVATION);
        }
        managers
    }

    /// Replaces the list with the one a manager sent; answers whether it differs.
    pub(crate) fn replace(&mut self, listed: &[WeightedPeer]) -> bool {
        let before = self.peers();
        let listed: Vec<&Peer> = listed
            .iter()
            .filter_map(|manager| manager.peer.as_ref())
            .filter(|peer| !peer.addr.is_empty())
            .collect();
        for peer in &listed {
            self.observe(&peer.addr, Some(&peer.node_id), OBSERVATION);
        }
        self.peers.retain(|addr, _| listed.iter().any(|peer| peer.addr == *addr));
        self.peers() != before
    }

    /// A connection to this manager failed or ended.
    pub(crate) fn disappointed(&mut self, addr: &str) {
        if self.peers.contains_key(addr) {
            self.observe(addr, None, -OBSERVATION);
        }
    }

    /// All managers.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        self.peers
            .iter()
            .map(|(addr, entry)| Peer { node_id: entry.node_id.clone(), addr: addr.clone() })
            .collect()
    }

    /// A manager, chosen with `random` from 0 to 1: another one than `avoided`, which just failed,
    /// if there is one. A node that asks a dead manager twice in a row may be taken for dead itself.
    pub(crate) fn choose(&self, random: f64, avoided: Option<&str>) -> Option<String> {
        let weight = |entry: &Entry| entry.weight.max(0.0) + BIAS;
        let is_alone = self.peers.len() == 1;
        let choice =
            || self.peers.iter().filter(|(addr, _)| is_alone || avoided != Some(addr.as_str()));
        let total: f64 = choice().map(|(_, entry)| weight(entry)).sum();
        let mut left = random.clamp(0.0, 1.0) * total;
        for (addr, entry) in choice() {
            left -= weight(entry);
            if left <= 0.0 {
                return Some(addr.clone());
            }
        }
        choice().next_back().map(|(addr, _)| addr.clone())
    }

    fn observe(&mut self, addr: &str, node_id: Option<&str>, observation: f64) {
        let entry = self
            .peers
            .entry(addr.to_owned())
            .or_insert(Entry { node_id: String::new(), weight: 0.0 });
        if let Some(node_id) = node_id {
            node_id.clone_into(&mut entry.node_id);
        }
        entry.weight =
            (observation / 2.0 + entry.weight / 2.0).ceil().clamp(-MAX_WEIGHT, MAX_WEIGHT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weighted(addr: &str) -> WeightedPeer {
        WeightedPeer {
            peer: Some(Peer { node_id: "n".to_owned(), addr: addr.to_owned() }),
            weight: 10,
        }
    }

    #[test]
    fn the_list_of_the_managers_replaces_what_was_known() {
        let mut managers =
            Managers::new([Peer { node_id: String::new(), addr: "join:2377".to_owned() }]);
        assert!(managers.replace(&[weighted("a:1"), weighted("b:1"), weighted("")]));
        assert!(!managers.replace(&[weighted("a:1"), weighted("b:1")]));
        let known: Vec<String> = managers.peers().into_iter().map(|peer| peer.addr).collect();
        assert_eq!(known, ["a:1", "b:1"]);
    }

    #[test]
    fn a_failing_manager_is_hardly_chosen() {
        let mut managers = Managers::default();
        managers.replace(&[weighted("a:1"), weighted("b:1")]);
        assert_eq!(managers.choose(0.0, None).unwrap(), "a:1");
        assert_eq!(managers.choose(1.0, None).unwrap(), "b:1");
        for _ in 0..4 {
            managers.disappointed("a:1");
        }
        assert_eq!(managers.choose(0.01, None).unwrap(), "b:1");
        assert_eq!(Managers::default().choose(0.5, None), None);
    }

    #[test]
    fn a_manager_that_just_failed_is_not_asked_at_once_again() {
        let mut managers = Managers::default();
        managers.replace(&[weighted("a:1"), weighted("b:1"), weighted("c:1")]);
        for avoided in ["a:1", "b:1", "c:1"] {
            for random in [0.0, 0.3, 0.6, 1.0] {
                assert_ne!(managers.choose(random, Some(avoided)).unwrap(), avoided);
            }
        }
        managers.replace(&[weighted("a:1")]);
        assert_eq!(managers.choose(0.5, Some("a:1")).unwrap(), "a:1", "there is no other");
    }
}
