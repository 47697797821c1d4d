//! A node's end of the swarm's gRPC, by hand: joining, renewing and being in a session without a
//! daemon.

use std::io;
use std::path::Path;
use std::sync::Arc;

use brig_pki::csr::NodeKey;
use brig_pki::identity::verify_issued_chain;
use brig_pki::tls::{ClientStream, Connector, TlsCredentials};
use brig_pki::token::JoinToken;
use brig_proto::swarm::{
    Certificate, GetRootCaCertificateRequest, IssueNodeCertificateRequest,
    NodeCertificateStatusRequest, ca_client::CaClient, issuance_status::State,
    node_ca_client::NodeCaClient,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// TLS name of a manager.
const MANAGER: &str = "swarm-manager";

/// A swarm as somebody who wants to join sees it.
#[derive(Clone, Debug)]
pub struct Swarm {
    /// `host:port` of a manager.
    pub address: String,
    /// The workers' join token.
    pub token: String,
    /// The root certificates, as the token pins them.
    pub roots: Vec<u8>,
}

/// A node with its certificate.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// What it shows to managers.
    pub credentials: Arc<TlsCredentials>,
}

/// Why a call did not come to its end.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn dial<F>(
    address: &str,
    shake: impl Fn(TcpStream) -> F + Clone + Send + Sync + 'static,
) -> Result<Channel, Failure>
where
    F: Future<Output = io::Result<ClientStream<TcpStream>>> + Send + 'static,
{
    let address = address.to_owned();
    let dial = service_fn(move |_: Uri| {
        let (address, shake) = (address.clone(), shake.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            shake(stream).await.map(TokioIo::new)
        }
    });
    Ok(Endpoint::from_static("http://manager").connect_with_connector(dial).await?)
}

impl Swarm {
    /// Fetches the roots and holds them against the token.
    ///
    /// # Errors
    /// No manager, or not the one that the token is for.
    pub async fn find(address: &str, token: &str) -> Result<Self, Failure> {
        let blind = Connector::insecure_for_pinned_content("127.0.0.1")?;
        let channel = dial(address, move |stream| {
            let blind = blind.clone();
            async move { blind.connect(stream).await }
        });
        let request = GetRootCaCertificateRequest {};
        let answer = CaClient::new(channel.await?).get_root_ca_certificate(request).await?;
        let roots = answer.into_inner().certificate;
        if !JoinToken::parse(token)?.pins(&roots) {
            return Err("the roots are not those of the token".into());
        }
        Ok(Self { address: address.to_owned(), token: token.to_owned(), roots })
    }

    /// A connection without a certificate.
    ///
    /// # Errors
    /// What keeps it from being made.
    pub async fn anonymous(&self) -> Result<Channel, Failure> {
        let connector = Connector::anonymous(&self.roots, "swarm-ca")?;
        dial(&self.address, move |stream| {
            let connector = connector.clone();
            async move { connector.connect(stream).await }
        })
        .await
    }

    /// A connection with a node's certificate.
    ///
    /// # Errors
    /// What keeps it from being made.
    pub async fn mutual(&self, credentials: &Arc<TlsCredentials>) -> Result<Channel, Failure> {
        let credentials = Arc::clone(credentials);
        dial(&self.address, move |stream| {
            let credentials = Arc::clone(&credentials);
            async move { credentials.connect(MANAGER, stream).await }
        })
        .await
    }

    /// A new worker's certificate over a connection without one.
    ///
    /// # Errors
    /// What the manager or the certificate's check says.
    pub async fn join(&self, channel: Channel) -> Result<Member, Failure> {
        let key = NodeKey::generate()?;
        let (id, certificate) = issue(channel, key.csr_pem()?, &self.token).await?;
        let chain = certificate.certificate;
        let identity = verify_issued_chain(&self.roots, &chain, &key)?;
        if identity.node.as_str() != id {
            return Err("the certificate is for another node".into());
        }
        let credentials = Arc::new(TlsCredentials::new(&self.roots, &chain, &key)?);
        Ok(Member { id, credentials })
    }
}

/// The two calls that bring a certificate: with a token a new node's, without one the caller's
/// next.
///
/// # Errors
/// What the manager says.
pub async fn issue(
    channel: Channel,
    csr: Vec<u8>,
    token: &str,
) -> Result<(String, Certificate), Status> {
    let mut ca = NodeCaClient::new(channel);
    let request =
        IssueNodeCertificateRequest { csr, token: token.to_owned(), ..Default::default() };
    let node_id = ca.issue_node_certificate(request).await?.into_inner().node_id;
    let request = NodeCertificateStatusRequest { node_id: node_id.clone() };
    let answer = ca.node_certificate_status(request).await?.into_inner();
    let issued = answer.status.is_some_and(|status| status.state() == State::Issued);
    match answer.certificate {
        Some(certificate) if issued => Ok((node_id, certificate)),
        _ => Err(Status::unknown("the certificate was not issued")),
    }
}

/// A member whose certificate and unencrypted key lie in a folder, as dockerd leaves them.
///
/// # Errors
/// Files that cannot be read or do not fit.
pub fn member_on_disk(folder: &Path, roots: &[u8]) -> Result<Arc<TlsCredentials>, Failure> {
    let chain = std::fs::read(folder.join("swarm-node.crt"))?;
    let key = NodeKey::from_pem(&std::fs::read(folder.join("swarm-node.key"))?)?;
    Ok(Arc::new(TlsCredentials::new(roots, &chain, &key)?))
}
