//! Every route as every ready role, asked of a running daemon: what it answers is what
//! docs/access-table.md says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/image.rs"]
mod image;
#[path = "common/rights.rs"]
mod rights;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use brigd::access::Action;
use brigd::server::{Route, Verb};
use common::{Daemon, clis};
use rights::{DEPLOYER, OPERATOR, VIEWER, call, daemon, forget, rest, status};
use serde_json::Value;

const ADMIN: u32 = 61_000;
/// In the order of the table's columns.
const ROLES: [u32; 4] = [ADMIN, OPERATOR, DEPLOYER, VIEWER];
const BINDINGS: &str = r#"{"local":"none","bindings":[
    {"uid":61000,"role":"admin"},
    {"uid":61001,"role":"viewer"},
    {"uid":61002,"role":"operator","secrets":["own"]},
    {"uid":61003,"role":"deployer","services":["own"],"stacks":["own"],"secrets":["own"],
     "configs":["own"],"networks":["own"],"volumes":["own"]}
]}"#;
const STACK: &str = r#""Labels":{"com.docker.stack.namespace":"own"}"#;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// What the deployer is bound to, asking for nothing special.
    Own,
    /// What it is not bound to and reaches the host, asking for all that there is.
    Other,
    /// What does not exist, asking for nothing special.
    Nothing,
}

/// The checked-in table: verb and path to a word for each role.
fn table() -> BTreeMap<(String, String), Vec<String>> {
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/access-table.md");
    std::fs::read_to_string(text)
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains("| `/"))
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let words = cells[4..8].iter().map(|word| (*word).to_owned()).collect();
            ((cells[1].to_owned(), cells[2].trim_matches('`').to_owned()), words)
        })
        .collect()
}

const fn verb(route: &Route) -> &'static str {
    match route.verb {
        Verb::Head => "HEAD",
        Verb::Get => "GET",
        Verb::Post => "POST",
        Verb::Put => "PUT",
        Verb::Delete => "DELETE",
    }
}

/// A cluster of one node with two of everything.
struct World<'a> {
    daemon: &'a Daemon,
    node: String,
    execs: [String; 2],
}

impl<'a> World<'a> {
    fn new(daemon: &'a Daemon, cli: &str) -> Self {
        let swarm =
            ["swarm", "init", "--advertise-addr", "127.0.0.1", "--listen-addr", "127.0.0.1:0"];
        daemon.must(cli, &swarm);
        let mut world = Self { daemon, node: String::new(), execs: [String::new(), String::new()] };
        world.node = world.get("/nodes")[0]["ID"].as_str().unwrap().to_owned();
        world.fill();
        for name in ["own", "other"] {
            let start = call(daemon, 0, "POST", &format!("/containers/{name}/start"), "");
            assert_eq!(status(&start), 204, "{start}");
        }
        world.execs = ["own", "other"].map(|name| {
            let path = format!("/containers/{name}/exec");
            let made = call(daemon, 0, "POST", &path, r#"{"Cmd":["true"]}"#);
            let made: Value = serde_json::from_str(rest(&made).trim()).unwrap();
            made["Id"].as_str().unwrap().to_owned()
        });
        world
    }

    fn get(&self, path: &str) -> Value {
        let answer = call(self.daemon, 0, "GET", path, "");
        serde_json::from_str(rest(&answer).trim()).unwrap_or_else(|_| panic!("{path}: {answer}"))
    }

    /// Makes what is missing.
    fn fill(&self) {
        let post = |path: &str, body: &str| {
            let answer = call(self.daemon, 0, "POST", path, body);
            // What is there already stays.
            assert!(matches!(status(&answer), 200..300 | 409), "{path} {body}: {answer}");
        };
        for name in ["own", "other"] {
            let stack = if name == "own" { STACK } else { r#""Labels":{}"# };
            let cmd = format!(r#""Image":"{}","Cmd":["sleep","1000"]"#, image::NAME);
            let host = if name == "own" { "false" } else { "true" };
            post(
                &format!("/containers/create?name={name}"),
                &format!(
                    r#"{{{cmd},"Labels":{{"com.docker.swarm.service.name":"{name}"}},"HostConfig":{{"Privileged":{host}}}}}"#
                ),
            );
            let spec = |kind: &str| format!(r#"{{"Name":"{name}_{kind}",{stack}}}"#);
            if self.found("network", name).is_none() {
                post("/networks/create", &spec("network"));
            }
            post("/volumes/create", &spec("volume"));
            post(
                "/secrets/create",
                &format!(r#"{{"Name":"{name}_secret",{stack},"Data":"eA=="}}"#),
            );
            post(
                "/configs/create",
                &format!(r#"{{"Name":"{name}_config",{stack},"Data":"eA=="}}"#),
            );
            post("/services/create", &service(name, name == "other"));
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        while ["own", "other"].iter().any(|name| self.found("task", name).is_none()) {
            assert!(Instant::now() < deadline, "no tasks: {}", self.get("/tasks"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The id or name by which a path calls one of the things made above.
    fn found(&self, kind: &str, name: &str) -> Option<String> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match kind {
            "network" => {
                let all = self.get("/networks");
                let full = format!("{name}_network");
                text(&all.as_array()?.iter().find(|network| network["Name"] == full)?["Id"])
            }
            "task" => {
                let filter = format!("%7B%22service%22:%7B%22{name}%22:true%7D%7D");
                text(&self.get(&format!("/tasks?filters={filter}"))[0]["ID"])
            }
            _ => None,
        }
    }

    /// The path of a route with its braces filled, and a query that ends soon.
    fn path(&self, route: &Route, about: About) -> String {
        let name = if about == About::Other { "other" } else { "own" };
        let kind = route.path.split('/').nth(1).unwrap_or_default();
        let object = match kind {
            "distribution" => "127.0.0.1:1/nosuch".to_owned(),
            _ if about == About::Nothing => "nosuch".to_owned(),
            "containers" | "services" => name.to_owned(),
            "exec" if about == About::Other => self.execs[1].clone(),
            "exec" => self.execs[0].clone(),
            "networks" => self.found("network", name).unwrap(),
            "tasks" => self.found("task", name).unwrap(),
            "volumes" | "secrets" | "configs" => {
                format!("{name}_{}", kind.trim_end_matches('s'))
            }
            "nodes" => self.node.clone(),
            _ => "nosuch".to_owned(),
        };
        let path: Vec<&str> = route
            .path
            .split('/')
            .map(|part| match part {
                "{checkpoint}" => "c1",
                part if part.starts_with('{') => object.as_str(),
                literal => literal,
            })
            .collect();
        let query = match (route.path, route.action) {
            ("/events", _) => "?until=1".to_owned(),
            ("/containers/{id}/stats", _) => "?stream=0&one-shot=1".to_owned(),
            (_, Action::ContainerReadFiles | Action::ContainerWriteFiles) => {
                "?path=/nosuch".to_owned()
            }
            (_, Action::ContainerLogs | Action::ServiceLogs | Action::TaskLogs) => {
                "?stdout=1".to_owned()
            }
            (_, Action::ContainerCommit) if about == About::Nothing => {
                "?container=nosuch".to_owned()
            }
            (_, Action::ContainerCommit) => format!("?container={name}"),
            (_, Action::ImagePull) => "?fromImage=127.0.0.1:1/x&tag=1".to_owned(),
            (_, Action::ContainerAttach) => "?stream=0&logs=0".to_owned(),
            (_, Action::ImageSave) => "?names=nosuch".to_owned(),
            (_, Action::NodeUpdate | Action::SwarmUpdate) => "?version=0".to_owned(),
            (_, Action::ServiceUpdate | Action::SecretUpdate | Action::ConfigUpdate) => {
                "?version=1".to_owned()
            }
            _ => String::new(),
        };
        path.join("/") + &query
    }
}

fn service(name: &str, greedy: bool) -> String {
    let labels = if name.starts_with("own_") { STACK } else { r#""Labels":{}"# };
    let more = if greedy { r#","CapabilityAdd":["SYS_ADMIN"]"# } else { "" };
    format!(
        r#"{{"Name":"{name}",{labels},"TaskTemplate":{{"ContainerSpec":{{"Image":"{}","Command":["sleep","1000"]{more}}}}}}}"#,
        image::NAME
    )
}

/// A body that asks for nothing special, or for all that the route has.
fn body(route: &Route, about: About) -> String {
    let greedy = about == About::Other;
    let name = if greedy { "other" } else { "own" };
    let stack = if greedy { r#""Labels":{}"# } else { STACK };
    let named = |what: &str, more: &str| format!(r#"{{"Name":"{name}_{what}",{stack}{more}}}"#);
    match (route.action, greedy) {
        (Action::ContainerCreate, true) => {
            r#"{"Image":"nosuch:1","HostConfig":{"Privileged":true}}"#.to_owned()
        }
        (Action::ContainerCreate, false) => r#"{"Image":"nosuch:1"}"#.to_owned(),
        (Action::ContainerExec, true) => r#"{"Cmd":["true"],"Privileged":true}"#.to_owned(),
        (Action::ContainerExec, false) => r#"{"Cmd":["true"],"Detach":true}"#.to_owned(),
        (Action::VolumeCreate, true) => {
            named("new", r#","DriverOpts":{"type":"none","o":"bind","device":"/"}"#)
        }
        (Action::NetworkCreate, true) => named("new", r#","Driver":"macvlan""#),
        (
            Action::NetworkCreate
            | Action::SecretCreate
            | Action::ConfigCreate
            | Action::VolumeCreate,
            _,
        ) => named("new", ""),
        (Action::SecretUpdate, _) => named("secret", ""),
        (Action::ConfigUpdate, _) => named("config", ""),
        (Action::ServiceCreate, greedy) => service(&format!("{name}_new"), greedy),
        (Action::ServiceUpdate, greedy) => service(name, greedy),
        (Action::AccessExplain, _) => r#"{"Action":"system.info"}"#.to_owned(),
        (Action::RegistryLogin, _) => {
            r#"{"serveraddress":"127.0.0.1:1","username":"a","password":"b"}"#.to_owned()
        }
        _ => "{}".to_owned(),
    }
}

#[test]
fn the_daemon_answers_as_the_table_says() {
    let Some(&cli) = clis().first() else { return };
    let daemon = daemon(BINDINGS, &[]);
    let Some(archive) = image::archive(&daemon.dir) else { return forget(daemon) };
    daemon.must(cli, &["load", "-qi", archive.to_str().unwrap()]);
    let world = World::new(&daemon, cli);
    let table = table();
    let router = brigd::routes::router();
    let mut wrong = Vec::new();
    for route in router.routes() {
        let row = (verb(route).to_owned(), route.path.to_owned());
        let words = table.get(&row).unwrap_or_else(|| panic!("{route:?} is not in the table"));
        for (uid, word) in ROLES.into_iter().zip(words) {
            // What is allowed is asked of what is not there where it would change something.
            let looks = !route.action.is_change() && route.action != Action::ContainerWait;
            let cases: &[(About, bool)] = match word.as_str() {
                "allow" if looks => &[(About::Nothing, true), (About::Other, true)],
                "allow" => &[(About::Nothing, true)],
                "deny" => &[(About::Own, false), (About::Other, false)],
                "depends" => &[(About::Other, false), (About::Own, true)],
                other => panic!("{other} in the table"),
            };
            for &(about, allowed) in cases {
                let path = world.path(route, about);
                let answer = call(&daemon, uid, verb(route), &path, &body(route, about));
                // The answer to HEAD has no text.
                let denied = status(&answer) == 403
                    && (route.verb == Verb::Head
                        || answer.contains("authorization denied by policy"));
                if denied == allowed {
                    let text: String = answer.chars().take(600).collect();
                    wrong
                        .push(format!("uid {uid} {word} {about:?} {} {path}: {text}", verb(route)));
                }
                let removes = about == About::Own || route.path.ends_with("/prune");
                if allowed && route.action.is_change() && removes {
                    world.fill();
                }
            }
        }
    }
    for name in ["own", "other", "own_new"] {
        call(&daemon, 0, "DELETE", &format!("/services/{name}"), "");
        call(&daemon, 0, "DELETE", &format!("/containers/{name}?force=1"), "");
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while world.get("/containers/json").as_array().is_some_and(|left| !left.is_empty()) {
        assert!(Instant::now() < deadline, "{}", world.get("/containers/json"));
        std::thread::sleep(Duration::from_millis(50));
    }
    for name in ["own_network", "other_network", "own_new"] {
        call(&daemon, 0, "DELETE", &format!("/networks/{name}"), "");
    }
    daemon.must(cli, &["swarm", "leave", "--force"]);
    assert!(wrong.is_empty(), "{} answers:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(table.len(), router.routes().len());
    forget(daemon);
}
