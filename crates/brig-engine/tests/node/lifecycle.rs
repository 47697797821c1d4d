//! Create, start, stop, remove, and what is seen of it.

use brig_api::container::{PortBinding, RestartPolicy};
use brig_api::filters::Filters;
use brig_api::stream::StdStream;
use brig_engine::{
    AttachRequest, ListOptions, LogsRequest, RemoveOptions, StartOptions, Tail, WaitCondition,
};
use brig_types::error::{Categorized, ErrorKind, chain};
use bytes::Bytes;

use crate::support::{
    Node, actions, finish, isolated, logs, nothing_left, read, request, run, sh, wait,
};

#[test]
fn output_exit_code_and_defaults() {
    isolated("lifecycle::output_exit_code_and_defaults", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let (code, out, err) =
            run(&engine, sh("echo out; echo err >&2; echo $FROM_IMAGE; exit 3")).await;
        assert_eq!((code, out.as_str(), err.as_str()), (3, "out\nyes\n", "err\n"));

        let mut wanted = sh("id; hostname; cat /etc/hostname; ls /sys/class/net; pwd");
        wanted.config.user = "www".to_owned();
        wanted.config.hostname = "boat".to_owned();
        wanted.config.working_dir = "/made/here".to_owned();
        let (code, out, _) = run(&engine, wanted).await;
        assert_eq!(code, 0);
        assert_eq!(
            out,
            "uid=33(www) gid=34(www) groups=34(www),77(extra)\nboat\nboat\nlo\n/made/here\n"
        );

        let mut wanted = sh("stty size");
        wanted.config.tty = true;
        wanted.host_config.console_size = [33, 77];
        let (_, out, _) = run(&engine, wanted).await;
        assert_eq!(out, "33 77\r\n");
        finish(engine).await;
    });
}

#[test]
fn a_container_that_removes_itself() {
    isolated("lifecycle::a_container_that_removes_itself", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let mut events = engine.events().subscribe(None, None, Filters::new());
        let mut wanted = sh("exit 5");
        wanted.host_config.auto_remove = true;
        let id = engine.create_container(Some("gone"), wanted.clone()).await.unwrap().id;
        let removed = engine.wait("gone", WaitCondition::Removed).unwrap();
        engine.start_container("gone", StartOptions::default()).await.unwrap();
        assert_eq!(removed.wait().await.exit_code, 5);
        assert_eq!(engine.inspect(&id, false).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(
            actions(&mut events, "destroy").await,
            ["create", "network connect", "start", "die", "network disconnect", "destroy"]
        );
        // The name is free at once.
        let mut again = wanted;
        again.config.cmd = vec!["/nosuch".to_owned()];
        engine.create_container(Some("gone"), again).await.unwrap();
        let removed = engine.wait("gone", WaitCondition::Removed).unwrap();
        let error = engine.start_container("gone", StartOptions::default()).await.unwrap_err();
        assert!(chain(&error).contains("no such file or directory"), "{}", chain(&error));
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        let outcome = removed.wait().await;
        assert_eq!(outcome, brig_engine::WaitOutcome { exit_code: 127, error: None });
        nothing_left(&node).await;
        engine.shutdown().await;
    });
}

#[test]
fn stop_kill_restart_pause() {
    isolated("lifecycle::stop_kill_restart_pause", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let trap = sh("trap 'exit 7' TERM; echo ready; while true; do sleep 0.05; done");
        let id = engine.create_container(Some("c1"), trap).await.unwrap().id;
        let start = || engine.start_container(&id, StartOptions::default());
        start().await.unwrap();
        assert_eq!(start().await.unwrap_err().kind(), ErrorKind::NotModified);
        said_ready(&engine, 1).await;
        let error = engine.remove(&id, RemoveOptions::default()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "You cannot remove a running container {id}. Stop the container before attempting removal or force remove"
            )
        );
        engine.pause("c1").await.unwrap();
        assert_eq!(engine.inspect("c1", false).await.unwrap().state.status, "paused");
        engine.unpause("c1").await.unwrap();
        let error = engine.unpause("c1").await.unwrap_err();
        assert_eq!(error.to_string(), format!("Container {id} is not paused"));

        let mut events = engine.events().subscribe(None, None, Filters::new());
        engine.stop("c1", Some(20), None).await.unwrap();
        assert_eq!(
            actions(&mut events, "stop").await,
            ["kill", "die", "network disconnect", "stop"]
        );
        let state = engine.inspect("c1", false).await.unwrap().state;
        assert_eq!((state.status.as_str(), state.exit_code, state.pid), ("exited", 7, 0));
        let error = engine.stop("c1", None, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotModified);
        let error = engine.kill("c1", None).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("Cannot kill container: c1: Container {id} is not running")
        );

        start().await.unwrap();
        said_ready(&engine, 2).await;
        engine.restart("c1", Some(20), None).await.unwrap();
        assert_eq!(
            actions(&mut events, "restart").await,
            [
                "network connect",
                "start",
                "kill",
                "die",
                "network disconnect",
                "stop",
                "network connect",
                "start",
                "restart"
            ]
        );
        engine.kill("c1", Some("KILL")).await.unwrap();
        assert_eq!(wait(&engine, "c1", WaitCondition::NotRunning).await.exit_code, 137);
        engine.rename("c1", "c2").await.unwrap();
        engine.remove("c2", RemoveOptions::default()).await.unwrap();
        engine.shutdown().await;
    });
}

/// A first process gets no signal that it has no handler for: wait until it has. The log keeps what
/// was said in earlier lives.
async fn said_ready(engine: &brig_engine::Engine, lives: usize) {
    let request = LogsRequest { stdout: true, follow: true, ..Default::default() };
    let mut lines = engine.logs("c1", request).await.unwrap();
    for _ in 0..lives {
        let line = tokio::time::timeout(crate::support::LIMIT, lines.next()).await.unwrap();
        assert_eq!(line.unwrap().data, "ready\n");
    }
}

#[test]
fn input_and_logs() {
    isolated("lifecycle::input_and_logs", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let mut wanted = request(&["cat"]);
        wanted.config.open_stdin = true;
        wanted.config.stdin_once = true;
        let id = engine.create_container(None, wanted).await.unwrap().id;
        let all = AttachRequest {
            stdin: true,
            stdout: true,
            stderr: true,
            stream: true,
            detach_keys: "ctrl-p,ctrl-q".to_owned(),
            ..Default::default()
        };
        let mut streams = engine.attach(&id, all.clone()).await.unwrap();
        // Before the start: it is kept for the process.
        let mut input = streams.input.take().unwrap();
        let (written, started) = tokio::join!(
            input.write(Bytes::from_static(b"early\n")),
            engine.start_container(&id, StartOptions::default())
        );
        started.unwrap();
        assert_eq!(written, brig_engine::Written::Forwarded);
        assert_eq!(
            input.write(Bytes::from_static(b"late\n")).await,
            brig_engine::Written::Forwarded
        );
        let mut other = engine.attach(&id, all).await.unwrap().input.unwrap();
        let detached = other.write(Bytes::from_static(b"x\n\x10\x11")).await;
        assert_eq!(detached, brig_engine::Written::Detached);
        input.finish().await;
        assert_eq!(read(streams).await.0, "early\nlate\nx\n");
        wait(&engine, &id, WaitCondition::NotRunning).await;

        let script =
            "for i in $(seq 1 50); do echo line $i; done; echo -n open; sleep 0.3; echo -n end >&2";
        let id = engine.create_container(None, sh(script)).await.unwrap().id;
        engine.start_container(&id, StartOptions::default()).await.unwrap();
        let follow = LogsRequest { follow: true, tail: Tail::All, ..Default::default() };
        let followed = logs(&engine, &id, follow).await;
        let mut expected: String = (1..=50).map(|n| format!("line {n}\n")).collect();
        expected.push_str("openend");
        assert_eq!(followed, expected);
        let past = AttachRequest { stdout: true, logs: true, ..Default::default() };
        let attached = engine.attach(&id, past).await.unwrap();
        assert_eq!(read(attached).await.0, expected.replace("end", ""));
        let last = LogsRequest { tail: Tail::Last(2), ..Default::default() };
        assert_eq!(logs(&engine, &id, last).await, "line 50\nopenend");
        let mut only =
            engine.logs(&id, LogsRequest { stderr: true, ..Default::default() }).await.unwrap();
        let line = only.next().await.unwrap();
        assert_eq!((line.stream, line.data.as_ref()), (StdStream::Stderr, &b"end"[..]));
        assert!(line.time.ends_with('Z') && line.time.len() == 30, "{}", line.time);
        let error = engine.logs(&id, LogsRequest::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "Bad parameters: you must choose at least one stream");
        finish(engine).await;
    });
}

#[test]
fn logs_are_rotated_without_losing_lines() {
    isolated("lifecycle::logs_are_rotated_without_losing_lines", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let script = "i=0; while [ $i -lt 250 ]; do i=$((i+1)); echo $i; sleep 0.01; done";
        let mut wanted = sh(script);
        let options = [("max-size", "2k"), ("max-file", "5")];
        wanted.host_config.log_config.kind = "json-file".to_owned();
        wanted.host_config.log_config.config =
            options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let id = engine.create_container(None, wanted).await.unwrap().id;
        engine.start_container(&id, StartOptions::default()).await.unwrap();
        let follow = LogsRequest { follow: true, ..Default::default() };
        let expected: String = (1..=250).map(|n| format!("{n}\n")).collect();
        assert_eq!(logs(&engine, &id, follow).await, expected);
        assert_eq!(logs(&engine, &id, LogsRequest::default()).await, expected);
        let path = engine.inspect(&id, false).await.unwrap().log_path;
        assert!(std::path::Path::new(&format!("{path}.1")).exists());
        finish(engine).await;
    });
}

#[test]
fn lists_and_names() {
    isolated("lifecycle::lists_and_names", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let mut wanted = sh("sleep 100");
        wanted.config.labels.insert("tier".to_owned(), "web".to_owned());
        let first = engine.create_container(Some("first"), wanted).await.unwrap().id;
        engine.start_container(&first, StartOptions::default()).await.unwrap();
        let second = engine.create_container(None, request(&["true"])).await.unwrap().id;
        let error = engine.create_container(Some("first"), request(&["true"])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let error = engine.create_container(Some("x_!"), request(&["true"])).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "Invalid container name (x_!), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        );
        let mut unknown = request(&["true"]);
        unknown.config.image = "nope".to_owned();
        let error = engine.create_container(None, unknown).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (ErrorKind::NotFound, "No such image: nope:latest".to_owned())
        );

        let ids = async |options: ListOptions| -> Vec<String> {
            let list = engine.list(options).await.unwrap();
            list.into_iter().map(|c| c.names.concat()).collect()
        };
        let second_name = engine.inspect(&second, false).await.unwrap().name;
        let (first_name, second_name) = ("/first", second_name.as_str());
        let filter = |key: &str, value: &str| ListOptions {
            all: true,
            filters: Filters::new().with(key, value),
            ..ListOptions::default()
        };
        assert_eq!(ids(ListOptions::default()).await, [first_name]);
        let all = ListOptions { all: true, ..ListOptions::default() };
        assert_eq!(ids(all).await, [second_name, first_name]);
        assert_eq!(ids(ListOptions { limit: 1, ..Default::default() }).await, [second_name]);
        assert_eq!(ids(filter("label", "tier=web")).await, [first_name]);
        assert_eq!(ids(filter("status", "created")).await, [second_name]);
        assert_eq!(ids(filter("ancestor", "busybox")).await.len(), 2);
        assert_eq!(ids(filter("since", "first")).await, [second_name]);
        assert!(engine.list(filter("bogus", "x")).await.is_err());
        let listed = engine.list(filter("id", &first[..12])).await.unwrap();
        assert!(listed[0].status.starts_with("Up "), "{}", listed[0].status);
        assert_eq!(
            (listed[0].image.as_str(), listed[0].command.as_str()),
            ("busybox", "sh -c 'sleep 100'")
        );
        let top = engine.top("first", "").await.unwrap();
        assert!(
            top.processes.iter().any(|row| row.last().is_some_and(|cmd| cmd.contains("sleep")))
        );
        let inspected = engine.inspect(&first[..12], true).await.unwrap();
        assert_eq!(inspected.name, "/first");
        assert!(inspected.size_root_fs.unwrap() > inspected.size_rw.unwrap());
        finish(engine).await;
    });
}

#[test]
fn restart_policies() {
    isolated("lifecycle::restart_policies", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let mut wanted = sh("exit 1");
        wanted.host_config.restart_policy =
            RestartPolicy { name: "on-failure".to_owned(), maximum_retry_count: 2 };
        let id = engine.create_container(None, wanted).await.unwrap().id;
        engine.start_container(&id, StartOptions::default()).await.unwrap();
        wait(&engine, &id, WaitCondition::NotRunning).await;
        let state = engine.inspect(&id, false).await.unwrap();
        assert_eq!((state.restart_count, state.state.exit_code), (2, 1));

        let mut wanted = sh("exit 0");
        wanted.host_config.restart_policy.name = "always".to_owned();
        let id = engine.create_container(None, wanted).await.unwrap().id;
        engine.start_container(&id, StartOptions::default()).await.unwrap();
        let mut events = engine.events().subscribe(None, None, Filters::new());
        actions(&mut events, "start").await;
        actions(&mut events, "start").await;
        engine.stop(&id, Some(1), None).await.unwrap();
        let state = engine.inspect(&id, false).await.unwrap().state;
        assert_eq!((state.status.as_str(), state.running), ("exited", false));
        finish(engine).await;
    });
}

#[test]
fn networks_and_ports() {
    isolated("lifecycle::networks_and_ports", || async {
        let node = Node::new();
        let engine = node.engine().await;
        let mut wanted = sh("echo hello > /tmp/index.html; httpd -f -p 80 -h /tmp");
        wanted.host_config.network_mode = "bridge".to_owned();
        wanted.host_config.port_bindings.insert(
            "80/tcp".to_owned(),
            Some(vec![PortBinding { host_ip: String::new(), host_port: "8080".to_owned() }]),
        );
        let id = engine.create_container(Some("web"), wanted.clone()).await.unwrap().id;
        engine.start_container(&id, StartOptions::default()).await.unwrap();
        let inspected = engine.inspect(&id, false).await.unwrap();
        let settings = &inspected.network_settings;
        assert!(!settings.ip_address.is_empty());
        assert_eq!(settings.networks["bridge"].ip_address, settings.ip_address);
        let bound = settings.ports["80/tcp"].as_ref().unwrap();
        assert_eq!(bound[0].host_port, "8080");

        let mut client = sh("wget -q -O - http://$PEER/");
        client.config.env = vec![format!("PEER={}", settings.ip_address)];
        client.host_config.network_mode = "bridge".to_owned();
        let (code, out, err) = run(&engine, client).await;
        assert_eq!((code, out.as_str()), (0, "hello\n"), "{err}");

        // A taken port fails, and is free at once when its owner was removed.
        wanted.host_config.auto_remove = true;
        let other = engine.create_container(None, wanted.clone()).await.unwrap().id;
        let error = engine.start_container(&other, StartOptions::default()).await.unwrap_err();
        assert!(chain(&error).contains("port is already allocated"), "{}", chain(&error));
        engine.remove(&id, RemoveOptions { force: true, volumes: false }).await.unwrap();
        let third = engine.create_container(None, wanted).await.unwrap().id;
        engine.start_container(&third, StartOptions::default()).await.unwrap();

        let mut peer = sh("ls /sys/class/net; hostname");
        peer.host_config.network_mode = format!("container:{third}");
        let (_, out, _) = run(&engine, peer).await;
        assert!(out.contains("eth0"), "{out}");

        let spec = brig_network::NetworkSpec { name: "mine".to_owned(), ..Default::default() };
        engine.networks().create(spec).await.unwrap();
        let mut named = sh("sleep 100");
        named.host_config.network_mode = "mine".to_owned();
        let named = engine.create_container(Some("harbour"), named).await.unwrap().id;
        engine.start_container(&named, StartOptions::default()).await.unwrap();
        engine.connect_network("mine", &third, None).await.unwrap();
        let twice = engine.connect_network("mine", &third, None).await.unwrap_err();
        assert!(twice.to_string().contains("already exists in network mine"), "{twice}");
        let find = |command: &str| brig_api::exec::ExecConfig {
            cmd: ["sh", "-c", command].map(str::to_owned).to_vec(),
            attach_stdout: true,
            attach_stderr: true,
            ..Default::default()
        };
        let exec = engine
            .create_exec(&third, find("nslookup harbour 127.0.0.11; ls /sys/class/net"))
            .unwrap();
        let streams = engine.start_exec(exec.as_str(), Default::default()).await.unwrap();
        let (out, err) = read(streams).await;
        let address =
            &engine.inspect(&named, false).await.unwrap().network_settings.networks["mine"];
        assert!(out.contains(&address.ip_address) && out.contains("eth1"), "{out}{err}");
        engine.disconnect_network("mine", &third, false).await.unwrap();
        let networks = engine.inspect(&third, false).await.unwrap().network_settings.networks;
        assert_eq!(networks.into_keys().collect::<Vec<_>>(), ["bridge"]);
        assert!(engine.disconnect_network("mine", &third, false).await.is_err());
        for (network, text) in
            [("mine", "endpoint nobody not found"), ("nonet", "network nonet not found")]
        {
            let error = engine.disconnect_network(network, "nobody", true).await.unwrap_err();
            assert_eq!(error.to_string(), text);
            assert_eq!(error.kind(), ErrorKind::NotFound);
        }

        let mut lost = request(&["true"]);
        lost.host_config.network_mode = "nonet".to_owned();
        let lost = engine.create_container(None, lost).await.unwrap().id;
        let error = engine.start_container(&lost, StartOptions::default()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (ErrorKind::NotFound, "network nonet not found".to_owned())
        );
        finish(engine).await;
    });
}
