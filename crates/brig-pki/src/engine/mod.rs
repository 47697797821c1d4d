//! TLS of the engine's API: the daemon's port, and the clients that reach it from elsewhere.
//!
//! Trust is what the operator's files say (one authority, a server certificate, client
//! certificates), and beside it the access authority's register. This is not the cluster's
//! authority, whose certificates open nothing here.

mod access;
mod client;
mod error;
mod files;
mod public;
mod revocation;
mod server;

#[cfg(test)]
mod tests;

pub use access::AccessTrust;
pub use client::{EngineClient, EngineConnection, EngineTrust};
pub use error::EngineTlsError;
pub use files::{EngineFiles, Stamps};
pub use public::PublicServer;
pub use revocation::{RevocationError, Revocations};
pub use server::{Accepted, ClientCertificate, EngineServer};

/// HTTP/1.1, what the Engine API is spoken over; docker's client offers no protocol at all.
const ALPN_HTTP1: &[u8] = b"http/1.1";
