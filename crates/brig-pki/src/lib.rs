//! Cryptography and identity: the one place that names the TLS and crypto libraries.
//!
//! The cluster's certificate authority, node keys and certificates, join tokens, TLS
//! configurations that can be replaced while connections run, key files on disk, and the sealing
//! of stored objects. Everything else in the workspace asks this crate; no other crate picks an
//! algorithm, a protocol version or a trust decision.
//!
//! It knows no storage and no protocol above TLS.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod access_ca;
pub mod admission;
pub mod agefile;
pub mod ca;
pub mod csr;
pub mod engine;
pub mod enrol;
pub mod error;
pub mod hash;
pub mod identity;
pub mod issued;
pub mod jws;
pub mod keyfile;
pub mod password;
pub mod random;
pub mod seal;
pub mod signing;
pub mod tls;
pub mod token;
pub mod web;

mod files;
mod x509;

pub use error::PkiError;
pub use tls::install_provider;
