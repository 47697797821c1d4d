//! Calls by hand, and what the manager writes in its log meanwhile.

use std::io::Write;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use brig_pki::csr::NodeKey;
use brig_pki::tls::{Connector, TlsCredentials};
use brig_proto::swarm::{
    GetRootCaCertificateRequest, HealthCheckRequest, HeartbeatRequest, IssueNodeCertificateRequest,
    SessionRequest, ca_client::CaClient, dispatcher_client::DispatcherClient,
    health_client::HealthClient, node_ca_client::NodeCaClient,
};
use brig_swarm::Control;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use tower::{Service as _, ServiceExt as _, service_fn};

pub(crate) fn address(control: &Control) -> String {
    let node = control.node("self").unwrap();
    node.manager_status.as_ref().unwrap().addr.clone()
}

pub(crate) async fn anonymous(address: &str, roots: &[u8]) -> Channel {
    let connector = Connector::anonymous(roots, "swarm-ca").unwrap();
    let address = address.to_owned();
    let dial = service_fn(move |_: Uri| {
        let (address, connector) = (address.clone(), connector.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            connector.connect(stream).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://manager").connect_with_connector_lazy(dial)
}

pub(crate) fn mutual(address: &str, credentials: Arc<TlsCredentials>) -> Channel {
    let address = address.to_owned();
    let dial = service_fn(move |_: Uri| {
        let (address, credentials) = (address.clone(), Arc::clone(&credentials));
        async move {
            let stream = TcpStream::connect(address).await?;
            credentials.connect("swarm-manager", stream).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://manager").connect_with_connector_lazy(dial)
}

/// Whether a node can work: open a session.
pub(crate) async fn session(channel: &Channel) -> Result<(), Status> {
    let mut dispatcher = DispatcherClient::new(channel.clone());
    let mut messages = dispatcher.session(SessionRequest::default()).await?.into_inner();
    messages.message().await.map(drop)
}

/// Whether a node is listened to at all.
pub(crate) async fn heard(channel: &Channel) -> Result<(), Status> {
    let mut dispatcher = DispatcherClient::new(channel.clone());
    match dispatcher.heartbeat(HeartbeatRequest::default()).await {
        Err(status) if !matches!(status.code(), Code::NotFound | Code::InvalidArgument) => {
            Err(status)
        }
        _ => Ok(()),
    }
}

/// What only a manager may ask.
pub(crate) async fn health(channel: &Channel) -> Result<(), Status> {
    HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.map(drop)
}

/// Asks for a certificate with nothing but the one that the connection has.
pub(crate) async fn renewal(channel: &Channel, key: &NodeKey) -> Result<String, Status> {
    let csr = key.csr_pem().unwrap();
    let request = IssueNodeCertificateRequest { csr, ..IssueNodeCertificateRequest::default() };
    let answer = NodeCaClient::new(channel.clone()).issue_node_certificate(request).await?;
    Ok(answer.into_inner().node_id)
}

/// What anybody may ask, if the handshake succeeds.
pub(crate) async fn reachable(channel: &Channel) -> Result<(), Status> {
    let mut ca = CaClient::new(channel.clone());
    ca.get_root_ca_certificate(GetRootCaCertificateRequest {}).await.map(drop)
}

/// How a call to any path ends, as soon as that is clear; `None` when it was let in.
pub(crate) async fn call(
    mut channel: Channel,
    path: &str,
    metadata: &[(&'static str, &str)],
) -> Option<Status> {
    let mut request = http::Request::post(format!("http://manager{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in metadata {
        request = request.header(*name, *value);
    }
    let request = request.body(tonic::body::Body::empty()).unwrap();
    let response = channel.ready().await.unwrap().call(request);
    let response = tokio::time::timeout(Duration::from_secs(5), response).await.ok()?.unwrap();
    Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok)
}

/// The log of this process.
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Everything that is logged from now on; tests of one process share it.
    pub(crate) fn capture() -> Self {
        static SHARED: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            let lines = Arc::new(Mutex::default());
            let writer = Arc::clone(&lines);
            tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || Lines(Arc::clone(&writer)))
                .init();
            lines
        });
        Self(Arc::clone(shared))
    }

    /// The lines that name all of these.
    pub(crate) fn lines(&self, parts: &[&str]) -> Vec<String> {
        let all = String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        all.lines()
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .map(str::to_owned)
            .collect()
    }

    /// Waits for a line that names all of these.
    pub(crate) async fn tells(&self, parts: &[&str]) -> String {
        let what = format!("a line with {parts:?}");
        let found = crate::common::eventually(
            &what,
            || self.lines(parts).first().cloned().ok_or_else(|| self.lines(&["refused"])),
            Result::is_ok,
        );
        found.await.unwrap()
    }
}
