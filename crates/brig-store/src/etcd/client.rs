//! Calls to etcd's members over mutual TLS. Certificates are read anew for each connection, so
//! that replacing the files is all it takes to rotate them.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use brig_pki::tls::Connector;
use brig_proto::etcd::cluster_client::ClusterClient;
use brig_proto::etcd::kv_client::KvClient;
use brig_proto::etcd::maintenance_client::MaintenanceClient;
use brig_proto::etcd::{
    AlarmRequest, AlarmType, CompactionRequest, DefragmentRequest, DeleteRangeRequest,
    MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, RangeRequest,
    RangeResponse, StatusRequest, StatusResponse, TxnRequest, TxnResponse, alarm_request,
};
use brig_types::secret::SecretBytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

/// Longest time until a connection is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer that is read: a page of large objects.
pub(super) const MAX_ANSWER: usize = 512 << 20;
/// Largest certificate or key file.
const MAX_FILE: u64 = 1 << 20;
/// How often an idle connection is looked after; etcd ends connections that ask more often than
/// every 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Silences of a member after which another one is asked.
const UNANSWERED: usize = 3;
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// When a member that does not answer is asked whether there is another leader, again and again:
/// what it sent to the one before is lost.
const FIRST_LOOK: Duration = Duration::from_millis(150);
const LOOK: Duration = Duration::from_millis(75);

/// The files that make a connection believed, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdTls {
    /// Authorities of etcd's servers.
    pub ca: PathBuf,
    /// The own certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdError {
    /// etcd refused or did not understand.
    #[error("etcd: {}", .0.message())]
    Refused(Box<Status>),
    /// Nobody answered in time.
    #[error("etcd does not answer at {0}")]
    Unanswered(String),
    /// Another leader was elected before the answer came, which may not come any more.
    #[error("etcd's leader is another one now")]
    AnotherLeader,
    /// What was answered makes no sense.
    #[error("etcd answered something unexpected: {0}")]
    BadAnswer(&'static str),
    /// The address of a member cannot be used.
    #[error("invalid etcd address: {0}")]
    Address(String),
}

impl EtcdError {
    /// Whether another member, or the same one later, may do what was asked.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unanswered(_) | Self::AnotherLeader => true,
            Self::Refused(status) => matches!(
                status.code(),
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::Internal
                    | Code::Aborted
            ),
            Self::BadAnswer(_) | Self::Address(_) => false,
        }
    }

    fn message_has(&self, text: &str) -> bool {
        matches!(self, Self::Refused(status) if status.message().contains(text))
    }

    /// The quota is used up.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.message_has("database space exceeded")
    }

    /// The request is larger than etcd takes.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.message_has("request is too large")
            || self.message_has("too many operations")
            || self.message_has("larger than max")
    }

    /// A learner that has not caught up yet, or members that have not met yet.
    #[must_use]
    pub fn is_not_ready(&self) -> bool {
        self.message_has("in sync with leader")
            || self.message_has("unhealthy cluster")
            || self.message_has("too many learner")
    }
}

impl From<Status> for EtcdError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it has started for the first time.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Whether it only listens.
    pub is_learner: bool,
}

struct Peer {
    address: String,
    channel: Channel,
}

/// The members of an etcd, asked in turn until one answers. Clones share the connections.
#[derive(Clone)]
pub struct EtcdClient(Arc<Inner>);

struct Inner {
    peers: RwLock<Vec<Arc<Peer>>>,
    /// The one that answered last.
    preferred: AtomicUsize,
    unanswered: AtomicUsize,
    /// The last leader's term that was heard of.
    term: AtomicU64,
    tls: EtcdTls,
}

impl std::fmt::Debug for EtcdClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdClient").field("endpoints", &self.endpoints()).finish_non_exhaustive()
    }
}

impl EtcdClient {
    /// A client of the members at these `host:port`; connects when it is first needed. Must be
    /// called within a runtime.
    ///
    /// # Errors
    /// [`EtcdError::Address`].
    pub fn new(endpoints: &[String], tls: EtcdTls) -> Result<Self, EtcdError> {
        let client = Self(Arc::new(Inner {
            peers: RwLock::default(),
            preferred: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            term: AtomicU64::new(0),
            tls,
        }));
        client.set_endpoints(endpoints)?;
        Ok(client)
    }

    /// Replaces the members; connections to those that stay are kept.
    ///
    /// # Errors
    /// [`EtcdError::Address`].
    pub fn set_endpoints(&self, endpoints: &[String]) -> Result<(), EtcdError> {
        let known = self.peers();
        let peers = endpoints
            .iter()
            .map(|address| match known.iter().find(|peer| peer.address == *address) {
                Some(peer) => Ok(Arc::clone(peer)),
                None => {
                    let channel = dial(address, self.0.tls.clone())?;
                    Ok(Arc::new(Peer { address: address.clone(), channel }))
                }
            })
            .collect::<Result<Vec<_>, EtcdError>>()?;
        if peers.is_empty() {
            return Err(EtcdError::Address("there is none".to_owned()));
        }
        *self.0.peers.write().unwrap_or_else(PoisonError::into_inner) = peers;
        Ok(())
    }

    /// The members' addresses.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.peers().iter().map(|peer| peer.address.clone()).collect()
    }

    fn peers(&self) -> Vec<Arc<Peer>> {
        self.0.peers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The connection that is tried first.
    pub(super) fn channel(&self) -> Result<Channel, EtcdError> {
        let peers = self.peers();
        let at = self.0.preferred.load(Ordering::Relaxed) % peers.len().max(1);
        let peer = peers.get(at).ok_or_else(|| EtcdError::Address("there is none".to_owned()))?;
        Ok(peer.channel.clone())
    }

    /// Asks the first member first again.
    pub fn prefer_first(&self) {
        self.0.preferred.store(0, Ordering::Relaxed);
    }

    /// Prefers another member from now on, if the one that failed is the reason. One that has lost
    /// its leader is not: others have lost it too, or this one finds the new one as they do.
    pub(super) fn failed(&self, error: &EtcdError) {
        let is_gone = match error {
            EtcdError::Refused(status) => {
                !status.message().starts_with("etcdserver:") || status.message().contains("learner")
            }
            EtcdError::Unanswered(_) => {
                self.0.unanswered.fetch_add(1, Ordering::Relaxed) % UNANSWERED == UNANSWERED - 1
            }
            EtcdError::AnotherLeader => false,
            EtcdError::BadAnswer(_) | EtcdError::Address(_) => true,
        };
        if is_gone {
            self.0.preferred.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Calls the preferred member, and the others when it fails in a way that may pass.
    async fn call<T, F>(
        &self,
        patience: Duration,
        rpc: impl Fn(Channel) -> F,
    ) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let mut last = EtcdError::Address("there is none".to_owned());
        for _ in 0..self.peers().len() {
            last = match tokio::time::timeout(patience, rpc(self.channel()?)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status.into(),
                Err(_) => EtcdError::Unanswered(self.endpoints().join(", ")),
            };
            if !last.may_pass() {
                return Err(last);
            }
            self.failed(&last);
        }
        Err(last)
    }

    /// One attempt at one member; the next call goes to another one if this fails.
    pub(super) async fn txn_once(
        &self,
        request: &TxnRequest,
        patience: Duration,
    ) -> Result<TxnResponse, EtcdError> {
        let channel = self.channel()?;
        let (mut kv, asked) = (kv(channel.clone()), self.0.term.load(Ordering::Relaxed));
        let outcome = tokio::select! {
            biased;
            answer = tokio::time::timeout(patience, kv.txn(request.clone())) => match answer {
                Ok(Ok(answer)) => {
                    let answer = answer.into_inner();
                    let term = answer.header.as_ref().map_or(0, |header| header.raft_term);
                    self.0.term.fetch_max(term, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(status)) => EtcdError::from(status),
                Err(_) => EtcdError::Unanswered(self.endpoints().join(", ")),
            },
            () = self.another_leader(channel, asked) => EtcdError::AnotherLeader,
        };
        if outcome.may_pass() {
            self.failed(&outcome);
        }
        Err(outcome)
    }

    /// Returns once a member knows a leader that came after a term.
    async fn another_leader(&self, channel: Channel, mut term: u64) {
        tokio::time::sleep(FIRST_LOOK).await;
        let mut member = MaintenanceClient::new(channel);
        loop {
            if let Ok(Ok(answer)) =
                tokio::time::timeout(LOOK * 4, member.status(StatusRequest {})).await
            {
                let status = answer.into_inner();
                if term == 0 {
                    term = status.raft_term;
                }
                if status.leader != 0 && status.raft_term > term {
                    self.0.term.fetch_max(status.raft_term, Ordering::Relaxed);
                    return;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) async fn txn(
        &self,
        request: &TxnRequest,
        patience: Duration,
    ) -> Result<TxnResponse, EtcdError> {
        self.call(patience, |channel| {
            let request = request.clone();
            async move { kv(channel).txn(request).await }
        })
        .await
    }

    pub(super) async fn range(
        &self,
        request: &RangeRequest,
        patience: Duration,
    ) -> Result<RangeResponse, EtcdError> {
        self.call(patience, |channel| {
            let request = request.clone();
            async move { kv(channel).range(request).await }
        })
        .await
    }

    pub(super) async fn delete_prefix(
        &self,
        prefix: &[u8],
        patience: Duration,
    ) -> Result<(), EtcdError> {
        let request = DeleteRangeRequest {
            key: prefix.to_vec(),
            range_end: super::layout::prefix_end(prefix),
        };
        self.call(patience, |channel| {
            let request = request.clone();
            async move { kv(channel).delete_range(request).await }
        })
        .await
        .map(drop)
    }

    /// Whether writes go through: a read that a majority has agreed to.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn check_quorum(&self, patience: Duration) -> Result<(), EtcdError> {
        let request = RangeRequest { key: b"health".to_vec(), ..RangeRequest::default() };
        self.range(&request, patience).await.map(drop)
    }

    /// All members.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn members(&self, patience: Duration) -> Result<Vec<MemberInfo>, EtcdError> {
        let answer = self
            .call(patience, |channel| async move {
                ClusterClient::new(channel).member_list(MemberListRequest {}).await
            })
            .await?;
        Ok(answer.members.into_iter().map(MemberInfo::from).collect())
    }

    /// Adds a member that only listens; answers it and all members.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn add_learner(
        &self,
        peer_url: &str,
        patience: Duration,
    ) -> Result<(MemberInfo, Vec<MemberInfo>), EtcdError> {
        let request = MemberAddRequest { peer_ur_ls: vec![peer_url.to_owned()], is_learner: true };
        let answer = self
            .call(patience, |channel| {
                let request = request.clone();
                async move { ClusterClient::new(channel).member_add(request).await }
            })
            .await?;
        let member = answer.member.ok_or(EtcdError::BadAnswer("no member was added"))?;
        Ok((member.into(), answer.members.into_iter().map(MemberInfo::from).collect()))
    }

    /// Makes a learner that has caught up a full member.
    ///
    /// # Errors
    /// [`EtcdError`]; [`EtcdError::is_not_ready`] when it has to be tried again.
    pub async fn promote(&self, id: u64, patience: Duration) -> Result<(), EtcdError> {
        self.call(patience, |channel| async move {
            ClusterClient::new(channel).member_promote(MemberPromoteRequest { id }).await
        })
        .await
        .map(drop)
    }

    /// Takes a member out.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn remove(&self, id: u64, patience: Duration) -> Result<(), EtcdError> {
        self.call(patience, |channel| async move {
            ClusterClient::new(channel).member_remove(MemberRemoveRequest { id }).await
        })
        .await
        .map(drop)
    }

    /// Gives up the history until now. Who is still busy with it reads everything anew.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn compact(&self, patience: Duration) -> Result<(), EtcdError> {
        let now = RangeRequest { key: b"health".to_vec(), ..RangeRequest::default() };
        let answer = self.range(&now, patience).await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        let request = CompactionRequest { revision, physical: true };
        let done = self.call(patience, |channel| async move { kv(channel).compact(request).await });
        match done.await {
            Err(error) if !error.message_has("has been compacted") => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// How the member at this `host:port` is.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn status_of(
        &self,
        address: &str,
        patience: Duration,
    ) -> Result<StatusResponse, EtcdError> {
        let channel = self.channel_of(address)?;
        match tokio::time::timeout(
            patience,
            MaintenanceClient::new(channel).status(StatusRequest {}),
        )
        .await
        {
            Ok(answer) => Ok(answer?.into_inner()),
            Err(_) => Err(EtcdError::Unanswered(address.to_owned())),
        }
    }

    /// Gives a member's free pages back. It does nothing else meanwhile.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn defragment(&self, address: &str, patience: Duration) -> Result<(), EtcdError> {
        let mut member = MaintenanceClient::new(self.channel_of(address)?);
        match tokio::time::timeout(patience, member.defragment(DefragmentRequest {})).await {
            Ok(answer) => answer.map(drop).map_err(Into::into),
            Err(_) => Err(EtcdError::Unanswered(address.to_owned())),
        }
    }

    /// The alarms that are on: the member, and whether it is about space (else about damage).
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn alarms(&self, patience: Duration) -> Result<Vec<(u64, bool)>, EtcdError> {
        let answer = self.alarm(AlarmRequest::default(), patience).await?;
        Ok(answer.into_iter().map(|(id, kind)| (id, kind == AlarmType::Nospace)).collect())
    }

    /// Ends the alarm of a member whose space was used up.
    ///
    /// # Errors
    /// [`EtcdError`].
    pub async fn disarm(&self, member: u64, patience: Duration) -> Result<(), EtcdError> {
        let request = AlarmRequest {
            action: alarm_request::AlarmAction::Deactivate as i32,
            member_id: member,
            alarm: AlarmType::Nospace as i32,
        };
        self.alarm(request, patience).await.map(drop)
    }

    async fn alarm(
        &self,
        request: AlarmRequest,
        patience: Duration,
    ) -> Result<Vec<(u64, AlarmType)>, EtcdError> {
        let answer = self
            .call(patience, |channel| async move {
                MaintenanceClient::new(channel).alarm(request).await
            })
            .await?;
        Ok(answer.alarms.into_iter().map(|alarm| (alarm.member_id, alarm.alarm())).collect())
    }

    fn channel_of(&self, address: &str) -> Result<Channel, EtcdError> {
        let known = self.peers().into_iter().find(|peer| peer.address == address);
        match known {
            Some(peer) => Ok(peer.channel.clone()),
            None => dial(address, self.0.tls.clone()),
        }
    }
}

impl From<brig_proto::etcd::Member> for MemberInfo {
    fn from(member: brig_proto::etcd::Member) -> Self {
        Self {
            id: member.id,
            name: member.name,
            peer_urls: member.peer_ur_ls,
            client_urls: member.client_ur_ls,
            is_learner: member.is_learner,
        }
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(MAX_ANSWER)
}

fn dial(address: &str, tls: EtcdTls) -> Result<Channel, EtcdError> {
    let invalid = || EtcdError::Address(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(invalid());
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| invalid())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let address = address.to_owned();
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let (address, host, tls) = (address.clone(), host.clone(), tls.clone());
        async move {
            let connector = tokio::task::spawn_blocking(move || connector(&tls, &host))
                .await
                .map_err(io::Error::other)??;
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(TokioIo::new(connector.connect(stream).await?))
        }
    })))
}

fn connector(tls: &EtcdTls, host: &str) -> io::Result<Connector> {
    let read = |path: &PathBuf| -> io::Result<Vec<u8>> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
            .map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
        Ok(bytes)
    };
    let key = SecretBytes::new(read(&tls.key)?);
    Connector::mutual(&read(&tls.ca)?, &read(&tls.cert)?, &key, host).map_err(io::Error::other)
}
