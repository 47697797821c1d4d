//! Joining a cluster: what is asked for, and the attempt while it is under way.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use brig_pki::identity::NodeIdentity;
use brig_pki::keyfile::{CertificateDir, KeyFile, StoreKeys};
use brig_pki::token::{JoinToken, NodeRole};
use brig_proto::swarm::{Peer, node_spec};
use brig_types::secret::SecretString;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::enrol::{self, Audience, Enrolled, Invitation};
use super::enter;
use super::files::{self, Addresses, Layout};
use super::running::{Running, pki};
use super::{LocalNodeState, SwarmConfig, SwarmStatus, address, blocking};
use crate::error::SwarmError;

/// Joining an existing swarm.
#[derive(Clone, Debug, Default)]
pub struct JoinRequest {
    /// Where the node would listen as a manager, `ip[:port]`; empty for `0.0.0.0:2377`.
    pub listen_addr: String,
    /// Where other nodes reach this one, `ip[:port]`; empty for the listen address if that names
    /// one, else the address that the manager is reached from.
    pub advertise_addr: String,
    /// Where the traffic of cluster networks goes, `ip`; kept for `docker info`.
    pub data_path_addr: String,
    /// `host[:port]` of managers, asked in turn.
    pub remote_addrs: Vec<String>,
    /// The cluster's join token.
    pub join_token: SecretString,
    /// Whether this node takes tasks.
    pub availability: node_spec::Availability,
}

/// A request that makes sense.
pub(crate) struct Plan {
    invitation: Invitation,
    addresses: Addresses,
    /// The node's address, if the request says it.
    own: Option<IpAddr>,
}

impl Plan {
    /// Checks everything that can be checked without a manager.
    pub(crate) fn new(request: JoinRequest) -> Result<Self, SwarmError> {
        let token = JoinToken::parse(request.join_token.expose_secret())
            .map_err(|_| SwarmError::InvalidJoinToken)?;
        if token.requires_fips() {
            return Err(SwarmError::FipsRequired);
        }
        let given = request.remote_addrs.iter().filter(|given| !given.is_empty());
        let managers = given.map(|given| address::remote(given)).collect::<Result<Vec<_>, _>>()?;
        if managers.is_empty() {
            return Err(SwarmError::InvalidArgument(
                "at least 1 RemoteAddr is required to join".to_owned(),
            ));
        }
        let listen = address::listen(&request.listen_addr)?;
        let own = if request.advertise_addr.is_empty() {
            Some(listen.ip()).filter(|ip| !ip.is_unspecified())
        } else {
            Some(address::advertise(&request.advertise_addr, listen)?.ip())
        };
        Ok(Self {
            invitation: Invitation { token, managers, availability: request.availability },
            addresses: Addresses {
                listen_addr: listen.to_string(),
                advertise_addr: request.advertise_addr,
                data_path_addr: request.data_path_addr,
                ..Addresses::default()
            },
            own,
        })
    }

    /// The managers as they were named, for `docker info`.
    pub(crate) fn managers(&self) -> Vec<Peer> {
        let peer = |addr: &String| Peer { node_id: String::new(), addr: addr.clone() };
        self.invitation.managers.iter().map(peer).collect()
    }
}

/// An attempt to join that is under way.
pub(crate) struct Joining {
    managers: Vec<Peer>,
    problem: Mutex<String>,
    /// Ends the attempt.
    pub(crate) stop: CancellationToken,
}

impl Joining {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            managers: plan.managers(),
            problem: Mutex::default(),
            stop: CancellationToken::new(),
        }
    }

    /// Where the node stands meanwhile.
    pub(crate) fn status(&self) -> SwarmStatus {
        SwarmStatus {
            local_node_state: LocalNodeState::Pending,
            error: self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            remote_managers: self.managers.clone(),
            ..SwarmStatus::default()
        }
    }

    /// Joins; `waiting` is whoever waits for it. Once the node was admitted this cannot be
    /// stopped any more: the node is in the cluster then, and can leave it.
    pub(crate) async fn run(
        &self,
        config: &SwarmConfig,
        plan: Plan,
        waiting: &oneshot::Sender<Result<Arc<Running>, SwarmError>>,
    ) -> Result<Running, SwarmError> {
        let audience = Caller { joining: self, waiting };
        let enrolled = self
            .stop
            .run_until_cancelled(enrol::enrol(&plan.invitation, &audience))
            .await
            .ok_or(SwarmError::JoinStopped)??;
        let dir = config.state_dir.clone();
        let node = blocking(move || write(&dir, plan, enrolled)).await?;
        if let Some(node) = &node
            && let Err(error) = enter::enter(config, None, None).await
        {
            let dir = config.state_dir.clone();
            blocking(move || files::discard(&dir)).await?;
            return Err(SwarmError::NotAManager { node: node.clone(), source: Box::new(error) });
        }
        // Its member waits in the others' store then, and the others wait for it.
        let started = Running::start_joined(config).await;
        started.map_err(|error| match node {
            Some(node) => SwarmError::NotAManager { node, source: Box::new(error) },
            None => error,
        })
    }
}

struct Caller<'a> {
    joining: &'a Joining,
    waiting: &'a oneshot::Sender<Result<Arc<Running>, SwarmError>>,
}

impl Audience for Caller<'_> {
    fn waits(&self) -> bool {
        !self.waiting.is_closed()
    }

    fn tell(&self, problem: &SwarmError) {
        let text = brig_types::error::chain(problem);
        *self.joining.problem.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }
}

/// Everything of the membership, written beside its place and moved there when it is complete.
/// Answers the node's id if it is to be a manager.
fn write(dir: &Path, plan: Plan, enrolled: Enrolled) -> Result<Option<String>, SwarmError> {
    let identity = NodeIdentity::from_chain_pem(&enrolled.chain)
        .map_err(pki("read the issued certificate"))?;
    let new = files::prepare_beside(dir)?;
    let layout = Layout(new.clone());
    let own = plan.own.or_else(|| address::towards(&enrolled.manager));
    let addresses = Addresses {
        local_addr: own.map(|ip| ip.to_string()).unwrap_or_default(),
        remote_addr: enrolled.manager.clone(),
        ..plan.addresses
    };
    layout.write_addresses(&addresses)?;
    layout.write_managers(&[Peer { node_id: String::new(), addr: enrolled.manager }])?;
    // Seals what the agent remembers of its tasks.
    let keys = StoreKeys::generate().map_err(pki("make the node's data keys"))?;
    let certificates = CertificateDir::new(layout.certificates());
    certificates.store_roots(&enrolled.roots).map_err(pki("write the trusted roots"))?;
    certificates
        .store(&enrolled.chain, &KeyFile::new(enrolled.key, Some(keys)))
        .map_err(pki("write the node's certificate"))?;
    files::move_into_place(&new, dir)?;
    Ok((identity.role == NodeRole::Manager).then(|| identity.node.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(token: &str, remote: &[&str]) -> JoinRequest {
        JoinRequest {
            remote_addrs: remote.iter().map(|&text| text.to_owned()).collect(),
            join_token: SecretString::new(token.to_owned()),
            ..JoinRequest::default()
        }
    }

    #[test]
    fn requests_are_checked_before_anybody_is_asked() {
        let token = JoinToken::generate(b"roots").unwrap().to_secret_string();
        let token = token.expose_secret();
        let plan = Plan::new(request(token, &["m1", "10.0.0.1:7", "::1"])).unwrap();
        assert_eq!(plan.invitation.managers, ["m1:2377", "10.0.0.1:7", "[::1]:2377"]);
        assert_eq!(plan.own, None);
        let with = JoinRequest { advertise_addr: "10.0.0.9".to_owned(), ..request(token, &["m"]) };
        assert_eq!(Plan::new(with).unwrap().own.unwrap().to_string(), "10.0.0.9");
        let told = |request| Plan::new(request).err().unwrap().to_string();
        assert_eq!(told(request("SWMTKN-1-x-y", &["m"])), "invalid join token");
        assert_eq!(told(request(token, &[""])), "at least 1 RemoteAddr is required to join");
        assert!(told(request(token, &["http://m"])).contains("invalid address"));
        let fips = token.replacen("-1-", "-2-1-", 1);
        assert!(told(request(&fips, &["m"])).contains("FIPS"));
    }
}
