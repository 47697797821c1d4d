//! SwarmKit's wire protocol: the protobuf messages of package `docker.swarmkit.v1`, the gRPC
//! clients and servers for everything a node speaks to a manager, and who may call what. Beside it
//! what managers of brig say to each other, and etcd's client protocol.
//!
//! The messages are also the cluster's model: they are stored, watched and sent as they are. The
//! `.proto` files beside this crate carry SwarmKit's numbers and must never change them; whatever
//! SwarmKit lacks belongs into a package of its own.

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

/// What brig's managers say to each other: everything generated from `brig.v1`.
pub mod managers {
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
    tonic::include_proto!("brig.v1");
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
