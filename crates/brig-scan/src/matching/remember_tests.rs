use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::db::{Collector, Feed, import};
use crate::distribution::Distribution;
use crate::matching::judge;
use crate::package::{EvidenceKind, Source};

const SYSTEMS: [(&str, &str, Ecosystem, &str); 5] = [
    ("debian", "12", Ecosystem::Deb, "Debian:12"),
    ("ubuntu", "18.04", Ecosystem::Deb, "Ubuntu:18.04:LTS"),
    ("alpine", "3.20", Ecosystem::Apk, "Alpine:v3.20"),
    ("wolfi", "1", Ecosystem::Apk, "Wolfi"),
    ("almalinux", "8.9", Ecosystem::Rpm, "AlmaLinux:8"),
];
const LANGUAGES: [(Ecosystem, &str); 3] =
    [(Ecosystem::Npm, "npm"), (Ecosystem::PyPi, "PyPI"), (Ecosystem::Go, "Go")];
const NAMES: [&str; 4] = ["a", "b", "a-b", "linux"];
const VERSIONS: [&str; 6] = ["1.0", "1.1", "1.1-1.module_el8", "2.0", "3.0", ""];

/// Flaws of every name in every space, with bounds that differ between them; those for Ubuntu's
/// subscribers contradict those for everybody.
fn database() -> Index {
    let mut into = Collector::new();
    into.feed(Feed { name: "feed".to_owned(), ..Feed::default() });
    let spaces = SYSTEMS.iter().map(|(.., space)| *space).chain(["Ubuntu:Pro:18.04:LTS"]);
    let spaces = spaces.chain(LANGUAGES.iter().map(|(_, space)| *space)).enumerate();
    for (at, space) in spaces {
        for (flaw, name) in NAMES.iter().cycle().take(14).enumerate() {
            let fixed = ["1.1", "2.0", "1.1-2.module_el8", "0"][(at + flaw) % 4];
            let end = match fixed {
                "0" => String::new(),
                fixed => format!(r#",{{"fixed":"{fixed}"}}"#),
            };
            let severity = ["3.9", "7.5", "9.8"][(at * 3 + flaw) % 3];
            let text = format!(
                r#"{{"id":"X-{at}-{flaw}","aliases":["CVE-2026-{flaw:04}"],"modified":"2026-01-02T00:00:00Z",
                "database_specific":{{"cvss":{severity}}},"affected":[{{"package":{{"ecosystem":"{space}","name":"{name}"}},
                "ranges":[{{"type":"ECOSYSTEM","events":[{{"introduced":"0"}}{end}]}}]}}]}}"#
            );
            assert!(import::import_document(&mut into, "x.json", text.as_bytes()).unwrap());
        }
    }
    Index::from_bytes(into.to_bytes("2026-01-01T00:00:00Z").unwrap()).unwrap()
}

fn packages(system: Ecosystem) -> impl Strategy<Value = Vec<Package>> {
    let kinds: Vec<Ecosystem> =
        [system, system].into_iter().chain(LANGUAGES.iter().map(|(kind, _)| *kind)).collect();
    let source = proptest::option::of((select(&NAMES[..]), select(&VERSIONS[..])));
    let module = proptest::option::of(select(&["a:1", "a:2"][..]));
    let parts = (select(kinds), select(&NAMES[..]), select(&VERSIONS[..]), source, module);
    let package = parts.prop_map(|(kind, name, version, source, module)| {
        let mut package = Package::new(kind, name, version, "x", EvidenceKind::Database);
        package.source = source
            .map(|(name, version)| Source { name: name.to_owned(), version: version.to_owned() });
        package.module = module.map(str::to_owned);
        package
    });
    proptest::collection::vec(package, 0..8)
}

fn inventory() -> impl Strategy<Value = Inventory> {
    select(&SYSTEMS[..]).prop_flat_map(|(id, version, system, _)| {
        packages(system).prop_map(move |packages| {
            let mut inventory = Inventory::empty();
            inventory.packages = packages;
            inventory.sort();
            inventory.distribution = Some(Distribution::new(id, Some(version)));
            inventory
        })
    })
}

proptest! {
    /// Whatever was asked before, and however little is remembered of it.
    #[test]
    fn many_are_judged_as_each_is_alone(
        inventories in proptest::collection::vec(inventory(), 1..12),
        limit in select(&[0, 5, 40, MAX_REMEMBERED][..]),
    ) {
        static DATABASE: std::sync::LazyLock<Index> = std::sync::LazyLock::new(database);
        let options = Options { today: "2026-01-10".to_owned(), ..Options::default() };
        let mut matcher = Matcher::remembering(limit);
        for inventory in &inventories {
            let together = matcher.judge(&DATABASE, inventory, &options).unwrap();
            let alone = judge(&DATABASE, inventory, &options).unwrap();
            prop_assert_eq!(
                serde_json::to_value(&together).unwrap(),
                serde_json::to_value(&alone).unwrap()
            );
        }
    }
}

#[test]
fn another_database_is_another_answer() {
    let mut none = Collector::new();
    none.feed(Feed { name: "feed".to_owned(), ..Feed::default() });
    let none = Index::from_bytes(none.to_bytes("2026-01-01T00:00:00Z").unwrap()).unwrap();
    let mut inventory = Inventory::empty();
    inventory.packages =
        vec![Package::new(Ecosystem::Npm, "b", "1.0", "x", EvidenceKind::Database)];
    let mut matcher = Matcher::new();
    let mut findings = |index: &Index| {
        matcher.judge(index, &inventory, &Options::default()).unwrap().findings.len()
    };
    let some = database();
    assert_eq!((findings(&some) > 0, findings(&none), findings(&some) > 0), (true, 0, true));
}

#[test]
fn what_an_image_says_does_not_make_two_questions_one() {
    let mut plain = Package::new(Ecosystem::Apk, "a", "x", "x", EvidenceKind::Database);
    plain.source = Some(Source { name: "b".to_owned(), version: "x".to_owned() });
    let mut keys = Vec::new();
    let sly = ["a\0x", "a", "x\0b\0x"];
    for package in sly
        .iter()
        .flat_map(|name| sly.iter().map(move |version| (*name, *version)))
        .map(|(name, version)| {
            Package::new(Ecosystem::Apk, name, version, "x", EvidenceKind::Database)
        })
        .chain([plain])
    {
        let mut key = Vec::new();
        Question::os(0, &package).key(&[], &mut key);
        keys.push(key);
    }
    let many = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), many);
}
