//! The certificates of the store: what those of former managers open, and their renewal.

use super::*;

/// What a former manager has of the store opens nothing once its authority has changed, and what
/// it has open ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_managers_certificates_open_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let (control, [first, second, third]) = three_managers(temp.path()).await;
    let own = temp.path().join("1/swarm/etcd");
    let kept = temp.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    for name in ["client.pem", "client.key"] {
        std::fs::copy(temp.path().join("3/swarm/etcd").join(name), kept.join(name)).unwrap();
    }
    let client = |dir: &Path| {
        // Whoever kept a certificate knows whom to believe, too.
        let tls = EtcdTls {
            ca: own.join("ca.pem"),
            cert: dir.join("client.pem"),
            key: dir.join("client.key"),
        };
        let endpoint = format!("127.0.0.1:{}", first.settings.client_port);
        EtcdClient::new(&[endpoint], tls).unwrap()
    };
    let patience = Duration::from_secs(2);
    let before = std::fs::read(own.join("ca.pem")).unwrap();
    let open = client(&kept);
    open.check_quorum(patience).await.unwrap();
    set_role(&control, &third.id(), NodeRole::Worker).await;
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        let is_refused = client(&kept).check_quorum(patience).await.is_err();
        if is_refused
            && open.check_quorum(patience).await.is_err()
            && client(&own).check_quorum(patience).await.is_ok()
        {
            break;
        }
        assert!(Instant::now() < until, "the old certificate still opens the store");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_ne!(std::fs::read(own.join("ca.pem")).unwrap(), before);
    for host in [&first, &second] {
        // Members may still be on their way back.
        let (control, name) = (host.swarm.control().unwrap(), format!("after-{}", host.id()));
        while !write(&control, &name).await {
            assert!(Instant::now() < until, "nothing can be written");
        }
    }
    // A new one comes in under the new authority.
    let fourth = Host::new(&temp.path().join("4")).await;
    fourth.join(&control, NodeRole::Manager).await;
    let last = fourth.swarm.control().unwrap();
    while let Err(error) = last.create_config(config("by-the-fourth")).await {
        assert!(Instant::now() < until, "{}", brig_types::error::chain(&error));
    }
    eventually("it is everywhere", || has(&second.swarm.control().unwrap(), "by-the-fourth")).await;
}

/// The certificates of the store are renewed before they end, while everything goes on, and members
/// and clients take the new ones up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_certificates_are_renewed_before_they_end() {
    const EXPIRY: Duration = Duration::from_secs(30);
    let temp = tempfile::tempdir().unwrap();
    let settings = StoreSettings { certificate_expiry: Some(EXPIRY), ..StoreSettings::default() };
    let (control, hosts) = three_managers_with(temp.path(), &settings).await;
    let end = Instant::now() + EXPIRY;
    let certificates = || {
        let read = |host: &Host| std::fs::read(host.dir.join("swarm/etcd/member.pem")).unwrap();
        hosts.iter().map(read).collect::<Vec<_>>()
    };
    let before = certificates();
    eventually("all are renewed", || {
        certificates().iter().zip(&before).all(|(now, before)| now != before)
    })
    .await;
    let mut number = 0;
    while Instant::now() < end {
        number += 1;
        assert!(write(&control, &format!("meanwhile{number}")).await, "writes go on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The old ones have ended: whatever connects from now on does so with the new ones.
    let old = hosts[2].etcd().unwrap();
    assert!(
        std::process::Command::new("kill")
            .args(["-9", &old.to_string()])
            .status()
            .unwrap()
            .success()
    );
    eventually("it is started again", || hosts[2].etcd().is_some_and(|now| now != old)).await;
    for host in &hosts {
        is_whole(host, &control, "after the end of the old certificates").await;
    }
    for host in hosts.iter().rev() {
        let _ = host.swarm.leave(true).await;
    }
}

/// Two of three that are demoted at once, the leader among them, are the majority of the store's
/// members until they are out of it: its authority changes after that. `BRIG_ROLES` sets how often
/// this is tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_are_demoted_at_once_do_not_cut_off_the_third() {
    let temp = tempfile::tempdir().unwrap();
    let (_, hosts) = three_managers(temp.path()).await;
    let times = std::env::var("BRIG_ROLES").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for time in 1..=times {
        let leads = leader(&hosts[0].swarm.control().unwrap());
        let (gone, kept): (Vec<_>, Vec<_>) =
            hosts.iter().partition(|host| leads.as_ref() == Some(&host.id()));
        let (&[left, kept], &[leads]) = (&kept[..], &gone[..]) else { panic!("nobody leads") };
        let control = kept.swarm.control().unwrap();
        let before = control.data_keys().await.unwrap().generation;
        set_role(&control, &left.id(), NodeRole::Worker).await;
        set_role(&control, &leads.id(), NodeRole::Worker).await;
        eventually("both are workers", || is_worker(left) && is_worker(leads)).await;
        settled(&control, before + 1).await;
        let begin = Instant::now();
        while !write(&control, &format!("alone-{time}")).await {
            assert!(begin.elapsed() < Duration::from_secs(30), "no write is taken");
        }
        for host in [left, leads] {
            set_role(&control, &host.id(), NodeRole::Manager).await;
            is_whole(host, &control, "it is a manager again").await;
        }
    }
    for host in hosts.iter().rev() {
        let _ = host.swarm.leave(true).await;
    }
}
