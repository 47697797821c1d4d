//! The replicated store of a cluster with several managers: etcd, one member on each manager,
//! started and looked after by brigd.
//!
//! A swarm begins with its store in one file. When a second manager comes, the first one makes an
//! authority for the store, starts an etcd of one member, moves everything into it while reads go
//! on, and takes the new manager's member in: first as a learner, which counts for no quorum, then
//! as a member. Only managers hold certificates of that authority; a worker has nothing that
//! opens the store.

mod authority;
mod child;
mod record;
pub(crate) mod upkeep;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use brig_pki::ca::{RootCa, STORE_EXPIRY};
use brig_pki::csr::NodeKey;
use brig_proto::swarm::{Cluster, EncryptionKey};
use brig_store::etcd::{EtcdBackend, EtcdClient, EtcdError, EtcdTls, Limits, Live, MemberInfo};
use brig_store::{Backend, BackendError, Store, StoreError};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::authority::Authorities;
pub(crate) use self::authority::NEXT as NEXT_AUTHORITY;
pub(crate) use self::child::Child;
pub(crate) use self::record::{Member, Place};
use crate::error::SwarmError;
use crate::node::files::{self, Layout};
use crate::node::{blocking, pki};

/// Ports of the members: of the one for clients, and of the one for each other.
pub(crate) const CLIENT_PORT: u16 = 2379;
/// See [`CLIENT_PORT`].
pub(crate) const PEER_PORT: u16 = 2380;
/// What the members are started with.
pub(crate) const OWN_LIMITS: Limits = Limits { operations: 4096, bytes: 8 << 20 };
/// Under which the store's authority is kept among the cluster's keys.
pub(crate) const AUTHORITY: &str = "brig-store-ca";
/// How long a member may take to answer after its start.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// How long a change of the members is tried: they refuse until all have known each other for a
/// while.
const CHANGE_PATIENCE: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(250);
/// How often in a row the own member has to be missing: a member that lags does not know new ones.
const MISSING: u32 = 3;
/// How long one call may take.
pub(crate) const CALL: Duration = Duration::from_secs(3);

/// An etcd that somebody else runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalStore {
    /// `host:port` of its members.
    pub endpoints: Vec<String>,
    /// What opens it.
    pub tls: EtcdTls,
}

/// Where the cluster's store is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreSettings {
    /// An etcd that somebody else runs; without it one file, and etcd of our own once there are
    /// several managers.
    pub external: Option<ExternalStore>,
    /// Port of an own member for clients; 0 for 2379.
    pub client_port: u16,
    /// Port of an own member for the others; 0 for 2380.
    pub peer_port: u16,
    /// Directories of the control groups that an own member is put into, so that it goes on
    /// without the daemon, beside it.
    pub groups: Vec<PathBuf>,
    /// How long the certificates of an own store are good for that this manager issues; a year
    /// without it.
    pub certificate_expiry: Option<Duration>,
}

impl StoreSettings {
    pub(crate) const fn ports(&self) -> (u16, u16) {
        let client = if self.client_port == 0 { CLIENT_PORT } else { self.client_port };
        let peer = if self.peer_port == 0 { PEER_PORT } else { self.peer_port };
        (client, peer)
    }

    /// Certifies the keys of a manager whose member is at this address.
    pub(crate) fn issue(
        &self,
        authority: &RootCa,
        (member_csr, client_csr): (&[u8], &[u8]),
        ip: IpAddr,
    ) -> Result<Issued, SwarmError> {
        let addresses = [ip, Ipv4Addr::LOCALHOST.into()];
        let expiry = self.certificate_expiry.unwrap_or(STORE_EXPIRY);
        let failed = pki("issue a certificate of the store");
        Ok(Issued {
            member: authority
                .issue_store_member(member_csr, &addresses, expiry)
                .map_err(&failed)?,
            client: authority.issue_store_client(client_csr, expiry).map_err(&failed)?,
        })
    }
}

/// This manager's part of the store.
pub(crate) struct Replica {
    layout: Layout,
    settings: StoreSettings,
    cluster: String,
    node: String,
    /// Where others reach this manager.
    ip: IpAddr,
    pub(crate) live: Live,
    state: RwLock<State>,
    /// How often in a row the own member was missing among the members.
    missing: AtomicU32,
    /// One change of the members at a time.
    pub(crate) changing: Mutex<()>,
}

#[derive(Clone, Default)]
struct State {
    client: Option<EtcdClient>,
    child: Option<Arc<Child>>,
}

impl Replica {
    pub(crate) fn new(
        layout: Layout,
        settings: StoreSettings,
        identity: (&str, &str),
        ip: IpAddr,
    ) -> Self {
        Self {
            layout,
            settings,
            cluster: identity.0.to_owned(),
            node: identity.1.to_owned(),
            ip,
            live: Live::alone(),
            state: RwLock::default(),
            missing: AtomicU32::new(0),
            changing: Mutex::new(()),
        }
    }

    pub(crate) const fn settings(&self) -> &StoreSettings {
        &self.settings
    }

    /// The connection to etcd; `None` while the store is one file.
    pub(crate) fn client(&self) -> Option<EtcdClient> {
        self.state().client
    }

    /// Whether the members are this cluster's own.
    pub(crate) fn has_members(&self) -> bool {
        self.state().child.is_some()
    }

    pub(crate) const fn is_external(&self) -> bool {
        self.settings.external.is_some()
    }

    /// Looks for the own member among those that a member told of.
    fn look_for_own(&self, members: &[MemberInfo]) {
        let Ok(Place::Member(own)) = record::read(&self.layout) else { return };
        let is_own = |member: &MemberInfo| {
            member.name == self.node || member.peer_urls.iter().any(|url| *url == own.peer_url())
        };
        if members.is_empty() || members.iter().any(is_own) {
            self.missing.store(0, Ordering::Relaxed);
        } else {
            self.count_missing();
        }
    }

    fn count_missing(&self) {
        self.missing.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the others took this manager's member out of the store.
    pub(crate) fn is_taken_out(&self) -> bool {
        self.missing.load(Ordering::Relaxed) >= MISSING
    }

    /// Looks after the member no longer; it goes on, if it can.
    pub(crate) fn abandon_member(&self) {
        if let Some(child) = self.state().child {
            child.leave_alone();
        }
    }

    fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, client: EtcdClient, child: Option<Arc<Child>>) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) =
            State { client: Some(client), child };
    }

    /// Opens the backend that this manager's files name. An own member is started, or found
    /// running.
    pub(crate) async fn open(&self) -> Result<Option<EtcdBackend>, SwarmError> {
        let layout = self.layout.clone();
        let place = blocking(move || record::read(&layout)).await?;
        match (place, &self.settings.external) {
            (Place::Embedded, None) => {
                // A move that was broken off may have left its member running.
                Child::end_leftover(&self.layout.replica()).await?;
                Ok(None)
            }
            (Place::External, Some(external)) => {
                let client = self.external(external)?;
                self.set(client.clone(), None);
                self.live.share(client.clone(), &self.cluster);
                Ok(Some(self.backend(client, Limits::DEFAULT)))
            }
            (Place::Member(member), None) => {
                let client = self.start_member(&member).await?;
                self.live.share(client.clone(), &self.cluster);
                Ok(Some(self.backend(client, OWN_LIMITS)))
            }
            (Place::External, None) => Err(self.layout.damaged(
                "the swarm's store is in an external etcd: start brigd with --store and its TLS files"
                    .to_owned(),
            )),
            (Place::Embedded | Place::Member(_), Some(_)) => Err(self.layout.damaged(
                "this swarm keeps its store itself: start brigd without --store, or leave the swarm first"
                    .to_owned(),
            )),
        }
    }

    pub(crate) fn external(&self, external: &ExternalStore) -> Result<EtcdClient, SwarmError> {
        EtcdClient::new(&external.endpoints, external.tls.clone()).map_err(etcd)
    }

    pub(crate) fn backend(&self, client: EtcdClient, limits: Limits) -> EtcdBackend {
        EtcdBackend::new(client, &self.cluster, limits, Handle::current())
    }

    /// Starts the member, waits until it answers and is a full one.
    async fn start_member(&self, member: &Member) -> Result<EtcdClient, SwarmError> {
        let dir = self.layout.replica();
        let child = Arc::new(Child::start(dir, member, &self.settings.groups).await?);
        let mut endpoints = vec![member.local()];
        endpoints.extend(member.endpoints.iter().cloned());
        let client =
            EtcdClient::new(&endpoints, tls_files(&self.layout.replica())).map_err(etcd)?;
        self.set(client.clone(), Some(child));
        self.become_member(&client, member).await?;
        Ok(client)
    }

    /// Waits until the own member answers; makes it a full one if it is a learner. Without a
    /// majority this goes on with what there is.
    async fn become_member(&self, client: &EtcdClient, member: &Member) -> Result<(), SwarmError> {
        let until = Instant::now() + START_PATIENCE;
        let local = member.local();
        loop {
            match client.status_of(&local, CALL).await {
                Ok(status) if !status.is_learner => break,
                Ok(_) => {
                    let members = client.members(CALL).await.unwrap_or_default();
                    let own = members
                        .iter()
                        .find(|other| other.peer_urls.iter().any(|url| *url == member.peer_url()));
                    if let Some(own) = own
                        && let Err(error) = client.promote(own.id, CALL).await
                    {
                        tracing::debug!(error = %brig_types::error::chain(&error), "not a full member yet");
                    }
                }
                Err(error) if Instant::now() >= until => {
                    return Err(SwarmError::Etcd(format!(
                        "the member on this node does not start: {} (its log is {})",
                        brig_types::error::chain(&error),
                        self.layout.replica().join(child::LOG).display()
                    )));
                }
                Err(_) => {
                    if let Ok(members) = client.members(CALL).await {
                        self.look_for_own(&members);
                    }
                    if self.is_taken_out() {
                        return Err(SwarmError::NotAMember);
                    }
                }
            }
            if Instant::now() >= until {
                tracing::warn!("this manager's store is still a learner");
                break;
            }
            tokio::time::sleep(RETRY).await;
        }
        client.prefer_first();
        Ok(())
    }

    /// Moves the store from its file into an etcd with one member, if it is still in the file.
    pub(crate) async fn replicate(&self, store: &Store) -> Result<(), SwarmError> {
        if self.client().is_some() {
            return Ok(());
        }
        Child::check_program()?;
        tracing::info!("moving the cluster's store into etcd, for another manager");
        let (client_port, peer_port) = self.settings.ports();
        let mut member = Member {
            name: self.node.clone(),
            ip: self.ip,
            client_port,
            peer_port,
            initial_cluster: String::new(),
            existing: false,
            endpoints: Vec::new(),
        };
        member.initial_cluster = format!("{}={}", member.name, member.peer_url());
        let authority = self.make_authority(store).await?;
        let dir = self.layout.replica();
        let ip = self.ip;
        Child::end_leftover(&dir).await?;
        blocking({
            let (dir, settings) = (dir.clone(), self.settings.clone());
            move || {
                // What an attempt that was broken off left: nobody relied on it.
                files::remove_dir(&dir)?;
                let own = Request::new()?;
                let issued = own.issue(&settings, &authority, ip)?;
                own.write(&dir, authority.cert_pem(), &issued)
            }
        })
        .await?;
        let child = Arc::new(Child::start(dir.clone(), &member, &self.settings.groups).await?);
        let outcome = self.fill(store, &member, &dir).await;
        let client = match outcome {
            Ok(client) => client,
            Err(error) => {
                child.end().await;
                return Err(error);
            }
        };
        self.set(client.clone(), Some(child));
        self.live.share(client, &self.cluster);
        let layout = self.layout.clone();
        blocking(move || layout.remove_store()).await?;
        tracing::info!("the cluster's store is in etcd");
        Ok(())
    }

    async fn fill(
        &self,
        store: &Store,
        member: &Member,
        dir: &Path,
    ) -> Result<EtcdClient, SwarmError> {
        let client = EtcdClient::new(&[member.local()], tls_files(dir)).map_err(etcd)?;
        self.become_member(&client, member).await?;
        let backend = self.backend(client.clone(), OWN_LIMITS);
        let (layout, place) = (self.layout.clone(), Place::Member(member.clone()));
        store
            .move_to(move |content| {
                backend.import(&content)?;
                backend.load()?;
                // From here on the file counts for nothing.
                record::write(&layout, &place)
                    .map_err(|error| BackendError::Fatal(Box::new(error)))?;
                Ok(Arc::new(backend) as Arc<dyn Backend>)
            })
            .await
            .map_err(SwarmError::Store)?;
        Ok(client)
    }

    /// The store's authority, which is made when it is first needed.
    async fn make_authority(&self, store: &Store) -> Result<RootCa, SwarmError> {
        if let Some(authority) = self.authority(store)? {
            return Ok(authority);
        }
        let made = RootCa::generate_for_store().map_err(pki("make the store's authority"))?;
        let key = bundle(&made);
        let put = |_: &brig_store::State, cluster: &mut Cluster| {
            cluster.unlock_keys.retain(|kept| kept.subsystem != AUTHORITY);
            cluster.unlock_keys.push(EncryptionKey {
                subsystem: AUTHORITY.to_owned(),
                key: key.clone(),
                ..EncryptionKey::default()
            });
            true
        };
        if !self.change(store, put).await? {
            return Err(SwarmError::Store(StoreError::Closed));
        }
        Ok(made)
    }

    /// The store's authority as the cluster keeps it.
    pub(crate) fn authority(&self, store: &Store) -> Result<Option<RootCa>, SwarmError> {
        let Some(cluster) = store.view().get::<Cluster>(&self.cluster) else {
            return Ok(None);
        };
        Ok(Authorities::of(&cluster)?.map(|authorities| authorities.present))
    }

    /// Adds a member that only listens, for a manager whose member has this address. One that is
    /// there already, from an attempt before, makes place. So does that of a former manager: one
    /// that is gone for good would keep the others from taking anybody in.
    pub(crate) async fn add(
        &self,
        node: &str,
        peer_url: &str,
        is_former: impl Fn(&str) -> bool,
    ) -> Result<(MemberInfo, Vec<MemberInfo>), SwarmError> {
        let client = &self.client().ok_or(SwarmError::NotManager)?;
        let is_former = &is_former;
        let add = |is_late| async move {
            let members = client.members(CALL).await?;
            let earlier = members.iter().find(|member| {
                let is_same =
                    member.name == node || member.peer_urls.iter().any(|url| url == peer_url);
                // There is room for one learner, and this one's manager never started it.
                let is_former =
                    !member.name.is_empty() && member.name != self.node && is_former(&member.name);
                is_same || is_former || (is_late && member.is_learner && member.name.is_empty())
            });
            if let Some(earlier) = earlier {
                client.remove(earlier.id, CALL).await?;
            }
            client.add_learner(peer_url, CALL).await
        };
        change_members(add).await
    }

    /// Takes a manager's member out; fine if there is none.
    pub(crate) async fn remove(&self, node: &str) -> Result<(), SwarmError> {
        let Some(client) = &self.client().filter(|_| self.has_members()) else {
            return Ok(());
        };
        let remove = |_| async move {
            let members = client.members(CALL).await?;
            match members.iter().find(|member| member.name == node) {
                Some(member) if members.len() > 1 => client.remove(member.id, CALL).await,
                Some(_) | None => Ok(()),
            }
        };
        change_members(remove).await
    }

    /// Ends what this manager claims; its member goes on.
    pub(crate) fn stop(&self) {
        self.live.stop();
        self.abandon_member();
    }

    /// Ends the member as well.
    pub(crate) async fn end(&self) {
        self.live.stop();
        if let Some(child) = self.state().child {
            child.end().await;
        }
    }
}

/// Tries a change of the members until they take it; it is told when half of the time is gone.
async fn change_members<T, F>(attempt: impl Fn(bool) -> F) -> Result<T, SwarmError>
where
    F: Future<Output = Result<T, EtcdError>>,
{
    let began = Instant::now();
    loop {
        match attempt(began.elapsed() > CHANGE_PATIENCE / 2).await {
            Ok(done) => return Ok(done),
            Err(error)
                if (error.may_pass() || error.is_not_ready())
                    && began.elapsed() < CHANGE_PATIENCE =>
            {
                tracing::debug!(error = %brig_types::error::chain(&error), "the store's members do not change yet");
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => return Err(etcd(error)),
        }
    }
}

/// Starts a member whose others are gone for good as the only one, and stops it again.
pub(crate) async fn force_alone(layout: &Layout) -> Result<(), SwarmError> {
    let own = layout.clone();
    let Place::Member(mut member) = blocking(move || record::read(&own)).await? else {
        return Ok(());
    };
    Child::end_leftover(&layout.replica()).await?;
    member.endpoints.clear();
    member.initial_cluster = format!("{}={}", member.name, member.peer_url());
    let child = Child::start_alone(layout.replica(), &member).await?;
    let client = EtcdClient::new(&[member.local()], tls_files(&layout.replica())).map_err(etcd)?;
    let until = Instant::now() + START_PATIENCE;
    let outcome = loop {
        match client.check_quorum(CALL).await {
            Ok(()) => break Ok(()),
            Err(error) if Instant::now() >= until => break Err(etcd(error)),
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    };
    child.end().await;
    outcome?;
    let (layout, place) = (layout.clone(), Place::Member(member));
    blocking(move || record::write(&layout, &place)).await
}

/// An authority as the cluster keeps it: certificate and key.
fn bundle(authority: &RootCa) -> Vec<u8> {
    let mut pem = authority.cert_pem().to_vec();
    if let Some(key) = authority.key_pem() {
        pem.extend_from_slice(key.expose_secret());
    }
    pem
}

/// Two keys and what is to be certified of them.
pub(crate) struct Request {
    member: NodeKey,
    client: NodeKey,
}

/// Two certificates, PEM.
pub(crate) struct Issued {
    pub(crate) member: Vec<u8>,
    pub(crate) client: Vec<u8>,
}

impl Request {
    pub(crate) fn new() -> Result<Self, SwarmError> {
        let generate = || NodeKey::generate().map_err(pki("make a key for the store"));
        Ok(Self { member: generate()?, client: generate()? })
    }

    /// The requests for the member's and the client's certificate.
    pub(crate) fn csrs(&self) -> Result<(Vec<u8>, Vec<u8>), SwarmError> {
        let csr = |key: &NodeKey| key.csr_pem().map_err(pki("make a certificate request"));
        Ok((csr(&self.member)?, csr(&self.client)?))
    }

    fn issue(
        &self,
        settings: &StoreSettings,
        authority: &RootCa,
        ip: IpAddr,
    ) -> Result<Issued, SwarmError> {
        let (member, client) = self.csrs()?;
        settings.issue(authority, (&member, &client), ip)
    }

    /// Writes keys and certificates where the member and its clients look for them.
    pub(crate) fn write(&self, dir: &Path, ca: &[u8], issued: &Issued) -> Result<(), SwarmError> {
        files::create_private_dir(dir)?;
        files::write_private(&dir.join(CA), ca)?;
        self.write_certificates(dir, ca, issued)
    }

    /// The same where it stays who is trusted.
    fn write_certificates(&self, dir: &Path, ca: &[u8], issued: &Issued) -> Result<(), SwarmError> {
        let put = |name: &str, content: &[u8]| files::write_private(&dir.join(name), content);
        put(ISSUER, authority::id(ca)?.as_bytes())?;
        put(MEMBER_KEY, self.member.key_pem().expose_secret())?;
        put(MEMBER_CERT, &issued.member)?;
        put(CLIENT_KEY, self.client.key_pem().expose_secret())?;
        put(CLIENT_CERT, &issued.client)
    }
}

const CA: &str = "ca.pem";
/// Who issued the certificates, and whom the running member trusts.
const ISSUER: &str = "issuer";
const TRUSTED: &str = "trusted";
const MEMBER_CERT: &str = "member.pem";
const MEMBER_KEY: &str = "member.key";
const CLIENT_CERT: &str = "client.pem";
const CLIENT_KEY: &str = "client.key";

fn tls_files(dir: &Path) -> EtcdTls {
    let path = |name: &str| -> PathBuf { dir.join(name) };
    EtcdTls { ca: path(CA), cert: path(CLIENT_CERT), key: path(CLIENT_KEY) }
}

/// `host:port` of an address that clients are told.
pub(crate) fn endpoint(url: &str) -> Option<String> {
    url.strip_prefix("https://").map(|address| address.trim_end_matches('/').to_owned())
}

pub(crate) fn etcd(error: EtcdError) -> SwarmError {
    SwarmError::Etcd(brig_types::error::chain(&error))
}
