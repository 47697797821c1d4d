//! A recording daemon: it notes every request and gives scripted answers, so that two clients
//! can be compared without an engine.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};

/// One request, without its version prefix.
#[allow(dead_code)]
#[derive(Clone, Debug)]
pub struct Recorded {
    pub method: String,
    pub path: String,
    /// Sorted `name=value`, decoded.
    pub query: Vec<String>,
    pub registry_auth: bool,
    pub body: Vec<u8>,
}

/// The daemon. It listens until the process ends.
pub struct Daemon {
    pub socket: PathBuf,
    state: Arc<State>,
    _dir: tempfile::TempDir,
}

struct State {
    api: String,
    requests: Mutex<Vec<Recorded>>,
    /// Whether an image was pulled since the last command began.
    pulled: Mutex<bool>,
    /// Whether the container has ended, which `wait` waits for.
    ended: (Mutex<bool>, Condvar),
}

/// What the attached container says.
pub const STDOUT: &[u8] = b"to stdout\n";
pub const STDERR: &[u8] = b"to stderr\n";
/// Its exit status.
pub const STATUS: i64 = 3;

#[allow(dead_code)]
pub const CONTAINER_ID: &str = "1111111111111111111111111111111111111111111111111111111111111111";
const SWARM_ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaa";

impl Daemon {
    pub fn start(api: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("brig-cli").tempdir().unwrap();
        let socket = dir.path().join("d.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let state = Arc::new(State {
            api: api.to_owned(),
            requests: Mutex::default(),
            pulled: Mutex::default(),
            ended: (Mutex::new(false), Condvar::new()),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Self { socket, state, _dir: dir }
    }

    /// What came since the last call, pings left out.
    pub fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut *self.state.requests.lock().unwrap())
    }

    /// What came since the last take, which keeps it.
    #[allow(dead_code)]
    pub fn peek(&self) -> Vec<Recorded> {
        self.state.requests.lock().unwrap().clone()
    }

    /// A command that talks to this daemon with an empty configuration.
    pub fn command(&self, program: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        command
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_API_VERSION")
            .env_remove("BRIG_HOST")
            .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
            .env("DOCKER_CONFIG", self._dir.path().join("config"))
            .env("DOCKER_CLI_HINTS", "false");
        *self.state.ended.0.lock().unwrap() = false;
        *self.state.pulled.lock().unwrap() = false;
        command
    }
}

fn serve(stream: UnixStream, state: &State) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some((request, upgrade)) = read_request(&mut reader) {
        let head = request.path == "/_ping";
        if !head {
            state.requests.lock().unwrap().push(request.clone());
        }
        if upgrade {
            return hijacked(&mut reader, &mut writer, state);
        }
        if request.path.ends_with("/wait") {
            wait(&mut writer, state);
            continue;
        }
        let (status, body) = answer(&request, state);
        let text = match &body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let length = if request.method == "HEAD" { 0 } else { text.len() };
        let answer = format!(
            "HTTP/1.1 {status} X\r\nApi-Version: {}\r\nOstype: linux\r\nServer: Docker/x (linux)\r\n\
             Swarm: active/manager\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{}",
            state.api,
            if length == 0 { "" } else { &text },
        );
        if status == 204 {
            let answer = format!("HTTP/1.1 204 No Content\r\nApi-Version: {}\r\n\r\n", state.api);
            writer.write_all(answer.as_bytes()).unwrap();
        } else if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// An attached container: it says its lines, reads stdin to its end, says it again, and ends.
fn hijacked(reader: &mut BufReader<UnixStream>, writer: &mut UnixStream, state: &State) {
    writer
        .write_all(
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\
              Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        )
        .unwrap();
    let frame = |stream: u8, payload: &[u8]| {
        let mut frame = vec![stream, 0, 0, 0];
        frame.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    };
    writer.write_all(&frame(1, STDOUT)).unwrap();
    writer.write_all(&frame(2, STDERR)).unwrap();
    let mut input = Vec::new();
    reader.read_to_end(&mut input).unwrap();
    if !input.is_empty() {
        writer.write_all(&frame(1, &input)).unwrap();
    }
    writer.shutdown(std::net::Shutdown::Both).unwrap();
    *state.ended.0.lock().unwrap() = true;
    state.ended.1.notify_all();
}

/// The head at once, the body when the container has ended.
fn wait(writer: &mut UnixStream, state: &State) {
    writer
        .write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .unwrap();
    let ended = state.ended.0.lock().unwrap();
    drop(state.ended.1.wait_while(ended, |ended| !*ended).unwrap());
    let body = format!("{{\"StatusCode\":{STATUS},\"Error\":null}}\n");
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    // The client may have gone already.
    let _ = writer.write_all(chunk.as_bytes());
}

fn read_request(reader: &mut BufReader<UnixStream>) -> Option<(Recorded, bool)> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut chunked, mut upgrade, mut registry_auth) = (0_usize, false, false, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':')?;
        match (name.to_ascii_lowercase().as_str(), value.trim()) {
            ("content-length", value) => length = value.parse().unwrap(),
            ("transfer-encoding", "chunked") => chunked = true,
            ("upgrade", _) => upgrade = true,
            ("x-registry-auth", _) => registry_auth = true,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    while chunked {
        let mut size = String::new();
        reader.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).ok()?;
        chunked = size != 0;
        body.extend_from_slice(&chunk[..size]);
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let path = match path.strip_prefix("/v1.") {
        Some(rest) => rest.find('/').map_or("", |at| &rest[at..]),
        None => path,
    };
    let mut query: Vec<String> =
        query.split('&').filter(|pair| !pair.is_empty()).map(decode).collect();
    query.sort();
    Some((Recorded { method, path: decode(path), query, registry_auth, body }, upgrade))
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                out.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).unwrap()
}

fn answer(request: &Recorded, state: &State) -> (u16, Value) {
    let service = json!({
        "ID": SWARM_ID, "Version": {"Index": 7}, "CreatedAt": "2024-01-01T00:00:00Z", "UpdatedAt": "2024-01-01T00:00:00Z",
        "Spec": {"Name": "web", "Labels": {"old": "1"}, "TaskTemplate": {
            "ContainerSpec": {"Image": "busybox:1", "Env": ["A=1", "B=2"], "Secrets": [{"File":
                {"Name": "sec1", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": "s1", "SecretName": "sec1"}]},
            "ForceUpdate": 2},
            "Mode": {"Replicated": {"Replicas": 2}},
            "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]}},
        "Endpoint": {"Spec": {}},
    });
    let swarm_spec = json!({"Name": "default", "Labels": {}, "Orchestration": {"TaskHistoryRetentionLimit": 5},
        "Raft": {"SnapshotInterval": 10000, "KeepOldSnapshots": 0, "LogEntriesForSlowFollowers": 500, "ElectionTick": 10, "HeartbeatTick": 1},
        "Dispatcher": {"HeartbeatPeriod": 5_000_000_000_i64}, "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000_i64},
        "TaskDefaults": {}, "EncryptionConfig": {"AutoLockManagers": false}});
    let named = |names: &[&str]| -> Value {
        names
            .iter()
            .map(|name| json!({"ID": format!("id-{name}"), "Version": {"Index": 1}, "CreatedAt": "2024-01-01T00:00:00Z", "UpdatedAt": "2024-01-01T00:00:00Z", "Spec": {"Name": name, "Labels": {}}}))
            .collect()
    };
    let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    match (request.method.as_str(), parts.as_slice()) {
        (_, ["_ping"]) => (200, json!("OK")),
        ("POST", ["images", "create"]) if request.query.contains(&"tag=latest".to_owned()) => {
            *state.pulled.lock().unwrap() = true;
            (200, json!({"status": "Pulling from missing"}))
        }
        ("POST", ["containers", "create"])
            if String::from_utf8_lossy(&request.body).contains("\"missing\"")
                && !*state.pulled.lock().unwrap() =>
        {
            (404, json!({"message": "No such image: missing:latest"}))
        }
        ("POST", ["containers", "create"]) => (201, json!({"Id": CONTAINER_ID, "Warnings": []})),
        ("GET", ["containers", _, "json"]) => (
            200,
            json!({"Id": CONTAINER_ID, "Name": "/x", "State": {"Status": "running", "Running": true},
                "Config": {"Tty": false, "OpenStdin": true}, "HostConfig": {"AutoRemove": false},
                "NetworkSettings": {"Ports": {}}, "z": 1, "a": [1.50, {}]}),
        ),
        ("GET", ["containers", "json"]) => (
            200,
            json!([{"Id": CONTAINER_ID, "Names": ["/web"], "Image": "busybox:1", "ImageID": "sha256:22", "Command": "sleep 1000",
                "Created": 1_700_000_000, "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                {"PrivatePort": 9, "Type": "udp"}], "Labels": {"a": "b"}, "State": "running", "Status": "Up 2 hours",
                "HostConfig": {"NetworkMode": "default"}, "NetworkSettings": {"Networks": {"bridge": {}}},
                "Mounts": [{"Type": "volume", "Name": "v1", "Driver": "local", "Destination": "/v"}]}]),
        ),
        ("GET", ["containers", _, "top"]) => (
            200,
            json!({"Titles": ["PID", "CMD"], "Processes": [["1", "sleep 1000"], ["22", "sh"]]}),
        ),
        ("POST", ["containers", _, "exec"]) => (201, json!({"Id": "e1"})),
        ("GET", ["exec", _, "json"]) => {
            (200, json!({"ID": "e1", "Running": false, "ExitCode": STATUS}))
        }
        ("POST", ["exec", _, "start"]) => (200, Value::Null),
        ("GET", ["images", "json"]) => (
            200,
            json!([{"Id": format!("sha256:{}", "5".repeat(64)), "Created": 1_600_000_000, "RepoTags": ["h:5000/bb:2"],
                "RepoDigests": [], "Size": 123_456_789, "SharedSize": -1, "Containers": -1},
                {"Id": format!("sha256:{}", "3".repeat(64)), "Created": 1_500_000_000, "RepoTags": ["busybox:1"],
                "RepoDigests": [format!("busybox@sha256:{}", "4".repeat(64))], "Size": 4_261_574, "SharedSize": -1, "Containers": -1}]),
        ),
        ("GET", ["images", _, "history"]) => (
            200,
            json!([{"Id": "sha256:3333333333333333333333333333333333333333333333333333333333333333", "Created": 1_600_000_000,
                "CreatedBy": "/bin/sh -c #(nop)  CMD [\"sh\"] and more that is longer", "Size": 0, "Comment": "c", "Tags": null},
                {"Id": "<missing>", "Created": 1_600_000_000, "CreatedBy": "ADD", "Size": 4_261_574, "Comment": "", "Tags": null}]),
        ),
        ("POST", ["images", "create" | "load"]) => (200, json!({"status": "done"})),
        ("POST", ["images", ..]) => (201, Value::Null),
        ("DELETE", ["images", ..]) => {
            (200, json!([{"Untagged": "busybox:1"}, {"Deleted": "sha256:33"}]))
        }
        ("POST", ["networks", "create"]) => (201, json!({"Id": "n1", "Warning": ""})),
        ("GET", ["networks"]) => (
            200,
            json!([{"Name": "net10", "Id": "n1n1n1n1n1n1n1n1", "Driver": "bridge", "Scope": "local"},
                {"Name": "net2", "Id": "n2n2n2n2n2n2n2n2", "Driver": "overlay", "Scope": "swarm"}]),
        ),
        ("GET", ["networks", name]) => (
            200,
            json!({"Id": format!("id-{name}"), "Name": name, "Scope": "swarm", "Driver": "overlay"}),
        ),
        ("POST", ["networks", ..]) => (200, Value::Null),
        ("POST", ["volumes", "create"]) => (201, json!({"Name": "v1", "Driver": "local"})),
        ("GET", ["volumes"]) => (
            200,
            json!({"Volumes": [{"Name": "v10", "Driver": "local"}, {"Name": "v2", "Driver": "nfs"}], "Warnings": null}),
        ),
        ("POST", ["swarm", "init"]) => (200, json!(SWARM_ID)),
        ("GET", ["swarm"]) => (
            200,
            json!({"ID": "c", "Version": {"Index": 9}, "Spec": swarm_spec, "JoinTokens": {"Worker": "SWMTKN-1-w", "Manager": "SWMTKN-1-m"},
                "TLSInfo": {"TrustRoot": "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"}}),
        ),
        ("GET", ["info"]) => (
            200,
            json!({"Swarm": {"NodeID": SWARM_ID, "LocalNodeState": "active", "ControlAvailable": true}}),
        ),
        ("GET", ["nodes"]) => (200, json!([node()])),
        ("GET", ["nodes", _]) => (200, node()),
        ("POST", ["nodes" | "swarm", ..]) => (200, Value::Null),
        ("GET", ["secrets"]) => (200, named(&["sec1", "sec10"])),
        ("GET", ["configs"]) => (200, named(&["conf1"])),
        ("POST", ["secrets" | "configs", "create"]) => (201, json!({"ID": SWARM_ID})),
        ("POST", ["services", "create"]) => (201, json!({"ID": SWARM_ID})),
        ("POST", ["services", ..]) => (200, json!({"Warnings": null})),
        ("GET", ["services", _]) => (200, service),
        ("GET", ["services"]) => {
            let mut service = service;
            service["ServiceStatus"] = json!({"RunningTasks": 1, "DesiredTasks": 2});
            service["Endpoint"] = json!({"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]});
            (200, json!([service]))
        }
        ("GET", ["tasks"]) => (
            200,
            json!([
                task("t2", 1, "running", "2024-01-02T00:00:00Z", ""),
                task(
                    "t1",
                    1,
                    "failed",
                    "2024-01-01T00:00:00Z",
                    "task: non-zero exit (137) and more text"
                )
            ]),
        ),
        ("POST", ["auth"]) => (200, json!({"Status": "Login Succeeded", "IdentityToken": ""})),
        ("GET", ["version"]) => (200, json!({"Version": "x", "ApiVersion": state.api})),
        ("GET", ["distribution", ..]) => (404, json!({"message": "no such manifest"})),
        ("POST" | "DELETE", _) => (204, Value::Null),
        _ => (404, json!({"message": format!("No such thing: {}", request.path)})),
    }
}

fn node() -> Value {
    json!({"ID": SWARM_ID, "Version": {"Index": 5}, "CreatedAt": "2024-01-01T00:00:00Z", "UpdatedAt": "2024-01-01T00:00:00Z",
        "Spec": {"Labels": {"old": "1"}, "Role": "manager", "Availability": "active"},
        "Description": {"Hostname": "h1", "Engine": {"EngineVersion": "0.1.0"}}, "Status": {"State": "ready", "Addr": "10.0.0.1"},
        "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "10.0.0.1:2377"}})
}

fn task(id: &str, slot: i64, state: &str, at: &str, err: &str) -> Value {
    json!({"ID": id, "Version": {"Index": 1}, "CreatedAt": at, "UpdatedAt": at, "ServiceID": SWARM_ID, "NodeID": SWARM_ID, "Slot": slot,
        "Spec": {"ContainerSpec": {"Image": "busybox:1"}}, "DesiredState": if state == "running" { "running" } else { "shutdown" },
        "Status": {"State": state, "Timestamp": at, "Err": err, "PortStatus": {}}})
}
