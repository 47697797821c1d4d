//! Images on their way out and back: save, push, commit, search, with other people's tools at the
//! other end.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use brig_e2e::registry::{LOGIN, Registry};
use brig_e2e::{Brigd, Client, eventually, image};

fn must(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What `save` writes to its standard output.
fn saved(client: &Client, args: &[&str]) -> Vec<u8> {
    let output = client.command(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn saved_images_are_the_same_for_everybody() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    let brig = daemon.brig();
    let _ = brig.run(&["tag", "busybox", "team/app:1"]).ok();
    let _ = brig.run(&["tag", "busybox", "team/app:2"]).ok();
    let id = brig.run(&["images", "-q", "--no-trunc", "busybox"]).ok().to_owned();
    let mut archives = Vec::new();
    for client in daemon.clients() {
        let file = daemon.root().join("saved.tar").display().to_string();
        let _ = client.run(&["save", "-o", &file, "busybox", "team/app:1"]).ok();
        let archive = std::fs::read(&file).unwrap();
        assert_eq!(saved(&client, &["save", "busybox", "team/app:1"]), archive, "{}", client.name);
        std::fs::remove_file(&file).unwrap();
        archives.push(archive);
        let missing = client.run(&["save", "-o", &file, "nosuch:1"]);
        assert!(missing.fails(1).contains("reference does not exist"), "{}", missing.stderr);
        let missing = client.run(&["save", "-o", &file, "nosuch"]);
        assert!(missing.fails(1).contains("No such image: nosuch:latest"), "{}", missing.stderr);
    }
    assert!(archives.windows(2).all(|pair| pair[0] == pair[1]));

    // All tags of a repository, and an id without its names.
    let folder = daemon.root().join("unpacked");
    let entries = |args: &[&str]| {
        let archive = folder.with_extension("tar");
        std::fs::write(&archive, saved(&brig, args)).unwrap();
        must("tar", &["-xOf", &archive.display().to_string(), "manifest.json"])
    };
    assert!(entries(&["save", "team/app"]).contains(r#""RepoTags":["team/app:1","team/app:2"]"#));
    assert!(entries(&["save", &id]).contains(r#""RepoTags":null"#));

    // Both faces of the archive are readable by skopeo, with the same image in them.
    let path = daemon.root().join("both.tar");
    std::fs::write(&path, saved(&brig, &["save", "busybox"])).unwrap();
    for transport in ["docker-archive", "oci-archive"] {
        let source = format!("{transport}:{}", path.display());
        let raw = must("skopeo", &["inspect", "--raw", &source]);
        assert!(raw.contains(id.trim_start_matches("sha256:")), "{transport}: {raw}");
        let target = format!("dir:{}", daemon.root().join(transport).display());
        let _ = must("skopeo", &["copy", "--insecure-policy", &source, &target]);
    }

    // And by this engine, once the image is gone.
    for client in daemon.clients() {
        let _ = brig.run(&["rmi", "busybox", "team/app:1", "team/app:2"]).ok();
        assert_eq!(brig.run(&["images", "-q"]).ok(), "");
        let loaded = client.run_with(&["load"], &archives[0]);
        assert_eq!(loaded.ok(), "Loaded image: busybox:latest\nLoaded image: team/app:1");
        assert_eq!(brig.run(&["images", "-q", "--no-trunc", "busybox"]).ok(), id);
        let ran = client.run(&["run", "--rm", "--network", "none", "busybox", "echo", "back"]);
        assert_eq!(ran.ok(), "back");
        let _ = brig.run(&["tag", "busybox", "team/app:2"]).ok();
    }
}

#[test]
fn pushed_with_a_login_and_pulled_back_with_the_same_digest() {
    let daemon = Brigd::start();
    let registry = Registry::start(Some(LOGIN));
    let address = registry.address.clone();
    daemon.load_busybox();
    for (number, client) in daemon.clients().iter().enumerate() {
        let name = format!("{address}/team/app{number}:1");
        let _ = client.run(&["tag", "busybox", &name]).ok();
        let _ = client.run(&["logout", &address]);
        let refused = client.run(&["push", &name]);
        assert!(refused.fails(1).contains("no basic auth credentials"), "{}", refused.stderr);
        let _ = client.run_with(&["login", "-u", "u", "--password-stdin", &address], b"pw").ok();
        let pushed = client.run(&["push", &name]);
        let text = pushed.ok();
        let repository = name.rsplit_once(':').unwrap().0;
        assert!(text.contains(&format!("The push refers to repository [{repository}]")), "{text}");
        // The first one sends the layer; for the others the registry has it elsewhere.
        let word = if number == 0 { ": Pushed" } else { ": Mounted from team/app" };
        assert!(text.contains(word), "{text}");
        let line = text.lines().find(|line| line.starts_with("1: digest: sha256:")).unwrap();
        let digest = line.split(' ').nth(2).unwrap();
        let digests = client.run(&["inspect", "-f", "{{json .RepoDigests}}", &name]);
        assert!(digests.ok().contains(&format!("{repository}@{digest}")), "{}", digests.stdout);
        let again = client.run(&["push", &name]);
        assert!(again.ok().contains(": Layer already exists"), "{}", again.stdout);
        assert!(again.ok().contains(digest), "{}", again.stdout);
        // What is there is a whole image for others.
        let creds = ["--creds", "u:pw", "--tls-verify=false"];
        let inspected = must(
            "skopeo",
            &[&["inspect", "--format", "{{.Digest}}"], &creds[..], &[&format!("docker://{name}")]]
                .concat(),
        );
        assert_eq!(inspected, digest);
        let copy = format!("dir:{}", daemon.root().join(format!("copy{number}")).display());
        let source_creds = ["--src-creds", "u:pw", "--src-tls-verify=false"];
        let _ = must(
            "skopeo",
            &[
                &["copy", "--insecure-policy"],
                &source_creds[..],
                &[&format!("docker://{name}"), &copy],
            ]
            .concat(),
        );
        let other = format!("{repository}:2");
        let _ = client.run(&["tag", "busybox", &other]).ok();
        let all = client.run(&["push", "--all-tags", repository]);
        assert!(all.ok().contains("1: digest: ") && all.ok().contains("2: digest: "), "{all:?}");
        let _ = client.run(&["rmi", &name, &other]).ok();
        let pulled = client.run(&["pull", "-a", repository]);
        assert!(pulled.ok().contains(&format!("Digest: {digest}")), "{}", pulled.stdout);
        for tag in [&name, &other] {
            let _ = client.run(&["image", "inspect", tag]).ok();
        }
        let quiet = client.run(&["push", "-q", &name]);
        assert_eq!(quiet.ok(), name);
        let missing = client.run(&["push", &format!("{repository}:none")]);
        assert!(
            missing.fails(1).contains(&format!("tag does not exist: {repository}:none")),
            "{}",
            missing.stderr
        );
        let missing = client.run(&["push", &format!("{address}/nosuch")]);
        assert!(
            missing.fails(1).contains("An image does not exist locally with the tag"),
            "{}",
            missing.stderr
        );
    }
}

#[test]
fn what_comes_back_unchanged_is_the_same_manifest() {
    let daemon = Brigd::start();
    let registry = Registry::start(None);
    registry.push(&image::busybox(), "from/bb:1", None);
    let name = |repository: &str| format!("{}/{repository}:1", registry.address);
    let brig = daemon.brig();
    let pulled = brig.run(&["pull", &name("from/bb")]);
    let digest =
        pulled.ok().lines().find_map(|line| line.strip_prefix("Digest: ")).unwrap().to_owned();
    // To another repository of the registry: nothing is sent, and nothing is made anew.
    let _ = brig.run(&["tag", &name("from/bb"), &name("to/bb")]).ok();
    let pushed = brig.run(&["push", &name("to/bb")]);
    assert!(pushed.ok().contains(": Mounted from from/bb"), "{}", pushed.stdout);
    assert!(pushed.ok().contains(&format!("1: digest: {digest} size: ")), "{}", pushed.stdout);
    // To another registry the layer has to be compressed anew; once there, its digest stays.
    let other = Registry::start(None);
    let elsewhere = format!("{}/bb:1", other.address);
    let _ = brig.run(&["tag", &name("from/bb"), &elsewhere]).ok();
    let first = brig.run(&["push", &elsewhere]).ok().to_owned();
    assert!(first.contains(": Pushed"), "{first}");
    let second = brig.run(&["push", &elsewhere]).ok().to_owned();
    assert_eq!(first.lines().last(), second.lines().last());
    // Another engine gets the same image.
    let id = brig.run(&["images", "-q", "--no-trunc", &elsewhere]).ok().to_owned();
    let peer = Brigd::start();
    let _ = peer.brig().run(&["pull", &elsewhere]).ok();
    assert_eq!(peer.brig().run(&["images", "-q", "--no-trunc"]).ok(), id);
}

#[test]
fn a_container_becomes_an_image() {
    let daemon = Brigd::start();
    daemon.load_busybox();
    for client in daemon.clients() {
        let script = "mkdir /kept /emptied && echo old >/emptied/old && echo hi >/kept/file";
        let _ = client
            .run(&["run", "--name", "first", "--network", "none", "busybox", "sh", "-c", script])
            .ok();
        let id = client.run(&[
            "commit",
            "-a",
            "me",
            "-m",
            "why",
            "-c",
            "ENV A=b",
            "-c",
            "CMD [\"cat\", \"/kept/file\"]",
            "first",
            "made:1",
        ]);
        let id = id.ok().to_owned();
        assert!(id.starts_with("sha256:"), "{id}");
        let run = |image: &str, command: &[&str]| {
            let args = [&["run", "--rm", "--network", "none", image], command].concat();
            client.run(&args).ok().to_owned()
        };
        assert_eq!(run("made:1", &[]), "hi");
        assert_eq!(run(&id, &["sh", "-c", "echo $A"]), "b");
        let facts = client.run(&["inspect", "-f", "{{.Author}} {{.Comment}} {{.Id}}", "made:1"]);
        assert_eq!(facts.ok(), format!("me why {id}"));
        // Deleted and replaced things stay so.
        let script = "rm /kept/file && rm -r /emptied && mkdir /emptied && touch /emptied/new";
        let _ = client
            .run(&["run", "--name", "second", "--network", "none", "made:1", "sh", "-c", script])
            .ok();
        let _ = client.run(&["commit", "second", "made:2"]).ok();
        assert_eq!(run("made:2", &["sh", "-c", "ls /kept /emptied"]), "/emptied:\nnew\n\n/kept:");
        let layers = client.run(&["inspect", "-f", "{{len .RootFS.Layers}}", "made:2"]);
        assert_eq!(layers.ok(), "3");
        // It travels as any other.
        let path = daemon.root().join("made.tar").display().to_string();
        let _ = client.run(&["save", "-o", &path, "made:2"]).ok();
        let copy = format!("dir:{}", daemon.root().join("made").display());
        let source = format!("docker-archive:{path}");
        let _ = must("skopeo", &["copy", "--insecure-policy", &source, &copy]);
        // A running container is frozen and goes on.
        let _ = client
            .run(&["run", "-d", "--name", "live", "--network", "none", "busybox", "sleep", "60"])
            .ok();
        let _ = client.run(&["commit", "live"]).ok();
        assert_eq!(client.run(&["inspect", "-f", "{{.State.Status}}", "live"]).ok(), "running");
        let bad = client.run(&["commit", "-c", "RUN x", "first"]);
        assert!(bad.fails(1).contains("RUN is not a valid change command"), "{}", bad.stderr);
        assert!(client.run(&["commit", "nosuch"]).fails(1).contains("No such container: nosuch"));
        let _ = client.run(&["rm", "-f", "first", "second", "live"]).ok();
        let _ = client.run(&["image", "prune", "-f"]).ok();
        let _ = client.run(&["rmi", "made:1", "made:2"]).ok();
        assert_eq!(client.run(&["images", "-q"]).ok().lines().count(), 1);
    }
}

/// An index with an answer of its own; what it was asked.
fn index() -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut buffer) {
                    // A handshake of TLS, which this server does not speak.
                    Ok(read) if read > 0 && (request.len() + read < 4096) && buffer[0] != 22 => {
                        request.extend_from_slice(&buffer[..read]);
                    }
                    _ => break,
                }
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            let Some(line) = text.lines().next().filter(|line| line.starts_with("GET ")) else {
                continue;
            };
            if line.contains("/end") {
                return asked;
            }
            asked.push(line.to_owned());
            let body = r#"{"num_results":2,"results":[
                {"name":"small","description":"less liked","star_count":2,"is_official":false},
                {"name":"team/big","description":"A description that is much longer than a table has room for","star_count":40,"is_official":true}]}"#;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
        asked
    });
    (address, serving)
}

#[test]
fn an_index_is_searched() {
    let daemon = Brigd::start();
    let (address, serving) = index();
    for client in daemon.clients() {
        let found = client.run(&["search", "--limit", "7", &format!("{address}/words")]);
        let lines: Vec<&str> = found.ok().lines().collect();
        assert!(lines[0].starts_with("NAME") && lines[0].contains("STARS"), "{lines:?}");
        let line = |name: &str| lines.iter().find(|line| line.starts_with(name)).unwrap();
        assert!(line("team/big").contains("[OK]") && line("team/big").contains('…'), "{lines:?}");
        assert!(!line("small").contains("[OK]"), "{lines:?}");
        let found = client.run(&[
            "search",
            "--no-trunc",
            "--filter",
            "stars=3",
            "--format",
            "{{.Name}} {{.StarCount}}",
            &format!("{address}/words"),
        ]);
        assert_eq!(found.ok(), "team/big 40");
    }
    let mut last = std::net::TcpStream::connect(&address).unwrap();
    last.write_all(b"GET /end HTTP/1.1\r\n\r\n").unwrap();
    let asked = serving.join().unwrap();
    assert!(asked[0].starts_with("GET /v1/search?q=words&n=7 "), "{asked:?}");
}

/// Everything below a folder, but what is meant to be there.
fn leftovers(data: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for part in ["image/tmp", "image/trash", "builder/tmp"] {
        for entry in std::fs::read_dir(data.join(part)).into_iter().flatten().flatten() {
            found.push(format!("{part}/{}", entry.file_name().display()));
        }
    }
    found
}

#[test]
fn what_a_killed_daemon_left_is_collected() {
    let mut daemon = Brigd::start();
    daemon.load_busybox();
    let layers = |daemon: &Brigd| {
        std::fs::read_dir(daemon.data_root().join("image/layers")).unwrap().count()
    };
    let clean = layers(&daemon);
    // A load that is fed slowly, and a commit of much data: both are cut by the kill.
    let archive = std::fs::read(image::busybox()).unwrap();
    let mut big = saved(&daemon.brig(), &["save", "busybox"]);
    big.truncate(big.len() / 2);
    let mut loading =
        daemon.brig().command(&["load"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    loading.stdin.as_mut().unwrap().write_all(&archive[..archive.len() / 2]).unwrap();
    let _ = daemon
        .brig()
        .run(&[
            "run",
            "--name",
            "much",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "dd if=/dev/urandom of=/much bs=1M count=96 2>/dev/null",
        ])
        .ok();
    let mut committing = daemon.brig().command(&["commit", "much", "much:1"]).spawn().unwrap();
    eventually("the commit has begun", Duration::from_secs(20), || {
        leftovers(&daemon.data_root()).iter().any(|name| name.starts_with("image/tmp/"))
    });
    daemon.kill();
    let _ = loading.kill();
    let _ = loading.wait();
    let _ = committing.wait();
    daemon.spawn();
    eventually("everything unfinished is gone", Duration::from_secs(20), || {
        leftovers(&daemon.data_root()).is_empty()
    });
    let made = daemon.brig().run(&["images", "-q", "much"]).ok().lines().count();
    assert_eq!(layers(&daemon), clean + made);
    // Layers that no image names are unpublished by the next start, too.
    let stray = daemon.data_root().join("image/layers").join("0".repeat(64));
    daemon.kill();
    std::fs::create_dir_all(stray.join("diff")).unwrap();
    daemon.spawn();
    eventually("the stray layer is gone", Duration::from_secs(20), || {
        !stray.exists() && leftovers(&daemon.data_root()).is_empty()
    });
    let run = daemon.brig().run(&["run", "--rm", "--network", "none", "busybox", "echo", "hi"]);
    assert_eq!(run.ok(), "hi");
}
