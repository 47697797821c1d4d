//! The manager as nodes see it: a hand-made worker that joins, works, renews and is removed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use brig_pki::csr::NodeKey;
use brig_pki::identity::verify_issued_chain;
use brig_pki::tls::{Connector, TlsCredentials};
use brig_pki::token::JoinToken;
use brig_proto::swarm::{
    AssignmentsMessage, AssignmentsRequest, GetRootCaCertificateRequest, GetUnlockKeyRequest,
    HealthCheckRequest, HeartbeatRequest, IssueNodeCertificateRequest, ListenSubscriptionsRequest,
    NodeCertificateStatusRequest, NodeDescription, NodeRole, SessionMessage, SessionRequest,
    TaskState, TaskStatus, TasksRequest, UpdateTaskStatusRequest, assignment::Item,
    assignment_change::AssignmentAction, assignments_message::Type, ca_client::CaClient,
    dispatcher_client::DispatcherClient, health_client::HealthClient, issuance_status::State,
    log_broker_client::LogBrokerClient, node_ca_client::NodeCaClient, node_status,
    update_task_status_request::TaskStatusUpdate,
};
use brig_swarm::{Control, ControlError, Swarm, TokenLimit, TokenRotation};
use common::*;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Streaming};
use tower::service_fn;

async fn anonymous(address: &str, connector: Connector) -> Channel {
    let address = address.to_owned();
    let dial = service_fn(move |_: Uri| {
        let (address, connector) = (address.clone(), connector.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            connector.connect(stream).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://manager").connect_with_connector(dial).await.unwrap()
}

async fn mutual(address: &str, credentials: Arc<TlsCredentials>) -> Channel {
    let address = address.to_owned();
    let dial = service_fn(move |_: Uri| {
        let (address, credentials) = (address.clone(), Arc::clone(&credentials));
        async move {
            let stream = TcpStream::connect(address).await?;
            credentials.connect("swarm-manager", stream).await.map(TokioIo::new)
        }
    });
    Endpoint::from_static("http://manager").connect_with_connector(dial).await.unwrap()
}

fn address(control: &Control) -> String {
    let node = control.node("self").unwrap();
    node.manager_status.as_ref().unwrap().addr.clone()
}

fn token(control: &Control, role: NodeRole) -> String {
    let cluster = control.cluster().unwrap();
    let tokens = cluster.root_ca.as_ref().unwrap().join_tokens.clone().unwrap();
    match role {
        NodeRole::Worker => tokens.worker,
        NodeRole::Manager => tokens.manager,
    }
}

fn request(key: &NodeKey, token: &str) -> IssueNodeCertificateRequest {
    IssueNodeCertificateRequest {
        csr: key.csr_pem().unwrap(),
        token: token.to_owned(),
        ..IssueNodeCertificateRequest::default()
    }
}

/// Joins like any worker does.
async fn join(control: &Control) -> (String, Arc<TlsCredentials>) {
    let address = address(control);
    let token = token(control, NodeRole::Worker);
    let blind = Connector::insecure_for_pinned_content("127.0.0.1").unwrap();
    let roots = CaClient::new(anonymous(&address, blind).await)
        .get_root_ca_certificate(GetRootCaCertificateRequest {})
        .await
        .unwrap()
        .into_inner()
        .certificate;
    assert!(JoinToken::parse(&token).unwrap().pins(&roots));
    let connector = Connector::anonymous(&roots, "swarm-ca").unwrap();
    let mut ca = NodeCaClient::new(anonymous(&address, connector).await);
    let key = NodeKey::generate().unwrap();
    let request = request(&key, &token);
    let csr = request.csr.clone();
    let node = ca.issue_node_certificate(request).await.unwrap().into_inner().node_id;
    let answer = ca
        .node_certificate_status(NodeCertificateStatusRequest { node_id: node.clone() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.status.unwrap().state(), State::Issued);
    let certificate = answer.certificate.unwrap();
    assert_eq!(certificate.csr, csr);
    let identity = verify_issued_chain(&roots, &certificate.certificate, &key).unwrap();
    assert_eq!(identity.node.as_str(), node);
    let credentials = TlsCredentials::new(&roots, &certificate.certificate, &key).unwrap();
    (node, Arc::new(credentials))
}

struct Worker {
    id: String,
    session: String,
    dispatcher: DispatcherClient<Channel>,
    messages: Streaming<SessionMessage>,
    /// Its heartbeats: without them a slow test outlives its node.
    _beats: JoinSet<()>,
}

impl Worker {
    async fn open(control: &Control, id: &str, credentials: &Arc<TlsCredentials>) -> Self {
        let channel = mutual(&address(control), Arc::clone(credentials)).await;
        let mut dispatcher = DispatcherClient::new(channel);
        let description =
            NodeDescription { hostname: "worker".to_owned(), ..NodeDescription::default() };
        let mut messages = dispatcher
            .session(SessionRequest { description: Some(description), session_id: String::new() })
            .await
            .unwrap()
            .into_inner();
        let first = messages.message().await.unwrap().unwrap();
        assert_eq!(first.node.as_ref().unwrap().id, id);
        assert_eq!(first.managers[0].peer.as_ref().unwrap().addr, address(control));
        let root = control.cluster().unwrap().root_ca.clone().unwrap().ca_cert;
        assert_eq!(first.root_ca, root);
        let mut beats = JoinSet::new();
        let (mut beating, session_id) = (dispatcher.clone(), first.session_id.clone());
        beats.spawn(async move {
            let beat = || HeartbeatRequest { session_id: session_id.clone() };
            while beating.heartbeat(beat()).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let session = first.session_id;
        Self { id: id.to_owned(), session, dispatcher, messages, _beats: beats }
    }

    async fn assignments(&mut self) -> Streaming<AssignmentsMessage> {
        let request = AssignmentsRequest { session_id: self.session.clone() };
        self.dispatcher.assignments(request).await.unwrap().into_inner()
    }

    async fn report(&mut self, task: &str, state: TaskState) -> Result<(), tonic::Status> {
        let update = TaskStatusUpdate {
            task_id: task.to_owned(),
            status: Some(TaskStatus { state: state as i32, ..TaskStatus::default() }),
        };
        let request =
            UpdateTaskStatusRequest { session_id: self.session.clone(), updates: vec![update] };
        self.dispatcher.update_task_status(request).await.map(drop)
    }
}

async fn next(stream: &mut Streaming<AssignmentsMessage>) -> AssignmentsMessage {
    tokio::time::timeout(Duration::from_secs(5), stream.message())
        .await
        .expect("a message in time")
        .unwrap()
        .unwrap()
}

async fn fresh() -> (tempfile::TempDir, Swarm, Control) {
    let temp = tempfile::tempdir().unwrap();
    let (swarm, control) = new_swarm(temp.path(), &Machine::default()).await;
    (temp, swarm, control)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_joins_works_and_is_removed() {
    let (_temp, swarm, control) = fresh().await;
    let (id, credentials) = join(&control).await;
    let mut worker = Worker::open(&control, &id, &credentials).await;
    let node = control.node("worker").unwrap();
    assert_eq!(node.id, id);
    assert_eq!(node.status.as_ref().unwrap().state, node_status::State::Ready as i32);
    assert_eq!(node.status.as_ref().unwrap().addr, "127.0.0.1");
    let beat = HeartbeatRequest { session_id: worker.session.clone() };
    let period = worker.dispatcher.heartbeat(beat).await.unwrap().into_inner().period.unwrap();
    assert_eq!(period.seconds.clamp(1, 2), period.seconds);

    let mut stream = worker.assignments().await;
    let first = next(&mut stream).await;
    assert_eq!((first.r#type(), first.changes.len()), (Type::Complete, 0));

    control.create_secret(secret("db", b"hunter2")).await.unwrap();
    let mut spec = service("web", "busybox", 1);
    grant(&mut spec, &control.secret("db").unwrap());
    spec.task.as_mut().unwrap().placement = Some(brig_proto::swarm::Placement {
        constraints: vec!["node.hostname==worker".to_owned()],
        ..brig_proto::swarm::Placement::default()
    });
    let service = control.create_service(spec).await.unwrap();
    let message = next(&mut stream).await;
    assert_eq!((message.r#type(), message.applies_to.as_str()), (Type::Incremental, "1"));
    let items: Vec<Item> =
        message.changes.into_iter().map(|c| c.assignment.unwrap().item.unwrap()).collect();
    let [Item::Secret(granted), Item::Task(task)] = items.as_slice() else {
        panic!("{items:?}");
    };
    assert_eq!(granted.spec.as_ref().unwrap().data, b"hunter2");
    assert_eq!((task.slot, task.node_id.as_str()), (1, id.as_str()));

    worker.report(&task.id, TaskState::Running).await.unwrap();
    worker.report(&task.id, TaskState::Preparing).await.unwrap();
    worker.report("unknown", TaskState::Running).await.unwrap();
    assert_eq!(state(&control.task(&task.id).unwrap()), TaskState::Running, "states never go back");
    let elsewhere = control.create_service(self::service("own", "busybox", 1)).await.unwrap();
    let foreign =
        eventually("it runs", || control.tasks_of_service(&elsewhere), |t| t.len() == 1).await;
    eventually(
        "it is placed",
        || control.task(&foreign[0].id).unwrap().node_id.clone(),
        |n| !n.is_empty(),
    )
    .await;
    if control.task(&foreign[0].id).unwrap().node_id != id {
        let refused = worker.report(&foreign[0].id, TaskState::Failed).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }

    control.remove_service(&service).await.unwrap();
    let mut wanted = 0;
    while wanted < TaskState::Remove as i32 {
        for change in next(&mut stream).await.changes {
            if let Some(Item::Task(seen)) = change.assignment.unwrap().item
                && seen.id == task.id
            {
                wanted = seen.desired_state;
            }
        }
    }
    worker.report(&task.id, TaskState::Shutdown).await.unwrap();
    let (mut task_gone, mut secret_gone) = (false, false);
    while !(task_gone && secret_gone) {
        for change in next(&mut stream).await.changes {
            let removed = change.action() == AssignmentAction::Remove;
            match change.assignment.unwrap().item.unwrap() {
                Item::Task(seen) if removed && seen.id == task.id => task_gone = true,
                Item::Secret(seen) if removed && seen.id == granted.id => secret_gone = true,
                _ => {}
            }
        }
    }

    let busy = control.remove_node(&id, false).await.unwrap_err();
    assert_eq!(
        busy.to_string(),
        format!(
            "rpc error: code = FailedPrecondition desc = node {id} is not down and can't be removed"
        )
    );
    // A stream that belongs to no session.
    let channel = mutual(&address(&control), Arc::clone(&credentials)).await;
    let mut logs = LogBrokerClient::new(channel);
    let mut subscriptions =
        logs.listen_subscriptions(ListenSubscriptionsRequest {}).await.unwrap().into_inner();
    control.remove_node(&id, true).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            if let Err(status) = worker.messages.message().await {
                return status;
            }
        }
    });
    ended.await.expect("the session ends");
    let cut = tokio::time::timeout(Duration::from_secs(3), subscriptions.message()).await;
    cut.expect("every connection is cut").unwrap_err();
    // A call on a connection that is just being cut ends with it; the next one makes another.
    let mut refused = worker.report("x", TaskState::Running).await.unwrap_err();
    for _ in 0..100 {
        if refused.code() == Code::PermissionDenied {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        refused = worker.report("x", TaskState::Running).await.unwrap_err();
    }
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("was removed from swarm"), "{refused:?}");
    assert_eq!(worker.id, id);
    swarm.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_and_tokens_checked() {
    let (_temp, swarm, control) = fresh().await;
    let (id, credentials) = join(&control).await;
    let channel = mutual(&address(&control), Arc::clone(&credentials)).await;
    let mut ca = NodeCaClient::new(channel.clone());
    let key = NodeKey::generate().unwrap();
    let renewed = ca.issue_node_certificate(request(&key, "")).await.unwrap().into_inner();
    assert_eq!(renewed.node_id, id);
    let status = NodeCertificateStatusRequest { node_id: id };
    let chain = ca.node_certificate_status(status).await.unwrap().into_inner().certificate.unwrap();
    verify_issued_chain(&credentials.roots_pem(), &chain.certificate, &key).unwrap();

    let connector = Connector::anonymous(&credentials.roots_pem(), "swarm-ca").unwrap();
    let nobody = anonymous(&address(&control), connector).await;
    let mut ca = NodeCaClient::new(nobody.clone());
    let old = token(&control, NodeRole::Worker);
    for bad in ["", "SWMTKN-1-x-y", &old[..old.len() - 1]] {
        let refused = ca.issue_node_certificate(request(&key, bad)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(refused.message(), "A valid join token is necessary to join this cluster");
    }
    let manager = token(&control, NodeRole::Manager);
    let refused = ca.issue_node_certificate(request(&key, &manager)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let garbage = IssueNodeCertificateRequest {
        csr: b"x".to_vec(),
        token: old.clone(),
        ..Default::default()
    };
    assert_eq!(ca.issue_node_certificate(garbage).await.unwrap_err().code(), Code::InvalidArgument);

    let cluster = control.cluster().unwrap();
    let version = cluster.meta.as_ref().unwrap().version.unwrap().index;
    let rotation = TokenRotation { worker: true, ..Default::default() };
    control.update_cluster(version, cluster.spec.clone().unwrap(), rotation).await.unwrap();
    let refused = ca.issue_node_certificate(request(&key, &old)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "the old token is worth nothing");
    assert_ne!(token(&control, NodeRole::Worker), old);
    assert_eq!(token(&control, NodeRole::Manager), manager);

    // Who may call what.
    let refused =
        DispatcherClient::new(nobody).session(SessionRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused =
        CaClient::new(channel.clone()).get_unlock_key(GetUnlockKeyRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused =
        HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut dispatcher = DispatcherClient::new(channel);
    let legacy = dispatcher.tasks(TasksRequest::default()).await.unwrap_err();
    assert_eq!(legacy.code(), Code::Unimplemented);
    let stale = dispatcher.heartbeat(HeartbeatRequest::default()).await.unwrap_err();
    assert_eq!((stale.code(), stale.message()), (Code::NotFound, "node not registered"));
    swarm.leave(true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_session_gets_everything_again() {
    let (_temp, swarm, control) = fresh().await;
    let (id, credentials) = join(&control).await;
    let mut worker = Worker::open(&control, &id, &credentials).await;
    let mut spec = service("web", "busybox", 2);
    spec.task.as_mut().unwrap().placement = Some(brig_proto::swarm::Placement {
        constraints: vec![format!("node.id=={id}")],
        ..brig_proto::swarm::Placement::default()
    });
    control.create_service(spec).await.unwrap();
    eventually("both are placed", || control.tasks_of_node(&id), |tasks| tasks.len() == 2).await;
    let old = worker.session.clone();
    worker = Worker::open(&control, &id, &credentials).await;
    assert_ne!(worker.session, old);
    let all = next(&mut worker.assignments().await).await;
    assert_eq!((all.r#type(), all.changes.len()), (Type::Complete, 2));
    let stale = HeartbeatRequest { session_id: old };
    let refused = worker.dispatcher.heartbeat(stale).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "session invalid"));
    swarm.leave(true).await.unwrap();
}

/// Whether openssl finds that a certificate is valid that long from now, and no longer.
fn lasts(chain: &[u8], hours: u64) -> bool {
    let valid_in = |seconds: u64| {
        let mut openssl = Command::new("openssl")
            .args(["x509", "-noout", "-checkend", &seconds.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        openssl.stdin.take().unwrap().write_all(chain).unwrap();
        openssl.wait().unwrap().success()
    };
    // It begins at the nearest full minute.
    valid_in(hours * 3600 - 90) && !valid_in(hours * 3600 + 31)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_validity_of_certificates_is_the_clusters() {
    let (_temp, swarm, control) = fresh().await;
    let (id, credentials) = join(&control).await;
    assert!(lasts(&credentials.chain_pem(), 90 * 24), "the default");
    let channel = mutual(&address(&control), Arc::clone(&credentials)).await;
    let mut ca = NodeCaClient::new(channel);
    for hours in [1, 720] {
        let cluster = control.cluster().unwrap();
        let version = cluster.meta.as_ref().unwrap().version.unwrap().index;
        let mut spec = cluster.spec.clone().unwrap();
        let expiry = Duration::from_secs(hours * 3600).try_into().unwrap();
        spec.ca_config.as_mut().unwrap().node_cert_expiry = Some(expiry);
        control.update_cluster(version, spec, TokenRotation::default()).await.unwrap();
        let key = NodeKey::generate().unwrap();
        ca.issue_node_certificate(request(&key, "")).await.unwrap();
        let status = NodeCertificateStatusRequest { node_id: id.clone() };
        let renewed = ca.node_certificate_status(status).await.unwrap().into_inner();
        let chain = renewed.certificate.unwrap().certificate;
        verify_issued_chain(&credentials.roots_pem(), &chain, &key).unwrap();
        assert!(lasts(&chain, hours), "renewed for {hours} h");
        let (_, joined) = join(&control).await;
        assert!(lasts(&joined.chain_pem(), hours), "joined for {hours} h");
    }
    swarm.leave(true).await.unwrap();
}

/// Rotates the workers' token and returns the new one.
async fn rotate(control: &Control, limit: TokenLimit) -> Result<String, ControlError> {
    let cluster = control.cluster().unwrap();
    let version = cluster.meta.as_ref().unwrap().version.unwrap().index;
    let rotation = TokenRotation { worker: true, limit, ..TokenRotation::default() };
    control.update_cluster(version, cluster.spec.clone().unwrap(), rotation).await?;
    Ok(token(control, NodeRole::Worker))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limited_tokens_admit_so_many_for_so_long() {
    let (_temp, swarm, control) = fresh().await;
    let roots = control.cluster().unwrap().root_ca.as_ref().unwrap().ca_cert.clone();
    let connector = Connector::anonymous(&roots, "swarm-ca").unwrap();
    let ca = NodeCaClient::new(anonymous(&address(&control), connector).await);
    let key = NodeKey::generate().unwrap();

    let hour = Some(Duration::from_secs(3600));
    let limited = rotate(&control, TokenLimit { lifetime: hour, uses: Some(3) }).await.unwrap();
    // Other settings leave the limit alone.
    let cluster = control.cluster().unwrap();
    let version = cluster.meta.as_ref().unwrap().version.unwrap().index;
    let spec = cluster.spec.clone().unwrap();
    control.update_cluster(version, spec.clone(), TokenRotation::default()).await.unwrap();
    let mut attempts = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (mut ca, request) = (ca.clone(), request(&key, &limited));
        attempts.spawn(async move { ca.issue_node_certificate(request).await });
    }
    let mut admitted = 0;
    while let Some(attempt) = attempts.join_next().await {
        match attempt.unwrap() {
            Ok(_) => admitted += 1,
            Err(refused) => {
                assert_eq!(refused.code(), Code::InvalidArgument);
                assert!(refused.message().contains("used as often as it may be"), "{refused:?}");
            }
        }
    }
    assert_eq!((admitted, control.nodes().len()), (3, 4), "eight at once");

    let soon = Some(Duration::from_millis(1));
    let short = rotate(&control, TokenLimit { lifetime: soon, uses: None }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2)).await;
    let mut ca = ca;
    let refused = ca.issue_node_certificate(request(&key, &short)).await.unwrap_err();
    assert!(refused.message().contains("has expired"), "{refused:?}");
    let refused = ca.issue_node_certificate(request(&key, &limited)).await.unwrap_err();
    assert!(refused.message().starts_with("A valid join token"), "{refused:?}");

    for limit in [
        TokenLimit { lifetime: Some(Duration::ZERO), uses: None },
        TokenLimit { lifetime: None, uses: Some(0) },
    ] {
        let refused = rotate(&control, limit).await.unwrap_err();
        assert!(matches!(refused, ControlError::InvalidArgument(_)), "{refused}");
    }
    let unlimited = rotate(&control, TokenLimit::default()).await.unwrap();
    for _ in 0..4 {
        ca.issue_node_certificate(request(&key, &unlimited)).await.unwrap();
    }
    let version = control.cluster().unwrap().meta.as_ref().unwrap().version.unwrap().index;
    let limit = TokenLimit { lifetime: hour, uses: None };
    let old_token = TokenRotation { limit, ..TokenRotation::default() };
    let refused = control.update_cluster(version, spec, old_token).await.unwrap_err();
    assert!(refused.to_string().contains("only a new join token"), "{refused}");
    swarm.leave(true).await.unwrap();
}
