use super::*;
use crate::db::{Collector, Feed, Index, import};
use crate::distribution::Distribution;
use crate::package::{Ecosystem, EvidenceKind, Package, Source, Unread};

fn index(documents: &[(&str, &str)]) -> Index {
    let mut into = Collector::new();
    into.feed(Feed { name: "feed".to_owned(), ..Feed::default() });
    for (path, text) in documents {
        assert!(import::import_document(&mut into, path, text.as_bytes()).unwrap(), "{path}");
    }
    Index::from_bytes(into.to_bytes("2026-01-01T00:00:00Z").unwrap()).unwrap()
}

fn osv(id: &str, ecosystem: &str, name: &str, events: &str, more: &str) -> String {
    format!(
        r#"{{"id":"{id}","modified":"2026-01-02T00:00:00Z","summary":"Important: {name}:1 update",{more}"affected":[{{"package":
        {{"ecosystem":"{ecosystem}","name":"{name}"}},"ranges":[{{"type":"ECOSYSTEM","events":[{events}]}}]}}]}}"#
    )
}

fn package(ecosystem: Ecosystem, name: &str, version: &str) -> Package {
    Package::new(ecosystem, name, version, "somewhere", EvidenceKind::Database)
}

fn inventory(distribution: Option<(&str, &str)>, packages: Vec<Package>) -> Inventory {
    let mut inventory = Inventory::empty();
    inventory.packages = packages;
    inventory.sort();
    inventory.distribution = distribution.map(|(id, version)| Distribution::new(id, Some(version)));
    inventory
}

fn options() -> Options {
    Options { today: "2026-01-10".to_owned(), ..Options::default() }
}

fn ids(report: &Report) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.id.as_str()).collect()
}

const TRACKER: &str = r#"{"perl":{
  "CVE-1":{"releases":{"bookworm":{"status":"resolved","fixed_version":"5.36.0-7+deb12u4","urgency":"high"}}},
  "CVE-2":{"releases":{"bookworm":{"status":"open","urgency":"unimportant"}}},
  "CVE-3":{"releases":{"bookworm":{"status":"undetermined","urgency":"not yet assigned"}}},
  "CVE-4":{"releases":{"bookworm":{"status":"open","urgency":"low","nodsa":"Minor issue","nodsa_reason":"ignored"}}}}}"#;

fn perl(version: &str) -> Inventory {
    let mut base = package(Ecosystem::Deb, "perl-base", version);
    base.source = Some(Source { name: "perl".to_owned(), version: version.to_owned() });
    inventory(Some(("debian", "12")), vec![base])
}

#[test]
fn debian_binaries_are_judged_by_their_source() {
    let index = index(&[("t.json", TRACKER)]);
    let report = judge(&index, &perl("5.36.0-7+deb12u3"), &options()).unwrap();
    assert_eq!(report.verdict, Verdict::Vulnerable);
    assert_eq!(ids(&report), ["CVE-1", "CVE-4", "CVE-2", "CVE-3"]);
    let first = &report.findings[0];
    assert_eq!((first.status, first.fixed.as_deref()), (Status::Fixed, Some("5.36.0-7+deb12u4")));
    assert_eq!((first.severity, first.severity_source.as_str()), (Severity::High, "debian"));
    assert_eq!(first.evidence.rule, "5.36.0-7+deb12u3 < 5.36.0-7+deb12u4 by dpkg order");
    assert_eq!(first.evidence.matched, "perl");
    assert_eq!(
        (report.findings[1].status, report.findings[1].note.as_str()),
        (Status::WillNotFix, "Minor issue")
    );
    assert!(report.findings[2].is_minor());
    assert_eq!(report.doubts, [Doubt::Undetermined { ids: vec!["CVE-3".to_owned()] }]);
}

#[test]
fn a_fixed_version_is_clean_and_a_rebuild_of_it_as_well() {
    let tracker = r#"{"perl":{"CVE-1":{"releases":{"bookworm":{"status":"resolved","fixed_version":"5.36.0-7","urgency":"high"}}}}}"#;
    let index = index(&[("t.json", tracker)]);
    assert_eq!(judge(&index, &perl("5.36.0-7"), &options()).unwrap().verdict, Verdict::Clean);
    let rebuilt =
        inventory(Some(("debian", "12")), vec![package(Ecosystem::Deb, "perl", "5.36.0-7+b3")]);
    assert_eq!(judge(&index, &rebuilt, &options()).unwrap().verdict, Verdict::Clean);
}

#[test]
fn nothing_is_passed_over_in_silence() {
    let index = index(&[("t.json", TRACKER)]);
    let verdict = |inventory: &Inventory, options: &Options| {
        let report = judge(&index, inventory, options).unwrap();
        (report.verdict, report.doubts)
    };
    let lone = |ecosystem, name: &str, version: &str| vec![package(ecosystem, name, version)];
    let unknown = inventory(None, lone(Ecosystem::Deb, "bash", "5"));
    assert_eq!(
        verdict(&unknown, &options()),
        (Verdict::Unknown, vec![Doubt::NoDistribution { packages: 1 }])
    );
    let foreign = inventory(Some(("plan9", "4")), lone(Ecosystem::Deb, "bash", "5"));
    assert!(matches!(
        verdict(&foreign, &options()).1.as_slice(),
        [Doubt::UnsupportedDistribution { .. }]
    ));
    let node = inventory(None, lone(Ecosystem::Npm, "x", "1.0.0"));
    assert!(matches!(verdict(&node, &options()).1.as_slice(), [Doubt::NoData { .. }]));
    assert_eq!(
        verdict(&inventory(None, Vec::new()), &options()),
        (Verdict::Unknown, vec![Doubt::NothingFound])
    );
    let mut unread = inventory(Some(("debian", "12")), lone(Ecosystem::Deb, "bash", "5"));
    unread.unread.push(Unread {
        path: "x".to_owned(),
        layer: None,
        reader: "rpm".to_owned(),
        reason: "cut".to_owned(),
    });
    assert!(matches!(verdict(&unread, &options()).1.as_slice(), [Doubt::Unread { .. }]));
    let dead = inventory(Some(("alpine", "3.8.5")), lone(Ecosystem::Apk, "musl", "1"));
    assert!(matches!(
        verdict(&dead, &options()).1.as_slice(),
        [Doubt::EndOfLife { .. }, Doubt::UnsupportedDistribution { .. }]
    ));
}

#[test]
fn stale_data_is_said() {
    let record = osv("GHSA-1", "npm", "y", r#"{"introduced":"0"}"#, "");
    let index = index(&[("a.json", &record)]);
    let inventory = inventory(None, vec![package(Ecosystem::Npm, "x", "1.0.0")]);
    let with =
        |max_age| judge(&index, &inventory, &Options { max_age, ..options() }).unwrap().verdict;
    // Of nine days, where four times as many are no sign.
    assert_eq!(
        (with(None), with(Some(3)), with(Some(2))),
        (Verdict::Clean, Verdict::Clean, Verdict::Unknown)
    );
}

#[test]
fn what_the_distribution_owns_is_not_judged_by_upstreams_advisories() {
    let index = index(&[(
        "a.json",
        &osv("GHSA-1", "PyPI", "Requests_X", r#"{"introduced":"0"},{"fixed":"2.31"}"#, ""),
    )]);
    let mut owned = package(Ecosystem::PyPi, "requests-x", "2.25.1");
    let loose = inventory(None, vec![owned.clone()]);
    assert_eq!(ids(&judge(&index, &loose, &options()).unwrap()), ["GHSA-1"]);
    owned.owned_by = Some("python3-requests".to_owned());
    assert!(judge(&index, &inventory(None, vec![owned]), &options()).unwrap().findings.is_empty());
}

#[test]
fn debs_of_other_repositories_are_a_doubt() {
    let index = index(&[(
        "a.json",
        &osv("DSA-1", "Debian:12", "nginx", r#"{"introduced":"0"},{"fixed":"1.22.1-9"}"#, ""),
    )]);
    let judged = |version: &str| {
        let debian = Some(("debian", "12"));
        let packages = vec![package(Ecosystem::Deb, "nginx", version)];
        let report = judge(&index, &inventory(debian, packages), &options()).unwrap();
        report.doubts.iter().any(|doubt| matches!(doubt, Doubt::ThirdParty { .. }))
    };
    for version in [
        "1.25.3-1~bookworm",
        "5:24.0.7-1~debian.12~bookworm",
        "20.9.0-1nodesource1",
        "16.1-1.pgdg120+1",
        "8.2.13-1+0~20231126.42+debian12~1.gbpd6c3c4",
    ] {
        assert!(judged(version), "{version}");
    }
    for version in
        ["1.22.1-9+deb12u1", "1.22.1-9~deb11u1", "1.0~rc1-1", "1.18.0-6ubuntu14.4", "2.4-1~bpo12+1"]
    {
        assert!(!judged(version), "{version}");
    }
}

#[test]
fn ubuntu_names_its_releases_in_versions_of_its_own() {
    let index = index(&[(
        "a.json",
        &osv("U-1", "Ubuntu:16.04:LTS", "x", r#"{"introduced":"0"},{"fixed":"9"}"#, ""),
    )]);
    let foreign = |version: &str| {
        let packages = vec![package(Ecosystem::Deb, "x", version)];
        let inventory = inventory(Some(("ubuntu", "16.04")), packages);
        let report = judge(&index, &inventory, &options()).unwrap();
        report.doubts.iter().any(|doubt| matches!(doubt, Doubt::ThirdParty { .. }))
    };
    assert!(!foreign("1:5.1.6~rc2-0ubuntu1~xenial3.1"));
    assert!(foreign("5:24.0.7-1~ubuntu.16.04~xenial"));
}

#[test]
fn versions_that_say_nothing_are_a_doubt() {
    let index = index(&[(
        "a.json",
        &osv("GO-1", "Go", "example.org/m", r#"{"introduced":"0"},{"fixed":"1.2.0"}"#, ""),
    )]);
    let unknown = package(Ecosystem::Go, "example.org/m", "(devel)");
    let own = package(Ecosystem::Go, "example.org/own", "(devel)");
    let report = judge(&index, &inventory(None, vec![unknown, own.clone()]), &options()).unwrap();
    assert_eq!(report.doubts, [Doubt::NoVersion { packages: vec!["example.org/m".to_owned()] }]);
    assert_eq!((report.verdict, report.unjudged), (Verdict::Unknown, 1));
    let report = judge(&index, &inventory(None, vec![own]), &options()).unwrap();
    assert!(report.doubts.is_empty(), "of no version of it is anything known");
}

#[test]
fn one_finding_for_all_names_and_the_fix_that_satisfies_all() {
    let ghsa = osv(
        "GHSA-1",
        "PyPI",
        "x",
        r#"{"introduced":"0"},{"fixed":"2.0"}"#,
        r#""aliases":["CVE-1"],"#,
    );
    let pysec = osv(
        "PYSEC-1",
        "PyPI",
        "x",
        r#"{"introduced":"0"},{"fixed":"2.0.1"}"#,
        r#""aliases":["CVE-1"],"#,
    );
    let index = index(&[("a.json", &ghsa), ("b.json", &pysec)]);
    let report =
        judge(&index, &inventory(None, vec![package(Ecosystem::PyPi, "x", "1.9")]), &options())
            .unwrap();
    assert_eq!(report.findings.len(), 1);
    let finding = &report.findings[0];
    assert_eq!((finding.id.as_str(), finding.fixed.as_deref()), ("CVE-1", Some("2.0.1")));
    assert_eq!(finding.advisories, ["GHSA-1", "PYSEC-1"]);
}

#[test]
fn modules_are_compared_within_their_stream() {
    let fixed = r#"{"introduced":"0"},{"fixed":"2-1.module_el8.4"}"#;
    let index = index(&[(
        "a.json",
        &osv("ALSA-1", "AlmaLinux:8", "nodejs", fixed, r#""related":["CVE-1"],"#),
    )]);
    let found = |version: &str, module: Option<&str>, vendor: Option<&str>| {
        let mut node = package(Ecosystem::Rpm, "nodejs", version);
        node.module = module.map(str::to_owned);
        node.vendor = vendor.map(str::to_owned);
        let report =
            judge(&index, &inventory(Some(("almalinux", "8.9")), vec![node]), &options()).unwrap();
        report.findings.len()
    };
    assert_eq!(found("1-1.module_el8.3", Some("nodejs:1:8030:abc"), None), 1);
    assert_eq!(found("1-1.module_el8.3", Some("nodejs:0:8030:abc"), None), 0);
    assert_eq!(found("1-1.module_el8.3", None, Some("AlmaLinux")), 1);
    assert_eq!(found("1-1.el8", None, None), 0);
    assert_eq!(found("1-1.module_el8.3", None, Some("Remi")), 0);
}

#[test]
fn fixes_for_subscribers_are_marked() {
    let everybody = "Candidate: CVE-2016-1\nPublicDate: 2016-10-03\nPriority: low\nbionic_a: needed\nesm-infra/bionic_a: released (2+esm1)\nbionic_b: released (1)\nesm-infra/bionic_b: released (2+esm1)\n";
    let index = index(&[("CVE-2016-1", everybody)]);
    let packages = vec![package(Ecosystem::Deb, "a", "1"), package(Ecosystem::Deb, "b", "1")];
    let report =
        judge(&index, &inventory(Some(("ubuntu", "18.04")), packages), &options()).unwrap();
    assert_eq!(report.findings.len(), 1);
    let finding = &report.findings[0];
    assert!(finding.subscription && !finding.fixable());
    assert_eq!(finding.fixed.as_deref(), Some("2+esm1"));
}

#[test]
fn exceptions_have_a_reason_an_owner_and_an_end() {
    let index = index(&[("t.json", TRACKER)]);
    let ignore = |text: &str| {
        let ignore = IgnoreFile::parse(text).unwrap();
        judge(&index, &perl("5.36.0-7+deb12u3"), &Options { ignore, ..options() }).unwrap()
    };
    let entry = |id: &str, packages: &str, expires: &str| {
        format!(
            "[[ignore]]\nid = \"{id}\"\npackages = [{packages}]\nreason = \"r\"\nowner = \"o\"\nexpires = \"{expires}\"\n"
        )
    };
    let held = ignore(&entry("CVE-1", "\"perl\"", "2026-01-10"));
    assert!(matches!(held.findings[0].suppressed, Some(Suppression::Ignore { .. })));
    let over = ignore(&entry("CVE-1", "", "2026-01-09"));
    assert!(over.findings[0].suppressed.is_none());
    assert_eq!(over.expired, ["CVE-1 expired on 2026-01-09 (owner o, r)"]);
    assert!(ignore(&entry("CVE-1", "\"bash\"", "2026-02-01")).findings[0].suppressed.is_none());
    for text in [
        "[[ignore]]\nid = \"CVE-1\"\nreason = \" \"\nowner = \"o\"\nexpires = \"2026-01-10\"\n",
        "[[ignore]]\nid = \"CVE-1\"\nreason = \"r\"\nowner = \"o\"\nexpires = \"soon\"\n",
    ] {
        assert!(matches!(IgnoreFile::parse(text), Err(IgnoreError::Incomplete { .. })), "{text}");
    }
    assert!(matches!(
        IgnoreFile::parse("[[ignore]]\nid = \"CVE-1\"\n"),
        Err(IgnoreError::Malformed(_))
    ));
}

#[test]
fn vex_statements_apply_to_their_products_and_the_newest_wins() {
    let index = index(&[("t.json", TRACKER)]);
    let judged = |statements: &str| {
        let mut vex = Vex::default();
        vex.add(format!(r#"{{"@context":"https://openvex.dev/ns/v0.2.0","author":"me","timestamp":"2026-01-01T00:00:00Z","statements":[{statements}]}}"#).as_bytes())
            .unwrap();
        let report =
            judge(&index, &perl("5.36.0-7+deb12u3"), &Options { vex, ..options() }).unwrap();
        report.findings.iter().find(|f| f.id == "CVE-1").unwrap().suppressed.is_some()
    };
    let statement = |product: &str, status: &str, day: &str| {
        format!(
            r#"{{"vulnerability":{{"name":"CVE-1"}},"products":[{{"@id":"{product}"}}],"status":"{status}","justification":"j","timestamp":"{day}"}}"#
        )
    };
    assert!(judged(&statement("pkg:deb/debian/perl-base", "not_affected", "2026-01-01")));
    assert!(judged(&statement(
        "pkg:deb/debian/perl-base@5.36.0-7%2Bdeb12u3?distro=debian-12",
        "fixed",
        "2026-01-01"
    )));
    assert!(!judged(&statement("pkg:deb/debian/perl-base@5.36.0-8", "not_affected", "2026-01-01")));
    assert!(!judged(&statement("pkg:deb/ubuntu/perl-base", "not_affected", "2026-01-01")));
    assert!(!judged(&statement("pkg:deb/debian/perl-base", "affected", "2026-01-01")));
    let older = statement("pkg:deb/debian/perl-base", "not_affected", "2026-01-01");
    let newer = statement("pkg:deb/debian/perl-base", "affected", "2026-01-02");
    assert!(!judged(&format!("{newer},{older}")));
    assert!(matches!(
        Vex::default().add(b"{\"@context\":\"x\",\"statements\":[]}"),
        Err(VexError::Foreign(_))
    ));
}

#[test]
fn ids_are_the_same_however_they_are_written() {
    let index = index(&[(
        "x.json",
        &osv(
            "GHSA-ab12-cd34-ef56",
            "npm",
            "x",
            r#"{"introduced":"0"}"#,
            r#""aliases":["CVE-2026-1"],"#,
        ),
    )]);
    let node = inventory(None, vec![package(Ecosystem::Npm, "x", "1.0.0")]);
    for id in ["CVE-2026-1", "cve-2026-1", "ghsa-ab12-cd34-ef56", "GHSA-AB12-CD34-EF56"] {
        assert!(index.find(id).unwrap().is_some(), "{id}");
        let text =
            format!("[[ignore]]\nid=\"{id}\"\nreason=\"r\"\nowner=\"o\"\nexpires=2026-12-31\n");
        let options = Options { ignore: IgnoreFile::parse(&text).unwrap(), ..options() };
        let report = judge(&index, &node, &options).unwrap();
        assert!(report.findings[0].suppressed.is_some(), "{id}");
    }
    assert!(index.find("cve-2026-2").unwrap().is_none());
    let timed =
        "[[ignore]]\nid=\"CVE-1\"\nreason=\"r\"\nowner=\"o\"\nexpires=2026-12-31T00:00:00Z\n";
    let refused = IgnoreFile::parse(timed).unwrap_err().to_string();
    assert!(refused.contains("expires"), "{refused}");
}
