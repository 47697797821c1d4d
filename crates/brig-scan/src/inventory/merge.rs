//! Layers on top of each other: what stays, and who brought it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::detect::Reader;
use super::layer::{Findings, LayerInventory, exact_key};
use crate::package::{Ecosystem, ImageFacts, Inventory, Layer, Package, Unread};
use crate::parse::{path_key, release};

/// How many links are followed one after the other.
const MAX_LINKS: usize = 8;

/// A package's record, by which layers are compared.
type Record = (Ecosystem, String, String, Option<String>);

/// A file as the layers so far leave it.
struct Present<'a> {
    findings: &'a Findings,
    /// The layer in which each record of the file began to be there without a break.
    since: HashMap<Record, usize>,
}

/// Puts layers together, the bottom first.
#[must_use]
pub fn merge(layers: &[(Layer, &LayerInventory)], image: ImageFacts) -> Inventory {
    let mut inventory = Inventory::empty();
    inventory.image = image;
    inventory.layers = layers.iter().map(|(layer, _)| layer.clone()).collect();

    let mut present: BTreeMap<&str, Present<'_>> = BTreeMap::new();
    let mut links: BTreeMap<&str, &str> = BTreeMap::new();
    let mut unread: BTreeMap<&str, Vec<(usize, Reader, &str)>> = BTreeMap::new();
    for (index, (_, layer)) in layers.iter().enumerate() {
        // Whiteouts act on what lies below, so they come before what the layer brings.
        let hides = Hides::new(layer);
        let mut before: HashMap<&str, HashMap<Record, usize>> = HashMap::new();
        present.retain(|path, file| match hides.what(path) {
            Hidden::No => true,
            Hidden::Replaced => {
                before.insert(path, std::mem::take(&mut file.since));
                false
            }
            Hidden::Removed => false,
        });
        links.retain(|path, _| matches!(hides.what(path), Hidden::No));
        unread.retain(|path, _| matches!(hides.what(path), Hidden::No));
        for (path, findings) in &layer.files {
            let old = before.remove(path.as_str()).unwrap_or_default();
            let since = findings
                .packages
                .iter()
                .map(|package| {
                    let record = record(package);
                    let first = old.get(&record).copied().unwrap_or(index);
                    (record, first)
                })
                .collect();
            present.insert(path, Present { findings, since });
        }
        links.extend(layer.links.iter().map(|(path, target)| (path.as_str(), target.as_str())));
        for (path, reader, reason) in &layer.unread {
            unread.entry(path).or_default().push((index, *reader, reason));
        }
    }

    let diff_id = |index: usize| {
        let layer = layers.get(index).map(|(layer, _)| layer.diff_id.clone());
        layer.filter(|digest| *digest != nothing())
    };
    for (path, notes) in unread {
        inventory.unread.extend(notes.into_iter().map(|(index, reader, reason)| Unread {
            path: path.to_owned(),
            layer: diff_id(index),
            reader: reader.name().to_owned(),
            reason: reason.to_owned(),
        }));
    }
    follow(&links, &present, &mut inventory);
    inventory.distribution = release::distribution(
        present
            .iter()
            .filter(|(_, file)| file.findings.reader == Reader::Sign)
            .map(|(path, file)| (*path, file.findings.sign.as_bytes())),
    );
    collect(&present, &diff_id, &mut inventory);
    inventory.sort();
    inventory
}

/// The diff id that stands for none: that of a directory's only layer.
pub(super) fn nothing() -> brig_types::digest::Digest {
    brig_types::digest::Digest::from_sha256([0; 32])
}

fn record(package: &Package) -> Record {
    (package.ecosystem, package.name.clone(), package.version.clone(), package.arch.clone())
}

enum Hidden {
    No,
    /// The layer has something else at the same path.
    Replaced,
    /// The path, or a folder above it, is gone.
    Removed,
}

/// What a layer hides of those below.
struct Hides<'a> {
    layer: &'a LayerInventory,
}

impl<'a> Hides<'a> {
    fn new(layer: &'a LayerInventory) -> Self {
        Self { layer }
    }

    fn covers(&self, path: &str) -> bool {
        self.layer.covers.binary_search(&exact_key(path)).is_ok()
    }

    fn what(&self, path: &str) -> Hidden {
        let layer = self.layer;
        if layer.removed.contains(path) {
            return Hidden::Removed;
        }
        if layer.opaque.contains("") {
            return Hidden::Removed;
        }
        for (at, _) in path.match_indices('/') {
            let folder = path.get(..at).unwrap_or_default();
            if layer.removed.contains(folder)
                || layer.opaque.contains(folder)
                || self.covers(folder)
            {
                return Hidden::Removed;
            }
        }
        if self.covers(path) { Hidden::Replaced } else { Hidden::No }
    }
}

/// Tells of links that stand where a database or sign was expected, unless what they lead to was
/// read under its own name.
fn follow(
    links: &BTreeMap<&str, &str>,
    present: &BTreeMap<&str, Present<'_>>,
    inventory: &mut Inventory,
) {
    for (path, target) in links {
        let mut at = resolve(path, target);
        for _ in 0..MAX_LINKS {
            match links.get(at.as_str()) {
                Some(next) => at = resolve(&at, next),
                None => break,
            }
        }
        if !present.contains_key(at.as_str()) {
            let shown: String = target.chars().take(200).collect();
            inventory.unread.push(Unread {
                path: (*path).to_owned(),
                layer: None,
                reader: super::detect::reader(path).map_or("", Reader::name).to_owned(),
                reason: format!("it is a symbolic link to {shown:?}, where nothing was read"),
            });
        }
    }
}

/// Where a link at `path` leads, without leaving the image's root.
fn resolve(path: &str, target: &str) -> String {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let from: &str = if target.starts_with('/') { "" } else { folder };
    let mut parts: Vec<&str> = from.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Takes the packages of all files, with their layers and owners.
fn collect(
    present: &BTreeMap<&str, Present<'_>>,
    diff_id: &dyn Fn(usize) -> Option<brig_types::digest::Digest>,
    inventory: &mut Inventory,
) {
    let mut owners: HashMap<u64, &str> = HashMap::new();
    for file in present.values() {
        for (package, keys) in &file.findings.owned {
            owners.extend(keys.iter().map(|key| (*key, package.as_str())));
        }
    }
    let mut systems: HashSet<Record> = HashSet::new();
    for (path, file) in present {
        if superseded(path, file.findings.reader, present) {
            continue;
        }
        for package in &file.findings.packages {
            let record = record(package);
            let layer = file.since.get(&record).copied();
            let mut package = package.clone();
            package.layer = layer.and_then(diff_id);
            if package.ecosystem.is_os() {
                // A database that is there under two names tells everything twice.
                if !systems.insert(record) {
                    continue;
                }
            } else {
                package.owned_by = owners.get(&path_key(path)).map(|owner| (*owner).to_owned());
            }
            inventory.packages.push(package);
        }
    }
}

/// Whether rpm has a newer kind of database beside this one: it leaves the old one behind when it
/// converts.
fn superseded(path: &str, reader: Reader, present: &BTreeMap<&str, Present<'_>>) -> bool {
    let Some((folder, _)) = path.rsplit_once('/') else { return false };
    let has = |base: &str| present.contains_key(format!("{folder}/{base}").as_str());
    match reader {
        Reader::RpmBdb => has("rpmdb.sqlite") || has("Packages.db"),
        Reader::RpmNdb => has("rpmdb.sqlite"),
        _ => false,
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
