//! Managers that are lost for a while, for good, or before they began.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_quorum_reading_goes_on_and_one_can_begin_anew() {
    let temp = tempfile::tempdir().unwrap();
    let mut first = Host::new(&temp.path().join("1")).await;
    first.swarm.init(first.init()).await.unwrap();
    let control = first.swarm.control().unwrap();
    let mut second = Host::new(&temp.path().join("2")).await;
    second.join(&control, NodeRole::Manager).await;
    assert!(write(&control, "before").await);
    second.die().await;
    let refused = control.create_config(config("refused")).await.unwrap_err();
    assert!(refused.to_string().contains("The swarm does not have a leader"), "{refused}");
    let told = brig_types::error::chain(&refused);
    assert!(told.contains("docker swarm init --force-new-cluster"), "{told}");
    assert!(has(&control, "before"));
    eventually("it is told", || !control.is_current()).await;

    // A restart without the others: reading goes on.
    first.swarm.shutdown().await;
    first.boot().await;
    let control = first.swarm.control().unwrap();
    assert!(has(&control, "before") && !control.is_current());

    let request = InitRequest { force_new_cluster: true, ..first.init() };
    assert_eq!(first.swarm.init(request).await.unwrap(), first.id());
    let control = first.swarm.control().unwrap();
    assert!(has(&control, "before"));
    assert!(write(&control, "anew").await);
    assert_eq!(control.node(&second.id()).map(|node| node.role()).ok(), Some(NodeRole::Worker));

    // The other one comes back, as what it is now; what it knew opens nothing that is written then.
    second.boot().await;
    eventually("it is a worker", || is_up(&control, &second.id()) && is_worker(&second)).await;
    settled(&control, 1).await;
    first.swarm.leave(true).await.unwrap();
}

/// A manager that was taken in and never got ready, because its machine died or something else has
/// its port, keeps nobody else out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_never_starts_holds_up_nobody() {
    let temp = tempfile::tempdir().unwrap();
    let first = Host::new(&temp.path().join("1")).await;
    first.swarm.init(first.init()).await.unwrap();
    let control = first.swarm.control().unwrap();
    let second = Host::new(&temp.path().join("2")).await;
    second.join(&control, NodeRole::Manager).await;

    let third = Host::new(&temp.path().join("3")).await;
    let taken = TcpListener::bind(("127.0.0.1", third.settings.peer_port)).unwrap();
    let request = third.request(&control, NodeRole::Manager);
    let refused = brig_types::error::chain(&third.swarm.join(request).await.unwrap_err());
    for part in ["something else listens already", "docker node demote", "docker node rm --force"] {
        assert!(refused.contains(part), "{part:?} is not in {refused:?}");
    }
    let members = || first.etcdctl(&["member", "list"]).map(|list| list.lines().count());
    assert_eq!(members(), Ok(2), "nobody counts on it");
    let nodes = control.nodes();
    let known = [first.id(), second.id()];
    let stranger = nodes.iter().find(|node| !known.contains(&node.id)).unwrap();
    set_role(&control, &stranger.id, NodeRole::Worker).await;
    drop(taken);

    // As if it had died when it was taken in.
    let url = format!("--peer-urls=https://127.0.0.1:{}", port());
    eventually("a learner", || first.etcdctl(&["member", "add", "x", "--learner", &url]).is_ok())
        .await;
    set_role(&control, &second.id(), NodeRole::Worker).await;
    eventually("both members go", || members() == Ok(1)).await;
    third.join(&control, NodeRole::Manager).await;
    eventually("the third one is a member", || members() == Ok(2)).await;
    for host in [&third, &second, &first] {
        let _ = host.swarm.leave(true).await;
    }
}
