use super::*;

fn policy(rules: &str) -> Result<TrustPolicy, DocumentError> {
    TrustPolicy::parse(format!(r#"{{"rules":[{rules}]}}"#).as_bytes())
}

const REST: &str = r#"{"images":"*","require":"reject"}"#;

fn dct(more: &str) -> String {
    format!(
        r#"{{"images":"r.example/a","require":{{"signed_by":{{"dct":{{"server":"https://t.example"{more}}}}}}}}},{REST}"#
    )
}

#[test]
fn the_longest_beginning_in_whole_parts_counts() {
    let policy = policy(
        r#"{"images":"r.example:5000","require":"accept"},
           {"images":"r.example:5000/team/","require":"reject"},
           {"images":"r.example:5000/team/app","require":"accept","mode":"warn"},
           {"images":"docker.io/library","require":"accept"},
           {"images":"*","require":"reject"}"#,
    )
    .unwrap();
    for (repository, rule) in [
        ("r.example:5000/x", "r.example:5000"),
        ("r.example:5000/team/x", "r.example:5000/team"),
        ("r.example:5000/teams/x", "r.example:5000"),
        ("r.example:5000/team", "r.example:5000/team"),
        ("r.example:5000/team/app", "r.example:5000/team/app"),
        ("r.example:5000/team/app/deep", "r.example:5000/team/app"),
        ("r.example:5000/team/apple", "r.example:5000/team"),
        ("r.example:50001/x", "*"),
        ("docker.io/library/busybox", "docker.io/library"),
        ("docker.io/libraryx/busybox", "*"),
    ] {
        assert_eq!(policy.rule_for(repository).unwrap().prefix(), rule, "{repository}");
    }
    let app = policy.rule_for("r.example:5000/team/app").unwrap();
    assert_eq!((policy.mode, policy.mode_of(app)), (Mode::Enforce, Mode::Warn));
}

#[test]
fn errors_name_the_field() {
    let key =
        "\"root_keys\":[\"0000000000000000000000000000000000000000000000000000000000000000\"]";
    for (rules, at, text) in [
        ("", "rules", "no rule for the rest"),
        (r#"{"images":"ubuntu","require":"accept"}"#, "rules[0].images", "docker.io/library/"),
        (
            r#"{"images":"*","require":"accept"},{"images":"*","require":"accept"}"#,
            "rules[1].images",
            "twice",
        ),
        (r#"{"images":"r.example/a:1","require":"accept"}"#, "rules[0].images", "without tag"),
        (r#"{"images":"r.example//a","require":"accept"}"#, "rules[0].images", "without tag"),
        (r#"{"images":"index.docker.io/a","require":"accept"}"#, "rules[0].images", "docker.io"),
        (r#"{"images":"*","require":"perhaps"}"#, "document", "perhaps"),
        (r#"{"images":"*","require":"accept","who":1}"#, "document", "who"),
        (
            r#"{"images":"*","require":{"signed_by":{}}}"#,
            "rules[0].require.signed_by",
            "dct, cosign",
        ),
        (&dct(""), "rules[0].require.signed_by.dct", "whom to believe"),
        (&dct(&format!(",{key},\"first_use\":true")), "rules[0].require.signed_by.dct", "one of"),
        (&dct(",\"root_keys\":[\"x\"]"), "document", "key ID"),
        (
            &dct(&format!(",{key},\"signers\":[\"a/b\"]")),
            "rules[0].require.signed_by.dct.signers",
            "a/b",
        ),
        (
            &dct(&format!(",{key},\"min_signers\":1")),
            "rules[0].require.signed_by.dct.min_signers",
            "number of signers",
        ),
        (&dct(&format!(",{key},\"max_age\":\"7w\"")), "document", "max_age"),
        (&dct(&format!(",{key},\"max_age\":\"-7d\"")), "document", "max_age"),
        (
            &dct(&format!(",{key}")).replace("https", "http"),
            "rules[0].require.signed_by.dct.server",
            "https",
        ),
        (
            r#"{"images":"*","require":{"signed_by":{"cosign":{"keys":[]}}}}"#,
            "rules[0].require.signed_by.cosign.keys",
            "no key",
        ),
        (
            r#"{"images":"*","require":{"signed_by":{"cosign":{"keys":["x"]}}}}"#,
            "rules[0].require.signed_by.cosign.keys",
            "key",
        ),
    ] {
        let error = policy(rules).unwrap_err();
        assert_eq!(error.at, at, "{rules}: {error}");
        assert!(error.reason.contains(text), "{rules}: {error}");
    }
}

#[test]
fn what_is_stored_is_read_again() {
    let key = "0000000000000000000000000000000000000000000000000000000000000000";
    let more =
        format!(r#","root_keys":["{key}"],"signers":["a","b"],"min_signers":1,"max_age":"36h""#);
    let first = policy(&dct(&more)).unwrap();
    let stored = first.to_json().unwrap();
    assert_eq!(TrustPolicy::parse(&stored).unwrap(), first);
    assert_eq!(TrustPolicy::parse(&stored).unwrap().to_json().unwrap(), stored);
    assert!(String::from_utf8(stored).unwrap().contains("\"max_age\":\"36h\""));
}

proptest::proptest! {
    #[test]
    fn reading_never_panics(text in "\\PC{0,200}") {
        let _ = TrustPolicy::parse(text.as_bytes());
    }

    #[test]
    fn every_image_has_a_rule_and_none_of_a_neighbour(
        parts in proptest::collection::vec("[a-z]{1,3}", 1..4),
        other in "[a-z]{1,3}",
    ) {
        let prefix = format!("r.example/{}", parts.join("/"));
        let rules = format!(r#"{{"images":"{prefix}","require":"accept"}},{REST}"#);
        let policy = policy(&rules).unwrap();
        let rule = |name: &str| policy.rule_for(name).unwrap().prefix().to_owned();
        proptest::prop_assert_eq!(rule(&prefix), prefix.clone());
        let below = format!("{prefix}/{other}");
        proptest::prop_assert_eq!(rule(&below), prefix.clone());
        let neighbour = format!("{prefix}{other}");
        proptest::prop_assert_eq!(rule(&neighbour), "*");
    }
}

mod judging {
    use std::collections::BTreeMap;

    use brig_pki::signing::{Curve, SigningKey};
    use brig_types::digest::Digest;
    use brig_types::reference::Reference;
    use time::OffsetDateTime;

    use super::super::*;
    use super::{REST, policy};
    use crate::metadata::{Expires, FileMeta, Root, Snapshot, Targets, Timestamp};
    use crate::repository::Repository;
    use crate::{Gun, Key, Role, Signed};

    fn digest(number: u8) -> Digest {
        Digest::from_sha256([number; 32])
    }

    /// A repository whose roles have signed these tags: by whom, as what, which image.
    fn repository(signed: &[(&str, &str, u8)]) -> Repository {
        let now = OffsetDateTime::now_utc();
        let key = SigningKey::generate(Curve::P256).unwrap();
        let public = Key::of(&key).unwrap();
        let id = public.id();
        let expires = || Expires::in_days(now, 10);
        let mut files: BTreeMap<Role, Targets> = BTreeMap::new();
        let mut owner = Targets::new(expires(), 1);
        for (role, tag, number) in signed {
            let role = Role::parse(role).unwrap();
            let meta = FileMeta::of_image([*number; 32], 528);
            if role == Role::Targets {
                owner.targets.insert((*tag).to_owned(), meta);
                continue;
            }
            owner.delegate(&role, std::slice::from_ref(&public), &[String::new()]);
            let file = files.entry(role).or_insert_with(|| Targets::new(expires(), 1));
            file.targets.insert((*tag).to_owned(), meta);
        }
        files.insert(Role::Targets, owner);
        let keys = [(&id, &key)];
        let root = Root::new(expires(), public.clone(), public.clone(), public.clone(), public);
        let snapshot = Snapshot::new(expires(), 1, BTreeMap::new());
        let timestamp = Timestamp::new(expires(), 1, FileMeta::of(b"snapshot"));
        let sign = |(role, file): (Role, Targets)| {
            let signed = Signed::sign(file, &role, &keys).unwrap();
            (role, signed)
        };
        Repository {
            gun: Gun::parse("r.example/a").unwrap(),
            root: Signed::sign(root, &Role::Root, &keys).unwrap(),
            timestamp: Signed::sign(timestamp, &Role::Timestamp, &keys).unwrap(),
            snapshot: Signed::sign(snapshot, &Role::Snapshot, &keys).unwrap(),
            targets: files.into_iter().map(sign).collect(),
            skipped: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    fn rule(more: &str) -> Dct {
        let text = format!(
            r#"{{"images":"r.example/a","require":{{"signed_by":{{"dct":{{"server":"https://t.example","first_use":true{more}}}}}}}}},{REST}"#
        );
        let policy = policy(&text).unwrap();
        match &policy.rule_for("r.example/a").unwrap().require {
            Require::SignedBy(signed) => signed.dct.clone().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The image that is vouched for, or why none is.
    fn ask(rule: &Dct, of: &Repository, asked: &str, here: Option<&[u8]>) -> Result<u8, Unvouched> {
        let reference = Reference::parse(asked).unwrap();
        let here: Option<Vec<Digest>> = here.map(|here| here.iter().map(|n| digest(*n)).collect());
        let question = Question { reference: &reference, here: here.as_deref() };
        let vouched = rule.judge(of, &question)?;
        Ok((0..=u8::MAX).find(|n| digest(*n) == vouched.digest).unwrap())
    }

    #[test]
    fn the_content_counts_and_not_its_name() {
        let signed = repository(&[
            ("targets/releases", "1", 1),
            ("targets/releases", "2", 2),
            ("targets", "3", 3),
            ("targets/alice", "4", 4),
        ]);
        let rule = rule("");
        let ask = |asked: &str, here: Option<&[u8]>| ask(&rule, &signed, asked, here);
        // Nothing is here yet: the tag says what has to be pulled.
        assert_eq!(ask("r.example/a:1", None), Ok(1));
        assert_eq!(ask("r.example/a:3", None), Ok(3));
        // Signed, but released by nobody.
        assert!(matches!(ask("r.example/a:4", None), Err(Unvouched::Tag { .. })));
        assert!(matches!(ask("r.example/a:5", None), Err(Unvouched::Tag { .. })));
        // What is here under the tag has to be that.
        assert_eq!(ask("r.example/a:1", Some(&[9, 1])), Ok(1));
        for here in [&[][..], &[2], &[9]] {
            let refused = ask("r.example/a:1", Some(here));
            assert!(matches!(refused, Err(Unvouched::Other { .. })), "{here:?}");
        }
        // By digest: any tag may have it, and it has to be here.
        let by_digest = |number| format!("r.example/a@{}", digest(number));
        assert_eq!(ask(&by_digest(2), None), Ok(2));
        assert_eq!(ask(&format!("r.example/a:1@{}", digest(2)), None), Ok(2));
        assert!(matches!(ask(&by_digest(4), None), Err(Unvouched::Digest { .. })));
        assert!(matches!(ask(&by_digest(2), Some(&[1])), Err(Unvouched::Other { .. })));
        // By nothing but what it is.
        assert_eq!(ask("r.example/a", Some(&[9, 2])), Ok(2));
        assert!(matches!(ask("r.example/a", Some(&[9])), Err(Unvouched::Nothing(_))));
        assert!(matches!(ask("r.example/a", Some(&[])), Err(Unvouched::Nothing(_))));
    }

    #[test]
    fn signers_have_to_agree_on_tag_and_image() {
        let signed = repository(&[
            ("targets/releases", "1", 1),
            ("targets/alice", "1", 1),
            ("targets/bob", "1", 7),
            ("targets/releases", "2", 1),
            ("targets/bob", "2", 1),
            ("targets/releases", "3", 3),
            ("targets/alice", "3", 3),
            ("targets/bob", "3", 3),
        ]);
        let both = rule(r#","signers":["alice","bob"]"#);
        let either = rule(r#","signers":["alice","bob"],"min_signers":1"#);
        let carol = rule(r#","signers":["carol"]"#);
        // Bob has signed the tag 1 as something else, and the image as another tag.
        let refused = ask(&both, &signed, "r.example/a:1", None).unwrap_err();
        assert!(matches!(&refused, Unvouched::Signers { missing, .. } if missing == &["bob"]));
        assert!(refused.to_string().contains("missing: bob"), "{refused}");
        assert!(ask(&both, &signed, &format!("r.example/a@{}", digest(1)), None).is_err());
        assert_eq!(ask(&both, &signed, "r.example/a:3", None), Ok(3));
        assert_eq!(ask(&either, &signed, "r.example/a:1", None), Ok(1));
        assert_eq!(ask(&either, &signed, "r.example/a:2", None), Ok(1));
        assert!(ask(&carol, &signed, "r.example/a:3", None).is_err());
    }
}

#[test]
fn official_images_may_be_named_as_everybody_names_them() {
    let policy = policy(
        r#"{"images":"docker.io/library","require":"accept"},
           {"images":"docker.io/nginx","require":"reject"},
           {"images":"docker.io/redis","require":"reject"},
           {"images":"docker.io/library/redis","require":"accept"},
           {"images":"*","require":"reject"}"#,
    )
    .unwrap();
    for (repository, rule) in [
        ("docker.io/library/nginx", "docker.io/nginx"),
        ("docker.io/nginx/nginx-ingress", "docker.io/nginx"),
        ("docker.io/library/nginxx", "docker.io/library"),
        ("docker.io/library/redis", "docker.io/library/redis"),
        ("docker.io/redis/redis-stack", "docker.io/redis"),
    ] {
        assert_eq!(policy.rule_for(repository).unwrap().prefix(), rule, "{repository}");
    }
}

#[test]
fn what_can_only_be_a_mistake_is_not_put_in_force() {
    for (rules, at, text) in [
        (dct(r#","first_use":true,"ca":"bla""#), "require.signed_by.dct.ca", "PEM"),
        (dct(r#","first_use":true,"max_age":"0d""#), "require.signed_by.dct.max_age", "young"),
        (format!(r#"{{"images":"busybox:1","require":"reject"}},{REST}"#), "images", "tag"),
        (format!(r#"{{"images":"busybox:latest","require":"reject"}},{REST}"#), "images", "tag"),
    ] {
        let text_of = format!(r#"{{"rules":[{rules}]}}"#);
        let error = TrustPolicy::parse_new(text_of.as_bytes()).unwrap_err();
        assert_eq!(error.at, format!("rules[0].{at}"), "{error}");
        assert!(error.reason.contains(text), "{error}");
        // What is in force stays so.
        assert!(TrustPolicy::parse(text_of.as_bytes()).is_ok(), "{rules}");
    }
    for images in ["registry:5000/", "localhost:5000", "r.example:5000", "registry:5000/team"] {
        let rules = format!(r#"{{"rules":[{{"images":"{images}","require":"reject"}},{REST}]}}"#);
        assert!(TrustPolicy::parse_new(rules.as_bytes()).is_ok(), "{images}");
    }
}
