//! `brig scan` on files, without a daemon: what is typed wrong is told, and what may be chosen can be.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub)]

use std::path::Path;
use std::process::{Command, Stdio};

const BRIG: &str = env!("CARGO_BIN_EXE_brig");
const TRACKER: &str = r#"{"openssl":{"CVE-2026-4242":{"releases":{"bookworm":{"status":"resolved","fixed_version":"3.0.2-1","urgency":"high"}}}}}"#;

/// A place with a database of one flaw, without dates.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write("tracker.json", TRACKER);
        let (status, text) = place.scan(&["db", "build", "tracker.json"]);
        assert_eq!(status, 0, "{text}");
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A Debian with this openssl.
    fn system(&self, folder: &str, version: &str) {
        self.write(
            &format!("{folder}/etc/os-release"),
            "ID=debian\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\n",
        );
        self.write(
            &format!("{folder}/var/lib/dpkg/status"),
            &format!("Package: openssl\nStatus: install ok installed\nArchitecture: amd64\nVersion: {version}\n\n"),
        );
    }

    /// Exit status, and all that was printed.
    fn scan(&self, args: &[&str]) -> (i32, String) {
        self.piped(args, Stdio::null())
    }

    /// The same with something to read.
    fn piped(&self, args: &[&str], stdin: impl Into<Stdio>) -> (i32, String) {
        let output = Command::new(BRIG)
            .arg("scan")
            .args(args)
            .stdin(stdin)
            .current_dir(self.path())
            .env("BRIG_SCAN_DB", self.path().join("v.db"))
            .env_remove("DOCKER_HOST")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout) + &text(&output.stderr))
    }
}

#[test]
fn data_without_dates_grows_old_and_a_day_is_a_day() {
    let place = Place::new();
    place.system("fixed", "3.0.2-1");
    let at = |day: &str| place.scan(&["-i", "fixed", "--exit-code", "3", "--today", day]);
    // The release's own end is not known here, so only the data's age counts.
    assert_eq!(place.scan(&["-i", "fixed", "--exit-code", "3"]).0, 0);
    let (status, text) = at("2099-01-01");
    assert!(status == 3 && text.contains("UNKNOWN") && text.contains("scan db update"), "{text}");
    for day in ["2026-13-01", "tomorrow", "9999-99-99"] {
        let (status, text) = at(day);
        assert!(status == 1 && text.contains("is no day"), "{day}: {status} {text}");
    }
}

#[test]
fn an_old_feed_is_old_beside_a_fresh_one() {
    let place = Place::new();
    place.system("fixed", "3.0.2-1");
    place.write(
        "python/usr/lib/python3/dist-packages/left-1.0.dist-info/METADATA",
        "Metadata-Version: 2.1\nName: left\nVersion: 1.0\n",
    );
    let advisory = |day: &str, ecosystem: &str| {
        format!(
            r#"{{"id":"X-{ecosystem}","modified":"{day}T00:00:00Z","affected":[{{"package":{{"ecosystem":"{ecosystem}","name":"other"}},"ranges":[{{"type":"ECOSYSTEM","events":[{{"introduced":"0"}}]}}]}}]}}"#
        )
    };
    let (_, made) = place.scan(&["db", "status", "--json"]);
    let today = made.split("\"created\":\"").nth(1).and_then(|rest| rest.get(..10)).unwrap();
    place.write("feeds/debian.json", &advisory("2025-06-02", "Debian:12"));
    place.write("feeds/python.json", &advisory(today, "PyPI"));
    assert_eq!(place.scan(&["db", "build", "feeds"]).0, 0);
    let scan = |what: &str| place.scan(&["-i", what, "--exit-code", "3", "--today", today]);
    let (status, text) = scan("fixed");
    assert!(status == 3 && text.contains("UNKNOWN"), "{text}");
    assert!(
        text.contains("about debian is of 2025-06-02") && text.contains("(feed debian)"),
        "{text}"
    );
    let (status, text) = scan("python");
    assert_eq!(status, 0, "{text}");
    let (_, text) = place.scan(&["db", "status"]);
    let line = |name: &str| text.lines().rev().find(|line| line.starts_with(name)).unwrap();
    let words: Vec<&str> = line("debian").split_whitespace().collect();
    assert_eq!((words[1], words[3]), ("2025-06-02", "debian"), "{text}");
    assert!(line("pypi").contains(today), "{text}");
    let (_, json) = place.scan(&["db", "status", "--json"]);
    assert!(json.contains(r#""serves":{"debian":"2025-06-02"}"#), "{json}");
}

#[test]
fn what_is_piped_in_is_scanned() {
    let place = Place::new();
    place.system("old", "3.0.1-1");
    let done = Command::new("sh")
        .args(["-ec", "tar -C old -cf old.tar . && sha256sum old.tar | cut -c-64"])
        .current_dir(place.path())
        .output()
        .unwrap();
    let layer = String::from_utf8(done.stdout).unwrap().trim().to_owned();
    place.write(
        "config.json",
        &format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["sha256:{layer}"]}}}}"#
        ),
    );
    place.write(
        "manifest.json",
        r#"[{"Config":"config.json","RepoTags":["old:1"],"Layers":["old.tar"]}]"#,
    );
    let tar = Command::new("tar")
        .args(["-cf", "image.tar", "old.tar", "config.json", "manifest.json"])
        .current_dir(place.path())
        .status();
    assert!(tar.unwrap().success());
    let (status, bom) = place.scan(&["-i", "old", "-f", "cyclonedx"]);
    assert_eq!(status, 0, "{bom}");
    place.write("bom.json", &bom);
    for name in ["image.tar", "bom.json"] {
        let file = std::fs::File::open(place.path().join(name)).unwrap();
        let cat = Command::new("cat").stdin(file).stdout(Stdio::piped()).spawn();
        let mut cat = cat.unwrap();
        let piped = cat.stdout.take().unwrap();
        let (status, text) = place.piped(&["-i", "-", "--exit-code", "3"], piped);
        assert!(cat.wait().unwrap().success());
        assert!(status == 3 && text.contains("CVE-2026-4242"), "{name}: {text}");
    }
    let (status, text) = place.scan(&["--input", "-"]);
    assert!(status == 1 && text.contains("the input is empty"), "{text}");
}

#[test]
fn a_policy_without_a_rule_is_no_policy() {
    let place = Place::new();
    for (name, text) in [("empty.toml", ""), ("none.json", r#"{"rules":[]}"#)] {
        place.write(name, text);
        for command in ["set", "test"] {
            let (status, text) = place.scan(&["policy", command, name]);
            assert!(status == 1 && text.contains("[[rules]]"), "{command} {name}: {text}");
            assert!(text.contains("brig scan policy rm"), "{command} {name}: {text}");
        }
    }
}

#[test]
fn one_image_of_an_archive_with_several_is_chosen() {
    let place = Place::new();
    let mut manifest = Vec::new();
    for (name, version) in [("old", "3.0.1-1"), ("new", "3.0.2-1")] {
        place.system(name, version);
        let sh = |script: &str| {
            let done = Command::new("sh").args(["-ec", script]).current_dir(place.path()).output();
            let done = done.unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8(done.stdout).unwrap().trim().to_owned()
        };
        let layer =
            sh(&format!("tar -C {name} -cf {name}.tar . && sha256sum {name}.tar | cut -c-64"));
        place.write(
            &format!("{name}.json"),
            &format!(
                r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":["sha256:{layer}"]}}}}"#
            ),
        );
        let id = sh(&format!(
            "id=$(sha256sum {name}.json | cut -c-64); mv {name}.json $id.json; echo $id"
        ));
        manifest.push(format!(
            r#"{{"Config":"{id}.json","RepoTags":["{name}:1"],"Layers":["{name}.tar"]}}"#
        ));
    }
    place.write("manifest.json", &format!("[{}]", manifest.join(",")));
    let tar = Command::new("sh")
        .args(["-c", "tar -cf both.tar manifest.json old.tar new.tar *[0-9a-f].json"])
        .current_dir(place.path())
        .status();
    assert!(tar.unwrap().success());
    let scan = |image: &str| {
        place.scan(&[
            "-i",
            "both.tar",
            "--platform",
            "linux/amd64",
            "--exit-code",
            "3",
            "--image",
            image,
        ])
    };
    let (status, text) = place.scan(&["-i", "both.tar", "--platform", "linux/amd64"]);
    assert!(status == 1 && text.contains("old:1") && text.contains("--image"), "{text}");
    let (status, text) = scan("old:1");
    assert!(status == 3 && text.contains("CVE-2026-4242"), "{text}");
    let (status, text) = scan("new:1");
    assert_eq!(status, 0, "{text}");
    assert!(scan("other:1").1.contains("it has no image"), "{}", scan("other:1").1);
}

#[test]
fn what_is_no_image_and_what_is_missing_is_told() {
    let place = Place::new();
    place.write("notes.txt", "nothing to see");
    let (status, text) = place.scan(&["-i", "notes.txt"]);
    assert!(status == 1 && text.contains("it is no archive; what can be scanned is"), "{text}");
    // A folder of files may have an index.json.
    place.system("site", "3.0.1-1");
    place.write("site/index.json", "{}");
    assert!(place.scan(&["-i", "site"]).1.contains("cve-2026-4242".to_uppercase().as_str()));
    let (status, text) = place.scan(&["explain", "cve-2026-4242", "site"]);
    assert!(status == 0 && text.contains("site has it"), "{text}");
    let (status, text) = place.scan(&["exception", "add", "CVE-1"]);
    assert!(
        status == 1
            && text.starts_with("required flag(s) \"owner\", \"reason\", \"expires\" not set"),
        "{text}"
    );
    for (words, command) in [
        (&["--help"][..], "policy "),
        (&["--help"], "exception "),
        (&["db", "--help"], "update "),
        (&["policy", "--help"], "set "),
        (&["exception", "--help"], "add "),
    ] {
        let (_, text) = place.scan(words);
        assert!(text.contains(&format!("\n  {command}")), "{words:?}: {text}");
    }
}
