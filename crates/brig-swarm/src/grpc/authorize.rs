//! Who may call what. Every request passes here: the method's row in SwarmKit's table is held
//! against the certificate of the connection, and handlers find out who is calling.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use brig_pki::tls::Peer;
use brig_pki::token::NodeRole;
use brig_proto::authorization::{self, Access};
use brig_types::id::NodeId;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::server::ConnectionPeer;

/// A caller that proved to be a node of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The node.
    pub(crate) node: NodeId,
    /// Its role, as its certificate says.
    pub(crate) role: NodeRole,
}

/// Where a request came from, for every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallerAddress(pub(crate) SocketAddr);

/// What the layer has to know of the cluster.
pub(crate) trait Membership: Send + Sync + 'static {
    /// The cluster's id, which every node certificate carries.
    fn cluster(&self) -> &str;
    /// Whether a node was removed and its certificate is worth nothing any more.
    fn is_removed(&self, node: &NodeId) -> bool;
}

/// Puts the check in front of every service.
#[derive(Clone)]
pub(crate) struct AuthorizeLayer(pub(crate) Arc<dyn Membership>);

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize { inner, membership: Arc::clone(&self.0) }
    }
}

/// The check itself.
#[derive(Clone)]
pub(crate) struct Authorize<S> {
    inner: S,
    membership: Arc<dyn Membership>,
}

impl<S> Service<Request<Body>> for Authorize<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<ConnectionPeer>().cloned();
        let certificate = peer.as_ref().and_then(|peer| peer.certificate.as_deref());
        match decide(request.uri().path(), certificate, self.membership.as_ref()) {
            Ok(caller) => {
                if let Some(caller) = caller {
                    request.extensions_mut().insert(caller);
                }
                if let Some(peer) = peer {
                    request.extensions_mut().insert(CallerAddress(peer.address));
                }
                Box::pin(self.inner.call(request))
            }
            Err(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
        }
    }
}

/// The decision for one request: who is calling, or why it is refused.
fn decide(
    path: &str,
    certificate: Option<&Peer>,
    membership: &dyn Membership,
) -> Result<Option<Caller>, Status> {
    let Some(access) = authorization::access(path) else {
        return Err(Status::unimplemented("unknown method"));
    };
    let caller = identify(access, certificate, membership);
    match access {
        Access::Anyone => Ok(caller.ok()),
        Access::Nodes | Access::Managers => caller.map(Some).map_err(|reason| {
            Status::permission_denied(format!(
                "Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = {reason}"
            ))
        }),
    }
}

fn identify(
    access: Access,
    certificate: Option<&Peer>,
    membership: &dyn Membership,
) -> Result<Caller, String> {
    let identity = &certificate.ok_or("no client certificates in request")?.identity;
    let units = match access {
        Access::Anyone => Access::Nodes.organizational_units(),
        Access::Nodes | Access::Managers => access.organizational_units(),
    };
    if !units.contains(&identity.role.organizational_unit()) {
        return Err(format!("remote certificate not part of OUs: [{}]", units.join(" ")));
    }
    if membership.is_removed(&identity.node) {
        return Err(format!("node {} was removed from swarm", identity.node));
    }
    if identity.cluster != membership.cluster() {
        return Err(format!(
            "remote certificate not part of organization: {}",
            membership.cluster()
        ));
    }
    Ok(Caller { node: identity.node.clone(), role: identity.role })
}

/// The caller of a method that only nodes may call.
pub(crate) fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| {
        Status::permission_denied("Permission denied: no client certificates in request")
    })
}

#[cfg(test)]
mod tests {
    use brig_pki::ca::RootCa;
    use brig_pki::csr::NodeKey;
    use brig_pki::identity::{CertInfo, NodeIdentity};
    use tonic::Code;

    use super::*;

    struct Cluster {
        removed: Option<NodeId>,
    }

    impl Membership for Cluster {
        fn cluster(&self) -> &str {
            "here"
        }

        fn is_removed(&self, node: &NodeId) -> bool {
            self.removed.as_ref() == Some(node)
        }
    }

    fn peer(cluster: &str, role: NodeRole) -> Peer {
        let key = NodeKey::generate().unwrap();
        let identity = NodeIdentity { cluster: cluster.to_owned(), role, node: NodeId::generate() };
        let chain = RootCa::generate()
            .unwrap()
            .issue(&key.csr_pem().unwrap(), &identity, brig_pki::ca::DEFAULT_NODE_EXPIRY)
            .unwrap();
        Peer { identity, certificate: CertInfo::from_pem(&chain).unwrap() }
    }

    const SESSION: &str = "/docker.swarmkit.v1.Dispatcher/Session";
    const ISSUE: &str = "/docker.swarmkit.v1.NodeCA/IssueNodeCertificate";
    const UNLOCK: &str = "/docker.swarmkit.v1.CA/GetUnlockKey";

    #[test]
    fn roles_decide() {
        let cluster = Cluster { removed: None };
        let worker = peer("here", NodeRole::Worker);
        let manager = peer("here", NodeRole::Manager);
        for node in [&worker, &manager] {
            let caller = decide(SESSION, Some(node), &cluster).unwrap().unwrap();
            assert_eq!(caller.node, node.identity.node);
        }
        assert!(decide(UNLOCK, Some(&manager), &cluster).is_ok());
        let refused = decide(UNLOCK, Some(&worker), &cluster).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        assert!(refused.message().contains("not part of OUs"));
    }

    #[test]
    fn strangers_and_removed_nodes_are_nobody() {
        let stranger = peer("elsewhere", NodeRole::Manager);
        let removed = peer("here", NodeRole::Worker);
        let cluster = Cluster { removed: Some(removed.identity.node.clone()) };
        let cases = [
            (None, "no client certificates in request"),
            (Some(&stranger), "not part of organization: here"),
            (Some(&removed), "was removed from swarm"),
        ];
        for (certificate, reason) in cases {
            let refused = decide(SESSION, certificate, &cluster).unwrap_err();
            assert_eq!(refused.code(), Code::PermissionDenied);
            assert!(refused.message().contains(reason), "{refused:?}");
            assert_eq!(decide(ISSUE, certificate, &cluster).unwrap(), None);
        }
    }

    #[test]
    fn unknown_methods_are_not_there() {
        let cluster = Cluster { removed: None };
        let manager = peer("here", NodeRole::Manager);
        let refused = decide("/docker.swarmkit.v1.Control/GetNode", Some(&manager), &cluster);
        assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    }
}
