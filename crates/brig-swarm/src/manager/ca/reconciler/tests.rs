use brig_pki::ca::RootCa as Authority;
use brig_proto::swarm::{Certificate, NodeDescription, NodeStatus, NodeTlsInfo, RootCa};

use super::rotation::Signers;
use super::*;

fn look<'a>(
    cluster: &Cluster,
    nodes: impl Iterator<Item = &'a Node>,
    seen: &mut BTreeMap<String, Seen>,
    now: Instant,
    may_tell: bool,
) -> Findings {
    super::look(cluster, &issuer(cluster).unwrap(), nodes, seen, now, may_tell)
}

fn stored(root: &Authority) -> RootCa {
    RootCa {
        ca_cert: root.cert_pem().to_vec(),
        ca_key: root.key_pem().unwrap().expose_secret().to_vec(),
        ..RootCa::default()
    }
}

fn rotating() -> (Cluster, Authority, Authority) {
    let (old, new) = (Authority::generate().unwrap(), Authority::generate().unwrap());
    let mut root = stored(&old);
    root.root_rotation = Some(RootRotation {
        ca_cert: new.cert_pem().to_vec(),
        ca_key: new.key_pem().unwrap().expose_secret().to_vec(),
        cross_signed_ca_cert: old.cross_sign(&new).unwrap(),
    });
    (Cluster { root_ca: Some(root), ..Cluster::default() }, old, new)
}

fn node(id: usize, issuer: &Authority, state: node_status::State) -> Node {
    let issuer = issuer.info().unwrap();
    Node {
        id: format!("n{id}"),
        status: Some(NodeStatus { state: state as i32, ..NodeStatus::default() }),
        description: Some(NodeDescription {
            tls_info: Some(NodeTlsInfo {
                cert_issuer_subject: issuer.subject_der,
                cert_issuer_public_key: issuer.public_key_der,
                ..NodeTlsInfo::default()
            }),
            ..NodeDescription::default()
        }),
        ..Node::default()
    }
}

fn with_state(mut node: Node, state: State) -> Node {
    node.certificate = Some(Certificate {
        status: Some(IssuanceStatus { state: state as i32, err: String::new() }),
        ..Certificate::default()
    });
    node
}

const READY: node_status::State = node_status::State::Ready;
const DOWN: node_status::State = node_status::State::Down;

#[tokio::test]
async fn thirty_nodes_are_told_at_once_and_again_only_after_a_while() {
    let (cluster, old, _) = rotating();
    let nodes: Vec<Node> = (0..70).map(|id| node(id, &old, READY)).collect();
    let mut seen = BTreeMap::new();
    let now = Instant::now();
    let mut told = Vec::new();
    for pass in 0..4 {
        let at = now + Duration::from_millis(pass);
        told.push(look(&cluster, nodes.iter(), &mut seen, at, true).to_tell.len());
    }
    assert_eq!(told, [30, 30, 10, 0]);
    assert_eq!(look(&cluster, nodes.iter(), &mut seen, now + EVERY * 3, false).to_tell.len(), 0);
    assert_eq!(look(&cluster, nodes.iter(), &mut seen, now + EVERY * 3, true).to_tell.len(), 30);
}

#[tokio::test]
async fn nodes_that_are_on_their_way_or_away_are_left_alone() {
    let (cluster, old, new) = rotating();
    let mut fresh = node(7, &old, READY);
    fresh.description = None;
    let nodes = [
        with_state(node(0, &old, READY), State::Renew),
        with_state(node(1, &old, READY), State::Pending),
        with_state(node(2, &old, READY), State::Rotate),
        with_state(node(3, &old, READY), State::Failed),
        with_state(node(4, &old, READY), State::Issued),
        node(5, &old, DOWN),
        node(6, &new, READY),
        fresh,
    ];
    let findings = look(&cluster, nodes.iter(), &mut BTreeMap::new(), Instant::now(), true);
    assert_eq!(findings.to_tell, ["n3", "n4"]);
    assert_eq!(findings.to_finish, None);
}

#[tokio::test]
async fn the_end_waits_for_nodes_that_are_up_and_for_managers() {
    let (cluster, old, new) = rotating();
    let rotation = cluster.root_ca.clone().unwrap().root_rotation.unwrap();
    let mut seen = BTreeMap::new();
    let start = Instant::now();
    let half_a_minute = Duration::from_secs(30);
    let mut at = |nodes: &[Node], after: Duration| {
        look(&cluster, nodes.iter(), &mut seen, start + after, false).to_finish
    };
    let nodes = [node(0, &new, READY), node(1, &old, DOWN)];
    assert_eq!(at(&nodes, Duration::ZERO), None);
    assert_eq!(at(&nodes, half_a_minute - Duration::from_millis(1)), None);
    let left = vec!["n1".to_owned()];
    assert_eq!(at(&nodes, half_a_minute), Some((rotation.clone(), left)));
    // It comes back: now it counts, and the next absence begins anew.
    assert_eq!(at(&[node(1, &old, READY)], half_a_minute), None);
    assert_eq!(at(&[node(1, &old, DOWN)], half_a_minute), None);
    assert_eq!(at(&[node(1, &new, DOWN)], half_a_minute), Some((rotation.clone(), Vec::new())));
    let mut manager = node(2, &old, DOWN);
    manager.role = NodeRole::Manager as i32;
    assert_eq!(at(&[manager.clone()], Duration::ZERO), None);
    assert_eq!(at(&[manager], half_a_minute * 1000), None);
}

#[tokio::test]
async fn without_a_rotation_stragglers_are_moved_all_the_same() {
    let (mut cluster, old, new) = rotating();
    cluster.root_ca = Some(stored(&new));
    let nodes = [node(0, &old, READY), node(1, &new, READY)];
    let findings = look(&cluster, nodes.iter(), &mut BTreeMap::new(), Instant::now(), true);
    assert_eq!(findings, Findings { to_tell: vec!["n0".to_owned()], to_finish: None });
}

#[test]
fn only_what_can_change_a_decision_is_worth_a_look() {
    let (mut cluster, old, new) = rotating();
    let change = |node: Node| Change::Created(Object::Node(Arc::new(node)));
    let mut fresh = node(0, &new, node_status::State::Unknown);
    fresh.description = None;
    let changes = [
        change(fresh),
        change(node(1, &new, READY)),
        change(node(2, &old, DOWN)),
        change(node(3, &old, READY)),
        Change::Removed(Object::Cluster(Arc::new(cluster.clone()))),
    ];
    let touching = |cluster: &Cluster| {
        let concern = Concern { issuer: issuer(cluster).unwrap(), rotating: is_rotating(cluster) };
        changes.each_ref().map(|change| concern.is_touched_by(change))
    };
    assert_eq!(touching(&cluster), [true; 5]);
    cluster.root_ca = Some(stored(&new));
    assert_eq!(touching(&cluster), [false, false, false, true, true]);
}

#[test]
fn the_way_back_is_bounded_in_length_and_time() {
    let now = SystemTime::now();
    let day = Duration::from_secs(24 * 3600);
    let mut cluster =
        Cluster { root_ca: Some(stored(&Authority::generate().unwrap())), ..Cluster::default() };
    let mut roots = vec![cluster.root_ca.clone().unwrap().ca_cert];
    for turn in 1..=8 {
        let root = cluster.root_ca.as_mut().unwrap();
        let config = brig_proto::swarm::CaConfig { force_rotate: turn, ..Default::default() };
        *root = rotation::requested(root, &config, &Signers::default()).unwrap().unwrap();
        assert_eq!(root.last_forced_rotation, turn);
        assert_eq!(rotation::requested(root, &config, &Signers::default()).unwrap(), None);
        cluster = rotation::finished(&cluster, std::iter::empty(), now).unwrap().unwrap();
        roots.push(cluster.root_ca.clone().unwrap().ca_cert);
    }
    assert_eq!(rotation::finished(&cluster, std::iter::empty(), now).unwrap(), None);
    let root = cluster.root_ca.as_ref().unwrap();
    let count =
        |at| String::from_utf8(rotation::way_back(root, at)).unwrap().matches("BEGIN").count();
    assert_eq!(count(now), 5);
    assert_eq!(count(now + day * 90), 5);
    assert_eq!(count(now + day * 98), 0);
    // The oldest root that is still reached is the fifth before the present one.
    let key = brig_pki::csr::NodeKey::generate().unwrap();
    let authority = Authority::from_pem(
        &root.ca_cert,
        Some(&brig_types::secret::SecretBytes::new(root.ca_key.clone())),
    );
    let who = brig_pki::identity::NodeIdentity {
        cluster: "c".to_owned(),
        role: brig_pki::token::NodeRole::Manager,
        node: brig_types::id::NodeId::generate(),
    };
    let mut chain = authority.unwrap().issue(&key.csr_pem().unwrap(), &who, day).unwrap();
    chain.extend(rotation::way_back(root, now));
    let reached =
        |root: &Vec<u8>| brig_pki::identity::verify_issued_chain(root, &chain, &key).is_ok();
    let reached: Vec<bool> = roots.iter().map(reached).collect();
    assert_eq!(reached, [false, false, false, true, true, true, true, true, true]);
}
