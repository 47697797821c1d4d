use brig_types::digest::Digest;
use brig_types::reference::Reference;
use proptest::prelude::*;

use super::*;
use crate::db::{Collector, Feed, Index, import};
use crate::distribution::Distribution;
use crate::matching::{Report, judge};
use crate::package::{Ecosystem, EvidenceKind, Inventory, Layer, Package};
use crate::severity::Severity;

const TODAY: &str = "2026-01-10";

const TRACKER: &str = r#"{"openssl":{
  "CVE-2026-1":{"releases":{"bookworm":{"status":"resolved","fixed_version":"3.0.2","urgency":"high"}}},
  "CVE-2026-2":{"releases":{"bookworm":{"status":"open","urgency":"high"}}},
  "CVE-2026-3":{"releases":{"bookworm":{"status":"resolved","fixed_version":"3.0.2","urgency":"low"}}},
  "CVE-2026-4":{"releases":{"bookworm":{"status":"resolved","fixed_version":"3.0.2","urgency":"not yet assigned"}}}}}"#;
const KEV: &str = r#"{"title":"CISA Catalog of Known Exploited Vulnerabilities","catalogVersion":"2026.01.09",
  "dateReleased":"2026-01-09T00:00:00Z","count":1,"vulnerabilities":[{"cveID":"CVE-2026-3","vendorProject":"x","product":"x",
  "vulnerabilityName":"x","dateAdded":"2026-01-09","shortDescription":"x","requiredAction":"x","dueDate":"2026-02-01",
  "knownRansomwareCampaignUse":"Unknown","notes":""}]}"#;
const EPSS: &str = "#model_version:v2025.03.14,score_date:2026-01-09T12:55:00Z\ncve,epss,percentile\nCVE-2026-2,0.70000,0.99000\n";

fn index() -> Index {
    let mut into = Collector::new();
    into.feed(Feed { name: "feed".to_owned(), ..Feed::default() });
    for (path, text) in [("tracker.json", TRACKER), ("kev.json", KEV), ("epss.csv", EPSS)] {
        assert!(import::import_document(&mut into, path, text.as_bytes()).unwrap(), "{path}");
    }
    Index::from_bytes(into.to_bytes("2026-01-09T00:00:00Z").unwrap()).unwrap()
}

fn inventory() -> Inventory {
    let layer = |n: u8, step: &str| Layer {
        diff_id: Digest::from_sha256([n; 32]),
        created_by: Some(step.to_owned()),
        created: None,
        size: 1,
    };
    let mut package = Package::new(
        Ecosystem::Deb,
        "openssl",
        "3.0.1",
        "var/lib/dpkg/status",
        EvidenceKind::Database,
    );
    package.layer = Some(Digest::from_sha256([2; 32]));
    let mut inventory = Inventory::empty();
    inventory.layers = vec![layer(1, "ADD rootfs"), layer(2, "RUN apt-get install openssl")];
    inventory.packages = vec![package];
    inventory.distribution = Some(Distribution::new("debian", Some("12")));
    inventory
}

fn report(rule: &Rule) -> Report {
    judge(&index(), &inventory(), &rule.options(TODAY)).unwrap()
}

fn policy(text: &str) -> Policy {
    Policy::parse(text.as_bytes()).unwrap()
}

fn exceptions(text: &str) -> Exceptions {
    policy(text).exceptions
}

/// Decides about `web:1` of the service `shop_web`.
fn decided(policy: &Policy, exceptions: &Exceptions) -> GateDecision {
    let image = Reference::parse("web:1").unwrap();
    let subject = Subject {
        image: Some(&image),
        name: "web:1",
        service: Some("shop_web"),
        stack: Some("shop"),
    };
    let inventory = inventory();
    let report = policy.rule(Some(&image)).map(report);
    let facts = match &report {
        Some(report) => Facts::Judged { inventory: &inventory, report },
        None => Facts::Unjudged { doubt: DoubtKind::NoInventory, why: "nobody looked" },
    };
    decide(&with(policy, exceptions), facts, &subject, TODAY)
}

fn with(policy: &Policy, exceptions: &Exceptions) -> Policy {
    Policy { exceptions: exceptions.clone(), ..policy.clone() }
}

fn ids(decision: &GateDecision) -> Vec<&str> {
    decision.refusing().map(Reason::id).collect()
}

fn ruled(rule: &str) -> GateDecision {
    let text = format!("[[rules]]\nprefix = \"*\"\nmax_age = 0\n{rule}");
    decided(&policy(&text), &Exceptions::default())
}

#[test]
fn severity_fixability_catalogue_and_probability() {
    assert_eq!(ids(&ruled("severity = \"high\"")), ["CVE-2026-1", "CVE-2026-2"]);
    assert_eq!(ids(&ruled("severity = \"high\"\nfixable_only = true")), ["CVE-2026-1"]);
    assert_eq!(ids(&ruled("known_exploited = true\nfixable_only = true")), ["CVE-2026-3"]);
    assert_eq!(ids(&ruled("epss = 0.7")), ["CVE-2026-2"]);
    assert!(ids(&ruled("epss = 0.71")).is_empty());
    assert_eq!(ruled("epss = 0.71").outcome, Outcome::Admitted);
    assert_eq!(ids(&ruled("severity = \"unknown\"")).len(), 4);
    // Nobody says how bad the fourth is: it warns where severities are asked for.
    let unrated = ruled("severity = \"critical\"");
    assert_eq!((unrated.outcome, unrated.reasons.len()), (Outcome::Warned, 1));
    assert_eq!(unrated.reasons[0].id(), "CVE-2026-4");
    assert_eq!(ids(&ruled("severity = \"critical\"\nunrated = \"refuse\"")), ["CVE-2026-4"]);
}

#[test]
fn a_refusal_names_flaw_package_layer_fix_and_the_way_out() {
    let text = ruled("severity = \"high\"").refusal();
    for part in [
        "\n  CVE-2026-1",
        "CVE-2026-1 (high): openssl 3.0.1 in layer 2 (RUN apt-get install openssl), fixed in 3.0.2: upgrade openssl to 3.0.2",
        "CVE-2026-2 (high): openssl 3.0.1 in layer 2 (RUN apt-get install openssl), no fix yet",
        "brig scan exception add CVE-2026-1 --image docker.io/library/web --owner WHO --reason WHY --expires YYYY-MM-DD",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn warn_mode_warns_and_off_is_silent() {
    let warned = ruled("severity = \"high\"\nmode = \"warn\"");
    assert_eq!(warned.outcome, Outcome::Warned);
    assert!(warned.refusal().contains("CVE-2026-1"), "{}", warned.refusal());
    assert!(warned.warnings()[0].contains("CVE-2026-4"), "{:?}", warned.warnings());
    assert_eq!(ruled("severity = \"high\"\nmode = \"off\"").outcome, Outcome::Admitted);
}

#[test]
fn the_longest_prefix_decides_and_no_rule_admits() {
    let strict = "[[rules]]\nprefix = \"*\"\nseverity = \"low\"\n";
    let text = format!("{strict}[[rules]]\nprefix = \"docker.io/library/\"\nmode = \"off\"\n");
    assert_eq!(decided(&policy(&text), &Exceptions::default()).outcome, Outcome::Admitted);
    let text = format!(
        "{text}[[rules]]\nprefix = \"docker.io/library/web:1\"\nseverity = \"low\"\nmax_age = 0\n"
    );
    assert_eq!(decided(&policy(&text), &Exceptions::default()).outcome, Outcome::Refused);
    let other = "[[rules]]\nprefix = \"registry:5000/\"\nseverity = \"low\"\n";
    let decision = decided(&policy(other), &Exceptions::default());
    assert_eq!((decision.outcome, decision.rule), (Outcome::Admitted, None));
}

#[test]
fn doubts_do_what_the_policy_says() {
    let stale = "[[rules]]\nprefix = \"*\"\nmax_age = 0\n";
    assert_eq!(decided(&policy(stale), &Exceptions::default()).outcome, Outcome::Admitted);
    let image = Reference::parse("web:1").unwrap();
    let subject = Subject { image: Some(&image), name: "web:1", service: None, stack: None };
    let facts = Facts::Unjudged { doubt: DoubtKind::NoInventory, why: "nobody has looked into it" };
    let outcome = |rule: &str, exceptions: &Exceptions| {
        let policy = policy(&format!("[[rules]]\nprefix = \"*\"\n{rule}"));
        decide(&with(&policy, exceptions), facts, &subject, TODAY)
    };
    let none = Exceptions::default();
    let refused = outcome("", &none);
    assert_eq!(refused.outcome, Outcome::Refused);
    assert!(
        refused.refusal().contains("brig scan exception add no_inventory"),
        "{}",
        refused.refusal()
    );
    assert_eq!(outcome("unknown = \"warn\"", &none).outcome, Outcome::Warned);
    assert_eq!(outcome("unknown = \"accept\"", &none).outcome, Outcome::Admitted);
    let single = "unknown = \"refuse\"\ndoubts = { no_inventory = \"accept\" }";
    assert_eq!(outcome(single, &none).outcome, Outcome::Admitted);
    let excepted = exceptions(
        r#"{"exceptions":[{"id":"no_inventory","scope":{"image":"web"},"reason":"r","owner":"o","expires":"2026-01-10"}]}"#,
    );
    assert_eq!(outcome("", &excepted).outcome, Outcome::Admitted);
}

#[test]
fn old_data_is_a_doubt_by_the_rules_age() {
    let image = Reference::parse("web:1").unwrap();
    let policy = policy("[[rules]]\nprefix = \"*\"\nmax_age = 30\n");
    let rule = policy.rule(Some(&image)).unwrap();
    let later = "2026-03-10";
    let report = judge(&index(), &inventory(), &rule.options(later)).unwrap();
    let inventory = inventory();
    let subject = Subject { image: Some(&image), name: "web:1", service: None, stack: None };
    let facts = Facts::Judged { inventory: &inventory, report: &report };
    let decision = decide(&policy, facts, &subject, later);
    assert_eq!(ids(&decision), ["stale"]);
    assert!(decision.refusal().contains("brig scan db update"), "{}", decision.refusal());
}

fn excepting(scope: &str, expires: &str, more: &str) -> GateDecision {
    let text = format!(
        "[[exceptions]]\nid = \"CVE-2026-1\"\nreason = \"not reachable\"\nowner = \"ann\"\nexpires = \"{expires}\"\n\
         {more}\n[exceptions.scope]\n{scope}\n"
    );
    let policy = policy(
        "[[rules]]\nprefix = \"*\"\nmax_age = 0\nseverity = \"high\"\nfixable_only = true\n",
    );
    decided(&policy, &exceptions(&text))
}

#[test]
fn exceptions_hold_in_their_scope_until_their_day() {
    for scope in [
        "image = \"*\"",
        "image = \"docker.io/library/web\"",
        "service = \"shop_web\"",
        "stack = \"shop\"",
        "image = \"web\"\nstack = \"shop\"",
    ] {
        let decision = excepting(scope, TODAY, "");
        // The unrated one still warns.
        assert_eq!(decision.outcome, Outcome::Warned, "{scope}");
        assert_eq!(decision.excepted[0].owner, "ann");
    }
    for scope in ["image = \"other\"", "service = \"web\"", "image = \"web\"\nstack = \"other\""] {
        assert_eq!(excepting(scope, TODAY, "").outcome, Outcome::Refused, "{scope}");
    }
    let over = excepting("image = \"*\"", "2026-01-09", "");
    assert_eq!(over.outcome, Outcome::Refused);
    assert!(
        over.refusal().contains("its exception of ann ended on 2026-01-09"),
        "{}",
        over.refusal()
    );
    let other = excepting("image = \"*\"", TODAY, "packages = [\"perl\"]");
    assert_eq!(other.outcome, Outcome::Refused);
    let named = excepting("image = \"*\"", TODAY, "packages = [\"openssl\"]");
    assert_eq!(named.outcome, Outcome::Warned);
}

#[test]
fn documents_with_mistakes_name_the_field() {
    for (text, part) in [
        ("[[rules]]\nprefix = \"*\"\nsevertiy = \"high\"", "severtiy"),
        ("[[rules]]\nprefix = \"registry:5000\"", "registry:5000/"),
        ("[[rules]]\nprefix = \"*\"\nepss = 7.0", "rules[0].epss"),
        ("[[rules]]\nprefix = \"*\"\nseverity = \"negligible\"", "rules[0].severity"),
        ("[[rules]]\nprefix = \"*\"\n[[rules]]\nprefix = \"*\"", "rules[1].prefix"),
        ("{\"rules\":[{}]}", "prefix"),
    ] {
        let error = Policy::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let entry = |id: &str, scope: &str, reason: &str, owner: &str, expires: &str| {
        format!(
            r#"{{"exceptions":[{{"id":"{id}","scope":{scope},"reason":"{reason}","owner":"{owner}","expires":"{expires}"}}]}}"#
        )
    };
    let everywhere = r#"{"image":"*"}"#;
    for (text, part) in [
        (entry("", everywhere, "r", "o", "2026-01-01"), "exceptions[0].id"),
        (entry("CVE-1", "{}", "r", "o", "2026-01-01"), "exceptions[0].scope"),
        (entry("CVE-1", everywhere, " ", "o", "2026-01-01"), "exceptions[0].reason"),
        (entry("CVE-1", everywhere, "r", "", "2026-01-01"), "exceptions[0].owner"),
        (entry("CVE-1", everywhere, "r", "o", "2026-02-30"), "exceptions[0].expires"),
        (r#"{"exceptions":[{"id":"CVE-1"}]}"#.to_owned(), "scope"),
    ] {
        let error = Policy::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let large = vec![b' '; MAX_DOCUMENT + 1];
    assert!(matches!(Policy::parse(&large), Err(DocumentError::TooLarge(_))));
}

#[test]
fn a_new_policy_has_a_rule() {
    for text in ["", "{}", r#"{"rules":[]}"#] {
        let refused = Policy::parse_new(text.as_bytes()).unwrap_err().to_string();
        assert!(refused.starts_with("rules: ") && refused.contains("[[rules]]"), "{refused}");
        // One that is in force already is none that cannot be read.
        assert!(Policy::parse(text.as_bytes()).unwrap().rules.is_empty());
    }
    assert!(Policy::parse_new(b"[[rules]]\nprefix = \"*\"\nmode = \"off\"\n").is_ok());
}

fn rules() -> impl Strategy<Value = Rule> {
    let severity = prop_oneof![
        Just(None),
        Just(Some(Severity::Unknown)),
        Just(Some(Severity::Low)),
        Just(Some(Severity::High)),
        Just(Some(Severity::Critical))
    ];
    let action = || prop_oneof![Just(Action::Accept), Just(Action::Warn), Just(Action::Refuse)];
    let mode = prop_oneof![Just(Mode::Enforce), Just(Mode::Warn), Just(Mode::Off)];
    let epss = prop_oneof![Just(None), (1_u32..=100).prop_map(|n| Some(f64::from(n) / 100.0))];
    (mode, severity, any::<bool>(), any::<bool>(), epss, action(), action(), 0_u32..20).prop_map(
        |(mode, severity, fixable_only, known_exploited, epss, unrated, unknown, max_age)| Rule {
            prefix: brig_types::prefix::ImagePrefix::all(),
            mode,
            severity,
            fixable_only,
            known_exploited,
            epss,
            unrated,
            unknown,
            doubts: Doubts::default(),
            max_age,
        },
    )
}

proptest! {
    /// What is written is read again as the same.
    #[test]
    fn a_policy_survives_being_written(rules in proptest::collection::vec(rules(), 0..2)) {
        let policy = Policy { rules: rules.into_iter().take(1).collect(), ..Policy::default() };
        let bytes = policy.to_bytes().unwrap();
        let again = Policy::parse(&bytes).unwrap();
        prop_assert_eq!(&again, &policy);
        prop_assert_eq!(again.to_bytes().unwrap(), bytes);
    }

    /// Refused means a reason that refuses, in enforce mode only; the text then names each of the first.
    #[test]
    fn an_outcome_follows_from_its_reasons(rule in rules()) {
        let mode = rule.mode;
        let decision = decided(&Policy { rules: vec![rule], ..Policy::default() }, &Exceptions::default());
        let refuses = decision.refusing().next().is_some();
        prop_assert_eq!(decision.outcome == Outcome::Refused, mode == Mode::Enforce && refuses);
        prop_assert_eq!(decision.outcome == Outcome::Admitted, decision.reasons.is_empty());
        prop_assert_eq!(decision.refusal().is_empty(), !refuses);
        for id in decision.refusing().take(10).map(Reason::id) {
            prop_assert!(decision.refusal().contains(id));
        }
    }

    /// A stricter rule never admits what a laxer one refuses, and an exception never makes it worse.
    #[test]
    fn stricter_is_never_laxer(rule in rules(), fixable in any::<bool>(), days in 1_u32..28) {
        let lax = Rule { fixable_only: true, ..rule.clone() };
        let strict = Rule { fixable_only: fixable, known_exploited: true, severity: Some(Severity::Unknown), ..rule.clone() };
        let none = Exceptions::default();
        let outcome = |rule: &Rule, exceptions: &Exceptions| {
            decided(&Policy { rules: vec![rule.clone()], ..Policy::default() }, exceptions)
        };
        prop_assert!(outcome(&strict, &none).outcome >= outcome(&lax, &none).outcome);
        let excepted = exceptions(&format!(
            r#"{{"exceptions":[{{"id":"CVE-2026-1","scope":{{"image":"*"}},"reason":"r","owner":"o","expires":"2026-01-{days:02}"}}]}}"#
        ));
        let (without, with) = (outcome(&rule, &none), outcome(&rule, &excepted));
        prop_assert!(with.outcome <= without.outcome);
        if days < 10 {
            prop_assert_eq!(ids(&with), ids(&without));
        } else {
            prop_assert!(!ids(&with).contains(&"CVE-2026-1"));
        }
    }

    /// Whatever bytes come in: an answer, and no panic.
    #[test]
    fn any_bytes_are_a_document_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Policy::parse(&bytes).is_ok();
    }
}
