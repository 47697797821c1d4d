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
