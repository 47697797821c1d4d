//! From one manager to three and back, and a store of somebody else.

use super::*;

/// Writes on a manager that is being demoted; answers how it was refused.
async fn write_until_it_is_a_worker(host: &Host, mut own: Control) -> Vec<ControlError> {
    let mut refusals = Vec::new();
    let until = Instant::now() + Duration::from_secs(30);
    for number in 0.. {
        if let Err(refusal) = own.create_config(config(&format!("{}-{number}", host.id()))).await {
            refusals.push(refusal);
        }
        match host.swarm.control() {
            Ok(control) => own = control,
            Err(_) => break,
        }
        assert!(Instant::now() < until, "it stays a manager");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Whoever still has what it was controlled with is told the same.
    refusals.push(own.create_config(config("late")).await.unwrap_err());
    refusals
}

/// The life of a real swarm: alone, three managers, one lost, one replaced, back to one. Nothing
/// that was acknowledged is ever gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_come_and_go_and_nothing_is_lost() {
    let temp = tempfile::tempdir().unwrap();
    let mut first = Host::new(&temp.path().join("1")).await;
    first.swarm.init(first.init()).await.unwrap();
    let control = first.swarm.control().unwrap();
    let worker = Host::new(&temp.path().join("w")).await;
    worker.join(&control, NodeRole::Worker).await;
    control.create_service(service("web", "img", 2)).await.unwrap();
    assert!(write(&control, "alone").await);

    // Writes go on while the store moves.
    let mut writer = tokio::task::JoinSet::new();
    writer.spawn({
        let control = control.clone();
        async move {
            let mut acknowledged = Vec::new();
            for number in 0..100 {
                let name = format!("moving{number}");
                if write(&control, &name).await {
                    acknowledged.push(name);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            acknowledged
        }
    });
    let second = Host::new(&temp.path().join("2")).await;
    second.join(&control, NodeRole::Manager).await;
    let mut acknowledged = writer.join_next().await.unwrap().unwrap();
    assert_eq!(acknowledged.len(), 100, "no write was refused");
    assert!(!temp.path().join("1/swarm/cluster.redb").exists());
    let third = Host::new(&temp.path().join("3")).await;
    third.join(&second.swarm.control().unwrap(), NodeRole::Manager).await;
    let controls = [&first, &second, &third].map(|host| host.swarm.control().unwrap());
    for (number, control) in controls.iter().enumerate() {
        let name = format!("by{number}");
        assert!(write(control, &name).await);
        acknowledged.push(name);
    }
    for control in &controls {
        for id in [first.id(), second.id(), third.id()] {
            eventually("every manager is reachable", || {
                reaches(control, &id) == Some(Reachability::Reachable)
            })
            .await;
        }
        eventually("everything is everywhere", || {
            acknowledged.iter().all(|name| has(control, name))
        })
        .await;
        assert_eq!(leader(control), Some(first.id()));
    }
    let known = worker.swarm.clone();
    eventually("the worker knows all managers", || known.status().remote_managers.len() == 3).await;

    // Logs come from the nodes of all managers, whichever manager is asked.
    control.create_service(service("chatty", "img", 6)).await.unwrap();
    let other = &controls[2];
    eventually("all tasks run", || running(other, "chatty") == 6).await;
    let selector = LogSelector {
        service_ids: vec![other.service("chatty").unwrap().id.clone()],
        ..LogSelector::default()
    };
    let mut lines = other.service_logs(selector, LogSubscriptionOptions::default()).unwrap();
    assert!(lines.missing_nodes().is_empty(), "{:?}", lines.missing_nodes());
    let mut seen = std::collections::BTreeSet::new();
    while let Some(line) = lines.next().await {
        seen.insert(String::from_utf8(line.data).unwrap());
    }
    assert_eq!(seen.len(), 6, "{seen:?}");

    // The leader is lost with its etcd.
    first.die().await;
    let control = second.swarm.control().unwrap();
    let lost = Instant::now();
    while !write(&control, "after").await {
        assert!(lost.elapsed() < Duration::from_secs(20));
    }
    acknowledged.push("after".to_owned());
    eventually("another one leads", || leader(&control).is_some_and(|id| id != first.id())).await;
    eventually("the lost one is missed", || {
        reaches(&control, &first.id()) == Some(Reachability::Unreachable)
            && !is_up(&control, &first.id())
    })
    .await;
    eventually("the worker is served by another", || is_up(&control, &worker.id())).await;

    // It comes back.
    first.boot().await;
    let back = first.swarm.control().unwrap();
    eventually("it has what it missed", || has(&back, "after")).await;
    assert!(write(&back, "back").await);
    eventually("it is there again", || {
        reaches(&control, &first.id()) == Some(Reachability::Reachable)
            && is_up(&control, &first.id())
    })
    .await;

    // Back to one, by demotion.
    for host in [&third, &first] {
        let own = host.swarm.control().unwrap();
        set_role(&control, &host.id(), NodeRole::Worker).await;
        let refusals = write_until_it_is_a_worker(host, own).await;
        eventually("it is a worker", || host.swarm.control().is_err() && host.etcd().is_none())
            .await;
        for refusal in refusals {
            assert_eq!(refusal.kind(), ErrorKind::Unavailable, "{refusal}");
            let text = refusal.to_string();
            assert!(text.contains("This node is not a swarm manager."), "{text}");
        }
        assert!(write(&control, &format!("without{}", host.id())).await);
        eventually("it works on", || is_up(&control, &host.id())).await;
    }
    for name in &acknowledged {
        assert!(has(&control, name), "{name} is lost");
    }
    assert!(!temp.path().join("3/swarm/etcd").exists());
    // And up again.
    set_role(&control, &third.id(), NodeRole::Manager).await;
    eventually("it is a manager", || third.swarm.control().is_ok()).await;
    let again = third.swarm.control().unwrap();
    assert!(write(&again, "promoted").await);
    eventually("both know", || has(&control, "promoted")).await;
    // Demoted and promoted again before it took note.
    set_role(&control, &third.id(), NodeRole::Worker).await;
    set_role(&control, &third.id(), NodeRole::Manager).await;
    eventually("it is a manager still", || {
        third.swarm.control().is_ok()
            && reaches(&control, &third.id()) == Some(Reachability::Reachable)
    })
    .await;
    let again = third.swarm.control().unwrap();
    again.create_config(config("promoted-twice")).await.unwrap();
    for host in [&third, &second, &worker, &first] {
        let _ = host.swarm.leave(true).await;
    }
    assert!(second.etcd().is_none() && third.etcd().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_of_somebody_else_keeps_the_swarm() {
    let etcd = Etcd::start();
    let temp = tempfile::tempdir().unwrap();
    let mut first = Host::new(&temp.path().join("1")).await;
    let mut second = Host::new(&temp.path().join("2")).await;
    let external = ExternalStore { endpoints: vec![etcd.endpoint()], tls: etcd.tls() };
    for host in [&mut first, &mut second] {
        host.settings.external = Some(external.clone());
        host.swarm.shutdown().await;
        host.boot().await;
    }
    first.swarm.init(first.init()).await.unwrap();
    let control = first.swarm.control().unwrap();
    assert!(write(&control, "one").await);
    control.create_service(service("web", "img", 2)).await.unwrap();
    eventually("the tasks run", || running(&control, "web") == 2).await;
    first.swarm.shutdown().await;
    first.boot().await;
    let control = first.swarm.control().unwrap();
    assert!(has(&control, "one"), "it is there after a restart");
    eventually("the tasks run on", || running(&control, "web") == 2).await;

    second.join(&control, NodeRole::Manager).await;
    let other = second.swarm.control().unwrap();
    assert!(has(&other, "one") && write(&other, "two").await);
    eventually("both see it", || has(&control, "two")).await;
    assert!(first.etcd().is_none() && second.etcd().is_none(), "no etcd of its own");
    let names = etcd.ctl(&["get", "/brig/", "--prefix", "--keys-only"]);
    let names = String::from_utf8(names.stdout).unwrap();
    assert!(names.contains("/s/o/config/"), "{names}");
    assert_eq!(names.matches("/s/head").count(), 1);

    // With etcd's own limits a transaction has at most 128 operations: what needs more is done in
    // several, by the loops as well as by the agents' reports.
    let created = other.create_service(service("many", "img", 150)).await.unwrap();
    eventually("more tasks run than one transaction holds", || running(&control, "many") == 150)
        .await;
    control.remove_service(&created).await.unwrap();
    eventually("they are gone", || control.tasks().iter().all(|task| task.service_id != created))
        .await;

    // Without its settings the swarm is not taken up, and says why.
    first.swarm.shutdown().await;
    first.settings.external = None;
    first.boot().await;
    let status = first.swarm.status();
    assert!(status.error.contains("--store"), "{}", status.error);
    second.swarm.leave(true).await.unwrap();
}
