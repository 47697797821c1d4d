//! A trust policy in force: whatever the way, what nobody signed does not start, and what ran
//! before goes on.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use brig_e2e::notary::Notary;
use brig_e2e::registry::{NIGEL, Registry};
use brig_e2e::{Brigd, Client, Output, eventually, http};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(45);
const SLEEP: [&str; 2] = ["sleep", "1000"];

/// A swarm's manager, a registry and a trust server; `team/app:1` is signed, `:2` is not.
struct Stage {
    daemon: Brigd,
    registry: Registry,
    notary: Notary,
    folder: tempfile::TempDir,
}

impl Stage {
    fn start() -> Self {
        let stage = Self {
            daemon: Brigd::start(),
            registry: Registry::start(None),
            notary: Notary::brig(),
            folder: tempfile::tempdir_in("/var/tmp").unwrap(),
        };
        stage.registry.log_in(stage.folder.path(), NIGEL);
        stage.daemon.load_busybox();
        stage.daemon.init_swarm();
        for (name, label) in [("evil", "evil"), ("tool", "tool")] {
            stage.brig(&["create", "--name", name, "busybox", "true"]).ok();
            let change = format!("LABEL {label}=yes");
            stage.brig(&["commit", "-c", &change, name, &format!("{name}:1")]).ok();
            stage.brig(&["rm", name]).ok();
        }
        let signed = stage.name("team/app:1");
        stage.brig(&["tag", "busybox", &signed]).ok();
        stage.brig(&["trust", "sign", &signed]).ok();
        for (image, name) in
            [("evil:1", "team/app:2"), ("evil:1", "other/evil:1"), ("tool:1", "free/tool:1")]
        {
            stage.push(image, &stage.name(name));
        }
        stage
    }

    fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.registry.address)
    }

    /// brig's client with nigel's files and passphrases.
    fn brig(&self, args: &[&str]) -> Output {
        self.with(&Client::brig(&self.daemon.socket(), self.folder.path()), args)
    }

    fn with(&self, client: &Client, args: &[&str]) -> Output {
        let output = client
            .command(args)
            .envs(self.notary.introduction())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Output::of(format!("{}: {}", client.name, args.join(" ")), &output)
    }

    fn push(&self, image: &str, name: &str) {
        self.brig(&["tag", image, name]).ok();
        self.brig(&["push", name]).ok();
        self.brig(&["rmi", name]).ok();
    }

    fn id(&self, image: &str) -> String {
        self.brig(&["image", "inspect", "-f", "{{.Id}}", image]).ok().to_owned()
    }

    /// What the registry has under a name.
    fn digest(&self, name: &str) -> String {
        let path = format!("/v1.41/distribution/{name}/json");
        let found = http::get(&self.daemon.socket(), &path);
        found["Descriptor"]["digest"].as_str().unwrap().to_owned()
    }

    /// The ID of nigel's root key.
    fn root_key(&self) -> String {
        let keys = self.folder.path().join("trust/private");
        for entry in std::fs::read_dir(keys).unwrap() {
            let path = entry.unwrap().path();
            if std::fs::read_to_string(&path).unwrap().contains("role: root") {
                return path.file_stem().unwrap().to_str().unwrap().to_owned();
            }
        }
        panic!("there is no root key");
    }

    /// The policy, with more of the rule for `team`.
    fn policy(&self, mode: &str, more: &str) -> PathBuf {
        let ca = std::fs::read_to_string(self.notary.certificate()).unwrap();
        let text = format!(
            "mode = \"{mode}\"\n\n[[rules]]\nimages = \"{0}/team\"\n[rules.require.signed_by.dct]\nserver = \"{1}\"\nca = \"\"\"\n{ca}\"\"\"\nroot_keys = [\"{2}\"]\nsigners = [\"nigel\"]\n{more}\n\n[[rules]]\nimages = \"{0}/free\"\nrequire = \"accept\"\n\n[[rules]]\nimages = \"*\"\nrequire = \"reject\"\n",
            self.registry.address,
            self.notary.url(),
            self.root_key()
        );
        let path = self.folder.path().join("policy.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn enforce(&self, more: &str) {
        self.brig(&["trust", "policy", "set", text(&self.policy("enforce", more))]).ok();
    }

    fn clients(&self) -> Vec<Client> {
        let socket = self.daemon.socket();
        let mut clients = Client::dockers(&socket, self.folder.path());
        clients.push(Client::brig(&socket, self.folder.path()));
        clients
    }

    fn image_of(&self, service: &str) -> String {
        let path = format!("/v1.41/services/{service}");
        let found = http::get(&self.daemon.socket(), &path);
        let image = &found["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"];
        image.as_str().unwrap().to_owned()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn refused(output: &Output, code: i32, why: &str) {
    let stderr = output.fails(code);
    assert!(stderr.contains("refused by the trust policy"), "{output:?}");
    assert!(stderr.contains(why), "expected {why:?}: {output:?}");
}

#[track_caller]
fn forbidden(answer: Result<String, String>, why: &str) {
    let error = answer.unwrap_err();
    assert!(error.starts_with("403") && error.contains("trust policy"), "{error}");
    assert!(error.contains(why), "expected {why:?}: {error}");
}

fn service(name: &str, image: &str) -> serde_json::Value {
    json!({
        "Name": name,
        "TaskTemplate": { "ContainerSpec": { "Image": image, "Command": SLEEP } },
        "Mode": { "Replicated": { "Replicas": 1 } },
    })
}

#[test]
fn no_client_and_no_way_starts_what_nobody_signed() {
    let stage = Stage::start();
    let socket = stage.daemon.socket();
    let (signed, unsigned) = (stage.name("team/app:1"), stage.name("team/app:2"));
    let evil = stage.id("evil:1");
    let (good_digest, evil_digest) = (stage.digest(&signed), stage.digest(&unsigned));
    stage.enforce("");
    stage.brig(&["pull", "-q", &unsigned]).ok();
    stage.brig(&["pull", "-q", &stage.name("other/evil:1")]).ok();

    // One who only looks asks the trust server once; so does a run, which is judged when its container
    // is made and when it starts.
    let lookups = |args: &[&str]| {
        let before = stage.notary.lookups();
        stage.brig(args).ok();
        stage.notary.lookups() - before
    };
    lookups(&["run", "--rm", &signed, "true"]);
    let once = lookups(&["trust", "explain", &signed]);
    assert!(once > 0, "a look asks");
    assert_eq!(lookups(&["run", "--rm", &signed, "true"]), once);

    for client in stage.clients() {
        let run = |args: &[&str]| stage.with(&client, args);
        refused(&run(&["run", "--rm", &unsigned, "true"]), 125, "tag 2");
        let create = run(&["create", &unsigned, "true"]);
        refused(&create, create.code.max(1), "is not signed");
        refused(&run(&["service", "create", "-d", "--name", "no", &unsigned]), 1, "is not signed");
        // By id, by its beginning, by another repository's name, by digest.
        refused(&run(&["run", "--rm", &evil, "true"]), 125, "");
        refused(&run(&["run", "--rm", &evil[7..19], "true"]), 125, "");
        let other = stage.name("other/evil:1");
        refused(&run(&["run", "--rm", &other, "true"]), 125, "not allowed here");
        let by_digest = format!("{}@{evil_digest}", stage.name("team/app"));
        refused(&run(&["run", "--rm", &by_digest, "true"]), 125, "is not signed in");
        // Signed, but in another repository.
        let elsewhere = format!("{}@{good_digest}", stage.name("other/evil"));
        assert_ne!(run(&["run", "--rm", &elsewhere, "true"]).code, 0);
        // What is signed runs, by tag, by digest, by id.
        run(&["run", "--rm", &signed, "true"]).ok();
        let pinned = format!("{}@{good_digest}", stage.name("team/app"));
        run(&["run", "--rm", &pinned, "true"]).ok();
        run(&["run", "--rm", &stage.id(&signed), "true"]).ok();
    }
    // Clients that say what they like.
    let create = |image: &str| {
        http::post(&socket, "/v1.41/containers/create", &json!({ "Image": image, "Cmd": ["true"] }))
    };
    forbidden(create(&unsigned), "is not signed");
    forbidden(create(&evil), "");
    let services = "/v1.41/services/create";
    let foreign = format!("{signed}@{evil_digest}");
    forbidden(http::post(&socket, services, &service("no", &unsigned)), "is not signed");
    forbidden(http::post(&socket, services, &service("no", &foreign)), "is not signed in");

    // Another name, an archive, a commit, a build make no difference.
    let brig = |args: &[&str]| stage.brig(args);
    brig(&["tag", &evil, &signed]).ok();
    refused(&brig(&["run", "--rm", &signed, "true"]), 125, "is not the one that was signed");
    let free = stage.name("free/other:1");
    brig(&["tag", &evil, &free]).ok();
    refused(&brig(&["run", "--rm", &free, "true"]), 125, "was not pulled from there");
    brig(&["pull", "-q", &stage.name("free/tool:1")]).ok();
    brig(&["run", "--rm", &stage.name("free/tool:1"), "true"]).ok();
    let archive = stage.folder.path().join("evil.tar");
    brig(&["tag", "tool:1", "loaded:1"]).ok();
    brig(&["save", "-o", text(&archive), "loaded:1"]).ok();
    brig(&["rmi", "loaded:1"]).ok();
    brig(&["load", "-i", text(&archive)]).ok();
    refused(&brig(&["run", "--rm", "loaded:1", "true"]), 125, "not allowed here");
    brig(&["pull", "-q", &signed]).ok();
    brig(&["run", "--name", "base", &signed, "true"]).ok();
    brig(&["commit", "base", &stage.name("team/app:made")]).ok();
    let made = stage.name("team/app:made");
    refused(&brig(&["run", "--rm", &made, "true"]), 125, "is not signed");
    refused(&brig(&["run", "--rm", &stage.id(&made), "true"]), 125, "came from no registry");
    if Path::new("/usr/bin/buildah").exists() {
        let folder = stage.folder.path().join("context");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("Dockerfile"), format!("FROM {unsigned}\nRUN true\n")).unwrap();
        refused(&brig(&["build", text(&folder)]), 1, "is not signed");
    }

    // The tag moves in the registry: what the client pulls is refused, a service is pinned to what
    // was signed.
    stage.push("evil:1", &signed);
    assert_eq!(stage.digest(&signed), evil_digest);
    brig(&["pull", "-q", &signed]).ok();
    refused(&brig(&["run", "--rm", &signed, "true"]), 125, "is not the one that was signed");
    http::post(&socket, services, &service("web", &signed)).unwrap();
    assert_eq!(stage.image_of("web"), format!("{signed}@{good_digest}"));
    let id = stage.daemon.service_containers("web", 1);
    assert_eq!(
        brig(&["inspect", "-f", "{{.Image}}", &id[0]]).ok(),
        stage.id("busybox"),
        "the signed image runs"
    );
    refused(&brig(&["service", "update", "-d", "--image", &unsigned, "web"]), 1, "is not signed");
    brig(&["service", "scale", "-d", "web=2"]).ok();
    let _ = stage.daemon.service_containers("web", 2);

    // Why, in words; and that somebody tried is written down.
    let explained = brig(&["trust", "explain", &unsigned]);
    assert!(explained.stdout.contains("refused") && explained.code == 1, "{explained:?}");
    let pinned = format!("{}@{good_digest}", stage.name("team/app"));
    let explained = brig(&["trust", "explain", &pinned]);
    let own = format!("RootKeys: {}", stage.root_key());
    for words in ["admitted", "Signers: nigel", "Evidence: fresh", &good_digest, &own] {
        assert!(explained.ok().contains(words), "{words}: {explained:?}");
    }
    let log = std::fs::read_to_string(stage.daemon.log()).unwrap();
    assert!(log.contains("an image was refused"), "{log}");
    // A root key may be named by the ID that `trust inspect` shows.
    let shown = brig(&["trust", "inspect", &signed]);
    let shown: serde_json::Value = serde_json::from_str(shown.ok()).unwrap();
    let id = shown[0]["AdministrativeKeys"][0]["Keys"][0]["ID"].as_str().unwrap();
    assert_ne!(id, stage.root_key());
    let policy = std::fs::read_to_string(stage.policy("enforce", "")).unwrap();
    let path = stage.folder.path().join("as-shown.toml");
    std::fs::write(&path, policy.replace(&stage.root_key(), id)).unwrap();
    brig(&["trust", "policy", "set", text(&path)]).ok();
    brig(&["trust", "explain", &pinned]).ok();
    stage.enforce("");
    let events = brig(&["events", "--since", "10m", "--until", "0s", "--filter", "event=refuse"]);
    assert!(events.ok().contains("policy=trust"), "{events:?}");
}

#[test]
fn what_ran_before_goes_on_and_nothing_else_does() {
    let mut stage = Stage::start();
    let socket = stage.daemon.socket();
    let brig = |stage: &Stage, args: &[&str]| stage.brig(args);
    let (signed, unsigned) = (stage.name("team/app:1"), stage.name("team/app:2"));
    brig(&stage, &["pull", "-q", &unsigned]).ok();
    brig(&stage, &["run", "-d", "--name", "plain", &unsigned, "sleep", "1000"]).ok();
    brig(&stage, &["create", "--name", "never", &unsigned, "sleep", "1000"]).ok();
    let create = |name: &str, image: &str| {
        let args = ["service", "create", "-d", "-q", "--name", name, "--stop-grace-period", "1s"];
        brig(&stage, &[&args[..], &[image], &SLEEP[..]].concat()).ok();
        let _ = stage.daemon.service_containers(name, 1);
    };
    create("keep", &unsigned);
    create("old", &unsigned);
    brig(&stage, &["service", "update", "-d", "--image", &signed, "old"]).ok();
    eventually("old is updated", PATIENCE, || {
        let found = http::get(&socket, "/v1.41/services/old");
        found["UpdateStatus"]["State"] == "completed"
    });
    // Nobody pinned this one.
    http::post(&socket, "/v1.41/services/create", &service("loose", &unsigned)).unwrap();
    let loose = stage.daemon.service_containers("loose", 1);

    let tested = brig(&stage, &["trust", "policy", "test", text(&stage.policy("enforce", ""))]);
    tested.fails(1);
    for (name, decision) in
        [("keep", "refused"), ("plain", "refused"), ("loose", "refused"), ("old", "admitted")]
    {
        let line = tested.stdout.lines().find(|line| line.contains(&format!(" {name} ")));
        assert!(line.is_some_and(|line| line.contains(decision)), "{name}: {tested:?}");
    }
    let warned = brig(&stage, &["trust", "policy", "set", text(&stage.policy("warn", ""))]);
    assert!(warned.stderr.contains("service keep would not be admitted now"), "{warned:?}");
    let run = brig(&stage, &["run", "--rm", &unsigned, "true"]);
    run.ok();
    assert!(run.stderr.contains("refused by the trust policy"), "{run:?}");
    stage.enforce("");
    refused(&brig(&stage, &["run", "--rm", &unsigned, "true"]), 125, "is not signed");

    // What runs is left alone, and restarts: by hand, and as a task.
    brig(&stage, &["restart", "-t", "0", "plain"]).ok();
    refused(&brig(&stage, &["start", "never"]), 1, "is not signed");
    let before = stage.daemon.service_containers("keep", 1);
    brig(&stage, &["kill", &before[0]]).ok();
    eventually("keep runs again", PATIENCE, || {
        let now = stage.daemon.service_containers("keep", 1);
        now != before
    });
    brig(&stage, &["service", "update", "-d", "--force", "keep"]).ok();
    // But not what was left behind, nor what could be anything by now.
    refused(&brig(&stage, &["service", "rollback", "-d", "old"]), 1, "is not signed");
    brig(&stage, &["kill", &loose[0]]).ok();
    eventually("the loose task is refused by its node", PATIENCE, || {
        let tasks = brig(&stage, &["service", "ps", "--no-trunc", "loose"]);
        tasks.stdout.contains("refused by the trust policy")
    });

    // Without the trust server what is stored counts, as long as the policy says.
    stage.notary.stop();
    let explained = brig(&stage, &["trust", "explain", &signed]);
    assert!(explained.ok().contains("Evidence: stored"), "{explained:?}");
    let run = brig(&stage, &["run", "--rm", &signed, "true"]);
    run.ok();
    assert!(run.stderr.contains("was not asked"), "{run:?}");
    stage.enforce("max_age = \"1s\"");
    std::thread::sleep(Duration::from_millis(2100));
    let run = brig(&stage, &["run", "--rm", &signed, "true"]);
    refused(&run, 125, "the policy allows 1s");
    stage.enforce("max_age = \"1h\"");
    brig(&stage, &["run", "--rm", &signed, "true"]).ok();

    // A restart of the daemon changes nothing.
    stage.daemon.stop();
    stage.daemon.spawn();
    refused(&brig(&stage, &["run", "--rm", &unsigned, "true"]), 125, "is not signed");
    let id = brig(&stage, &["ps", "-q", "--filter", "name=plain"]);
    assert!(!id.ok().is_empty());
    brig(&stage, &["trust", "policy", "rm"]).ok();
    brig(&stage, &["run", "--rm", &unsigned, "true"]).ok();
}

#[test]
fn a_worker_holds_to_the_policy_by_itself() {
    let mut stage = Stage::start();
    let worker = Brigd::start();
    worker.join_as_worker(&stage.daemon).ok();
    let node = worker.brig().run(&["info", "-f", "{{.Swarm.NodeID}}"]).ok().to_owned();
    let here = format!("node.id=={node}");
    let (signed, unsigned) = (stage.name("team/app:1"), stage.name("team/app:2"));

    // Before there is a policy: one that nobody pinned, for the worker.
    let mut loose = service("loose", &unsigned);
    loose["TaskTemplate"]["Placement"] = json!({ "Constraints": [here] });
    http::post(&stage.daemon.socket(), "/v1.41/services/create", &loose).unwrap();
    let first = worker.service_containers("loose", 1);
    stage.enforce("");

    let create = ["service", "create", "-d", "-q", "--name", "web", "--constraint", &here, &signed];
    stage.brig(&[&create[..], &SLEEP[..]].concat()).ok();
    let _ = worker.service_containers("web", 1);
    let mine = worker.brig();
    mine.run(&["pull", "-q", &unsigned]).ok();
    mine.run(&["pull", "-q", &signed]).ok();
    // Nodes ask for policies once a second at most.
    eventually("the policy has come to the worker", PATIENCE, || {
        mine.run(&["run", "--rm", &unsigned, "true"]).code != 0
    });
    refused(&mine.run(&["run", "--rm", &unsigned, "true"]), 125, "is not signed");
    mine.run(&["kill", &first[0]]).ok();
    eventually("the worker refuses what the manager never judged", PATIENCE, || {
        let tasks = stage.brig(&["service", "ps", "--no-trunc", "loose"]);
        tasks.stdout.contains("refused by the trust policy")
    });
    let denied = mine.run(&["trust", "policy", "rm"]);
    assert!(denied.fails(1).contains("not a swarm manager"), "{denied:?}");

    // Neither trust server nor manager: it goes on by what it knows.
    stage.notary.stop();
    mine.run(&["run", "--rm", &signed, "true"]).ok();
    stage.daemon.stop();
    mine.run(&["run", "--rm", &signed, "true"]).ok();
    refused(&mine.run(&["run", "--rm", &unsigned, "true"]), 125, "is not signed");
    stage.daemon.spawn();
}

#[test]
fn what_a_node_refuses_it_does_not_fetch() {
    let stage = Stage::start();
    let worker = Brigd::start();
    worker.join_as_worker(&stage.daemon).ok();
    let node = worker.brig().run(&["info", "-f", "{{.Swarm.NodeID}}"]).ok().to_owned();
    let socket = stage.daemon.socket();
    let (signed, unsigned) = (stage.name("team/app:1"), stage.name("team/app:2"));
    let good_digest = stage.digest(&signed);
    let (good, evil) = (stage.id("busybox"), stage.id("evil:1"));

    // Made before there is a policy, pinned by nobody, and waiting for a node.
    for (name, image) in [("bad", &unsigned), ("moved", &signed)] {
        let mut waiting = service(name, image);
        let here = format!("node.labels.{name}==yes");
        waiting["TaskTemplate"]["Placement"] = json!({ "Constraints": [here] });
        http::post(&socket, "/v1.41/services/create", &waiting).unwrap();
    }
    stage.enforce("");
    stage.push("evil:1", &signed);
    let mine = worker.brig();
    eventually("the policy has come to the worker", PATIENCE, || {
        mine.run(&["trust", "explain", &unsigned]).stdout.contains("refused")
    });

    stage.brig(&["node", "update", "--label-add", "bad=yes", &node]).ok();
    let mut tasks = String::new();
    eventually("the worker refuses what is not signed", PATIENCE, || {
        let found = stage.brig(&["service", "ps", "--no-trunc", "bad"]);
        tasks = found.stdout;
        tasks.contains("refused by the trust policy")
    });
    assert!(tasks.contains("Rejected") && tasks.contains("is not signed"), "{tasks}");
    assert_eq!(mine.run(&["image", "ls", "-aq"]).ok(), "", "nothing was fetched");
    // Clients know whole seconds.
    eventually("the refusal is an event", PATIENCE, || {
        let filters = ["--since", "10m", "--until", "0s", "--filter", "event=refuse"];
        mine.run(&[&["events"], &filters[..]].concat()).ok().contains("policy=trust")
    });

    // The tag leads to something else by now: what was signed is fetched, and nothing else.
    stage.brig(&["node", "update", "--label-add", "moved=yes", &node]).ok();
    let id = worker.service_containers("moved", 1);
    assert_eq!(mine.run(&["inspect", "-f", "{{.Image}}", &id[0]]).ok(), good);
    let digests = mine.run(&["image", "inspect", "-f", "{{.RepoDigests}}", &signed]);
    assert!(digests.ok().contains(&good_digest), "{digests:?}");
    assert_ne!(mine.run(&["image", "inspect", &evil]).code, 0, "the other one was not fetched");
}
