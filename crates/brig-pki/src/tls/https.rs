//! HTTPS to servers that the cluster's roots vouch for and that are no nodes: external
//! certificate authorities.

use std::sync::Arc;

use rustls::ClientConfig;

use super::{Connector, TlsCredentials, client_builder, name, root_store, server_verifier};
use crate::PkiError;

/// HTTP/1.1, the protocol of the requests.
const ALPN_HTTP1: &[u8] = b"http/1.1";

impl TlsCredentials {
    /// Trusts `roots_pem` and shows the node's certificate if the server asks for one.
    ///
    /// # Errors
    /// [`PkiError::NoRoots`], [`PkiError::Pem`], [`PkiError::ServerName`], [`PkiError::Tls`].
    pub fn https_connector(&self, roots_pem: &[u8], host: &str) -> Result<Connector, PkiError> {
        let identity = Arc::clone(&self.current.load().client.client_auth_cert_resolver);
        let roots = Arc::new(root_store(roots_pem)?);
        let config = client_builder()?
            .with_webpki_verifier(server_verifier(roots)?)
            .with_client_cert_resolver(identity);
        Connector::https(config, host)
    }
}

impl Connector {
    /// Trusts `roots_pem` and shows no certificate: a node that has none yet.
    ///
    /// # Errors
    /// [`PkiError::NoRoots`], [`PkiError::Pem`], [`PkiError::ServerName`], [`PkiError::Tls`].
    pub fn anonymous_https(roots_pem: &[u8], host: &str) -> Result<Self, PkiError> {
        let roots = Arc::new(root_store(roots_pem)?);
        let config =
            client_builder()?.with_webpki_verifier(server_verifier(roots)?).with_no_client_auth();
        Self::https(config, host)
    }

    /// Trusts the system's authorities: a server of the public web.
    ///
    /// # Errors
    /// As [`crate::web::client_config`], and [`PkiError::ServerName`].
    pub fn web(host: &str) -> Result<Self, PkiError> {
        let trust = crate::web::WebTrust::Verified { extra_roots: Vec::new() };
        Self::https(crate::web::client_config(&trust, None)?, host)
    }

    fn https(mut config: ClientConfig, host: &str) -> Result<Self, PkiError> {
        config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self { config: Arc::new(config), name: name(host)? })
    }
}
