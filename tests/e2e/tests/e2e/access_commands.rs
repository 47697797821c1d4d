//! `brig access ls`, `brig auth explain`, `brig audit ls` and `brig audit verify`: what they print,
//! in which form, and how they end.

use std::path::PathBuf;

use brig_e2e::rights::{BINDINGS, DEPLOYER, Guarded, NOBODY, OPERATOR, VIEWER};
use serde_json::Value;

/// One JSON document a line.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn access_ls_says_who_has_which_role() {
    let guarded = Guarded::start(BINDINGS);
    let brig = guarded.root();
    let table = brig.run(&["access", "ls"]);
    let rows: Vec<Vec<&str>> = table.ok().lines().map(words).collect();
    assert_eq!(
        rows,
        [
            vec!["PRINCIPAL", "ROLE", "SERVICES", "STACKS", "SECRETS"],
            vec!["uid:61001", "viewer"],
            vec!["uid:61002", "operator"],
            vec!["uid:61003", "deployer", "web", "key"],
            vec!["(other", "local", "processes)", "none"],
        ]
    );
    let json = brig.run(&["access", "list", "--format", "json"]);
    let bound = lines(json.ok());
    assert_eq!(bound.len(), 4, "{json:?}");
    assert_eq!(
        bound[2],
        serde_json::json!({"Principal": "uid:61003", "Role": "deployer", "Services": "web",
            "Stacks": "", "Secrets": "key"})
    );
    let chosen = brig.run(&["access", "ls", "--format", "{{.Role}}={{.Secrets}}"]);
    assert_eq!(chosen.ok(), "viewer=\noperator=\ndeployer=key\nnone=");
    let chosen = brig.run(&["access", "ls", "--format", "table {{.Principal}}"]);
    assert!(chosen.ok().starts_with("PRINCIPAL\nuid:61001\n"), "{chosen:?}");

    let policies = brig.run(&["access", "ls", "--policies"]);
    let rows: Vec<Vec<&str>> = policies.ok().lines().map(words).collect();
    assert_eq!(rows[0], ["POLICY", "EFFECT"]);
    for row in [["admin/all", "permit"], ["deployer/no-privileged", "forbid"]] {
        assert!(rows.iter().any(|found| found == &row), "{row:?}: {policies:?}");
    }
    let text = brig.run(&["access", "ls", "--policies", "--format", "json"]);
    let secret_use = lines(text.ok()).into_iter().find(|one| one["Name"] == "base/secret-use");
    assert!(secret_use.unwrap()["Text"].as_str().unwrap().contains("ungrantedSecrets"));

    for args in [&["access", "ls", "more"][..], &["access", "ls", "--format", "{{.Nope}}"]] {
        let wrong = brig.run(args);
        assert!(
            wrong.code != 0 && wrong.stdout.is_empty() && !wrong.stderr.is_empty(),
            "{wrong:?}"
        );
    }
    // Who has which rights is for administrators.
    for uid in [VIEWER, OPERATOR, DEPLOYER, NOBODY] {
        let refused = guarded.run(uid, &guarded.brig(), &["access", "ls"]);
        assert!(refused.fails(1).contains("authorization denied by policy"), "{refused:?}");
        assert!(refused.stdout.is_empty(), "{refused:?}");
    }
}

#[test]
fn auth_explain_names_the_rule() {
    let guarded = Guarded::start(BINDINGS);
    guarded.daemon.init_swarm();
    let brig = guarded.root();
    let create = ["service", "create", "--detach", "--no-resolve-image", "--replicas", "0"];
    let _ = brig.run(&[&create[..], &["--name", "web", "busybox:1"]].concat()).ok();
    let explained = brig.run(&["auth", "explain", "--as", "uid:61003", "service.update", "bank"]);
    assert_eq!(
        explained.ok(),
        "denied by policy \"deployer/only-named\"\nprincipal: uid:61003\nrole: deployer\n\
         reason: the role is bound to other services and stacks: bank"
    );
    let explained = brig.run(&["auth", "explain", "--as", "uid:61001", "container.list"]);
    assert_eq!(
        explained.ok(),
        "allowed by policy \"viewer/read\"\nprincipal: uid:61001\nrole: viewer"
    );
    let explained = brig.run(&["auth", "explain", "container.create"]);
    assert!(explained.ok().starts_with("allowed by policy \"admin/all\"\n"), "{explained:?}");
    let args = ["auth", "explain", "--json", "--as", "uid:61003", "service.update", "web"];
    let answer: Value = serde_json::from_str(brig.run(&args).ok()).unwrap();
    assert_eq!(
        (&answer["Allowed"], &answer["Rule"], &answer["Role"], &answer["Principal"]),
        (&true.into(), &"deployer/update-own".into(), &"deployer".into(), &"uid:61003".into()),
        "{answer}"
    );
    // A question from a file, with wishes.
    let file = guarded.daemon.root().join("question.json");
    std::fs::write(
        &file,
        r#"{"Action":"container.create","Principal":"uid:61002","Facts":{"hostMounts":["/"]}}"#,
    )
    .unwrap();
    let asked = brig.run(&["auth", "explain", "--request", file.to_str().unwrap()]);
    assert!(asked.ok().contains("denied by policy \"operator/no-host-access\""), "{asked:?}");
    for (args, expected) in [
        (&["auth", "explain"][..], "expected ACTION [OBJECT], or --request FILE"),
        (&["auth", "explain", "nonsense"], "there is no action \"nonsense\""),
        (&["auth", "explain", "--as", "bob", "container.list"], "\"bob\" is no principal"),
        (&["auth", "explain", "--request", "/nonexistent/q"], "cannot read the request in"),
    ] {
        let wrong = brig.run(args);
        assert!(wrong.fails(1).contains(expected) && wrong.stdout.is_empty(), "{wrong:?}");
    }
    // About oneself with any role, about others with the right to see all rules.
    let own = guarded.run(DEPLOYER, &guarded.brig(), &["auth", "explain", "node.list"]);
    assert!(own.ok().contains("denied by policy \"deployer/default\""), "{own:?}");
    let args = ["auth", "explain", "--as", "uid:61002", "node.list"];
    let other = guarded.run(DEPLOYER, &guarded.brig(), &args);
    assert!(other.fails(1).contains("only who may see all rules"), "{other:?}");
    let nobody = guarded.run(NOBODY, &guarded.brig(), &["auth", "explain", "node.list"]);
    assert!(nobody.fails(1).contains("no role is bound to uid:61004"), "{nobody:?}");
    let _ = brig.run(&["swarm", "leave", "--force"]).ok();
}

#[test]
fn audit_ls_selects_and_shows() {
    let guarded = Guarded::start(BINDINGS);
    let brig = guarded.root();
    let as_user = |uid: u32, args: &[&str]| guarded.run(uid, &guarded.brig(), args);
    let _ = as_user(OPERATOR, &["volume", "create", "one"]).ok();
    let _ = as_user(OPERATOR, &["volume", "rm", "one"]).ok();
    let refused = as_user(VIEWER, &["volume", "create", "two"]);
    assert!(refused.fails(1).contains("viewer/default"), "{refused:?}");

    let table = brig.run(&["audit", "ls"]);
    let header = table.ok().lines().next().unwrap();
    assert_eq!(
        words(header),
        ["TIME", "PRINCIPAL", "ACTION", "OBJECT", "DECISION", "STATUS", "RULE"]
    );
    let form = "{{.Principal}} {{.Action}} {{.Object}} {{.Decision}} {{.Status}} {{.Rule}}";
    let listed = |more: &[&str]| -> Vec<String> {
        let output = brig.run(&[&["audit", "ls", "--format", form], more].concat());
        output.ok().lines().map(str::to_owned).collect()
    };
    let created = "uid:61002 volume.create one allowed 201 operator/all";
    let removed = "uid:61002 volume.remove one allowed 204 operator/all";
    let denied = "uid:61001 volume.create two denied 403 viewer/default";
    assert_eq!(listed(&["--principal", "uid:61002"]), [created, removed]);
    assert_eq!(listed(&["--action", "volume.create"]), [created, denied]);
    assert_eq!(listed(&["--action", "volume"]), [created, removed, denied]);
    assert_eq!(listed(&["--denied"]), [denied]);
    assert_eq!(listed(&["--last", "2"]), [removed, denied]);
    assert_eq!(listed(&["-n", "1", "--principal", "uid:61002"]), [removed]);
    assert_eq!(listed(&["--since", "1h", "--action", "volume.remove"]), [removed]);
    assert!(listed(&["--until", "1h"]).is_empty());
    let json = brig.run(&["audit", "ls", "--denied", "--format", "json"]);
    let entries = lines(json.ok());
    assert_eq!(entries.len(), 1, "{json:?}");
    for (key, value) in [
        ("Kind", "decision"),
        ("Principal", "uid:61001"),
        ("Transport", "unix"),
        ("Decision", "denied"),
        ("Status", "403"),
    ] {
        assert_eq!(entries[0][key], value, "{json:?}");
    }
    let wrong = brig.run(&["audit", "ls", "--since", "yesterday"]);
    assert!(wrong.fails(1).contains("yesterday"), "{wrong:?}");
    for uid in [VIEWER, OPERATOR, DEPLOYER, NOBODY] {
        for command in ["ls", "verify"] {
            let refused = as_user(uid, &["audit", command]);
            assert!(refused.fails(1).contains("authorization denied by policy"), "{refused:?}");
            assert!(refused.stdout.is_empty(), "{refused:?}");
        }
    }
}

/// What is done to the lines of a log, and what `verify` has to say of it.
type Harm = (&'static str, fn(&mut Vec<String>), &'static [&'static str]);

#[test]
fn audit_verify_names_the_line() {
    let guarded = Guarded::start(BINDINGS);
    let brig = guarded.root();
    for name in ["one", "two", "three", "four"] {
        let _ = brig.run(&["volume", "create", name]).ok();
    }
    let verify = || brig.run(&["audit", "verify"]);
    let folder = guarded.daemon.data_root().join("audit");
    let logs = || -> Vec<PathBuf> {
        let found = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        found.filter(|path| path.extension().is_some_and(|suffix| suffix == "jsonl")).collect()
    };
    let [file] = &logs()[..] else { panic!("{:?}", logs()) };
    let name = file.file_name().unwrap().to_str().unwrap();
    // Until the end is sealed, a missing end is not seen.
    let count = || std::fs::read_to_string(file).unwrap().lines().count();
    let sealed = format!("\"count\":{}", count());
    brig_e2e::eventually("the log is sealed", std::time::Duration::from_secs(20), || {
        std::fs::read_to_string(folder.join("head.json")).unwrap_or_default().contains(&sealed)
    });
    let entries = count();
    assert!(entries >= 6, "{entries}");
    assert_eq!(verify().ok(), format!("The audit log is intact: {entries} entries"));
    let whole = std::fs::read_to_string(file).unwrap();
    let harms: Vec<Harm> = vec![
        (
            "removed",
            |lines| drop(lines.remove(2)),
            &[":3: entry 4 follows entry 2: lines were removed or reordered"],
        ),
        (
            "changed",
            |lines| lines[3] = lines[3].replacen("uid:0", "uid:7", 1),
            &[":4: entry 4 was changed"],
        ),
        (
            "reordered",
            |lines| lines.swap(1, 2),
            &[
                ":2: entry 3 follows entry 1: lines were removed or reordered",
                ":3: entry 2 follows entry 3: lines were removed or reordered",
                ":4: entry 4 follows entry 2: lines were removed or reordered",
            ],
        ),
        ("garbled", |lines| lines[4] = "nothing\n".to_owned(), &[":5: the line is not an entry"]),
    ];
    for (what, harm, places) in harms {
        let mut lines: Vec<String> = whole.split_inclusive('\n').map(str::to_owned).collect();
        let before = lines.clone();
        harm(&mut lines);
        assert_ne!(lines, before, "{what}");
        std::fs::write(file, lines.concat()).unwrap();
        let damaged = verify();
        let found = damaged.fails(1);
        let said: Vec<&str> = damaged.stdout.lines().collect();
        assert!(said.len() >= places.len(), "{what}: {damaged:?}");
        for (line, place) in said.iter().zip(places) {
            assert_eq!(*line, format!("{name}{place}"), "{what}: {damaged:?}");
        }
        assert!(
            found.contains(&format!("the audit log is damaged in {} places", said.len())),
            "{what}: {damaged:?}"
        );
    }
    // A missing end.
    let mut lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let _ = lines.pop();
    std::fs::write(file, lines.concat()).unwrap();
    let damaged = verify();
    let expected = format!(
        "head.json: the log ends at entry {}, but had {entries} when it was sealed\n",
        entries - 1
    );
    assert!(!damaged.fails(1).is_empty());
    assert_eq!(damaged.stdout, expected);
    std::fs::write(file, &whole).unwrap();
    assert_eq!(verify().ok(), format!("The audit log is intact: {entries} entries"));
}
