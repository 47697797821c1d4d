//! Content trust: brig's client, docker's and notary's on one trust server and one trust folder,
//! each going on with what another one began; on notary-server, on brig's own and on the one in
//! the daemon.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use brig_e2e::notary::Notary;
use brig_e2e::registry::{NIGEL, Registry};
use brig_e2e::{Brigd, Client, Output, image};

/// A daemon, a registry, a trust server.
struct Stage {
    daemon: Brigd,
    registry: Registry,
    notary: Notary,
    folder: tempfile::TempDir,
}

/// Somebody with a folder of his own.
struct Person<'a> {
    stage: &'a Stage,
    config: PathBuf,
}

impl Stage {
    fn with(notary: Notary) -> Self {
        Self::beside(Brigd::start(), notary)
    }

    /// With the trust server in the daemon.
    fn in_the_daemon() -> Self {
        let notary = Notary::reserved();
        let flags = notary.daemon_flags();
        let daemon = Brigd::start_with(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        Self::beside(daemon, notary)
    }

    fn beside(daemon: Brigd, notary: Notary) -> Self {
        let stage = Self {
            daemon,
            registry: Registry::start(None),
            notary,
            folder: tempfile::tempdir_in("/var/tmp").unwrap(),
        };
        let person = stage.person("loader");
        person.brig(&["load", "-i", image::busybox().to_str().unwrap()]).ok();
        stage
    }

    /// Somebody who is logged in to the registry as `nigel`.
    fn person(&self, name: &str) -> Person<'_> {
        let config = self.folder.path().join(name);
        std::fs::create_dir_all(&config).unwrap();
        self.registry.log_in(&config, NIGEL);
        Person { stage: self, config }
    }

    fn name(&self, repository: &str) -> String {
        format!("{}/{repository}", self.registry.address)
    }
}

impl Person<'_> {
    fn clients(&self) -> (Client, Vec<Client>) {
        let socket = self.stage.daemon.socket();
        (Client::brig(&socket, &self.config), Client::dockers(&socket, &self.config))
    }

    fn with(&self, client: &Client, trust: bool, args: &[&str]) -> Output {
        let output = client
            .command(args)
            .current_dir(&self.config)
            .env("DOCKER_CONTENT_TRUST", if trust { "1" } else { "0" })
            .envs(self.stage.notary.introduction())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Output::of(format!("{}: {}", client.name, args.join(" ")), &output)
    }

    /// brig's CLI with trust, whose clock is so far from the true time (in faketime's words).
    fn at(&self, offset: &str, args: &[&str]) -> Output {
        let (brig, _) = self.clients();
        let real = brig.command(args);
        let mut command = Command::new("faketime");
        command.args(["-f", offset]).arg(real.get_program()).args(real.get_args());
        for (name, value) in real.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let output = command
            .env("DOCKER_CONTENT_TRUST", "1")
            .envs(self.stage.notary.introduction())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Output::of(format!("brig at {offset}: {}", args.join(" ")), &output)
    }

    fn brig(&self, args: &[&str]) -> Output {
        self.with(&self.clients().0, false, args)
    }

    fn trusting(&self, args: &[&str]) -> Output {
        self.with(&self.clients().0, true, args)
    }

    fn notary(&self, args: &[&str]) -> Output {
        self.stage.notary.cli(&self.config.join("trust"), args)
    }

    fn tag(&self, reference: &str) {
        self.brig(&["tag", "busybox:latest", reference]).ok();
    }
}

fn key_of(person: &Person<'_>) -> PathBuf {
    person.config.join("nigel.pub")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn each_goes_on_with_what_another_began(stage: &Stage) {
    let person = stage.person("nigel");
    let (brig, dockers) = person.clients();
    let docker = &dockers[0];
    for (at, (first, second)) in [(&brig, docker), (docker, &brig)].into_iter().enumerate() {
        let name = stage.name(&format!("team/app{at}"));
        let tagged = |tag: &str| format!("{name}:{tag}");
        let run = |client: &Client, args: &[&str]| person.with(client, false, args);
        for tag in ["1", "2", "10"] {
            person.tag(&tagged(tag));
        }
        if at == 0 {
            run(first, &["trust", "key", "generate", "nigel"]).ok();
        }
        let key = key_of(&person);
        run(first, &["trust", "signer", "add", "--key", text(&key), "nigel", &name]).ok();
        run(first, &["trust", "sign", &tagged("1")]).ok();
        run(second, &["trust", "sign", &tagged("10")]).ok();
        run(first, &["trust", "sign", &tagged("2")]).ok();
        run(second, &["trust", "sign", &tagged("2")]).ok();
        // What they say of it is the same, to the letter.
        for args in [
            vec!["trust", "inspect", &name],
            vec!["trust", "inspect", "--pretty", &name],
            vec!["trust", "inspect", "--pretty", &tagged("2")],
            vec!["trust", "inspect", &tagged("nothing")],
        ] {
            let (ours, theirs) = (run(&brig, &args), run(docker, &args));
            assert_eq!(ours.ok(), theirs.ok(), "{args:?}");
        }
        for client in dockers.iter().chain([&brig]) {
            let pulled = person.with(client, true, &["pull", &tagged("10")]);
            assert!(
                pulled.ok().contains(&format!("Pull (1 of 1): {name}:10@sha256:")),
                "{pulled:?}"
            );
        }
        run(second, &["trust", "revoke", &tagged("1")]).ok();
        let refused = person.with(first, true, &["pull", &tagged("1")]);
        assert_eq!(refused.fails(1).trim(), "No valid trust data for 1");
        run(first, &["trust", "revoke", "-y", &name]).ok();
        let refused = person.with(second, true, &["pull", &tagged("2")]);
        assert_eq!(refused.fails(1).trim(), "No valid trust data for 2");
    }
}

/// As the jobs of a pipeline do.
fn those_who_sign_at_the_same_moment_all_have_signed(stage: &Stage) {
    let person = stage.person("nigel");
    let name = stage.name("team/together");
    let tags: Vec<String> = (1..=5).map(|tag| format!("{name}:{tag}")).collect();
    tags.iter().for_each(|tag| person.tag(tag));
    person.brig(&["trust", "sign", &tags[0]]).ok();
    std::thread::scope(|scope| {
        let signing: Vec<_> = tags[1..]
            .iter()
            .map(|tag| scope.spawn(|| person.brig(&["trust", "sign", tag])))
            .collect();
        for one in signing {
            one.join().unwrap().ok();
        }
    });
    let listed = person.notary(&["list", &name]);
    assert_eq!(listed.ok().matches("targets/nigel").count(), tags.len(), "{listed:?}");
}

fn the_notary_cli_reads_rotates_and_goes_on(stage: &Stage) {
    let person = stage.person("nigel");
    let name = stage.name("team/app");
    for tag in ["1", "2", "3", "4"] {
        person.tag(&format!("{name}:{tag}"));
    }
    let sign = |tag: &str| person.brig(&["trust", "sign", &format!("{name}:{tag}")]);
    // Nobody has begun: the user is the first signer.
    let signed = sign("1");
    assert!(signed.ok().contains("Created signer: nigel\n"), "{signed:?}");
    let listed = person.notary(&["list", &name]);
    assert!(listed.ok().contains("targets/nigel"), "{listed:?}");
    // The snapshot key moves to the publisher and back; root and targets keys change.
    person.notary(&["key", "rotate", &name, "snapshot"]).ok();
    sign("2").ok();
    person.brig(&["trust", "key", "rotate", &name, "snapshot"]).ok();
    sign("3").ok();
    person.brig(&["trust", "key", "rotate", &name, "root"]).ok();
    person.brig(&["trust", "key", "rotate", &name, "targets"]).ok();
    person.brig(&["trust", "key", "rotate", "--local", &name, "snapshot"]).ok();
    sign("4").ok();
    let listed = person.notary(&["list", &name]);
    assert_eq!(listed.ok().matches("targets/nigel").count(), 4, "{listed:?}");
    person.notary(&["remove", "-p", &name, "4", "-r", "targets/releases"]).ok();
    let (brig, dockers) = person.clients();
    for client in dockers.iter().chain([&brig]) {
        let pulled = person.with(client, true, &["pull", &format!("{name}:3")]);
        pulled.ok();
        let refused = person.with(client, true, &["pull", &format!("{name}:4")]);
        assert_eq!(refused.fails(1).trim(), "No trust data for 4");
    }
    // A repository of the notary CLI's own, targets only.
    let other = stage.name("team/other");
    person.tag(&format!("{other}:1"));
    person.notary(&["init", "-p", &other]).ok();
    person.trusting(&["push", &format!("{other}:1")]).ok();
    let listed = person.notary(&["list", &other]);
    assert!(listed.ok().contains(" targets"), "{listed:?}");
}

fn a_tag_that_was_moved_is_pulled_as_it_was_signed(stage: &Stage) {
    let person = stage.person("nigel");
    let name = stage.name("team/app");
    let tagged = format!("{name}:1");
    person.tag(&tagged);
    let pushed = person.trusting(&["push", &tagged]);
    let out = pushed.ok();
    assert!(out.contains(&format!("Finished initializing \"{name}\"")), "{out}");
    assert!(out.contains(&format!("Successfully signed {name}:1")), "{out}");
    let shown = person.brig(&["trust", "inspect", "--pretty", &name]);
    assert!(shown.ok().contains("(Repo Admin)") || shown.ok().contains("Repo Admin"), "{shown:?}");
    let digests = |person: &Person<'_>, reference: &str| {
        let format = "--format={{index .RepoDigests 0}}";
        person.brig(&["image", "inspect", format, reference]).ok().to_owned()
    };
    let signed = digests(&person, &tagged);
    // Somebody else's image under the same tag.
    let id = person.brig(&["create", "busybox:latest", "true"]).ok().to_owned();
    person.brig(&["commit", &id, &tagged]).ok();
    person.brig(&["rm", &id]).ok();
    person.brig(&["push", &tagged]).ok();
    person.brig(&["rmi", "-f", &tagged]).ok();
    let reader = stage.person("reader");
    reader.trusting(&["pull", &tagged]).ok();
    assert_eq!(digests(&reader, &tagged), signed);
    let id = reader.trusting(&["create", &tagged, "true"]).ok().to_owned();
    let image = reader.brig(&["inspect", "--format={{.Config.Image}}", &id]);
    assert_eq!(image.ok(), signed);
    reader.brig(&["rm", &id]).ok();
    // What nobody signed, in the words of docker's clients.
    person.tag(&format!("{name}:2"));
    person.brig(&["push", &format!("{name}:2")]).ok();
    let unknown = stage.name("team/unknown");
    let (brig, dockers) = reader.clients();
    for args in [
        vec!["pull", &format!("{name}:2")],
        vec!["pull", &unknown],
        vec!["run", "--rm", &format!("{name}:2"), "true"],
        vec!["create", &unknown],
    ] {
        let theirs = reader.with(&dockers[0], true, &args);
        let ours = reader.with(&brig, true, &args);
        // Older CLIs end the sentence with a full stop and have another hint below it.
        let first = |output: &Output| {
            let line = output.stderr.lines().next().unwrap_or_default().trim_end_matches('.');
            line.replace("brig:", "docker:")
        };
        assert_eq!(first(&ours), first(&theirs), "{args:?}");
        assert_eq!(ours.code, theirs.code, "{args:?}");
        // And the flag says otherwise.
        let mut flagged = args.clone();
        flagged.insert(1, "--disable-content-trust");
        if !args.contains(&unknown.as_str()) {
            reader.with(&brig, true, &flagged).ok();
        }
    }
}

/// Two people on machines of their own, with docker's CLI and brig's: each signs, neither loses what
/// the other one signed, and one of them is removed.
fn a_second_signer_signs_beside_the_first(stage: &Stage) {
    let (nigel, lucy) = (stage.person("nigel"), stage.person("lucy"));
    let (brig, dockers) = nigel.clients();
    let docker = &dockers[0];
    let (_, lucys) = lucy.clients();
    for (at, (first, second)) in
        [(&brig, &lucys[0]), (docker, &lucy.clients().0)].iter().enumerate()
    {
        let name = stage.name(&format!("team/both{at}"));
        let tagged = |tag: &str| format!("{name}:{tag}");
        for tag in ["1", "2", "3"] {
            nigel.tag(&tagged(tag));
        }
        if at == 0 {
            nigel.with(first, false, &["trust", "key", "generate", "nigel"]).ok();
            lucy.with(second, false, &["trust", "key", "generate", "lucy"]).ok();
        }
        let (own, other) = (key_of(&nigel), lucy.config.join("lucy.pub"));
        for (key, signer) in [(&own, "nigel"), (&other, "lucy")] {
            let args = ["trust", "signer", "add", "--key", text(key), signer, &name];
            nigel.with(first, false, &args).ok();
        }
        nigel.with(first, false, &["trust", "sign", &tagged("1")]).ok();
        lucy.with(second, false, &["trust", "sign", &tagged("1")]).ok();
        lucy.with(second, false, &["trust", "sign", &tagged("2")]).ok();
        let shown = nigel.brig(&["trust", "inspect", "--pretty", &name]);
        let line = |tag: &str| {
            let mut lines = shown.stdout.lines();
            lines.find(|line| line.trim().starts_with(tag)).unwrap_or_default().to_owned()
        };
        assert!(line("1 ").ends_with("lucy, nigel"), "{shown:?}");
        assert!(line("2 ").trim_end().ends_with("lucy"), "{shown:?}");
        let theirs = nigel.with(docker, false, &["trust", "inspect", "--pretty", &name]);
        assert_eq!(shown.ok(), theirs.ok());
        // Lucy takes hers back: what nigel signed stays nigel's, and is released no more.
        lucy.with(second, false, &["trust", "revoke", &tagged("1")]).ok();
        let listed = nigel.notary(&["list", &name, "-r", "targets/nigel"]);
        assert!(listed.ok().lines().any(|line| line.starts_with("1 ")), "{listed:?}");
        let refused = lucy.trusting(&["pull", &tagged("1")]);
        assert!(refused.fails(1).contains("trust data for 1"), "{refused:?}");
        nigel.with(first, false, &["trust", "sign", &tagged("1")]).ok();
        // Without lucy, whose tags go with her.
        nigel.brig(&["trust", "signer", "remove", "-f", "lucy", &name]).ok();
        let refused = lucy.with(second, false, &["trust", "sign", &tagged("3")]);
        assert_ne!(refused.code, 0, "{refused:?}");
        for client in dockers.iter().chain([&brig]) {
            nigel.with(client, true, &["pull", &tagged("1")]).ok();
        }
    }
}

/// Two weeks later, and the server has not been asked since by anybody whom it could have told.
fn what_has_run_out_is_refused(stage: &Stage) {
    let person = stage.person("nigel");
    let tagged = stage.name("team/old:1");
    person.tag(&tagged);
    person.brig(&["trust", "sign", &tagged]).ok();
    person.at("+0d", &["pull", &tagged]).ok();
    let refused = person.at("+15d", &["pull", &tagged]);
    assert!(refused.fails(1).contains("out-of-date: timestamp expired at"), "{refused:?}");
    // Nothing was remembered of it.
    person.trusting(&["pull", &tagged]).ok();
}

/// A server whose clock has stood still for twenty days: to docker's clients and brig's.
#[test]
fn a_server_of_the_past_is_refused_until_it_signs_anew() {
    let mut stage = Stage::with(Notary::brig_before("-20d"));
    let name = stage.name("team/app");
    let tagged = format!("{name}:1");
    {
        let person = stage.person("nigel");
        person.tag(&tagged);
        person.at("-20d", &["trust", "sign", &tagged]).ok();
        let reader = stage.person("reader");
        let (brig, dockers) = reader.clients();
        let expected = format!("Error: remote repository {name} out-of-date: ");
        for client in dockers.iter().chain([&brig]) {
            let refused = reader.with(client, true, &["pull", &tagged]);
            assert!(refused.fails(1).contains(&expected), "{refused:?}");
        }
    }
    stage.notary.start_brig(None);
    let reader = stage.person("another");
    let (brig, dockers) = reader.clients();
    for client in dockers.iter().chain([&brig]) {
        reader.with(client, true, &["pull", &tagged]).ok();
    }
}

fn a_stack_is_deployed_as_it_was_signed(stage: &Stage) {
    stage.daemon.init_swarm();
    let person = stage.person("nigel");
    let name = stage.name("team/app");
    for (tag, trust) in [("1", true), ("2", false)] {
        let tagged = format!("{name}:{tag}");
        person.tag(&tagged);
        person.with(&person.clients().0, trust, &["push", &tagged]).ok();
    }
    let file = |services: &str| {
        let networks = "networks: {default: {external: true, name: bridge}}";
        let text = format!("services:\n{services}{networks}\n");
        std::fs::write(person.config.join("stack.yml"), text).unwrap();
    };
    let service =
        |tag: &str| format!("  web{tag}: {{image: '{name}:{tag}', deploy: {{replicas: 0}}}}\n");
    let deploy = ["stack", "deploy", "-c", "stack.yml", "st"];
    file(&[service("1"), service("2")].concat());
    let refused = person.trusting(&deploy);
    let expected = "failed to resolve image digest using content trust: No valid trust data for 2";
    assert!(refused.fails(1).contains(expected), "{refused:?}");
    assert_eq!(person.brig(&["service", "ls", "-q"]).ok(), "", "nothing is deployed in part");
    file(&service("1"));
    person.trusting(&deploy).ok();
    let format = "{{.Spec.TaskTemplate.ContainerSpec.Image}}";
    let image = person.brig(&["service", "inspect", "--format", format, "st_web1"]);
    assert!(image.ok().contains(&format!("{name}:1@sha256:")), "{image:?}");
    file(&[service("1"), service("2")].concat());
    let flagged = ["stack", "deploy", "--disable-content-trust", "-c", "stack.yml", "st"];
    person.trusting(&flagged).ok();
    person.brig(&["stack", "rm", "st"]).ok();
}

/// Files of changes that nobody has published.
fn unpublished(person: &Person<'_>, name: &str) -> usize {
    let folder = person.config.join("trust/tuf").join(name).join("changelist");
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn what_was_left_unpublished_goes_along_with_the_next_push() {
    let mut stage = Stage::with(Notary::brig());
    let clients = |person: &Person<'_>, at: usize| {
        let (brig, mut dockers) = person.clients();
        let docker = dockers.remove(0);
        if at == 0 { (brig, docker) } else { (docker, brig) }
    };
    for at in 0..2 {
        let name = stage.name(&format!("team/left{at}"));
        let tagged = |tag: &str| format!("{name}:{tag}");
        let person = stage.person("nigel");
        let (first, _) = clients(&person, at);
        for tag in ["1", "2", "3", "4"] {
            person.tag(&tagged(tag));
        }
        let zoe = format!("zoe{at}");
        let key = format!("{zoe}.pub");
        let signer = ["trust", "signer", "add", "--key", &key, &zoe, &name];
        person.with(&first, true, &["push", &tagged("1")]).ok();
        // docker leaves nothing behind for a repository that it has never read.
        person.with(&first, true, &["pull", &tagged("1")]).ok();
        person.brig(&["trust", "key", "generate", &zoe]).ok();

        // The server is away: one client leaves what it could not publish.
        stage.notary.stop();
        let person = stage.person("nigel");
        let lost = person.with(&first, true, &["push", &tagged("2")]);
        lost.fails(1);
        let left = unpublished(&person, &name);
        assert!(left > 0, "{lost:?}");
        person.with(&first, false, &signer).fails(1);
        assert!(unpublished(&person, &name) > left);

        // The other one takes it along.
        stage.notary.start_brig(None);
        let person = stage.person("nigel");
        let (_, second) = clients(&person, at);
        person.with(&second, true, &["push", &tagged("3")]).ok();
        assert_eq!(unpublished(&person, &name), 0);
        let shown = person.brig(&["trust", "inspect", "--pretty", &name]);
        for words in ["1 ", "2 ", "3 ", &zoe] {
            assert!(shown.ok().lines().any(|line| line.starts_with(words)), "{words}: {shown:?}");
        }

        // What the notary CLI staged goes along with brig's push too, and `trust sign` drops it.
        let content = person.config.join("content");
        std::fs::write(&content, "hello").unwrap();
        person.notary(&["add", &name, "staged", text(&content)]).ok();
        person.trusting(&["push", &tagged("4")]).ok();
        person.notary(&["add", &name, "dropped", text(&content)]).ok();
        person.with(&second, false, &["trust", "revoke", &tagged("4")]);
        assert_eq!(unpublished(&person, &name), 0);
        let listed = person.notary(&["list", &name]);
        assert!(listed.ok().contains("staged") && !listed.stdout.contains("dropped"), "{listed:?}");
    }
}

/// The tests, on each trust server.
macro_rules! on {
    ($server:ident, $start:expr, $($test:ident),+) => {
        mod $server {
            use super::*;

            $(
                #[test]
                fn $test() {
                    super::$test(&$start);
                }
            )+
        }
    };
}

on!(
    notary_server,
    Stage::with(Notary::start()),
    each_goes_on_with_what_another_began,
    the_notary_cli_reads_rotates_and_goes_on,
    a_tag_that_was_moved_is_pulled_as_it_was_signed,
    a_second_signer_signs_beside_the_first,
    those_who_sign_at_the_same_moment_all_have_signed,
    what_has_run_out_is_refused
);
on!(
    own_server,
    Stage::with(Notary::brig()),
    each_goes_on_with_what_another_began,
    the_notary_cli_reads_rotates_and_goes_on,
    a_tag_that_was_moved_is_pulled_as_it_was_signed,
    a_second_signer_signs_beside_the_first,
    those_who_sign_at_the_same_moment_all_have_signed,
    what_has_run_out_is_refused,
    a_stack_is_deployed_as_it_was_signed
);
on!(
    in_the_daemon,
    Stage::in_the_daemon(),
    each_goes_on_with_what_another_began,
    the_notary_cli_reads_rotates_and_goes_on,
    a_tag_that_was_moved_is_pulled_as_it_was_signed,
    a_second_signer_signs_beside_the_first,
    what_has_run_out_is_refused
);
