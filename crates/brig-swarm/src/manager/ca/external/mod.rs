//! Authorities outside of the cluster that sign its certificates, so that no manager holds the
//! root's key. They speak CFSSL's protocol, the one that SwarmKit has.

mod cfssl;
mod check;
mod https;

use std::sync::Arc;

use brig_pki::PkiError;
use brig_pki::ca::{self, RootCa};
use brig_pki::identity::NodeIdentity;
use brig_pki::issued::{self, Unfit};
use brig_pki::tls::TlsCredentials;
use brig_proto::swarm::CaConfig;
use http::StatusCode;

use self::cfssl::{AnswerError, SignRequest, readable};
use self::https::{Client, Endpoint, PostError, UrlError};

pub(crate) use self::check::{check_settings, find_signers, initial};

/// The external authorities that sign for one root, in the order in which they are asked.
#[derive(Clone, Debug)]
pub(crate) struct ExternalCa {
    urls: Vec<String>,
    root: Vec<u8>,
    client: Client,
}

/// What was asked for was not signed.
#[derive(Debug, thiserror::Error)]
#[error("external CA {url}")]
pub(crate) struct ExternalError {
    url: String,
    #[source]
    source: AskError,
}

/// Why one authority did not sign.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("its address cannot be used")]
    Url(#[source] UrlError),
    #[error("it was not reached")]
    Post(#[from] PostError),
    #[error("it answered {status}: {text:?}")]
    Status { status: StatusCode, text: String },
    #[error("it did not sign")]
    Answer(#[from] AnswerError),
    #[error("the certificate that it signed is not the one that was asked for")]
    Unfit(#[from] Unfit),
    #[error("the request cannot be made")]
    Request(#[source] PkiError),
}

impl ExternalError {
    /// Whether asking again is useless: the authority answered, and the answer is no or wrong.
    pub(crate) fn is_permanent(&self) -> bool {
        match &self.source {
            AskError::Answer(AnswerError::NotJson(_))
            | AskError::Url(_)
            | AskError::Post(_)
            | AskError::Status { .. } => false,
            AskError::Answer(AnswerError::Refused(_) | AnswerError::NoCertificate)
            | AskError::Unfit(_)
            | AskError::Request(_) => true,
        }
    }
}

impl ExternalCa {
    /// The authorities that the settings name for `root`; `None` when there are none. One without
    /// a certificate of its own signs for `current`, the cluster's present root. Without
    /// `identity` they are asked without a client certificate.
    pub(crate) fn new(
        settings: &CaConfig,
        current: &[u8],
        root: &[u8],
        identity: Option<Arc<TlsCredentials>>,
    ) -> Option<Self> {
        let wanted = ca::normalize(root).ok()?;
        // A cluster that is being made has none.
        let current = ca::normalize(current).unwrap_or_default();
        let signs = |cert: &[u8]| {
            if cert.is_empty() {
                current == wanted
            } else {
                ca::normalize(cert).is_ok_and(|cert| cert == wanted)
            }
        };
        let urls: Vec<String> = settings
            .external_cas
            .iter()
            .filter(|external| signs(&external.ca_cert))
            .map(|external| external.url.clone())
            .collect();
        // During a rotation a server may have its own certificate from either root.
        let trust =
            if current == wanted { current.clone() } else { [&*current, &*wanted].concat() };
        let client = Client { identity, trust };
        (!urls.is_empty()).then_some(Self { urls, root: wanted, client })
    }

    /// Has a node certificate signed, and checks what comes. Answers PEM.
    pub(crate) async fn issue(
        &self,
        csr: &[u8],
        identity: &NodeIdentity,
    ) -> Result<Vec<u8>, ExternalError> {
        let text = String::from_utf8_lossy(csr);
        self.ask(&SignRequest::node(&text, identity), |certificate| {
            issued::check_node_certificate(&self.root, certificate.as_bytes(), csr, identity)
        })
        .await
    }

    /// Has another root signed by this one, for a rotation to `new`. Answers PEM.
    pub(crate) async fn cross_sign(&self, new: &RootCa) -> Result<Vec<u8>, ExternalError> {
        let request = new.cross_sign_request().map_err(|error| ExternalError {
            url: self.urls.join(", "),
            source: AskError::Request(error),
        })?;
        let csr = String::from_utf8_lossy(&request.csr_pem);
        self.ask(&SignRequest::authority(&csr, &request.subject), |certificate| {
            issued::check_cross_signed(&self.root, certificate.as_bytes(), new)
        })
        .await
    }

    /// Asks one after the other; the first good answer counts.
    async fn ask(
        &self,
        request: &SignRequest<'_>,
        check: impl Fn(&str) -> Result<Vec<u8>, Unfit>,
    ) -> Result<Vec<u8>, ExternalError> {
        let mut failure: Option<ExternalError> = None;
        for url in &self.urls {
            let answer = self.ask_one(url, request).await;
            match answer.and_then(|certificate| Ok(check(&certificate)?)) {
                Ok(certificate) => return Ok(certificate),
                Err(source) => {
                    let error = ExternalError { url: url.clone(), source };
                    tracing::warn!(error = %brig_types::error::chain(&error), "an external CA did not sign");
                    // While one of them may still sign, nothing is lost.
                    if failure.as_ref().is_none_or(ExternalError::is_permanent) {
                        failure = Some(error);
                    }
                }
            }
        }
        Err(failure.unwrap_or_else(|| ExternalError {
            url: String::new(),
            source: AskError::Url(UrlError::Syntax),
        }))
    }

    async fn ask_one(&self, url: &str, request: &SignRequest<'_>) -> Result<String, AskError> {
        let endpoint = Endpoint::parse(url).map_err(AskError::Url)?;
        let body = serde_json::to_vec(request)
            .map_err(|error| AskError::Post(PostError::Exchange(error.into())))?;
        let (status, body) = self.client.post(&endpoint, body).await?;
        match status {
            StatusCode::OK => Ok(cfssl::certificate(&body)?),
            // A definite no comes with this status.
            StatusCode::BAD_REQUEST => match cfssl::certificate(&body) {
                Err(refused @ AnswerError::Refused(_)) => Err(refused.into()),
                _ => Err(AskError::Status { status, text: readable(&body) }),
            },
            status => Err(AskError::Status { status, text: readable(&body) }),
        }
    }

    /// Whether TLS with one of them can be had.
    pub(crate) async fn reach(&self) -> Result<(), ExternalError> {
        let mut failure = None;
        for url in &self.urls {
            let dialed = match Endpoint::parse(url) {
                Ok(endpoint) => self.client.dial(&endpoint).await.map_err(AskError::Post),
                Err(error) => Err(AskError::Url(error)),
            };
            match dialed {
                Ok(()) => return Ok(()),
                Err(source) => failure = Some(ExternalError { url: url.clone(), source }),
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Reads an answer and checks the certificate in it; for fuzzing only.
#[cfg(feature = "fuzzing")]
pub fn fuzz_answer(root: &RootCa, csr: &[u8], identity: &NodeIdentity, body: &[u8]) {
    if let Ok(pem) = cfssl::certificate(body) {
        let _ = issued::check_node_certificate(root.cert_pem(), pem.as_bytes(), csr, identity);
        let _ = issued::check_cross_signed(root.cert_pem(), pem.as_bytes(), root);
    }
}

#[cfg(test)]
mod tests;
