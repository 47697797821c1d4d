use super::*;
use crate::db::{Collector, Feed, Index, import};
use crate::distribution::Distribution;
use crate::package::{Ecosystem, EvidenceKind, Package};

const TRACKER: &str = r#"{"perl":{"CVE-1":{"releases":{"bookworm":{"status":"resolved","fixed_version":"5.36.0-7","urgency":"high"}}}}}"#;

/// An advisory of a day that is about nothing in the inventories here.
fn osv(id: &str, day: &str, ecosystems: &[&str]) -> String {
    let affected: Vec<String> = ecosystems
        .iter()
        .map(|ecosystem| {
            format!(
                r#"{{"package":{{"ecosystem":"{ecosystem}","name":"other"}},"ranges":[{{"type":"ECOSYSTEM","events":[{{"introduced":"0"}}]}}]}}"#
            )
        })
        .collect();
    format!(r#"{{"id":"{id}","modified":"{day}T00:00:00Z","affected":[{}]}}"#, affected.join(","))
}

fn kev(day: &str) -> String {
    format!(
        r#"{{"catalogVersion":"1","dateReleased":"{day}T00:00:00Z","vulnerabilities":[{{"cveID":"CVE-1","dateAdded":"2026-01-01"}}]}}"#
    )
}

/// A database of the first of January: each list of documents is a feed.
fn made(feeds: &[(&str, &[&str])]) -> Index {
    let mut into = Collector::new();
    for (name, documents) in feeds {
        into.feed(Feed { name: (*name).to_owned(), ..Feed::default() });
        for text in *documents {
            assert!(import::import_document(&mut into, "x.json", text.as_bytes()).unwrap());
        }
    }
    Index::from_bytes(into.to_bytes("2026-01-01T00:00:00Z").unwrap()).unwrap()
}

fn inventory(ecosystems: &[Ecosystem]) -> Inventory {
    let mut inventory = Inventory::empty();
    for ecosystem in ecosystems {
        let version = if ecosystem.is_os() { "5.36.0-7+deb12u4" } else { "1.0.0" };
        inventory.packages.push(Package::new(
            *ecosystem,
            "perl",
            version,
            "somewhere",
            EvidenceKind::Database,
        ));
    }
    inventory.sort();
    inventory.distribution = Some(Distribution::new("debian", Some("12")));
    inventory
}

/// The doubt as people read it; a verdict of clean comes with none.
fn aged(index: &Index, ecosystems: &[Ecosystem], today: &str) -> Option<String> {
    let options = Options { today: today.to_owned(), max_age: Some(7), ..Options::default() };
    let report = judge(index, &inventory(ecosystems), &options).unwrap();
    assert_eq!(report.verdict == Verdict::Clean, report.doubts.is_empty());
    assert!(report.doubts.iter().all(|doubt| matches!(doubt, Doubt::StaleData { .. })));
    report.doubts.first().map(ToString::to_string)
}

fn says(what: &str) -> Option<String> {
    Some(format!("the newest advisory {what}: run brig scan db update"))
}

#[test]
fn a_fresh_feed_makes_no_other_ecosystems_data_younger() {
    let old = osv("DSA-1", "2025-06-02", &["Debian:12"]);
    let fresh = osv("PYSEC-1", "2025-12-31", &["PyPI"]);
    let index = made(&[("debian", &[&old]), ("python", &[&fresh])]);
    let today = "2026-01-01";
    let stale = says("about debian is of 2025-06-02, 213 days ago (feed debian)");
    assert_eq!(aged(&index, &[Ecosystem::Deb], today), stale);
    assert_eq!(aged(&index, &[Ecosystem::PyPi], today), None);
    assert_eq!(aged(&index, &[Ecosystem::Deb, Ecosystem::PyPi], today), stale);
    // The other way round, and each with its own age.
    let index =
        made(&[("debian", &[TRACKER]), ("python", &[&osv("P-1", "2025-06-02", &["PyPI"])])]);
    assert_eq!(aged(&index, &[Ecosystem::Deb], today), None);
    assert_eq!(
        aged(&index, &[Ecosystem::Deb, Ecosystem::PyPi], "2026-02-01"),
        says(
            "about pypi is of 2025-06-02, 244 days ago (feed python), debian is of 2026-01-01, 31 days ago (feed debian)"
        )
    );
    let report = judge(&index, &inventory(&[Ecosystem::Deb, Ecosystem::PyPi]), &Options::default());
    assert_eq!(report.unwrap().database.newest, "2025-06-02");
    // A feed of several is as old for each as what it says about that.
    let both = made(&[("mirror", &[&old, &fresh])]);
    assert_eq!(
        aged(&both, &[Ecosystem::Deb], today),
        says("about debian is of 2025-06-02, 213 days ago (feed mirror)")
    );
    assert_eq!(aged(&both, &[Ecosystem::PyPi], today), None);
}

#[test]
fn feeds_of_one_ecosystem_are_as_young_as_the_youngest() {
    let old = osv("P-1", "2025-06-02", &["PyPI"]);
    let fresh = osv("P-2", "2025-12-31", &["PyPI"]);
    let index = made(&[("old", &[&old]), ("fresh", &[&fresh])]);
    assert_eq!(aged(&index, &[Ecosystem::PyPi], "2026-01-01"), None);
    assert_eq!(
        aged(&index, &[Ecosystem::PyPi], "2026-02-01"),
        says("about pypi is of 2025-12-31, 32 days ago (feed fresh)")
    );
    // Four weeks of silence are none of a distribution's, but may be a registry's.
    assert_eq!(aged(&index, &[Ecosystem::PyPi], "2026-01-28"), None);
    // A package that another registry's record names in passing is no sign of life.
    let many: Vec<String> = (0..30)
        .map(|n| osv(&format!("P-{n}"), "2025-06-02", &["PyPI"]))
        .chain((0..30).map(|n| osv(&format!("N-{n}"), "2025-12-30", &["npm"])))
        .collect();
    let (python, node) = many.split_at(30);
    let both = osv("N-99", "2025-12-31", &["npm", "PyPI"]);
    let python: Vec<&str> = python.iter().map(String::as_str).collect();
    let node: Vec<&str> = node.iter().map(String::as_str).chain([both.as_str()]).collect();
    let index = made(&[("python", &python), ("node", &node)]);
    assert_eq!(
        aged(&index, &[Ecosystem::PyPi], "2026-01-01"),
        says("about pypi is of 2025-06-02, 213 days ago (feed python)")
    );
    assert_eq!(aged(&index, &[Ecosystem::Npm], "2026-01-01"), None);
    // What nobody says much about is served by all who do.
    let little: Vec<(String, Vec<String>)> = (0..12)
        .map(|n| {
            let npm = (0..11).map(|m| osv(&format!("N-{n}-{m}"), "2025-06-01", &["npm"]));
            let pypi = osv(&format!("P-{n}"), &format!("2025-06-{:02}", n + 1), &["PyPI"]);
            (format!("f{n}"), npm.chain([pypi]).collect())
        })
        .collect();
    let little: Vec<(&str, Vec<&str>)> = little
        .iter()
        .map(|(name, texts)| (name.as_str(), texts.iter().map(String::as_str).collect()))
        .collect();
    let little: Vec<(&str, &[&str])> =
        little.iter().map(|(name, texts)| (*name, texts.as_slice())).collect();
    assert_eq!(
        aged(&made(&little), &[Ecosystem::PyPi], "2025-12-31"),
        says("about pypi is of 2025-06-12, 202 days ago (feed f11)")
    );
}

#[test]
fn data_is_never_younger_than_the_database() {
    let of =
        |days: i64| says(&format!("about debian is of 2026-01-01, {days} days ago (feed tracker)"));
    let deb = [Ecosystem::Deb];
    // A feed without dates is as old as the database.
    let index = made(&[("tracker", &[TRACKER])]);
    assert_eq!(aged(&index, &deb, "2026-01-08"), None);
    assert_eq!(aged(&index, &deb, "2026-02-01"), of(31));
    // That exploited flaws were listed today makes no advisory younger.
    let old = osv("DSA-1", "2025-06-02", &["Debian:12"]);
    let index = made(&[("debian", &[&old, &kev("2025-12-30")]), ("kev", &[&kev("2025-12-31")])]);
    assert_eq!(
        aged(&index, &deb, "2026-01-01"),
        says("about debian is of 2025-06-02, 213 days ago (feed debian)")
    );
    // A record from the future does not keep data young for ever, and a date that is none says
    // nothing.
    for day in ["2099-01-02", "2025-99-99"] {
        let index = made(&[("tracker", &[TRACKER, &osv("DSA-1", day, &["Debian:12"])])]);
        assert_eq!(aged(&index, &deb, "2026-02-01"), of(31), "{day}");
    }
}

/// Made by a program that did not write down which feed serves what, on 2026-11-22: Debian's feed of
/// 2025-06-02 and one of PyPI of 2026-11-20.
const BEFORE: &[u8] = include_bytes!("../../tests/databases/before-serves.db");

#[test]
fn a_database_that_does_not_say_what_feeds_serve_is_judged_as_a_whole() {
    let index = Index::from_bytes(BEFORE.to_vec()).unwrap();
    index.verify().unwrap();
    assert_eq!((index.coverage(), index.newest()), (None, "2026-11-20"));
    assert_eq!(index.feeds().len(), 2);
    assert_eq!(aged(&index, &[Ecosystem::Deb], "2026-11-23"), None);
    assert_eq!(
        aged(&index, &[Ecosystem::Deb], "2026-12-20"),
        says("is of 2026-11-20, 30 days ago")
    );
}
