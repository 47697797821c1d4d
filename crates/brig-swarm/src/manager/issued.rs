//! The certificates that the cluster's nodes have, in memory, fed by the store's watch.

use std::collections::BTreeMap;
use std::time::Duration;

use brig_pki::admission::{Fingerprint, leaf_fingerprint};
use brig_proto::swarm::Node;
use tokio::time::Instant;

/// How long a replaced certificate is one of its node's when the new one is not seen: time for
/// the node to fetch the new one, and to try again after a failure.
const REPLACED_KEPT: Duration = Duration::from_secs(3600);

/// The present certificate of each node, and the one before while its renewal is under way.
#[derive(Debug, Default)]
pub(crate) struct Issued(BTreeMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    current: Fingerprint,
    /// Whether the node was seen with the current one.
    in_use: bool,
    /// The one that the node was last known to have before, and until when it counts.
    replaced: Option<(Fingerprint, Instant)>,
}

impl Issued {
    /// A node is new, or was changed.
    pub(crate) fn update(&mut self, node: &Node, now: Instant) {
        let chain = node.certificate.as_ref().map_or(&[][..], |held| held.certificate.as_slice());
        if chain.is_empty() {
            // Nothing was signed for this request yet: the node has what it had.
            return;
        }
        let Ok(leaf) = leaf_fingerprint(chain) else {
            tracing::error!(node = node.id, "the certificate that the store has is damaged");
            return;
        };
        let Some(entry) = self.0.get_mut(&node.id) else {
            let entry = Entry { current: leaf, in_use: false, replaced: None };
            self.0.insert(node.id.clone(), entry);
            return;
        };
        if entry.current == leaf {
            return;
        }
        // A node that never used the current one still has the one before that.
        let held = match entry.replaced {
            Some((held, _)) if !entry.in_use => held,
            _ => entry.current,
        };
        *entry =
            Entry { current: leaf, in_use: false, replaced: Some((held, now + REPLACED_KEPT)) };
    }

    /// A node was removed.
    pub(crate) fn remove(&mut self, node: &str) {
        self.0.remove(node);
    }

    /// Some changes were missed: these are all nodes.
    pub(crate) fn reload<'a>(&mut self, nodes: impl Iterator<Item = &'a Node>, now: Instant) {
        let mut gone = std::mem::take(&mut self.0);
        for node in nodes {
            if let Some(entry) = gone.remove(&node.id) {
                self.0.insert(node.id.clone(), entry);
            }
            self.update(node, now);
        }
    }

    /// A node proved to have this certificate: those before it are done with.
    pub(crate) fn seen(&mut self, node: &str, leaf: &Fingerprint) {
        if let Some(entry) = self.0.get_mut(node).filter(|entry| entry.current == *leaf) {
            entry.in_use = true;
            entry.replaced = None;
        }
    }

    /// Whether this is one of the node's certificates.
    pub(crate) fn holds(&self, node: &str, leaf: &Fingerprint, now: Instant) -> bool {
        self.0.get(node).is_some_and(|entry| {
            entry.current == *leaf
                || entry.replaced.is_some_and(|(held, until)| held == *leaf && now < until)
        })
    }
}

#[cfg(test)]
mod tests {
    use brig_pki::ca::{DEFAULT_NODE_EXPIRY, RootCa};
    use brig_pki::csr::NodeKey;
    use brig_pki::identity::NodeIdentity;
    use brig_pki::token::NodeRole;
    use brig_proto::swarm::Certificate;
    use brig_types::id::NodeId;

    use super::*;

    fn certificate(chain: Vec<u8>) -> Node {
        Node {
            id: "n".to_owned(),
            certificate: Some(Certificate { certificate: chain, ..Certificate::default() }),
            ..Node::default()
        }
    }

    fn issued() -> (Node, Fingerprint) {
        let key = NodeKey::generate().unwrap();
        let identity = NodeIdentity {
            cluster: "c".to_owned(),
            role: NodeRole::Worker,
            node: NodeId::generate(),
        };
        let chain = RootCa::generate()
            .unwrap()
            .issue(&key.csr_pem().unwrap(), &identity, DEFAULT_NODE_EXPIRY)
            .unwrap();
        let leaf = leaf_fingerprint(&chain).unwrap();
        (certificate(chain), leaf)
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_before_counts_until_the_new_one_is_seen() {
        let now = Instant::now();
        let [first, second, third] = [issued(), issued(), issued()];
        let mut register = Issued::default();
        let held = |register: &Issued, at| {
            [&first, &second, &third].map(|(_, leaf)| register.holds("n", leaf, at))
        };
        register.update(&first.0, now);
        assert_eq!(held(&register, now), [true, false, false]);
        assert!(!register.holds("other", &first.1, now));
        register.update(&second.0, now);
        register.update(&second.0, now);
        assert_eq!(held(&register, now), [true, true, false]);
        // The answer was lost and the node asked again.
        register.update(&third.0, now);
        assert_eq!(held(&register, now), [true, false, true]);
        assert_eq!(held(&register, now + REPLACED_KEPT), [false, false, true]);
        register.seen("n", &first.1);
        assert_eq!(held(&register, now), [true, false, true], "the old one proves nothing");
        register.seen("n", &third.1);
        assert_eq!(held(&register, now), [false, false, true]);
        register.update(&first.0, now);
        assert_eq!(held(&register, now), [true, false, true]);
        // Changes were missed.
        register.reload([&second.0].into_iter(), now);
        assert_eq!(held(&register, now), [false, true, true]);
        register.reload(std::iter::empty(), now);
        assert_eq!(held(&register, now), [false, false, false]);
    }

    #[tokio::test]
    async fn a_request_that_waits_takes_nothing_away() {
        let now = Instant::now();
        let (node, leaf) = issued();
        let mut register = Issued::default();
        register.update(&node, now);
        register.update(&certificate(Vec::new()), now);
        register.update(&certificate(b"damaged".to_vec()), now);
        assert!(register.holds("n", &leaf, now));
        register.remove("n");
        assert!(!register.holds("n", &leaf, now));
    }
}
