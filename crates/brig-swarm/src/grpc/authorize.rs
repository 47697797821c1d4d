//! Who may call what. Every request passes here: the method's row in SwarmKit's table is held
//! against the certificate of the connection and against the store, and handlers find out who is
//! calling.
//!
//! What counts is the store as it is at the moment of the call: a node that is not in it any more
//! is nobody, and a manager that was demoted is a worker, whatever their certificates say. So
//! nothing has to be remembered of nodes that were removed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use brig_pki::admission::{IssuedRegister, Peer, Refusal, Standing};
use brig_pki::token::NodeRole;
use brig_proto::authorization::{self, Access, Rule, Validity};
use brig_types::id::NodeId;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use time::OffsetDateTime;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::connections::{ConnectionPeer, Shown};
use super::refusals::Refusals;

/// A caller that proved to be a node of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The node.
    pub(crate) node: NodeId,
    /// Its role: the lesser of the one in its certificate and the one that it has now.
    pub(crate) role: NodeRole,
    /// How far its certificate is believed.
    pub(crate) standing: Standing,
}

/// Where a request came from, for every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CallerAddress(pub(crate) SocketAddr);

/// Why the caller of a method that anyone may call is nobody, although it showed a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unrecognized(pub(crate) String);

/// What the layer has to know of the cluster.
pub(crate) trait Membership: IssuedRegister + 'static {
    /// The cluster's id, which every node certificate carries.
    fn cluster(&self) -> &str;
    /// The role that a node has now; `None` for one that is not, or no longer, in the cluster.
    fn role(&self, node: &NodeId) -> Option<NodeRole>;
    /// A node proved to hold this certificate's key.
    fn seen(&self, peer: &Peer);
}

/// Why a certificate is not a caller's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("no client certificates in request")]
    Anonymous,
    #[error("remote certificate not part of organization: {0}")]
    OtherCluster(String),
    #[error("node {0} was removed from swarm")]
    Removed(NodeId),
    #[error("remote certificate not part of OUs: [{needed}]")]
    Role { needed: String },
    #[error("remote certificate not part of OUs: [{needed}]: node {node} was demoted")]
    Demoted { needed: String, node: NodeId },
    #[error("the certificate of node {0} has expired: it can be renewed, nothing else")]
    Expired(NodeId),
    #[error("the certificate is not believed: {0}")]
    Refused(Refusal),
}

impl Denied {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::OtherCluster(_) => "other cluster",
            Self::Removed(_) => "removed",
            Self::Role { .. } => "role",
            Self::Demoted { .. } => "demoted",
            Self::Expired(_) => "expired",
            Self::Refused(_) => "refused",
        }
    }
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        Self::permission_denied(format!(
            "Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = {denied}"
        ))
    }
}

/// Puts the check in front of every service.
#[derive(Clone)]
pub(crate) struct AuthorizeLayer {
    pub(crate) membership: Arc<dyn Membership>,
    pub(crate) refusals: Arc<Refusals>,
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize { inner, layer: self.clone() }
    }
}

/// The check itself.
#[derive(Clone)]
pub(crate) struct Authorize<S> {
    inner: S,
    layer: AuthorizeLayer,
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
        let shown = peer.as_ref().and_then(|peer| peer.certificate.as_deref());
        let now = OffsetDateTime::now_utc();
        match decide(request.uri().path(), shown, self.layer.membership.as_ref(), now) {
            Ok(Decision::Caller(caller)) => {
                request.extensions_mut().insert(caller);
            }
            Ok(Decision::Nobody(Denied::Anonymous)) => {}
            Ok(Decision::Nobody(denied)) => {
                request.extensions_mut().insert(Unrecognized(denied.to_string()));
            }
            Err(No::Denied(denied)) => {
                self.log(peer.as_ref(), request.uri().path(), &denied);
                let status = Status::from(denied);
                return Box::pin(std::future::ready(Ok(status.into_http())));
            }
            Err(No::Unknown) => {
                let status = Status::unimplemented("unknown method");
                return Box::pin(std::future::ready(Ok(status.into_http())));
            }
        }
        if let Some(peer) = peer {
            request.extensions_mut().insert(CallerAddress(peer.address));
        }
        Box::pin(self.inner.call(request))
    }
}

impl<S> Authorize<S> {
    fn log(&self, peer: Option<&ConnectionPeer>, method: &str, denied: &Denied) {
        let Some(peer) = peer else { return };
        let certificate = peer.certificate.as_deref();
        let subject =
            certificate.map(|shown| shown.peer.certificate.subject.clone()).unwrap_or_default();
        self.layer.refusals.call(peer.address, &subject, method, denied.kind(), denied);
    }
}

/// Who is calling.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    Caller(Caller),
    /// Somebody who need not be a node; and why it is none.
    Nobody(Denied),
}

/// Why there is no call.
#[derive(Debug, PartialEq, Eq)]
enum No {
    Unknown,
    Denied(Denied),
}

/// The decision for one request.
fn decide(
    path: &str,
    shown: Option<&Shown>,
    membership: &dyn Membership,
    now: OffsetDateTime,
) -> Result<Decision, No> {
    let rule = authorization::rule(path).ok_or(No::Unknown)?;
    match (permitted(rule, shown, membership, now), rule.access) {
        (Ok(caller), _) => Ok(Decision::Caller(caller)),
        (Err(denied), Access::Anyone) => Ok(Decision::Nobody(denied)),
        (Err(denied), Access::Nodes | Access::Managers) => Err(No::Denied(denied)),
    }
}

fn permitted(
    rule: Rule,
    shown: Option<&Shown>,
    membership: &dyn Membership,
    now: OffsetDateTime,
) -> Result<Caller, Denied> {
    let shown = shown.ok_or(Denied::Anonymous)?;
    let caller = identify(shown, membership, now)?;
    let units = match rule.access {
        Access::Anyone => Access::Nodes.organizational_units(),
        Access::Nodes | Access::Managers => rule.access.organizational_units(),
    };
    if !units.contains(&caller.role.organizational_unit()) {
        let needed = units.join(" ");
        return Err(if units.contains(&shown.peer.identity.role.organizational_unit()) {
            Denied::Demoted { needed, node: caller.node }
        } else {
            Denied::Role { needed }
        });
    }
    match (caller.standing, rule.validity) {
        (Standing::Full, _) | (Standing::RenewOnly { .. }, Validity::Renewable) => Ok(caller),
        (Standing::RenewOnly { .. }, Validity::Now) => Err(Denied::Expired(caller.node)),
    }
}

/// Whom a certificate makes of its holder at this moment.
pub(crate) fn identify(
    shown: &Shown,
    membership: &dyn Membership,
    now: OffsetDateTime,
) -> Result<Caller, Denied> {
    let identity = &shown.peer.identity;
    if identity.cluster != membership.cluster() {
        return Err(Denied::OtherCluster(membership.cluster().to_owned()));
    }
    let role =
        membership.role(&identity.node).ok_or_else(|| Denied::Removed(identity.node.clone()))?;
    let root = shown.root();
    let standing = shown.peer.standing(&root, membership, now).map_err(Denied::Refused)?;
    let role = match (identity.role, role) {
        (NodeRole::Manager, NodeRole::Manager) => NodeRole::Manager,
        (NodeRole::Worker, _) | (_, NodeRole::Worker) => NodeRole::Worker,
    };
    Ok(Caller { node: identity.node.clone(), role, standing })
}

/// The caller of a method that only nodes may call.
pub(crate) fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| {
        Status::permission_denied("Permission denied: no client certificates in request")
    })
}

#[cfg(test)]
mod tests;
