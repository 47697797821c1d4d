//! The same command lines through docker's CLI and through this one, against a daemon that only
//! records: the requests must be the same, and so must what is printed where it is a table.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use serde_json::Value;
use support::{Daemon, Recorded};

const BRIG: &str = env!("CARGO_BIN_EXE_brig");
/// The version of docker's CLI that the comparison is made with.
const DOCKER_VERSION: &str = "28.";

/// Docker's CLI, or `None` with a printed reason.
fn docker() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join("docker"))
        .filter(|file| file.is_file())
        .find(|file| {
            let output = std::process::Command::new(file).arg("--version").output();
            output.is_ok_and(|output| {
                String::from_utf8_lossy(&output.stdout)
                    .starts_with(&format!("Docker version {DOCKER_VERSION}"))
            })
        });
    if found.is_none() {
        println!("skipped: no docker CLI {DOCKER_VERSION}x in PATH to compare with");
    }
    found
}

fn run(
    daemon: &Daemon,
    program: &Path,
    arguments: &[&str],
    stdin: Option<&str>,
) -> (Output, Vec<Recorded>) {
    let mut command = daemon.command(program);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().unwrap();
    if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
        use std::io::Write as _;
        pipe.write_all(text.as_bytes()).unwrap();
    }
    let output = child.wait_with_output().unwrap();
    (output, daemon.take())
}

/// Differences of all command lines, reported together.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn compare<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, ours: &T, theirs: &T) {
        if ours != theirs {
            self.0.push(format!("{what}\n  ours:   {ours:?}\n  theirs: {theirs:?}"));
        }
    }

    fn finish(self) {
        assert!(self.0.is_empty(), "\n{}", self.0.join("\n"));
    }
}

/// What a request means: empty values, which are all "not set", left out.
fn meaning(requests: Vec<Recorded>) -> Vec<String> {
    requests
        .into_iter()
        .map(|request| {
            let body = serde_json::from_slice(&request.body).unwrap_or_else(|_| {
                Value::from(String::from_utf8_lossy(&request.body).into_owned())
            });
            let query = request.query.into_iter().filter(|pair| !pair.ends_with('=')).collect();
            let query: Vec<String> = query;
            let auth = if request.registry_auth { " with credentials" } else { "" };
            format!(
                "{} {}?{}{auth} {}",
                request.method,
                request.path,
                query.join("&"),
                without_empty(body)
            )
        })
        .collect()
}

fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept: BTreeMap<String, Value> = map
                .into_iter()
                .map(|(key, value)| {
                    // Docker's CLI sends variables in no fixed order.
                    let value = if key == "Env" { sorted(value) } else { value };
                    (key, without_empty(value))
                })
                .filter(|(_, value)| match value {
                    Value::Null => false,
                    Value::Bool(yes) => *yes,
                    Value::Number(n) => n.as_f64() != Some(0.0),
                    Value::String(text) => !text.is_empty(),
                    Value::Array(list) => !list.is_empty(),
                    Value::Object(map) => !map.is_empty(),
                })
                .collect();
            Value::Object(kept.into_iter().collect())
        }
        Value::Array(list) => list.into_iter().map(without_empty).collect(),
        other => other,
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Array(mut list) => {
            list.sort_by_key(Value::to_string);
            Value::Array(list)
        }
        other => other,
    }
}

/// Requests that docker's CLI makes and this one has no need for.
fn is_spared(line: &str, request: &str) -> bool {
    // Nobody reads the answer to a wait of a detached run.
    (line.starts_with("run -d") && request.contains("/wait?"))
        // Creating the exec finds the container, or says that there is none.
        || (line.starts_with("exec") && request.starts_with("GET /containers/"))
        // The cluster is read after the node anyway.
        || (line.starts_with("swarm join-token") && request.starts_with("GET /swarm?"))
}

/// Requests that docker's CLI does not make: how many managers may fail is told before their number
/// changes, which takes a look at all nodes.
fn is_fault_tolerance(line: &str, request: &str) -> bool {
    ["swarm join-token manager", "node promote", "node demote", "node update"]
        .iter()
        .any(|command| line.starts_with(command))
        && request.starts_with("GET /nodes?")
}

/// Words as a shell splits them, single quotes only.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn same_requests(api: &str, lines: &[&str]) {
    let Some(docker) = docker() else {
        return;
    };
    let daemon = Daemon::start(api);
    let mut differences = Differences::default();
    for line in lines {
        let (line, stdin) =
            line.split_once(" <<< ").map_or((*line, None), |(line, input)| (line, Some(input)));
        let arguments = words(line);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (theirs, their_requests) = run(&daemon, &docker, &arguments, stdin);
        let (ours, our_requests) = run(&daemon, Path::new(BRIG), &arguments, stdin);
        let with_errors = |requests: Vec<Recorded>, output: &Output| {
            let requests: Vec<String> = meaning(requests)
                .into_iter()
                .filter(|request| !is_spared(line, request) && !is_fault_tolerance(line, request))
                .collect();
            let status = output.status.code();
            // What is said is compared elsewhere; here it explains a difference.
            (requests, status, if status == Some(0) { String::new() } else { text(&output.stderr) })
        };
        let (mut ours, mut theirs) =
            (with_errors(our_requests, &ours), with_errors(their_requests, &theirs));
        if (&ours.0, ours.1) == (&theirs.0, theirs.1) {
            ours.2.clear();
            theirs.2.clear();
        }
        differences.compare(line, &ours, &theirs);
    }
    differences.finish();
}

/// Each program speaks of itself.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace("docker", "brig").replace("Docker", "brig")
}

#[test]
fn containers_are_created_alike() {
    let lines = [
        "run -d busybox",
        "run -d --rm --network none busybox true",
        "run -d --name web -p 8080:80 -p 127.0.0.1:81:81/udp -p 9000-9001:90-91 --expose 7 -P busybox sh -c 'echo $HOME; exit 1'",
        "run -d -v a:/b:ro -v /c --mount type=bind,src=/x,dst=/y,ro --mount type=volume,source=v,target=/v,volume-nocopy,volume-driver=local,volume-opt=type=nfs --tmpfs /t:size=1m --mount type=tmpfs,dst=/t2,tmpfs-size=1m,tmpfs-mode=1770 busybox",
        "run -d --cap-drop ALL --cap-add NET_ADMIN --security-opt no-new-privileges --security-opt seccomp=unconfined --security-opt systempaths=unconfined --privileged --read-only busybox",
        "run -d --memory 64m --memory-swap -1 --memory-reservation 32m --cpus 0.5 --cpu-shares 100 --cpuset-cpus 0,1 --pids-limit 50 --ulimit nofile=10:20 --ulimit core=0 --shm-size 1g --oom-score-adj 5 --blkio-weight 100 busybox",
        "run -d --device /dev/null:/dev/x:rw --device-read-bps /dev/sda:1mb --device-cgroup-rule 'c 1:3 rw' --gpus all busybox",
        "run -d --init --restart on-failure:3 --stop-signal INT --stop-timeout 7 --health-cmd 'true x' --health-interval 2s --health-retries 3 busybox",
        "run -d --no-healthcheck -u 1:2 -w /x -e A=b -e C= -l k=v -l bare -h name --domainname dom --entrypoint sleep busybox 10",
        "run -d --log-driver none --log-opt a=b busybox",
        "run -d --entrypoint= --log-driver json-file --log-opt a=b --dns 1.1.1.1 --dns-search x --dns-option ndots:1 --add-host h:1.2.3.4 --sysctl net.a=1 --group-add 5 --pid host --ipc host --uts host --userns host --cgroupns private busybox",
        "run -d --network nx busybox",
        "run -d --network nx --network-alias a --ip 10.0.0.5 --link c:d busybox",
        "run -d --volumes-from c1 --runtime crun --platform linux/amd64 --isolation x --volume-driver local busybox",
        "create -it --name c busybox sh",
        "create -i -a stdin -a stdout busybox cat",
    ];
    same_requests("1.41", &lines);
    same_requests("1.50", &lines);
    same_requests(
        "1.50",
        &[
            "run -d --mac-address 92:d0:c6:0a:29:33 busybox",
            "run -d --annotation a=b busybox",
            "run -d --network name=n1,alias=a,ip=10.0.0.5 --network name=n2,gw-priority=5 busybox",
            "run -d --health-cmd x --health-start-interval 1s busybox",
        ],
    );
}

#[test]
fn containers_are_managed_alike() {
    let lines = [
        "start a b",
        "stop -t 3 a",
        "restart a",
        "kill -s HUP a",
        "kill a",
        "rm -f -v a",
        "pause a",
        "unpause a",
        "rename a b",
        "ps -a --no-trunc --filter status=running --filter label=a=b",
        "ps -n 3",
        "ps -q -l",
        "container ls --format '{{.Size}}'",
        "exec -d -e A=b -u root -w /x --privileged a sh -c 'x y'",
        "top a -o pid",
        "logs --tail 5 -t a",
        "logs --since 2024-01-01T00:00:00Z --until 1704067201 --details a",
        "port a",
        "inspect -s --type container a",
        "container inspect a b",
    ];
    same_requests("1.41", &lines);
    same_requests("1.50", &lines);
    same_requests("1.50", &["stop -s INT a"]);
}

#[test]
fn images_networks_and_volumes_alike() {
    let lines = [
        "pull -q h:5000/bb:1",
        "pull busybox",
        "pull --platform linux/arm64 h:5000/bb@sha256:3333333333333333333333333333333333333333333333333333333333333333",
        "tag a h:5000/b:2",
        "tag a b",
        "rmi -f --no-prune h:5000/bb:1",
        "images -a busybox",
        "image ls --filter dangling=true -q",
        "history busybox",
        "load <<< not really a tar",
        "import -m msg -c 'CMD x' - imp:1 <<< tar",
        "network create nx",
        "network create -d overlay --attachable --internal --subnet 10.1.0.0/16 --gateway 10.1.0.1 --ip-range 10.1.2.0/24 --aux-address a=10.1.0.9 -o k=v --label l=1 --ipv6 nx",
        "network connect --alias a --ip 10.1.0.7 n c",
        "network disconnect -f n c",
        "network ls --filter driver=bridge",
        "volume create -d local -o type=tmpfs --label a=b v1",
        "volume create",
        "volume ls --filter dangling=true",
        "volume rm -f v1 v2",
    ];
    same_requests("1.41", &lines);
    same_requests("1.50", &lines);
}

#[test]
fn the_cluster_is_managed_alike() {
    same_requests(
        "1.50",
        &[
            "swarm init",
            "swarm init --advertise-addr 10.0.0.1 --listen-addr :4000 --cert-expiry 24h --task-history-limit 3 --availability drain --default-addr-pool 10.10.0.0/16 --default-addr-pool-mask-length 26 --data-path-port 7777 --dispatcher-heartbeat 10s --snapshot-interval 5 --max-snapshots 2",
            "swarm init --external-ca protocol=cfssl,url=https://ca.example:8888/api/v1/cfssl/sign",
            "swarm update --external-ca protocol=CFSSL,url=https://a/sign,x=y --external-ca \"protocol=cfssl,url=https://b/sign\"",
            "swarm join --token SWMTKN-1-x 10.0.0.1:2377",
            "swarm join-token -q worker",
            "swarm join-token manager",
            "swarm join-token --rotate worker",
            "swarm update --task-history-limit 2 --cert-expiry 48h",
            "swarm leave -f",
            "swarm ca",
            "swarm ca --rotate -d",
            "swarm ca --rotate --detach --cert-expiry 48h",
            "node ls",
            "node ps self",
            "node update --label-add a=b --label-rm old --availability drain --role worker n",
            "node inspect self",
            "node promote n",
            "node demote n",
            "node rm -f n",
            "secret create -l a=b s - <<< hunter2",
            "secret ls",
            "secret inspect s",
            "secret rm s",
            "config create --template-driver golang c - <<< text",
            "config ls -q",
            "config rm c",
        ],
    );
}

#[test]
fn services_are_made_alike() {
    let lines = [
        "service create -d busybox",
        "service create -d --no-resolve-image --name s2 --label l=1 --container-label cl=2 --entrypoint 'sleep x' --hostname '{{.Node.Hostname}}' -e A=b --workdir /x --user root --group 5 --init --stop-signal SIGTERM --tty --read-only --mount type=volume,source=sv,target=/v --mount type=tmpfs,target=/t --mount type=bind,source=/b,target=/b,readonly --stop-grace-period 2s --health-cmd true --health-interval 2s --host h:1.2.3.4 --dns 8.8.8.8 --secret sec1 --config conf1 --cap-add CHOWN --cap-drop ALL --ulimit nofile=10:20 --sysctl a=b busybox 1000",
        "service create -d --no-resolve-image --limit-cpu 0.5 --limit-memory 64m --limit-pids 50 --reserve-memory 8m --reserve-cpu 0.1 --generic-resource gpu=2 --restart-condition on-failure --restart-delay 1s --restart-max-attempts 3 --restart-window 10s --constraint node.role==manager --placement-pref spread=node.labels.zone --replicas-max-per-node 5 --network nx --network name=ny,alias=z --log-driver json-file --log-opt max-size=1m --replicas 2 busybox",
        "service create -d --no-resolve-image --update-parallelism 2 --update-delay 1s --update-failure-action rollback --update-monitor 2s --update-max-failure-ratio 0.1 --update-order start-first --rollback-parallelism 3 --rollback-order start-first -p 18090:80 -p published=53,target=53,protocol=udp,mode=host --endpoint-mode dnsrr busybox",
        "service create -d --no-resolve-image --with-registry-auth --mode global --restart-condition none busybox",
        "service create -d --no-resolve-image --mode replicated-job --replicas 3 --max-concurrent 2 busybox",
        "service create -d --no-resolve-image --mode global-job busybox",
        "service create -d --no-resolve-image --secret source=sec1,target=/etc/x,uid=1,gid=2,mode=0400 --config source=conf1,target=c,mode=0440 busybox",
        "service create -d --no-resolve-image --update-parallelism 0 busybox",
        "service create -d --no-resolve-image --restart-max-attempts 2 busybox",
        "service create -d --no-resolve-image --rollback-monitor 1s --health-start-period 3s --oom-score-adj 5 busybox",
        "service update -d --image busybox:2 --no-resolve-image --env-add C=3 --env-rm A --label-add x=y --label-rm old --replicas 5 web",
        "service update -d --force --no-resolve-image --publish-add 9090:90 --publish-rm 80 --secret-rm sec1 --constraint-add node.role==worker --limit-memory 64m web",
        "service update -d --args 'a \"b c\"' --mount-add type=tmpfs,target=/t --update-delay 2s --restart-condition any --with-registry-auth web",
        "service update -d --rollback web",
        "service rollback -d web",
        "service scale -d web=3",
        "service ls",
        "service ps web",
        "service inspect web",
        "service rm web",
    ];
    same_requests("1.50", &lines);
}

#[test]
fn attached_streams_and_statuses_alike() {
    let Some(docker) = docker() else {
        return;
    };
    let daemon = Daemon::start("1.50");
    let mut differences = Differences::default();
    for (line, stdin) in [
        ("run busybox true", None),
        ("run missing true", None),
        ("run --pull never missing true", None),
        ("run --pull always -q missing true", None),
        ("run --rm -i busybox cat", Some("some input\n")),
        ("start -a c", None),
        ("start -ai c", Some("more")),
        (
            "attach --no-stdin 1111111111111111111111111111111111111111111111111111111111111111",
            None,
        ),
        ("attach 1111111111111111111111111111111111111111111111111111111111111111", Some("typed")),
        ("exec c true", None),
        ("exec -i c cat", Some("into exec")),
    ] {
        let arguments = words(line);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (theirs, their_requests) = run(&daemon, &docker, &arguments, stdin);
        let (ours, our_requests) = run(&daemon, Path::new(BRIG), &arguments, stdin);
        let said =
            |output: &Output| (output.status.code(), text(&output.stdout), text(&output.stderr));
        differences.compare(line, &said(&ours), &said(&theirs));
        // Docker's CLI sends wait in a task of its own, so the order of the two is not fixed.
        let sorted = |requests: Vec<Recorded>| {
            let mut requests = meaning(requests);
            requests.retain(|request| !is_spared(line, request));
            requests.sort();
            // The container is read twice for attach.
            requests.dedup();
            requests
        };
        differences.compare(line, &sorted(our_requests), &sorted(their_requests));
    }
    differences.finish();
}

#[test]
fn tables_are_printed_alike() {
    let Some(docker) = docker() else {
        return;
    };
    let daemon = Daemon::start("1.50");
    let mut differences = Differences::default();
    for line in [
        "ps",
        "ps --no-trunc",
        "ps --format 'table {{.Names}}\\t{{.Ports}}\\t{{.Label \"a\"}}'",
        "ps --format '{{.ID}}: {{.Image}} {{.State}} {{.Networks}} {{.Mounts}}'",
        "images",
        "images --digests --no-trunc",
        "images -q",
        "history busybox",
        "history -q --no-trunc busybox",
        "network ls",
        "network ls --no-trunc --format '{{.Name}} {{.Driver}}'",
        "volume ls",
        "volume ls -q",
        "node ls",
        "service ls",
        "service ps web",
        "service ps --no-trunc web",
        "secret ls",
        "config ls",
        "top c",
        "inspect c",
        "inspect --format '{{.State.Status}} {{json .Config.Tty}}' c",
        "container inspect nope nope2",
        "swarm join-token -q manager",
        "swarm ca",
        "swarm ca --cert-expiry 24h",
        "swarm ca --rotate -d --external-ca protocol=cfssl,url=https://ca.example",
        "node update --availability drain n",
        "rmi busybox:1",
        "pull busybox",
        "service scale -d web=3",
        "node promote n",
        "volume create",
        "secret create s /dev/null",
        "inspect --type network nope",
        "logs",
        "service update",
        "stop --bogus",
    ] {
        let arguments = words(line);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (theirs, _) = run(&daemon, &docker, &arguments, None);
        let (ours, _) = run(&daemon, Path::new(BRIG), &arguments, None);
        let said =
            |output: &Output| (output.status.code(), text(&output.stdout), text(&output.stderr));
        differences.compare(line, &said(&ours), &said(&theirs));
    }
    differences.finish();
}
