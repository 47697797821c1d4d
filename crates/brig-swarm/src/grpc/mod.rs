//! SwarmKit's gRPC over mutual TLS: the listener, the one place that decides who may call what,
//! and connections to other managers.

pub(crate) mod authorize;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod connections;
pub(crate) mod refusals;
pub(crate) mod server;
