//! How a node that has a manager's certificate becomes a manager: another manager takes it into
//! the replicated store and hands it the data keys. And how one that has it no longer becomes a
//! worker.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use brig_pki::keyfile::CertificateDir;
use brig_pki::seal::{KeyEncryptionKey, KeyRing};
use brig_pki::tls::TlsCredentials;
use brig_proto::brig::{JoinRequest, JoinResponse, managers_client::ManagersClient};
use brig_proto::swarm::Peer;

use super::files::{self, Addresses, Layout};
use super::keys::NodeKeys;
use super::running::{Own, pki, read};
use super::{SwarmConfig, address, blocking};
use crate::error::SwarmError;
use crate::grpc::client::{self, MANAGER_NAME};
use crate::replica::{Child, Issued, Member, Place, Request};

/// How long a manager may take: it may have to move its store first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Gets this node into the store. Its directory has everything of a manager afterwards; before
/// that it stays what it is. `keys` is the key file of a node that runs.
pub(crate) async fn enter(
    config: &SwarmConfig,
    keys: Option<Arc<NodeKeys>>,
    unlock: Option<KeyEncryptionKey>,
) -> Result<(), SwarmError> {
    let layout = Layout(config.state_dir.clone());
    if config.store.external.is_none() {
        // Before anybody counts on this node's member.
        Child::check_program()?;
    }
    let Own { mut addresses, managers, stored, credentials } = Own::read(&layout, unlock).await?;
    let node = credentials.identity().node.to_string();
    let advertised = own_address(&addresses)?;
    let (client_port, peer_port) = config.store.ports();
    let mut member = Member {
        name: node.clone(),
        ip: advertised.ip(),
        client_port,
        peer_port,
        initial_cluster: String::new(),
        existing: true,
        endpoints: Vec::new(),
    };
    let request = blocking(Request::new).await?;
    let (member_csr, client_csr) = request.csrs()?;
    let asked = JoinRequest {
        advertise_addr: advertised.to_string(),
        peer_url: member.peer_url(),
        member_csr,
        client_csr,
    };
    let keys = keys.unwrap_or_else(|| {
        Arc::new(NodeKeys::new(CertificateDir::new(layout.certificates()), stored.key))
    });
    let mut answer = ask(&managers, &node, credentials, &asked).await?;
    addresses.advertise_addr = advertised.to_string();
    addresses.local_addr = advertised.ip().to_string();
    let place = if answer.member == 0 {
        if config.store.external.is_none() {
            return Err(SwarmError::Etcd(
                "this swarm's store is in an etcd that somebody else runs: start brigd with --store and its TLS files on every manager"
                    .to_owned(),
            ));
        }
        Place::External
    } else {
        member.initial_cluster = std::mem::take(&mut answer.initial_cluster);
        member.endpoints = std::mem::take(&mut answer.endpoints);
        Place::Member(member)
    };
    Child::end_leftover(&layout.replica()).await?;
    blocking(move || write(&layout, &addresses, &keys, &request, &answer, &place)).await
}

/// What became of a manager that was taken out of the store while it was away.
pub(crate) enum Back {
    /// It is in the store again.
    Manager,
    /// It was demoted, and is ready to go on as a worker.
    Worker,
}

/// Gets a manager whose member was taken out into the store again, if it is to be one.
pub(crate) async fn come_back(
    config: &SwarmConfig,
    unlock: Option<KeyEncryptionKey>,
) -> Result<Back, SwarmError> {
    match enter(config, None, unlock.clone()).await {
        Ok(()) => return Ok(Back::Manager),
        Err(SwarmError::Rpc(status)) if status.code() == tonic::Code::PermissionDenied => {}
        Err(error) => return Err(error),
    }
    tracing::warn!("this manager was demoted while it was away");
    let layout = Layout(config.state_dir.clone());
    blocking(move || {
        let (_, _, stored) = read(&layout, unlock.as_ref())?;
        let keys = NodeKeys::new(CertificateDir::new(layout.certificates()), stored.key);
        keys.leave_cluster().map_err(pki("write the key file"))
    })
    .await?;
    step_down(&config.state_dir).await?;
    Ok(Back::Worker)
}

/// Where others reach this node as a manager.
fn own_address(addresses: &Addresses) -> Result<SocketAddr, SwarmError> {
    let listening = address::listen(&addresses.listen_addr)?;
    if addresses.advertise_addr.is_empty() && !addresses.local_addr.is_empty() {
        return address::advertise(&addresses.local_addr, listening);
    }
    address::advertise(&addresses.advertise_addr, listening)
}

async fn ask(
    managers: &[Peer],
    own: &str,
    credentials: Arc<TlsCredentials>,
    request: &JoinRequest,
) -> Result<JoinResponse, SwarmError> {
    let mut last = SwarmError::NotManager;
    for manager in managers.iter().filter(|manager| manager.node_id != own) {
        let address = &manager.addr;
        let attempt = async {
            let (channel, _) = client::connect(address, Arc::clone(&credentials), MANAGER_NAME)
                .await
                .map_err(|source| SwarmError::Unreachable { address: address.clone(), source })?;
            let answer = ManagersClient::new(channel).join(request.clone()).await;
            answer.map_err(|status| SwarmError::Rpc(Box::new(status)))
        };
        last = match tokio::time::timeout(PATIENCE, attempt).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(error)) => error,
            Err(_) => SwarmError::Unanswered(address.clone()),
        };
        tracing::warn!(manager = address, error = %brig_types::error::chain(&last), "not a manager yet");
    }
    Err(last)
}

fn write(
    layout: &Layout,
    addresses: &Addresses,
    keys: &NodeKeys,
    request: &Request,
    answer: &JoinResponse,
    place: &Place,
) -> Result<(), SwarmError> {
    let ring = KeyRing::import(&answer.data_keys).map_err(pki("use the cluster's data keys"))?;
    let dir = layout.replica();
    files::remove_dir(&dir)?;
    if let Place::Member(_) = place {
        let issued = Issued {
            member: answer.member_certificate.clone(),
            client: answer.client_certificate.clone(),
        };
        request.write(&dir, &answer.store_ca, &issued)?;
    }
    layout.write_addresses(addresses)?;
    keys.change_rings(|keys| {
        keys.cluster = Some(Arc::new(ring));
        Ok(())
    })
    .map_err(pki("write the data keys"))?;
    layout.write_store_place(place)
}

/// Removes what a manager has and a worker has not.
pub(crate) async fn step_down(state_dir: &Path) -> Result<(), SwarmError> {
    let layout = Layout(state_dir.to_owned());
    Child::end_leftover(&layout.replica()).await?;
    blocking(move || {
        let mut addresses = layout.read_addresses()?;
        let managers = layout.read_managers()?;
        if addresses.remote_addr.is_empty() {
            let other = managers.iter().find(|peer| peer.addr != addresses.advertise_addr);
            addresses.remote_addr = other.map(|peer| peer.addr.clone()).unwrap_or_default();
        }
        let others: Vec<Peer> =
            managers.into_iter().filter(|peer| peer.addr != addresses.advertise_addr).collect();
        layout.write_addresses(&addresses)?;
        layout.write_managers(&others)?;
        layout.remove_store_place()?;
        files::remove_dir(&layout.replica())?;
        layout.remove_store()
    })
    .await
}
