//! Further processes in a container, and health checks.

use brig_api::container::HealthConfig;
use brig_api::exec::ExecConfig;
use brig_engine::{ExecStart, StartOptions};
use bytes::Bytes;

use crate::support::{Node, actions, finish, isolated, read, sh};

fn config(command: &[&str]) -> ExecConfig {
    ExecConfig {
        cmd: command.iter().map(|word| (*word).to_owned()).collect(),
        attach_stdout: true,
        attach_stderr: true,
        ..ExecConfig::default()
    }
}

#[test]
fn output_codes_and_input() {
    isolated("exec::output_codes_and_input", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let id = engine.create_container(Some("c1"), sh("sleep 100")).await.unwrap().id;
        let error = engine.create_exec("c1", config(&["true"])).unwrap_err();
        assert_eq!(error.to_string(), format!("Container {id} is not running"));
        engine.start_container("c1", StartOptions::default()).await.unwrap();

        let mut wanted = config(&["sh", "-c", "id -u; echo $A; pwd; echo err >&2; exit 4"]);
        wanted.user = "www".to_owned();
        wanted.env = vec!["A=b".to_owned()];
        wanted.working_dir = "/tmp".to_owned();
        let exec = engine.create_exec("c1", wanted).unwrap();
        let streams = engine.start_exec(exec.as_str(), ExecStart::default()).await.unwrap();
        assert_eq!(read(streams).await, ("33\nb\n/tmp\n".to_owned(), "err\n".to_owned()));
        let mut state = engine.inspect_exec(exec.as_str()).unwrap();
        for _ in 0..200 {
            if !state.running {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            state = engine.inspect_exec(exec.as_str()).unwrap();
        }
        assert_eq!((state.running, state.exit_code), (false, Some(4)));
        assert_eq!(state.process_config.entrypoint, "sh");
        let again = engine.start_exec(exec.as_str(), ExecStart::default()).await.unwrap_err();
        assert!(again.to_string().ends_with("has already run"));

        // Whoever was to start it went away before.
        let exec = engine.create_exec("c1", config(&["echo", "once"])).unwrap();
        let pending = engine.begin_exec(exec.as_str(), ExecStart::default()).unwrap();
        engine.begin_exec(exec.as_str(), ExecStart::default()).unwrap_err();
        drop(pending);
        let pending = engine.begin_exec(exec.as_str(), ExecStart::default()).unwrap();
        assert_eq!(read(pending.attach().await).await.0, "once\n");
        engine.begin_exec(exec.as_str(), ExecStart::default()).unwrap_err();

        let exec = engine.create_exec("c1", config(&["nosuch"])).unwrap();
        let streams = engine.start_exec(exec.as_str(), ExecStart::default()).await.unwrap();
        let (out, _) = read(streams).await;
        assert!(out.contains("executable file not found in $PATH"), "{out}");
        assert_eq!(engine.inspect_exec(exec.as_str()).unwrap().exit_code, Some(127));

        let mut wanted = config(&["cat"]);
        wanted.attach_stdin = true;
        let exec = engine.create_exec("c1", wanted).unwrap();
        let mut streams = engine.start_exec(exec.as_str(), ExecStart::default()).await.unwrap();
        let mut input = streams.input.take().unwrap();
        input.write(Bytes::from_static(b"through\n")).await;
        input.finish().await;
        assert_eq!(read(streams).await.0, "through\n");

        assert_eq!(
            engine.create_exec("c1", config(&[])).unwrap_err().to_string(),
            "No exec command specified"
        );
        assert_eq!(engine.inspect_exec("x").unwrap_err().to_string(), "No such exec instance: x");
        engine.pause("c1").await.unwrap();
        assert_eq!(
            engine.create_exec("c1", config(&["true"])).unwrap_err().to_string(),
            "Container c1 is paused, unpause the container before exec"
        );
        finish(engine).await;
    });
}

#[test]
fn health_follows_the_probe() {
    isolated("exec::health_follows_the_probe", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let mut wanted = sh("sleep 100");
        wanted.config.healthcheck = Some(HealthConfig {
            test: vec!["CMD-SHELL".to_owned(), "echo probing; test -f /tmp/ok".to_owned()],
            interval: 50_000_000,
            retries: 2,
            ..HealthConfig::default()
        });
        let filters = brig_api::filters::Filters::new().with("event", "health_status");
        let mut events = engine.events().subscribe(None, None, filters);
        engine.create_container(Some("c1"), wanted).await.unwrap();
        engine.start_container("c1", StartOptions::default()).await.unwrap();
        let health = engine.inspect("c1", false).await.unwrap().state.health.unwrap();
        assert_eq!(health.status, "starting");
        assert_eq!(
            actions(&mut events, "health_status: unhealthy").await,
            ["health_status: unhealthy"]
        );
        let touch = engine.create_exec("c1", config(&["touch", "/tmp/ok"])).unwrap();
        engine
            .start_exec(touch.as_str(), ExecStart { detach: true, console_size: None })
            .await
            .unwrap();
        actions(&mut events, "health_status: healthy").await;
        let health = engine.inspect("c1", false).await.unwrap().state.health.unwrap();
        assert_eq!((health.status.as_str(), health.failing_streak), ("healthy", 0));
        assert_eq!(health.log.last().unwrap().output, "probing\n");
        let listed = engine.list(Default::default()).await.unwrap();
        assert!(listed[0].status.ends_with("(healthy)"), "{}", listed[0].status);
        finish(engine).await;
    });
}
