//! The scan gate: a service whose image turns vulnerable overnight goes on and restarts; a new
//! deployment of it is refused with the way out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use brig_e2e::hosts::{HostNode, Hosts, Kind};
use brig_e2e::registry::Registry;
use brig_e2e::{Brigd, Client, eventually, http};

const STATUS: &str = "Package: openssl\nStatus: install ok installed\nPriority: optional\n\
    Maintainer: Debian OpenSSL Team <pkg-openssl-devel@alioth-lists.debian.net>\n\
    Architecture: amd64\nVersion: 3.0.1-1\nDescription: test\n\n";
const RELEASE: &str =
    "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nNAME=\"Debian GNU/Linux\"\n";
const FLAW: &str = "CVE-2026-4242";

struct Place {
    daemon: Brigd,
    registry: Registry,
    folder: tempfile::TempDir,
}

impl Place {
    /// An engine that is a swarm, and a registry.
    fn new() -> Self {
        let daemon = Brigd::start();
        daemon.init_swarm();
        let folder =
            tempfile::Builder::new().prefix("brig-scan-gate-").tempdir_in("/var/tmp").unwrap();
        Self { daemon, registry: Registry::start(None), folder }
    }

    /// The image with the flaw, pushed as `name`.
    fn push(&self, name: &str) -> String {
        let (brig, image) = (self.daemon.brig(), format!("{}/{name}", self.registry.address));
        self.daemon.load_busybox();
        make(&brig, self.folder.path(), &image);
        let _ = brig.run(&["push", "-q", &image]).ok();
        image
    }

    /// Gives the engine a database that knows one flaw, fixed in this version.
    fn database(&self, fixed: &str) {
        let feed = self.write(&format!("tracker-{fixed}.json"), &tracker(fixed));
        let feed = format!("tracker={}", feed.display());
        let given = self.daemon.brig().run(&["scan", "db", "update", "--engine", "--feed", &feed]);
        assert!(given.ok().contains("the engine took it"), "{}", given.stdout);
    }

    fn policy(&self, rules: &str) {
        let file = self.write("policy.toml", rules);
        let _ =
            self.daemon.brig().run(&["scan", "policy", "set", &file.display().to_string()]).ok();
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The newest docker CLI, and brig's own.
    fn clients(&self) -> [Client; 2] {
        let mut clients = self.daemon.clients().into_iter();
        let (brig, docker) = (clients.next().unwrap(), clients.next().unwrap());
        [docker, brig]
    }

    /// Events about flaws in what runs.
    fn told(&self) -> Vec<String> {
        let until =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
                + 1;
        let (since, until) = ("1".to_owned(), until.to_string());
        let args = ["events", "--since", &since, "--until", &until, "--filter", "event=vulnerable"];
        self.daemon.brig().run(&args).ok().lines().map(str::to_owned).collect()
    }
}

/// Busybox with a second layer that says it were Debian with an openssl.
fn make(brig: &Client, folder: &Path, image: &str) {
    let root = folder.join("root");
    for (path, text) in [("etc/os-release", RELEASE), ("var/lib/dpkg/status", STATUS)] {
        let file = root.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let _ = brig.run(&["create", "--name", "maker", "busybox:latest", "true"]).ok();
    let from = format!("{}/.", root.display());
    let _ = brig.run(&["cp", &from, "maker:/"]).ok();
    let _ = brig.run(&["commit", "-c", "CMD [\"sleep\",\"1000\"]", "maker", image]).ok();
    let _ = brig.run(&["rm", "maker"]).ok();
}

/// A feed that knows one flaw, fixed in this version.
fn tracker(fixed: &str) -> String {
    format!(
        r#"{{"openssl":{{"{FLAW}":{{"releases":{{"bookworm":{{"status":"resolved","fixed_version":"{fixed}","urgency":"high"}}}}}}}}}}"#
    )
}

const STRICT: &str = "[[rules]]\nprefix = \"*\"\nseverity = \"high\"\nmax_age = 0\n";

fn names_everything(text: &str, image: &str) {
    let repository = image.rsplit_once(':').unwrap().0;
    for part in [
        "by the scan policy",
        &format!("{FLAW} (high): openssl 3.0.1-1 in layer 2"),
        "fixed in 3.0.2-1: upgrade openssl to 3.0.2-1",
        &format!(
            "brig scan exception add {FLAW} --image {repository} --owner WHO --reason WHY --expires YYYY-MM-DD"
        ),
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn what_turns_vulnerable_goes_on_and_is_not_deployed_again() {
    let place = Place::new();
    let image = place.push("team/web:v1");
    place.database("3.0.0-1");
    place.policy(STRICT);
    let [docker, brig] = place.clients();
    let create = |client: &Client, name: &str| {
        client.run(&["service", "create", "--detach", "--network", "host", "--name", name, &image])
    };
    let _ = create(&docker, "web").ok();
    let spec = "{{.Spec.TaskTemplate.ContainerSpec.Image}}";
    let pinned = docker.run(&["service", "inspect", "--format", spec, "web"]).ok().to_owned();
    assert!(pinned.starts_with(&format!("{image}@sha256:")), "{pinned}");
    let before = place.daemon.service_containers("web", 1);
    assert!(place.told().is_empty());

    // Overnight.
    place.database("3.0.2-1");
    eventually("the flaw is told", Duration::from_secs(20), || !place.told().is_empty());
    let told = place.told();
    assert_eq!(told.len(), 1, "{told:?}");
    for part in ["image vulnerable", FLAW, "service=web", "fixed=3.0.2-1"] {
        assert!(told[0].contains(part), "{part} is not in {}", told[0]);
    }
    // Its task dies and comes back.
    let _ = docker.run(&["kill", &before[0]]).ok();
    eventually("the task is restarted", Duration::from_secs(30), || {
        let now = place.daemon.service_containers("web", 1);
        now != before
    });
    let _ = docker.run(&["service", "scale", "--detach", "web=2"]).ok();
    assert_eq!(place.daemon.service_containers("web", 2).len(), 2);
    // Nobody deploys it anew.
    for client in [&docker, &brig] {
        names_everything(create(client, "again").fails(1), &image);
        let run = client.run(&["run", "--rm", "--network", "none", &image, "true"]);
        names_everything(run.fails(125), &image);
        let made = client.run(&["create", "--name", "past", &image]);
        assert_ne!(made.code, 0, "{}", made.stdout);
        names_everything(&made.stderr, &image);
    }
    // Neither under another name.
    let _ = docker.run(&["tag", &image, "innocent:v1"]).ok();
    let run = docker.run(&["run", "--rm", "--network", "none", "innocent:v1", "true"]);
    assert!(run.fails(125).contains(FLAW), "{}", run.stderr);

    // Somebody answers for it.
    let repository = image.rsplit_once(':').unwrap().0.to_owned();
    let except = |expires: &str| {
        let add = ["scan", "exception", "add", FLAW, "--image", &repository, "--owner", "ann"];
        let why = ["--reason", "not reachable", "--expires", expires];
        brig.run(&[&add[..], &why[..]].concat())
    };
    let key = except("2999-12-31").ok().to_owned();
    let _ = create(&docker, "excepted").ok();
    let _ = place.daemon.service_containers("excepted", 1);
    let _ = docker.run(&["run", "--rm", "--network", "none", &image, "true"]).ok();
    let listed = brig.run(&["scan", "exception", "ls"]);
    assert!(listed.ok().contains(&key) && listed.stdout.contains("ann"), "{}", listed.stdout);
    // Its day passes.
    assert!(except("2020-01-01").ok().contains(&key));
    let over = create(&docker, "late");
    assert!(over.fails(1).contains("its exception of ann ended on 2020-01-01"), "{}", over.stderr);
    let _ = brig.run(&["scan", "exception", "rm", &key]).ok();
    // What a policy would do is known before.
    let strict = place.folder.path().join("policy.toml").display().to_string();
    let tested = brig.run(&["scan", "policy", "test", &strict]);
    assert_eq!(tested.code, 1, "{}", tested.stderr);
    assert!(tested.stdout.contains("refused") && tested.stdout.contains(FLAW), "{}", tested.stdout);

    // A policy that only warns.
    place.policy(&format!("{STRICT}mode = \"warn\"\n"));
    let warned = docker.run(&["create", "--name", "warned", &image]);
    let _ = warned.ok();
    assert!(warned.stderr.contains(FLAW), "{}", warned.stderr);
    let _ = create(&docker, "warned").ok();
    // The same flaw in the same image is not told again.
    assert_eq!(place.told().len(), 1, "{:?}", place.told());
}

#[test]
fn what_cannot_be_judged_does_what_the_policy_says() {
    let place = Place::new();
    let image = place.push("team/app:v1");
    let docker = &place.clients()[0];
    let run = |image: &str| docker.run(&["run", "--rm", "--network", "none", image, "true"]);
    place.policy(STRICT);
    // There is no database yet.
    let refused = run(&image);
    assert!(refused.fails(125).contains("no_database"), "{}", refused.stderr);
    assert!(refused.stderr.contains("brig scan db update --engine"), "{}", refused.stderr);
    place.database("3.0.0-1");
    let _ = run(&image).ok();
    // Nothing says what is in busybox.
    let refused = run("busybox:latest");
    assert!(refused.fails(125).contains("nothing_found"), "{}", refused.stderr);
    place.policy(&format!("{STRICT}doubts = {{ nothing_found = \"accept\" }}\n"));
    let _ = run("busybox:latest").ok();
    place.policy(&format!("{STRICT}unknown = \"warn\"\n"));
    let warned = docker.run(&["create", "--name", "doubtful", "busybox:latest"]);
    let _ = warned.ok();
    assert!(warned.stderr.contains("nothing_found"), "{}", warned.stderr);
    // The database can be seen, taken out and given back.
    let brig = place.daemon.brig();
    let status = brig.run(&["scan", "db", "status", "--engine"]);
    assert!(status.ok().contains("tracker"), "{}", status.stdout);
    assert!(status.stdout.contains("on all managers of the swarm"), "{}", status.stdout);
    let file = place.folder.path().join("carried.db").display().to_string();
    let _ = brig.run(&["scan", "db", "export", "--engine", &file]).ok();
    let _ = brig.run(&["scan", "db", "import", "--engine", &file]).ok();
    let damaged = place.write("damaged.db", "this is no database");
    let refused = brig.run(&["scan", "db", "import", "--engine", &damaged.display().to_string()]);
    assert!(refused.fails(1).contains("vulnerability database"), "{}", refused.stderr);
    let _ = run(&image).ok();
    // A mistake in a policy is told with its field.
    let wrong = place.write("wrong.json", r#"{"rules":[{"prefix":"*","epss":7}]}"#);
    let refused = brig.run(&["scan", "policy", "set", &wrong.display().to_string()]);
    assert!(refused.fails(1).contains("rules[0].epss"), "{}", refused.stderr);
    let _ = brig.run(&["scan", "policy", "rm"]).ok();
    let _ = run("busybox:latest").ok();
}

/// Two managers and a worker on hosts of their own; a manager that comes later gets the database too.
#[test]
fn every_manager_gets_the_database() {
    let hosts = Hosts::up(3);
    let nodes: Vec<HostNode> = (1..=3).map(|host| hosts.start(host, Kind::Brigd)).collect();
    let [first, second, third] = nodes.as_slice() else { unreachable!() };
    let digest = |node: &HostNode| {
        let shown = http::get(&node.socket(), "/brig/scan/database");
        shown["Digest"].as_str().map(str::to_owned)
    };
    let folder = tempfile::Builder::new().prefix("brig-scan-gate-").tempdir_in("/var/tmp").unwrap();
    let give = |node: &HostNode, fixed: &str| {
        let feed = folder.path().join(format!("tracker-{fixed}.json"));
        std::fs::write(&feed, tracker(fixed)).unwrap();
        let brig = Client::brig(&node.socket(), folder.path());
        let feed = format!("tracker={}", feed.display());
        let _ = brig.run(&["scan", "db", "update", "--engine", "--feed", &feed]).ok();
        digest(node).unwrap()
    };
    // What an engine has when it starts a swarm becomes the swarm's.
    let early = give(first, "1");
    first.init_swarm();
    let token = first.ok(&["swarm", "join-token", "-q", "manager"]);
    let peer = format!("{}:2377", first.address);
    let _ = second.ok(&["swarm", "join", "--token", &token, &peer]);
    let _ = third.join(first);
    let patience = Duration::from_secs(60);
    eventually("the second manager has it", patience, || digest(second).as_ref() == Some(&early));
    // Another one, given to the second.
    let late = give(second, "2");
    assert_ne!(early, late);
    eventually("the first has the new one", patience, || digest(first).as_ref() == Some(&late));
    assert_eq!(digest(third), None, "without a policy workers need none");
    let worker = third.id();
    let _ = first.ok(&["node", "promote", &worker]);
    eventually("a new manager has it", patience, || digest(third).as_ref() == Some(&late));
}

/// What is run on a worker is judged there, by the policy and the database of its swarm.
#[test]
fn a_worker_judges_by_the_swarms_database() {
    let hosts = Hosts::up(2);
    let (manager, worker) = (hosts.start(1, Kind::Brigd), hosts.start(2, Kind::Brigd));
    let folder = tempfile::Builder::new().prefix("brig-scan-gate-").tempdir_in("/var/tmp").unwrap();
    let brig = |node: &HostNode| Client::brig(&node.socket(), folder.path());
    worker.load_busybox();
    make(&brig(&worker), folder.path(), "web:v1");
    manager.init_swarm();
    let _ = worker.join(&manager);
    let digest = |node: &HostNode| {
        let shown = http::get(&node.socket(), "/brig/scan/database");
        shown["Digest"].as_str().map(str::to_owned)
    };
    let give = |fixed: &str| {
        let feed = folder.path().join(format!("tracker-{fixed}.json"));
        std::fs::write(&feed, tracker(fixed)).unwrap();
        let feed = format!("tracker={}", feed.display());
        let _ = brig(&manager).run(&["scan", "db", "update", "--engine", "--feed", &feed]).ok();
        digest(&manager).unwrap()
    };
    let run =
        || worker.client().run(&["run", "--rm", "--network", "none", "web:v1", "echo", "runs"]);
    let early = give("3.0.0-1");
    let policy = folder.path().join("policy.toml");
    std::fs::write(&policy, STRICT).unwrap();
    let _ = brig(&manager).run(&["scan", "policy", "set", &policy.display().to_string()]).ok();
    let patience = Duration::from_secs(100);
    eventually("the worker has it", patience, || digest(&worker).as_ref() == Some(&early));
    assert_eq!(run().ok(), "runs");
    let late = give("3.0.2-1");
    eventually("the worker has the new one", patience, || digest(&worker).as_ref() == Some(&late));
    let refused = run();
    let said = refused.fails(125);
    assert!(said.contains("by the scan policy") && said.contains(FLAW), "{said}");
    assert!(said.contains("upgrade openssl to 3.0.2-1"), "{said}");
    // Cut off from its manager it goes by what it has.
    hosts.cut(1);
    assert!(run().fails(125).contains(FLAW));
}
