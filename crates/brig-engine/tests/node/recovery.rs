//! Engines come and go, by kill -9 too; containers stay.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use brig_engine::{LogsRequest, StartOptions, WaitCondition};

use crate::support::{
    Node, block_on, engine_at, finish, isolated, logs, nothing_left, request, sh, wait,
};

const VICTIM: &str = "BRIG_ENGINE_TEST_VICTIM";

#[test]
fn containers_go_on_without_the_engine() {
    isolated("recovery::containers_go_on_without_the_engine", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let counting = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.02; done";
        let long = engine.create_container(Some("long"), sh(counting)).await.unwrap().id;
        let brief =
            engine.create_container(Some("brief"), sh("sleep 0.3; exit 6")).await.unwrap().id;
        let mut itself = sh("sleep 0.3");
        itself.host_config.auto_remove = true;
        let itself = engine.create_container(Some("itself"), itself).await.unwrap().id;
        for id in [&long, &brief, &itself] {
            engine.start_container(id, StartOptions::default()).await.unwrap();
        }
        let pid = engine.inspect(&long, false).await.unwrap().state.pid;
        engine.shutdown().await;
        drop(engine);
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;

        let engine = node.engine().await;
        let state = engine.inspect("long", false).await.unwrap().state;
        assert_eq!((state.status.as_str(), state.pid), ("running", pid));
        let state = engine.inspect("brief", false).await.unwrap().state;
        assert_eq!((state.status.as_str(), state.exit_code), ("exited", 6));
        assert!(engine.inspect("itself", false).await.is_err());
        let text = logs(&engine, "long", LogsRequest::default()).await;
        let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert!(numbers.len() > 10 && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
        engine.kill("long", None).await.unwrap();
        assert_eq!(wait(&engine, "long", WaitCondition::NotRunning).await.exit_code, 137);
        finish(engine).await;
    });
}

/// Runs an engine that starts containers without end, to be killed. Only by the test below.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(VICTIM) else { return };
    block_on(async {
        let engine = engine_at(&PathBuf::from(dir)).await;
        let mut kept = sh("sleep 1000");
        kept.host_config.restart_policy.name = "always".to_owned();
        engine.create_container(Some("kept"), kept).await.unwrap();
        engine.start_container("kept", StartOptions::default()).await.unwrap();
        println!("ready");
        loop {
            let mut brief = request(&["true"]);
            brief.host_config.auto_remove = true;
            let a = engine.create_container(None, brief.clone()).await.unwrap().id;
            brief.host_config.auto_remove = false;
            let b = engine.create_container(None, brief).await.unwrap().id;
            let (_, _) = tokio::join!(
                engine.start_container(&a, StartOptions::default()),
                engine.start_container(&b, StartOptions::default())
            );
            wait(&engine, &b, WaitCondition::NotRunning).await;
            engine.remove(&b, Default::default()).await.unwrap();
        }
    });
}

#[test]
fn killed_at_any_moment() {
    isolated("recovery::killed_at_any_moment", || async {
        let node = Node::new();
        for millis in [5, 18, 31, 47, 66, 90, 120] {
            let mut victim = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "recovery::victim", "--nocapture", "--test-threads", "1"])
                .env(VICTIM, node.path())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap().contains("ready")));
            tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
            victim.kill().unwrap();
            victim.wait().unwrap();

            let engine = node.engine().await;
            let all = brig_engine::ListOptions { all: true, ..Default::default() };
            let listed = engine.list(all).await.unwrap();
            let kept = listed.iter().find(|c| c.names == ["/kept"]).expect("it is still there");
            assert_eq!(kept.state, "running");
            for container in &listed {
                assert!(
                    matches!(container.state.as_str(), "running" | "created" | "exited"),
                    "{} after {millis} ms",
                    container.state
                );
            }
            // Whatever is listed works.
            for container in &listed {
                let state = engine.inspect(&container.id, false).await.unwrap().state;
                if !state.running {
                    engine.start_container(&container.id, StartOptions::default()).await.unwrap();
                }
            }
            finish(engine).await;
            nothing_left(&node).await;
        }
    });
}
