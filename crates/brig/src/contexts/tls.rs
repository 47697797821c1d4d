//! Certificates and keys of a client: from files that flags name, or from a context.

use std::path::Path;

use brig_pki::engine::{EngineClient, EngineTrust};
use brig_pki::web::ClientIdentity;
use brig_types::secret::SecretBytes;

use super::{DOCKER, MAX_FILE, TLS_NAMES, TlsFile};
use crate::error::{Error, Result, message};

/// The three files of docker's TLS; each may be missing.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsFiles {
    /// The authority of the server, PEM.
    pub(crate) ca: Option<SecretBytes>,
    /// The client's certificate, PEM.
    pub(crate) cert: Option<SecretBytes>,
    /// The client's key, PEM.
    pub(crate) key: Option<SecretBytes>,
}

impl TlsFiles {
    /// Reads the files that are named.
    pub(crate) fn read(ca: Option<&Path>, cert: Option<&Path>, key: Option<&Path>) -> Result<Self> {
        let read = |path: Option<&Path>| path.map(read_file).transpose();
        Ok(Self { ca: read(ca)?, cert: read(cert)?, key: read(key)? })
    }

    /// Those of a context.
    pub(crate) fn of_context(files: &[TlsFile]) -> Self {
        let find = |name: &str| {
            files
                .iter()
                .find(|file| file.endpoint == DOCKER && file.name == name)
                .map(|file| file.content.clone())
        };
        let [ca, cert, key] = TLS_NAMES.map(find);
        Self { ca, cert, key }
    }

    /// As a context keeps them.
    pub(crate) fn for_context(&self) -> Vec<TlsFile> {
        TLS_NAMES
            .into_iter()
            .zip([&self.ca, &self.cert, &self.key])
            .filter_map(|(name, content)| {
                Some(TlsFile {
                    endpoint: DOCKER.to_owned(),
                    name: name.to_owned(),
                    content: content.clone()?,
                })
            })
            .collect()
    }

    /// Whether there are none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.ca.is_none() && self.cert.is_none() && self.key.is_none()
    }

    /// A client of these files.
    pub(crate) fn client(&self, skip_verification: bool) -> Result<EngineClient> {
        let trust = match &self.ca {
            _ if skip_verification => EngineTrust::DangerouslyAcceptAnyone,
            Some(ca) => EngineTrust::Authority(ca.expose_secret().to_vec()),
            None => EngineTrust::System,
        };
        // As docker does: half a pair is none.
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some(ClientIdentity {
                chain_pem: cert.expose_secret().to_vec(),
                key_pem: key.clone(),
            }),
            _ => None,
        };
        EngineClient::new(&trust, identity.as_ref()).map_err(|error| {
            message(format!("the TLS files cannot be used: {}", brig_types::error::chain(&error)))
        })
    }
}

fn read_file(path: &Path) -> Result<SecretBytes> {
    match crate::parse::env::read_limited(path, MAX_FILE) {
        Ok(content) => Ok(SecretBytes::new(content)),
        // Docker's text.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Err(message(format!("open {}: no such file or directory", path.display())))
        }
        Err(error) => Err(error),
    }
}
