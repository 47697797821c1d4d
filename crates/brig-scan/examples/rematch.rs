//! How long it takes to judge many stored inventories anew: `rematch DATABASE [INVENTORIES [FILE]]`.
//!
//! The inventories are those of a bill of materials again and again, or made up from the database's own
//! names: 150 Debian packages and 50 of npm each, at versions around the oldest fixes, with thousands
//! of findings.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use brig_scan::db::Index;
use brig_scan::distribution::Distribution;
use brig_scan::matching::{Options, judge};
use brig_scan::package::{Ecosystem, EvidenceKind, Inventory, Package};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: rematch DATABASE [INVENTORIES]")?;
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
    for round in ["cold", "warm"] {
        let started = Instant::now();
        let mut findings = 0;
        for inventory in &inventories {
            findings += judge(&index, inventory, &options)?.findings.len();
        }
        println!("{round}: {count} inventories, {findings} findings in {:?}", started.elapsed());
    }
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
