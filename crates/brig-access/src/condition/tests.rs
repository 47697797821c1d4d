use std::str::FromStr as _;

use proptest::prelude::*;

use super::*;

fn read(condition: &str) -> Condition {
    let text = format!("forbid (principal, action, resource) when {{ {condition} }};");
    let policy = Policy::from_str(&text).unwrap();
    Attributes::with_places(|places| match Condition::of(&policy, places) {
        Condition::And(_, own) => *own,
        other => other,
    })
}

#[test]
fn plain_comparisons_are_understood_and_the_rest_is_left_to_cedar() {
    for known in [
        "context.image == \"a\"",
        "\"a\" != context.image",
        "context.privileged",
        "context.privileged == false",
        "context.image like \"a*b\"",
        "context.hostMounts.contains(\"/x\")",
        "[\"a\", \"b\"].contains(resource.stack)",
        "context.ports.containsAny([\"a\"])",
        "context.ports.containsAll([\"a\"])",
        "context.ports.isEmpty()",
        "resource.hasTag(\"x\")",
        "!(principal.kind == \"cert\" && context.own) || true",
    ] {
        let asked = Attributes::with_places(|empty| read(known).holds(empty));
        assert!(asked.is_some(), "{known}: {:?}", read(known));
    }
    for unknown in [
        "context.image == context.name",
        "context.labels == [\"a\"]",
        "principal in Role::\"viewer\"",
        "resource.getTag(\"x\") == \"y\"",
        "resource.hasTag(\"x\") == true",
        "if context.own then true else false",
        "principal.hasTag(\"x\")",
    ] {
        assert_eq!(read(unknown), Condition::Unknown, "{unknown}");
    }
    // What may fail before it hides what comes after it.
    let fails_first = "resource.getTag(\"x\") == \"y\" && context.image == \"a\"";
    assert_eq!(Attributes::with_places(|empty| read(fails_first).holds(empty)), None);
    let fails_later = "context.image == \"a\" && resource.getTag(\"x\") == \"y\"";
    assert_eq!(Attributes::with_places(|empty| read(fails_later).holds(empty)), Some(false));
}

#[test]
fn deep_conditions_are_left_to_cedar() {
    let deep = format!("{}context.own", "!".repeat(4));
    assert!(read(&deep) != Condition::Unknown);
    let deep = vec!["context.own"; 2 * MAX_DEPTH].join(" && ");
    assert_eq!(Attributes::with_places(|empty| read(&deep).holds(empty)), None);
}

proptest! {
    /// Against the definition of wildcards.
    #[test]
    fn wildcards_stand_for_any_text(text in "[ab]{0,8}", pattern in "[ab*]{0,6}") {
        fn matches(text: &[u8], pattern: &[u8]) -> bool {
            match pattern {
                [] => text.is_empty(),
                [b'*', rest @ ..] => (0..=text.len()).any(|skip| matches(&text[skip..], rest)),
                [first, rest @ ..] => text.first() == Some(first) && matches(&text[1..], rest),
            }
        }
        let pieces: Vec<String> = pattern.split('*').map(str::to_owned).collect();
        prop_assert_eq!(
            looks_like(&text, &pieces),
            matches(text.as_bytes(), pattern.as_bytes()),
            "{} {}", text, pattern
        );
    }
}
