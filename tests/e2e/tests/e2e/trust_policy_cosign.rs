//! A trust policy that demands signatures by key pair: made by brig and by the real cosign, beside
//! images in a real registry.

use std::path::PathBuf;
use std::process::Stdio;

use brig_e2e::notary::Notary;
use brig_e2e::registry::{NIGEL, Registry};
use brig_e2e::{Brigd, Client, Output, http};
use serde_json::json;

/// What opens the private keys of these tests.
const PASSWORD: &str = "pw of keys";
const SLEEP: [&str; 2] = ["sleep", "1000"];
const REFERRERS: &str = "--registry-referrers-mode=oci-1-1";

/// A swarm's manager and a registry; keys of brig's, of cosign's, and of a stranger.
struct Stage {
    daemon: Brigd,
    registry: Registry,
    folder: tempfile::TempDir,
}

impl Stage {
    fn start() -> Self {
        let stage = Self {
            daemon: Brigd::start(),
            registry: Registry::start(None),
            folder: tempfile::tempdir_in("/var/tmp").unwrap(),
        };
        stage.registry.log_in(stage.folder.path(), NIGEL);
        stage.daemon.load_busybox();
        stage.daemon.init_swarm();
        for name in ["own", "stranger"] {
            let generate = ["trust", "cosign", "generate-key-pair", "--output-key-prefix", name];
            stage.brig(&generate).ok();
        }
        stage.cosign(&["generate-key-pair", "--output-key-prefix", "theirs"]).ok();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.registry.address)
    }

    fn brig(&self, args: &[&str]) -> Output {
        self.with(&Client::brig(&self.daemon.socket(), self.folder.path()), args)
    }

    fn with(&self, client: &Client, args: &[&str]) -> Output {
        let mut command = client.command(args);
        command.current_dir(&self.folder).env("COSIGN_PASSWORD", PASSWORD);
        let output = command.stdin(Stdio::null()).output().unwrap();
        Output::of(format!("{}: {}", client.name, args.join(" ")), &output)
    }

    fn cosign(&self, args: &[&str]) -> Output {
        brig_e2e::cosign::run(self.folder.path(), PASSWORD, args)
    }

    fn cosign_signs(&self, key: &str, more: &[&str], image: &str) {
        let flags = ["sign", "--key", key, "--tlog-upload=false", "--allow-http-registry", "-y"];
        self.cosign(&[&flags[..], more, &[image]].concat()).ok();
    }

    fn brig_signs(&self, key: &str, more: &[&str], image: &str) {
        self.brig(&[&["trust", "sign", "--key", key], more, &[image]].concat()).ok();
    }

    /// An image of its own in the registry, and not here.
    fn image(&self, repository: &str) -> String {
        let name = self.name(repository);
        let label = format!("LABEL made={repository}");
        let id = self.brig(&["create", "busybox", "true"]).ok().to_owned();
        self.brig(&["commit", "-c", &label, &id, &name]).ok();
        self.brig(&["rm", &id]).ok();
        self.brig(&["push", "-q", &name]).ok();
        self.brig(&["rmi", &name]).ok();
        name
    }

    fn digest(&self, name: &str) -> String {
        let path = format!("/v1.41/distribution/{name}/json");
        let found = http::get(&self.daemon.socket(), &path);
        found["Descriptor"]["digest"].as_str().unwrap().to_owned()
    }

    /// The public keys as a policy names them.
    fn keys(&self, names: &[&str]) -> Vec<String> {
        let read = |name: &&str| std::fs::read_to_string(self.path(&format!("{name}.pub")));
        names.iter().map(|name| read(name).unwrap()).collect()
    }

    fn enforce(&self, rules: &[(&str, serde_json::Value)]) {
        let mut rules: Vec<_> = rules
            .iter()
            .map(|(images, require)| json!({ "images": self.name(images), "require": require }))
            .collect();
        rules.push(json!({ "images": "*", "require": "reject" }));
        let policy = json!({ "mode": "enforce", "rules": rules });
        std::fs::write(self.path("policy.json"), policy.to_string()).unwrap();
        self.brig(&["trust", "policy", "set", "policy.json"]).ok();
    }

    fn clients(&self) -> Vec<Client> {
        let socket = self.daemon.socket();
        let mut clients = Client::dockers(&socket, self.folder.path());
        clients.push(Client::brig(&socket, self.folder.path()));
        clients
    }

    fn starts(&self, image: &str) {
        for client in self.clients() {
            self.with(&client, &["run", "--rm", image, "true"]).ok();
        }
    }

    fn refuses(&self, image: &str, why: &str) {
        let service = ["service", "create", "-d", "-q", "--name", "no", image];
        for client in self.clients() {
            refused(&self.with(&client, &["run", "--rm", image, "true"]), 125, why);
            refused(&self.with(&client, &service), 1, why);
        }
    }
}

#[track_caller]
fn refused(output: &Output, code: i32, why: &str) {
    let stderr = output.fails(code);
    assert!(stderr.contains("refused by the trust policy"), "{output:?}");
    assert!(stderr.contains(why), "expected {why:?}: {output:?}");
}

#[test]
fn only_what_the_keys_signed_starts() {
    let mut stage = Stage::start();
    let by = |keys: &[&str]| json!({ "signed_by": { "cosign": { "keys": stage.keys(keys) } } });
    let (ours, theirs) = (stage.image("team/app:ours"), stage.image("team/app:theirs"));
    let (referred, second) = (stage.image("team/app:referred"), stage.image("team/app:second"));
    let (unsigned, foreign) = (stage.image("team/app:none"), stage.image("team/app:foreign"));
    stage.brig_signs("own.key", &[], &ours);
    stage.cosign_signs("theirs.key", &[], &theirs);
    stage.cosign_signs("theirs.key", &[REFERRERS], &referred);
    stage.brig_signs("own.key", &[REFERRERS], &second);
    stage.brig_signs("stranger.key", &[], &foreign);
    let (prod, test) = (stage.image("prod/app:1"), stage.image("prod/app:test"));
    stage.brig_signs("own.key", &["-a", "stage=prod"], &prod);
    stage.cosign_signs("own.key", &["-a", "stage=test"], &test);
    let (two, one) = (stage.image("both/app:two"), stage.image("both/app:one"));
    stage.brig_signs("own.key", &[], &two);
    stage.cosign_signs("theirs.key", &[], &two);
    stage.brig_signs("own.key", &[], &one);
    let mut annotated = by(&["own"]);
    annotated["signed_by"]["cosign"]["annotations"] = json!({ "stage": "prod" });
    let mut of_both = by(&["own", "theirs"]);
    of_both["signed_by"]["cosign"]["min_signers"] = json!(2);
    stage.enforce(&[("team", by(&["own", "theirs"])), ("prod", annotated), ("both", of_both)]);

    for image in [&ours, &theirs, &referred, &second, &prod, &two] {
        stage.starts(image);
    }
    stage.refuses(&unsigned, "there are no signatures");
    stage.refuses(&foreign, "none of the keys has made the signature");
    stage.refuses(&test, "stage");
    stage.refuses(&one, "signed by");

    // Services: pinned, by whichever client.
    for (number, client) in stage.clients().iter().enumerate() {
        let service = format!("web{number}");
        let image = if number == 0 { &theirs } else { &referred };
        let create = ["service", "create", "-d", "-q", "--name", &service, image];
        stage.with(client, &[&create[..], &SLEEP[..]].concat()).ok();
        let _ = stage.daemon.service_containers(&service, 1);
        let update = ["service", "update", "-d", "-q", "--image", &unsigned, &service];
        refused(&stage.with(client, &update), 1, "there are no signatures");
    }
    let spec = http::get(&stage.daemon.socket(), "/v1.41/services/web0");
    let pinned = format!("{theirs}@{}", stage.digest(&theirs));
    assert_eq!(spec["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"], json!(pinned));

    // The tag moves after it was signed: what it leads to is refused, what was signed is not.
    let digest = stage.digest(&ours);
    stage.brig(&["pull", "-q", &unsigned]).ok();
    stage.brig(&["tag", &unsigned, &ours]).ok();
    stage.brig(&["push", "-q", &ours]).ok();
    stage.refuses(&ours, "there are no signatures");
    stage.starts(&format!("{}@{digest}", stage.name("team/app")));

    // Without the registry what was seen of signatures counts, for images that are here.
    stage.registry.stop();
    stage.starts(&theirs);
    stage.brig(&["service", "scale", "-d", "web0=2"]).ok();
    let _ = stage.daemon.service_containers("web0", 2);
    refused(&stage.brig(&["run", "--rm", &unsigned, "true"]), 125, "");
}

#[test]
fn content_trust_or_a_key_is_enough_where_the_policy_says_so() {
    let stage = Stage::start();
    let notary = Notary::brig();
    let brig = Client::brig(&stage.daemon.socket(), stage.folder.path());
    let (old, new, none) =
        (stage.name("any/app:old"), stage.image("any/app:new"), stage.image("any/app:none"));
    let label = "LABEL made=old";
    let id = stage.brig(&["create", "busybox", "true"]).ok().to_owned();
    stage.brig(&["commit", "-c", label, &id, &old]).ok();
    let sign = brig.command(&["trust", "sign", &old]).envs(notary.introduction()).output().unwrap();
    assert!(sign.status.success(), "{}", String::from_utf8_lossy(&sign.stderr));
    stage.brig_signs("own.key", &[], &new);
    let require = |need: &str| {
        let ca = std::fs::read_to_string(notary.certificate()).unwrap();
        json!({ "signed_by": {
            "need": need,
            "dct": { "server": notary.url(), "ca": ca, "first_use": true },
            "cosign": { "keys": stage.keys(&["own"]) },
        }})
    };
    stage.enforce(&[("any", require("any"))]);
    stage.starts(&old);
    stage.starts(&new);
    stage.refuses(&none, "there are no signatures");
    stage.refuses(&none, "is not signed");

    // Where both are needed, neither is enough.
    stage.enforce(&[("any", require("all"))]);
    stage.refuses(&old, "there are no signatures");
    stage.refuses(&new, "is not signed");
    stage.brig_signs("own.key", &[], &old);
    stage.starts(&old);
}
