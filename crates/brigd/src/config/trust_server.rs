//! The trust server in the daemon: its keys in the configuration file, and what they mean.

use std::path::{Path, PathBuf};

use brig_pki::engine::EngineFiles;
use brig_trust_server::CacheAges;
use brig_trust_server::auth::AuthSettings;
use serde::{Deserialize, Serialize};

use super::{ConfigError, placed, value};

/// Below the data root: what is kept in files.
const FOLDER: &str = "trust-server";
const KEY: &str = "trust-server";

/// The key `trust-server` as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TrustServerDirectives {
    /// Address to listen on, `HOST:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Certificate of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tlscert: Option<PathBuf>,
    /// Its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tlskey: Option<PathBuf>,
    /// File that unseals the server's keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seal_key: Option<PathBuf>,
    /// File of passwords.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_htpasswd: Option<PathBuf>,
    /// Whether anybody may read, with passwords.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_anonymous_pull: Option<bool>,
    /// The token server's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_token_realm: Option<String>,
    /// Whom tokens are for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_token_service: Option<String>,
    /// Who makes tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_token_issuer: Option<String>,
    /// Certificates of the keys that sign tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_token_bundle: Option<PathBuf>,
    /// Beginnings of the names that are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gun_prefixes: Option<Vec<String>>,
    /// Seconds for which the newest files may be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_newest: Option<u32>,
    /// Seconds for which files by hash or version may be kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_fixed: Option<u32>,
}

/// The trust server, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustServerConfig {
    /// Address to listen on.
    pub listen: String,
    /// Certificate and key.
    pub tls: EngineFiles,
    /// Where everything is while there is no cluster.
    pub folder: PathBuf,
    /// File that unseals the server's keys.
    pub seal_key: Option<PathBuf>,
    /// Who may do what.
    pub auth: AuthSettings,
    /// Beginnings of the names that are served; none for all.
    pub gun_prefixes: Vec<String>,
    /// How long answers may be kept.
    pub cache: CacheAges,
}

impl TrustServerDirectives {
    pub(super) fn resolve(self, data_root: &Path) -> Result<TrustServerConfig, ConfigError> {
        let needed = |name: &str| value(KEY, format!("{name} is needed"));
        let path = |path| placed(KEY, path);
        let default = CacheAges::default();
        Ok(TrustServerConfig {
            listen: self.listen.ok_or_else(|| needed("listen (--trust-listen HOST:PORT)"))?,
            tls: EngineFiles {
                ca: None,
                cert: path(self.tlscert)?
                    .ok_or_else(|| needed("tlscert (--trust-tlscert FILE)"))?,
                key: path(self.tlskey)?.ok_or_else(|| needed("tlskey (--trust-tlskey FILE)"))?,
                revoked: None,
            },
            folder: data_root.join(FOLDER),
            seal_key: path(self.seal_key)?,
            auth: AuthSettings {
                htpasswd: path(self.auth_htpasswd)?,
                anonymous_pull: self.auth_anonymous_pull.unwrap_or_default(),
                token_realm: self.auth_token_realm,
                token_service: self.auth_token_service,
                token_issuer: self.auth_token_issuer,
                token_bundle: path(self.auth_token_bundle)?,
            },
            gun_prefixes: self.gun_prefixes.unwrap_or_default(),
            cache: CacheAges {
                newest: self.cache_newest.unwrap_or(default.newest),
                fixed: self.cache_fixed.unwrap_or(default.fixed),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn resolve(json: &str) -> Result<Config, ConfigError> {
        Config::resolve(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn what_is_needed_is_asked_for() {
        let all = r#"{"data-root":"/d","trust-server":{"listen":"a:1","tlscert":"/c","tlskey":"/k",
            "gun-prefixes":["r/"],"cache-newest":0}}"#;
        let server = resolve(all).unwrap().trust_server.unwrap();
        assert_eq!(server.folder, Path::new("/d/trust-server"));
        assert_eq!((server.cache.newest, server.cache.fixed), (0, 2_592_000));
        assert_eq!(resolve("{}").unwrap().trust_server, None);
        for (json, told) in [
            (r#"{"trust-server":{}}"#, "listen"),
            (r#"{"trust-server":{"listen":"a:1","tlskey":"/k"}}"#, "tlscert"),
            (r#"{"trust-server":{"listen":"a:1","tlscert":"/c"}}"#, "tlskey"),
        ] {
            let refused = resolve(json).unwrap_err().to_string();
            assert!(refused.contains(told), "{refused}");
        }
        assert!(serde_json::from_str::<TrustServerDirectives>(r#"{"other":1}"#).is_err());
    }
}
