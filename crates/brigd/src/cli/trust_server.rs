//! The flags of the trust server in the daemon.

use std::path::PathBuf;

use crate::config::TrustServerDirectives;

#[derive(Debug, Default, clap::Args)]
pub(super) struct TrustServerFlags {
    /// Serve signed trust data (Notary v1) on this address, HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    trust_listen: Option<String>,
    /// Certificate of the trust server
    #[arg(long, value_name = "FILE")]
    trust_tlscert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE")]
    trust_tlskey: Option<PathBuf>,
    /// File that unseals the trust server's keys while they are in a file [default: DATA_ROOT/trust-server/seal.key]
    #[arg(long, value_name = "FILE")]
    trust_seal_key: Option<PathBuf>,
    /// Ask publishers for passwords of this file (htpasswd -B)
    #[arg(long, value_name = "FILE")]
    trust_auth_htpasswd: Option<PathBuf>,
    /// Let anybody read, with --trust-auth-htpasswd
    #[arg(long)]
    trust_auth_anonymous_pull: bool,
    /// Ask for tokens of this token server
    #[arg(long, value_name = "URL")]
    trust_auth_token_realm: Option<String>,
    /// Name of the trust server in tokens
    #[arg(long, value_name = "NAME")]
    trust_auth_token_service: Option<String>,
    /// Name of whoever makes tokens
    #[arg(long, value_name = "NAME")]
    trust_auth_token_issuer: Option<String>,
    /// Certificates of the keys that sign tokens
    #[arg(long, value_name = "FILE")]
    trust_auth_token_bundle: Option<PathBuf>,
    /// Serve trust data of repositories that begin so and of no others
    #[arg(long = "trust-gun-prefix", value_name = "PREFIX")]
    trust_gun_prefixes: Vec<String>,
    /// Seconds for which clients may keep the newest trust data [default: 300]
    #[arg(long, value_name = "SECONDS")]
    trust_cache_newest: Option<u32>,
    /// Seconds for which clients may keep trust data by hash or version [default: 2592000]
    #[arg(long, value_name = "SECONDS")]
    trust_cache_fixed: Option<u32>,
}

impl TrustServerFlags {
    /// The key of the configuration; absent when none of them was given.
    pub(super) fn directives(&self) -> Option<TrustServerDirectives> {
        let directives = TrustServerDirectives {
            listen: self.trust_listen.clone(),
            tlscert: self.trust_tlscert.clone(),
            tlskey: self.trust_tlskey.clone(),
            seal_key: self.trust_seal_key.clone(),
            auth_htpasswd: self.trust_auth_htpasswd.clone(),
            auth_anonymous_pull: self.trust_auth_anonymous_pull.then_some(true),
            auth_token_realm: self.trust_auth_token_realm.clone(),
            auth_token_service: self.trust_auth_token_service.clone(),
            auth_token_issuer: self.trust_auth_token_issuer.clone(),
            auth_token_bundle: self.trust_auth_token_bundle.clone(),
            gun_prefixes: super::some(&self.trust_gun_prefixes),
            cache_newest: self.trust_cache_newest,
            cache_fixed: self.trust_cache_fixed,
        };
        (directives != TrustServerDirectives::default()).then_some(directives)
    }
}
