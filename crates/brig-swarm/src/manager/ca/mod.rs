//! The cluster's certificate authority: what signs, and how nodes reach it.

pub(crate) mod external;
pub(crate) mod own;
pub(crate) mod pending;
pub(crate) mod reconciler;
pub(crate) mod rotation;
pub(crate) mod server;
pub(crate) mod signer;
pub(crate) mod signers;

use std::time::Duration;

use brig_pki::ca::DEFAULT_NODE_EXPIRY;
use brig_proto::swarm::Cluster;

use crate::wire_time;

/// How long node certificates are valid.
pub(crate) fn expiry(cluster: &Cluster) -> Duration {
    let configured = cluster
        .spec
        .as_ref()
        .and_then(|spec| spec.ca_config.as_ref())
        .and_then(|config| config.node_cert_expiry.as_ref());
    wire_time::duration(configured, DEFAULT_NODE_EXPIRY)
}
