//! The whole way over real advisories: every feed of `BRIG_TEST_DATA` into one database, probes
//! around every bound that the feeds name, and the answers held against an evaluation that shares no
//! code with this crate (`evaluate.py`, written from the specifications). Without the variable only
//! a small set of feeds beside this file is read.
//!
//! The differences between the two that are accepted are listed in `evaluate.py`; the test accepts
//! none beyond them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use brig_scan::db::{Collector, Feed, Index, import};
use brig_scan::distribution::Distribution;
use brig_scan::matching::{Options, judge};
use brig_scan::package::{Ecosystem, EvidenceKind, Inventory, Package};

/// Probes of one space; more are thinned out evenly.
const MAX_PROBES: usize = 150;

fn data() -> PathBuf {
    match std::env::var_os("BRIG_TEST_DATA") {
        Some(folder) => PathBuf::from(folder).join("vulndb"),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/feeds"),
    }
}

fn build(folder: &Path) -> Index {
    let mut into = Collector::new();
    let mut feeds: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    feeds.sort();
    for feed in feeds {
        let name = feed.file_name().unwrap().to_string_lossy().into_owned();
        // Samples of many publishers contradict the real feeds on purpose; VEX documents are no feed.
        if name.starts_with("README")
            || name.starts_with("samples-")
            || name.starts_with("js-retire")
        {
            continue;
        }
        let about = Feed { name: name.clone(), origin: name.clone(), ..Feed::default() };
        let read = import::import_path(&mut into, about, &feed).unwrap();
        eprintln!(
            "{name}: {} records, {} skipped ({:?})",
            read.records, read.skipped, read.skipped_because
        );
        // What these databases say about Node and Ruby themselves names no package.
        let few = read.skipped * 20 <= read.records
            || name.starts_with("npm-security-wg")
            || name.starts_with("rubysec");
        assert!(few, "{name}: {} of {} skipped", read.skipped, read.records);
    }
    let started = Instant::now();
    let bytes = into.to_bytes("2026-11-22T00:00:00Z").unwrap();
    eprintln!("index: {} bytes, written in {:?}", bytes.len(), started.elapsed());
    let index = Index::from_bytes(bytes).unwrap();
    index.verify().unwrap();
    index
}

/// The ecosystem and distribution whose packages a space judges; none for spaces without a judge.
fn host(space: &str) -> Option<(Ecosystem, Option<Distribution>)> {
    let (family, release) = space.split_once(':').unwrap_or((space, ""));
    let (ecosystem, id) = match family {
        "debian" | "ubuntu" => (Ecosystem::Deb, family),
        "alpine" => (Ecosystem::Apk, family),
        "almalinux" | "rocky" => (Ecosystem::Rpm, family),
        "npm" => return Some((Ecosystem::Npm, None)),
        "pypi" => return Some((Ecosystem::PyPi, None)),
        "go" => return Some((Ecosystem::Go, None)),
        "cargo" => return Some((Ecosystem::Cargo, None)),
        "maven" => return Some((Ecosystem::Maven, None)),
        "gem" => return Some((Ecosystem::Gem, None)),
        "composer" => return Some((Ecosystem::Composer, None)),
        "nuget" => return Some((Ecosystem::NuGet, None)),
        _ => return None,
    };
    // Unstable has a codename only.
    let numbered = release.starts_with(|c: char| c.is_ascii_digit());
    let distribution = Distribution {
        codename: (!numbered).then(|| release.to_owned()),
        ..Distribution::new(id, Some(release).filter(|_| numbered))
    };
    Some((ecosystem, Some(distribution)))
}

fn package(ecosystem: Ecosystem, name: &str, version: &str) -> Package {
    Package::new(ecosystem, name, version, "x", EvidenceKind::Database)
}

/// Each bound of each statement, and something just beside it.
fn probes(index: &Index, space: &str) -> Vec<(String, String)> {
    let space = index.space(space).unwrap().unwrap();
    let mut found = BTreeSet::new();
    for name in space.package_names().unwrap() {
        for row in space.rows(name, &mut 0).unwrap() {
            for interval in index.intervals(&row).unwrap() {
                for bound in
                    [Some(interval.from), interval.end.map(|(end, _)| end)].into_iter().flatten()
                {
                    if !bound.is_empty() && !bound.contains(char::is_whitespace) {
                        found.insert((name.to_owned(), bound.to_owned()));
                        found.insert((name.to_owned(), format!("{bound}.1")));
                    }
                }
            }
        }
        found.insert((name.to_owned(), "0.0.1".to_owned()));
        found.insert((name.to_owned(), "99999.0".to_owned()));
    }
    let every = found.len().div_ceil(MAX_PROBES).max(1);
    found.into_iter().step_by(every).collect()
}

#[test]
fn findings_are_those_of_an_independent_evaluation() {
    let folder = data();
    let index = build(&folder);
    let options = Options { today: "2026-11-22".to_owned(), ..Options::default() };
    let mut lines = String::new();
    let mut ours: BTreeSet<String> = BTreeSet::new();
    let mut probed = 0;
    for space in index.spaces().unwrap() {
        let Some((ecosystem, distribution)) = host(space.name) else { continue };
        let probes = probes(&index, space.name);
        let mut inventory = Inventory::empty();
        inventory.distribution = distribution;
        inventory.packages =
            probes.iter().map(|(name, version)| package(ecosystem, name, version)).collect();
        inventory.sort();
        let report = judge(&index, &inventory, &options).unwrap();
        for finding in &report.findings {
            // Subscribers' advisories are another space's, unless they say more about a flaw that
            // this space knows too.
            if finding.evidence.space != space.name {
                let flaw = index.find(&finding.id).unwrap().unwrap();
                let rows = space.rows(&finding.evidence.matched, &mut 0).unwrap();
                if !rows.iter().any(|row| row.flaw == flaw) {
                    continue;
                }
            }
            let package = &inventory.packages[finding.package];
            let ids: Vec<&str> = if ecosystem.is_os() {
                vec![&finding.id]
            } else {
                finding.advisories.iter().map(String::as_str).collect()
            };
            for id in ids {
                ours.insert(format!("{}\t{}\t{}\t{id}", space.name, package.name, package.version));
            }
        }
        for (name, version) in &probes {
            lines.push_str(&format!("{}\t{name}\t{version}\n", space.name));
        }
        probed += probes.len();
    }
    let Ok(mut evaluator) = Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evaluate.py"))
        .arg(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
    else {
        eprintln!("skipped: python3 is not installed");
        return;
    };
    let mut stdin = evaluator.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = evaluator.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let theirs: BTreeSet<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    let missed: Vec<&String> = theirs.difference(&ours).collect();
    let extra: Vec<&String> = ours.difference(&theirs).collect();
    eprintln!(
        "{probed} probes, {} findings, {} missed, {} extra",
        ours.len(),
        missed.len(),
        extra.len()
    );
    for (kind, list) in [("missed", &missed), ("extra", &extra)] {
        for line in list.iter().take(30) {
            eprintln!("{kind}: {line}");
        }
    }
    assert!(!ours.is_empty());
    assert!(missed.is_empty() && extra.is_empty());
}
