//! `Debug` for messages that carry keys, tokens or secrets: everything but those fields. Secret
//! payloads are also wiped when they are dropped.

use std::fmt;

use zeroize::Zeroize as _;

use crate::{brig, swarm};

/// Stands in for a value that must not be printed.
struct Hidden(usize);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0)
    }
}

macro_rules! redacted {
    ($($message:path { $($shown:ident),* ; $($hidden:ident),+ })+) => { $(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))
                    $( .field(stringify!($shown), &self.$shown) )*
                    $( .field(stringify!($hidden), &Hidden(self.$hidden.len())) )+
                    .finish()
            }
        }
    )+ };
}

redacted! {
    swarm::SecretSpec { annotations, templating, driver ; data }
    swarm::IssueNodeCertificateRequest { availability ; csr, token }
    swarm::GetUnlockKeyResponse { version ; unlock_key }
    swarm::RootCa { ca_cert_hash, join_tokens, root_rotation, last_forced_rotation ; ca_cert, ca_key, cross_certificates }
    swarm::RootRotation { ; ca_cert, ca_key, cross_signed_ca_cert }
    swarm::JoinTokens { worker_limit, manager_limit ; worker, manager }
    swarm::EncryptionKey { subsystem, lamport_time ; key }
    swarm::CaConfig { node_cert_expiry, external_cas, force_rotate ; signing_ca_cert, signing_ca_key }
    swarm::container_spec::PullOptions { ; registry_auth }
    swarm::VolumeSecret { key ; secret }
    swarm::MaybeEncryptedRecord { algorithm ; data, nonce }
    brig::Access { id, meta, identities ; ca_certificate, ca_key }
    brig::AdoptKeysRequest { ; data_keys }
    brig::JoinResponse { member, initial_cluster, endpoints, name ; store_ca, member_certificate, client_certificate, data_keys }
    brig::TrustKey { role, id, made, named ; private }
}

impl Drop for brig::TrustKey {
    fn drop(&mut self) {
        self.private.zeroize();
    }
}

impl Drop for brig::Access {
    fn drop(&mut self) {
        self.ca_key.zeroize();
    }
}

impl Drop for brig::AdoptKeysRequest {
    fn drop(&mut self) {
        self.data_keys.zeroize();
    }
}

impl Drop for brig::JoinResponse {
    fn drop(&mut self) {
        self.data_keys.zeroize();
    }
}

impl Drop for swarm::SecretSpec {
    fn drop(&mut self) {
        self.data.zeroize();
    }
}
