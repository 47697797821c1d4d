//! Demotions and promotions at bad moments, and the keys that change with them.

use super::*;

/// A manager that was demoted while it was away comes back between the change of the data key and
/// that of the store's authority: it reaches the store, and can read nothing of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_that_lost_its_role_while_it_was_away_is_a_worker() {
    let temp = tempfile::tempdir().unwrap();
    let (control, [first, second, mut third]) = three_managers(temp.path()).await;
    let before = control.data_keys().await.unwrap().generation;
    third.die().await;
    set_role(&control, &third.id(), NodeRole::Worker).await;
    settled(&control, before + 1).await;
    third.boot().await;
    eventually("it is a worker", || is_up(&control, &third.id()) && is_worker(&third)).await;
    for host in [&third, &second, &first] {
        let _ = host.swarm.leave(true).await;
    }
}

/// Every manager has a data key before anything is sealed with it, and the cluster's unlock key
/// locks each of them. Who is demoted keeps neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_change_on_all_managers() {
    let temp = tempfile::tempdir().unwrap();
    let first = Host::new(&temp.path().join("1")).await;
    first.swarm.init(first.init()).await.unwrap();
    let control = first.swarm.control().unwrap();
    let mut second = Host::new(&temp.path().join("2")).await;
    second.join(&control, NodeRole::Manager).await;
    let other = second.swarm.control().unwrap();
    assert!(write(&control, "before").await);
    let old = settled(&control, 0).await;
    assert_eq!(settled(&other, 0).await, old);

    other.rotate_data_key("a test").await.unwrap();
    let new = settled(&control, 1).await;
    assert_ne!(new, old);
    assert_eq!(settled(&other, 1).await, new);
    assert!(write(&control, "one").await && write(&other, "other").await);
    eventually("both know both", || has(&control, "other") && has(&other, "one")).await;

    let cluster = control.cluster().unwrap();
    let mut spec = cluster.spec.clone().unwrap();
    spec.encryption_config.get_or_insert_default().auto_lock_managers = true;
    let version = cluster.meta.as_ref().unwrap().version.unwrap().index;
    control.update_cluster(version, spec, TokenRotation::default()).await.unwrap();
    let unlock = control.show_unlock_key().await.unwrap().unwrap();
    settled(&other, 2).await;
    let file = second.dir.join("swarm/certificates/swarm-node.key");
    let is_locked = || {
        let file = std::fs::read_to_string(&file).unwrap();
        file.contains("BRIG ENCRYPTED PRIVATE KEY") && !file.contains("brig-kek")
    };
    let is_sealed = || is_locked() && !std::fs::read_to_string(&file).unwrap().contains("escrow");
    eventually("the other one is locked", is_sealed).await;
    drop(other);
    second.id();
    second.swarm.shutdown().await;
    second.boot().await;
    assert_eq!(second.swarm.status().local_node_state, LocalNodeState::Locked);
    second.swarm.unlock(unlock.expose_secret()).await.unwrap();
    assert!(has(&second.swarm.control().unwrap(), "before"));

    set_role(&control, &second.id(), NodeRole::Worker).await;
    eventually("it is a worker", || second.swarm.control().is_err()).await;
    eventually("it is not locked any more", || !is_locked()).await;
    assert!(!std::fs::read_to_string(&file).unwrap().contains("brig-cluster-dek"));
    settled(&control, 3).await;
    second.swarm.leave(false).await.unwrap();
    first.swarm.leave(true).await.unwrap();
}

/// A promotion right after a demotion meets the node anywhere on its way down: it has not heard of
/// it, asks for its certificate, has it, stops. `BRIG_ROLES` sets how often this is tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demotion_may_be_taken_back_at_any_moment() {
    let temp = tempfile::tempdir().unwrap();
    let (control, [first, second, third]) = three_managers(temp.path()).await;
    let pauses = [
        200, 620, 1050, 1200, 0, 100, 500, 550, 580, 650, 700, 800, 900, 1000, 1100, 1300, 1500,
        2000,
    ];
    let times = std::env::var("BRIG_ROLES").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    for pause in pauses.into_iter().cycle().take(times) {
        is_whole(&third, &control, &format!("before {pause} ms")).await;
        is_whole(&second, &control, &format!("before {pause} ms")).await;
        let begin = Instant::now();
        set_role(&control, &third.id(), NodeRole::Worker).await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        set_role(&control, &third.id(), NodeRole::Manager).await;
        // A moment later it may seem to be there, and then begin to stop.
        tokio::time::sleep(Duration::from_secs(3)).await;
        is_whole(&third, &control, &format!("after {pause} ms")).await;
        println!("{pause} ms: {:?}", begin.elapsed());
    }
    for host in [&third, &second, &first] {
        let _ = host.swarm.leave(true).await;
    }
}

/// The leader takes a former manager's member out; its demotion may have been taken back before it
/// heard of either. It finds its way into the store again, also when it was away meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_whose_member_was_taken_out_comes_back() {
    let temp = tempfile::tempdir().unwrap();
    let (control, [first, second, mut third]) = three_managers(temp.path()).await;
    for is_away in [false, true] {
        is_whole(&third, &control, "all is well").await;
        if is_away {
            third.die().await;
        }
        first.take_out(&third.id()).await;
        assert!(write(&control, &format!("without-{is_away}")).await);
        if is_away {
            third.boot().await;
        }
        let until = Instant::now() + Duration::from_secs(40);
        let is_back = || {
            third.swarm.control().is_ok_and(|it| has(&it, &format!("without-{is_away}")))
                && first.members() == 3
        };
        while !is_back() {
            assert!(Instant::now() < until, "away: {is_away}, {:?}", third.swarm.status());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        is_whole(&third, &control, "it is back").await;
    }
    for host in [&third, &second, &first] {
        let _ = host.swarm.leave(true).await;
    }
}
