//! How long it takes to judge many stored inventories anew: `rematch DATABASE [INVENTORIES [FILE]]`.
//!
//! The inventories are those of a bill of materials again and again, or made up from the database's own
//! names: 150 Debian packages and 50 of npm each, at versions around the oldest fixes, with thousands
//! of findings. As images do, they have packages in common; how many different ones there are is
//! printed. Measured is, on one processor: reading them in the form in which they are kept (read), and
//! judging them into full reports, each on its own (alone) and one after another by what is remembered
//! (together). That both say the same is compared.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use brig_scan::db::Index;
use brig_scan::distribution::Distribution;
use brig_scan::kept;
use brig_scan::matching::{Matcher, Options, judge};
use brig_scan::package::{Ecosystem, EvidenceKind, Inventory, Package};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: rematch DATABASE [INVENTORIES [FILE]]")?;
    let count: usize = arguments.next().map_or(Ok(1000), |count| count.parse())?;
    let started = Instant::now();
    let index = Index::open(Path::new(&path))?;
    println!("open: {:?}", started.elapsed());
    let inventories: Vec<Inventory> = match arguments.next() {
        Some(file) => vec![brig_scan::sbom::read(&std::fs::read(file)?)?; count],
        None => {
            let pool: Vec<Vec<Package>> = [("debian:12", Ecosystem::Deb), ("npm", Ecosystem::Npm)]
                .into_iter()
                .map(|(space, ecosystem)| packages(&index, space, ecosystem))
                .collect::<Result<_, _>>()?;
            (0..count).map(|seed| inventory(&pool, seed)).collect()
        }
    };
    let options = Options { today: "2026-11-22".to_owned(), ..Options::default() };
    let different: BTreeSet<_> = inventories
        .iter()
        .flat_map(|inventory| &inventory.packages)
        .map(|package| (package.ecosystem, &package.name, &package.version))
        .collect();
    println!("{count} inventories of {} different packages", different.len());
    let kept: Vec<Vec<u8>> = inventories.iter().map(kept::encode).collect::<Result<_, _>>()?;
    let started = Instant::now();
    for (bytes, inventory) in kept.iter().zip(&inventories) {
        if kept::decode::<Inventory>(bytes)? != *inventory {
            return Err("what was kept is not what comes back".into());
        }
    }
    println!("read: {:?}", started.elapsed());
    for round in ["together, cold", "together, warm"] {
        let started = Instant::now();
        let mut findings = 0;
        let mut matcher = Matcher::new();
        for inventory in &inventories {
            findings += matcher.judge(&index, inventory, &options)?.findings.len();
        }
        println!("{round}: {findings} findings in {:?}", started.elapsed());
    }
    let mut matcher = Matcher::new();
    let mut alone = Duration::ZERO;
    for inventory in &inventories {
        let together = matcher.judge(&index, inventory, &options)?;
        let started = Instant::now();
        let report = judge(&index, inventory, &options)?;
        alone += started.elapsed();
        if report.verdict != together.verdict || report.findings != together.findings {
            return Err("judged alone the answer is another one".into());
        }
    }
    println!("alone: {alone:?}");
    Ok(())
}

fn packages(
    index: &Index,
    space: &str,
    ecosystem: Ecosystem,
) -> Result<Vec<Package>, Box<dyn Error>> {
    let space = index.space(space)?.ok_or("the database lacks a space that this needs")?;
    let mut packages = Vec::new();
    for name in space.package_names()? {
        for row in space.rows(name, &mut 0)?.iter().take(2) {
            let fixed = index.intervals(row)?.iter().find_map(|interval| interval.fixed());
            let version = fixed.unwrap_or("1.0");
            packages.push(Package::new(ecosystem, name, version, "x", EvidenceKind::Database));
        }
    }
    Ok(packages)
}

fn inventory(pool: &[Vec<Package>], seed: usize) -> Inventory {
    let mut inventory = Inventory::empty();
    for (packages, wanted) in pool.iter().zip([150, 50]) {
        let chosen = (0..wanted)
            .filter_map(|at| packages.get((seed * 7919 + at * 104_729) % packages.len().max(1)));
        inventory.packages.extend(chosen.cloned());
    }
    inventory.sort();
    inventory.distribution = Some(Distribution::new("debian", Some("12")));
    inventory
}
