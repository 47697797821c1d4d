//! SwarmKit's wire protocol: the protobuf messages of package `docker.swarmkit.v1`, the gRPC
//! clients and servers for everything a node speaks to a manager, and who may call what. Beside it
//! what managers of brig say to each other, and etcd's client protocol.
//!
//! The messages are also the cluster's model: they are stored, watched and sent as they are. The
//! `.proto` files beside this crate carry SwarmKit's numbers and must never change them; whatever
//! SwarmKit lacks belongs into a package of its own: `brig.v1`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod authorization;
mod redact;

/// Everything generated from `docker.swarmkit.v1`.
pub mod swarm {
    #![allow(
        missing_docs,
        unreachable_pub,
        missing_debug_implementations,
        elided_lifetimes_in_paths,
        clippy::all,
        clippy::pedantic,
        clippy::unwrap_used,
        clippy::expect_used
    )]
    tonic::include_proto!("docker.swarmkit.v1");
}

/// Everything generated from `brig.v1`: objects of the store that SwarmKit lacks, and what brig's
/// managers say to each other.
pub mod brig {
    #![allow(
        missing_docs,
        unreachable_pub,
        missing_debug_implementations,
        elided_lifetimes_in_paths,
        clippy::all,
        clippy::pedantic,
        clippy::unwrap_used,
        clippy::expect_used
    )]
    include!(concat!(env!("OUT_DIR"), "/brig/brig.v1.rs"));
}

/// The part of etcd's client protocol that brig speaks.
pub mod etcd {
    #![allow(
        missing_docs,
        unreachable_pub,
        missing_debug_implementations,
        elided_lifetimes_in_paths,
        clippy::all,
        clippy::pedantic,
        clippy::unwrap_used,
        clippy::expect_used
    )]
    tonic::include_proto!("etcdserverpb");
}

#[cfg(test)]
mod tests;
