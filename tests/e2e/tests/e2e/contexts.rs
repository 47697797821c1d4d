//! Contexts: the same files, words and exit statuses as docker's own CLI.

use std::path::Path;

use brig_e2e::remote::{Pki, User};

/// Variables, and what is typed.
type Command<'a> = (&'a [(&'a str, &'a str)], Vec<&'a str>);

/// A user of brig and one of the newest docker CLI, if there is one.
fn pair() -> Option<(User, User)> {
    let mut users = User::all();
    let brig = users.pop()?;
    if users.is_empty() {
        eprintln!("SKIPPED: no docker CLI");
        return None;
    }
    Some((brig, users.remove(0)))
}

#[test]
fn brig_says_what_docker_says() {
    let Some((brig, docker)) = pair() else { return };
    let pki = Pki::new();
    let tls = format!(
        "host=tcp://h:2376,ca={},cert={},key={}",
        pki.path("ca.pem"),
        pki.path("cert.pem"),
        pki.path("key.pem")
    );
    let missing = format!("host=tcp://h:2376,ca={}", pki.path("none.pem"));
    let plain: &[(&str, &str)] = &[];
    let host: &[(&str, &str)] = &[("DOCKER_HOST", "unix:///x.sock")];
    let by_name: &[(&str, &str)] = &[("DOCKER_CONTEXT", "bb")];
    let both: &[(&str, &str)] = &[("DOCKER_CONTEXT", "bb"), ("DOCKER_HOST", "unix:///x.sock")];
    let commands: Vec<Command<'_>> = vec![
        (plain, vec!["context", "show"]),
        (plain, vec!["context", "create", "a", "--docker", "host=tcp://h:2376"]),
        (plain, vec!["context", "create", "default", "--docker", "host=tcp://h:2376"]),
        (plain, vec!["context", "create", "aa", "--docker", "host=tcp://h:2376"]),
        (plain, vec!["context", "create", "aa", "--docker", "host=tcp://h:2376"]),
        (plain, vec!["context", "create", "bb", "--docker", &tls, "--description", "the desc"]),
        (plain, vec!["context", "create", "cc", "--docker", "foo=x"]),
        (plain, vec!["context", "create", "cc", "--docker", &missing]),
        (plain, vec!["context", "create", "cc", "--docker", "host=ssh://u@h?x=1"]),
        (plain, vec!["context", "create", "cc", "--docker", "skip-tls-verify=maybe"]),
        (plain, vec!["context", "create", "cc", "--docker", "host=ssh://u@h"]),
        (plain, vec!["context", "create", "dd", "--from", "bb"]),
        (plain, vec!["context", "create", "ee", "--from", "nope"]),
        (plain, vec!["context", "create", "ee", "--docker", "from=bb"]),
        (host, vec!["context", "create", "ff"]),
        // Docker forgets the certificates here, and would speak in the clear: ours are kept.
        (plain, vec!["context", "rm", "ee"]),
        (plain, vec!["context", "ls", "-q"]),
        (host, vec!["context", "ls"]),
        (by_name, vec!["context", "ls"]),
        (host, vec!["context", "ls", "--format", "{{.Name}} {{.Current}} {{.DockerEndpoint}}"]),
        (by_name, vec!["context", "show"]),
        (both, vec!["context", "show"]),
        (plain, vec!["context", "use", "nope"]),
        (plain, vec!["context", "use", "bb"]),
        (plain, vec!["context", "show"]),
        (host, vec!["context", "show"]),
        (host, vec!["context", "use", "aa"]),
        (plain, vec!["-c", "bb", "context", "show"]),
        (plain, vec!["-c", "nope", "context", "show"]),
        (plain, vec!["-c", "nope", "ps"]),
        (plain, vec!["-c", "bb", "-H", "unix:///x", "ps"]),
        (plain, vec!["--tlsverify", "-H", "tcp://127.0.0.1:1", "ps"]),
        (plain, vec!["-H", "foo://x", "ps"]),
        (plain, vec!["context", "inspect"]),
        (plain, vec!["context", "inspect", "bb", "cc"]),
        (plain, vec!["context", "inspect", "nope", "aa"]),
        (host, vec!["context", "inspect", "default"]),
        (plain, vec!["context", "inspect", "-f", "{{.Name}} {{.Endpoints.docker.Host}}", "bb"]),
        (plain, vec!["context", "update", "bb", "--description", "new"]),
        (plain, vec!["context", "inspect", "bb"]),
        (plain, vec!["context", "update", "bb", "--docker", "host=tcp://h2:2376"]),
        (plain, vec!["context", "inspect", "bb"]),
        (plain, vec!["context", "update", "nope", "--description", "x"]),
        (plain, vec!["context", "update", "default", "--description", "x"]),
        (plain, vec!["context", "export", "bb"]),
        (plain, vec!["context", "export", "bb"]),
        (plain, vec!["context", "export", "nope"]),
        (plain, vec!["context", "import", "bb", "bb.dockercontext"]),
        (plain, vec!["context", "import", "gg", "bb.dockercontext"]),
        (plain, vec!["context", "import", "hh", "nofile"]),
        (plain, vec!["context", "rm", "aa"]),
        (plain, vec!["context", "rm", "default"]),
        (plain, vec!["context", "rm", "nope", "gg"]),
        (plain, vec!["context", "rm", "-f", "nope", "aa"]),
        (plain, vec!["context", "show"]),
    ];
    for (env, args) in commands {
        let seen = [&docker, &brig].map(|user| {
            let ran = user.run_env(env, &args);
            let own = user.home().to_str().unwrap();
            let tidy = |text: &str| {
                // The default address is each program's own.
                text.replace(own, "HOME").replace("/run/brig/brig.sock", "/var/run/docker.sock")
            };
            (ran.code, tidy(&ran.stdout), tidy(&ran.stderr))
        });
        if args.contains(&"ls") && !args.contains(&"-q") {
            // The program's default address changes the table's width.
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(&seen[0].1), words(&seen[1].1), "{env:?} {args:?}");
            assert_eq!(seen[0].2, seen[1].2, "{env:?} {args:?}");
        } else {
            assert_eq!(seen[0], seen[1], "{env:?} {args:?}");
        }
    }
    // The files are the same, too, byte by byte.
    let files = [&docker, &brig].map(|user| tree(&user.home().join("config/contexts")));
    assert_eq!(files[0], files[1]);
}

/// Every file below a folder with its mode and content.
fn tree(root: &Path) -> Vec<(String, u32, Vec<u8>)> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let mode = path.metadata().unwrap().permissions().mode() & 0o777;
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.push((name, mode, std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_one_cli_exports_the_other_imports() {
    let pki = Pki::new();
    let tls = format!(
        "host=tcp://h:2376,ca={},cert={},key={}",
        pki.path("ca.pem"),
        pki.path("cert.pem"),
        pki.path("key.pem")
    );
    let users = User::all();
    for from in &users {
        let _ =
            from.run(&["context", "create", "mine", "--description", "d", "--docker", &tls]).ok();
        let _ = from.run(&["context", "export", "mine", "mine.tar"]).ok();
        let tar = from.home().join("mine.tar");
        for to in &users {
            let name = format!(
                "got-{}",
                from.name.split([' ', '(']).next_back().unwrap().trim_matches(')')
            );
            let name = format!("{name}x");
            let _ = to.run(&["context", "import", &name, tar.to_str().unwrap()]).ok();
            let stdin =
                to.run_with(&["context", "import", "by-stdin", "-"], &std::fs::read(&tar).unwrap());
            assert_eq!(stdin.ok(), "by-stdin");
            for name in [name.as_str(), "by-stdin"] {
                let shown = to.run(&["context", "inspect", name]);
                for part in
                    ["\"Description\": \"d\"", "tcp://h:2376", "ca.pem", "cert.pem", "key.pem"]
                {
                    assert!(shown.ok().contains(part), "{shown:?}");
                }
                let _ = to.run(&["context", "rm", name]).ok();
            }
        }
        let _ = from.run(&["context", "rm", "mine"]).ok();
    }
}

/// What docker takes and writes none of: made by Python's module, as people's tools make them.
fn zip(file: &Path, members: &[(&str, &[u8])], method: &str) {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    for (number, (_, content)) in members.iter().enumerate() {
        std::fs::write(folder.path().join(number.to_string()), content).unwrap();
    }
    let script = "import sys, zipfile\n\
        made = zipfile.ZipFile(sys.argv[1], 'w', getattr(zipfile, sys.argv[2]))\n\
        for number, name in enumerate(sys.argv[4:]):\n    \
        made.write(f'{sys.argv[3]}/{number}', name)\n\
        made.close()\n";
    let made = std::process::Command::new("python3")
        .args(["-c", script])
        .args([file.as_os_str(), method.as_ref(), folder.path().as_os_str()])
        .args(members.iter().map(|(name, _)| name))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

#[test]
fn a_zip_is_taken_as_docker_takes_it() {
    let Some((brig, docker)) = pair() else { return };
    let pki = Pki::new();
    let read = |name: &str| std::fs::read(pki.path(name)).unwrap();
    let (ca, cert, key) = (read("ca.pem"), read("cert.pem"), read("key.pem"));
    let meta: &[u8] = br#"{"Name":"mine","Metadata":{"Description":"d"},"Endpoints":{"docker":{"Host":"tcp://h:2376","SkipTLSVerify":false}}}"#;
    let whole: Vec<(&str, &[u8])> = vec![
        ("meta.json", meta),
        ("tls/docker/ca.pem", &ca),
        ("tls/docker/cert.pem", &cert),
        ("tls/docker/key.pem", &key),
    ];
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    for (number, (members, method, good)) in [
        (whole.clone(), "ZIP_STORED", true),
        (whole.clone(), "ZIP_DEFLATED", true),
        (whole[..1].to_vec(), "ZIP_DEFLATED", true),
        (whole[1..].to_vec(), "ZIP_DEFLATED", false),
        (vec![("meta.json", meta), ("tls/../../x", b"x")], "ZIP_DEFLATED", false),
        (vec![("meta.json", meta), ("more.txt", b"x")], "ZIP_DEFLATED", false),
        (vec![("meta.json", b"no json")], "ZIP_STORED", false),
    ]
    .into_iter()
    .enumerate()
    {
        let file = folder.path().join(format!("{number}.zip"));
        zip(&file, &members, method);
        let name = format!("got{number}");
        let ran = [&docker, &brig]
            .map(|user| user.run(&["context", "import", &name, file.to_str().unwrap()]));
        for one in &ran {
            assert_eq!(one.code == 0, good, "{one:?}");
        }
        assert_eq!(ran[0].code, ran[1].code, "{ran:?}");
        assert_eq!(ran[0].stdout, ran[1].stdout, "{ran:?}");
        if good {
            assert_eq!(ran[0].stderr, ran[1].stderr, "{ran:?}");
            let shown = [&docker, &brig].map(|user| {
                let shown = user.run(&["context", "inspect", &name]);
                shown.ok().replace(user.home().to_str().unwrap(), "HOME")
            });
            assert_eq!(shown[0], shown[1]);
            assert!(shown[0].contains("tcp://h:2376"), "{}", shown[0]);
            assert_eq!(shown[0].contains("key.pem"), members.len() > 1, "{}", shown[0]);
        } else {
            // Docker leaves the half of it that it had read; brig nothing.
            assert!(!ran[1].stderr.is_empty());
            assert!(brig.run(&["context", "inspect", &name]).code != 0, "{name}");
            let _ = docker.run(&["context", "rm", "-f", &name]).ok();
        }
    }
    // The files are the same, too, byte by byte, and nothing lies outside of them.
    let files = [&docker, &brig].map(|user| tree(&user.home().join("config")));
    assert_eq!(files[0], files[1]);
    assert_eq!(files[0].iter().filter(|(name, ..)| name.ends_with("meta.json")).count(), 3);
}

#[test]
fn a_context_that_is_gone_is_missed_in_dockers_words() {
    let Some((brig, docker)) = pair() else { return };
    let create = ["context", "create", "gone", "--docker", "host=tcp://127.0.0.1:1"];
    for user in [&docker, &brig] {
        let _ = user.run(&create).ok();
        let _ = user.run(&["context", "use", "gone"]).ok();
        // In use, and removed all the same: as somebody else's shell would do it.
        for folder in ["meta", "tls"] {
            let _ = std::fs::remove_dir_all(user.home().join("config/contexts").join(folder));
        }
    }
    let none: &[(&str, &str)] = &[];
    let by_name: &[(&str, &str)] = &[("DOCKER_CONTEXT", "gone")];
    let elsewhere: &[(&str, &str)] = &[("DOCKER_HOST", "unix:///nonexistent.sock")];
    let commands: Vec<Command<'_>> = vec![
        (none, vec!["ps"]),
        (none, vec!["run", "busybox"]),
        (none, vec!["create", "busybox"]),
        (none, vec!["start", "-a", "box"]),
        (none, vec!["--context", "gone", "ps"]),
        (by_name, vec!["ps"]),
        (none, vec!["context", "use", "gone"]),
        (none, vec!["context", "inspect", "gone"]),
        (none, vec!["context", "inspect"]),
        (none, vec!["context", "show"]),
        (none, vec!["context", "ls", "-q"]),
        (none, vec!["context", "export", "gone"]),
        (none, vec!["context", "update", "gone", "--description", "x"]),
        (none, vec!["context", "rm", "gone"]),
        (none, vec!["context", "rm", "-f", "gone"]),
        (none, vec!["context", "use", "default"]),
        (none, vec!["context", "show"]),
        (elsewhere, vec!["context", "show"]),
    ];
    for (env, args) in commands {
        let seen = [&docker, &brig].map(|user| {
            let ran = user.run_env(env, &args);
            let own = user.home().to_str().unwrap();
            (ran.code, ran.stdout.replace(own, "HOME"), ran.stderr.replace(own, "HOME"))
        });
        assert_eq!(seen[0], seen[1], "{env:?} {args:?}");
    }
}
