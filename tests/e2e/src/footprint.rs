//! What a daemon has on the machine right now, to be compared with what it had before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Brigd;

/// Everything of one daemon's, by kind: mounts, interfaces, packet rules, cgroups, files,
/// processes, network namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint(BTreeMap<&'static str, BTreeSet<String>>);

impl Footprint {
    /// Looks at what is there.
    #[must_use]
    pub fn of(daemon: &Brigd) -> Self {
        let root = daemon.root().display().to_string();
        let suffix = daemon.instance();
        Self(BTreeMap::from([
            ("mounts", mounts(&root)),
            ("interfaces", interfaces(&suffix)),
            ("packet rules", rules(&suffix)),
            ("cgroups", cgroups(&suffix)),
            ("files", files(daemon)),
            ("processes", processes(&root, daemon.pid())),
            ("namespaces", namespaces(daemon.pid())),
        ]))
    }

    /// What is there and was not in `before`, and the other way round, one a line.
    #[must_use]
    pub fn differences(&self, before: &Self) -> String {
        let mut lines = Vec::new();
        for (kind, now) in &self.0 {
            let then = before.0.get(kind).cloned().unwrap_or_default();
            lines.extend(now.difference(&then).map(|item| format!("+ {kind}: {item}")));
            lines.extend(then.difference(now).map(|item| format!("- {kind}: {item}")));
        }
        lines.join("\n")
    }

    /// How many things of each kind there are.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        self.0.iter().map(|(kind, items)| (*kind, items.len())).collect()
    }
}

fn mounts(root: &str) -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table");
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|place| place.starts_with(root))
        .map(str::to_owned)
        .collect()
}

/// The daemon's bridges and what is plugged into them.
fn interfaces(suffix: &str) -> BTreeSet<String> {
    let mark = format!("brig:{suffix}:");
    let ours = |name: &Path| {
        fs::read_to_string(name.join("ifalias")).is_ok_and(|alias| alias.starts_with(&mark))
    };
    let links = fs::read_dir("/sys/class/net").expect("the interfaces");
    links
        .flatten()
        .filter(|link| ours(&link.path()) || ours(&link.path().join("brport/bridge")))
        .map(|link| link.file_name().to_string_lossy().into_owned())
        .collect()
}

fn rules(suffix: &str) -> BTreeSet<String> {
    let nft = |args: &[&str]| {
        let output = Command::new("nft").args(args).output().expect("nft starts");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let tables = nft(&["list", "tables"]);
    let name = format!("brig_{suffix}");
    let ours = tables.lines().filter(|line| line.split(' ').next_back() == Some(name.as_str()));
    ours.flat_map(|table| {
        let mut words = table.split(' ').skip(1);
        let (family, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let lines: Vec<String> =
            nft(&["list", "table", family, name]).lines().map(|l| l.trim().to_owned()).collect();
        lines
    })
    .collect()
}

/// Control groups below the daemon's own.
fn cgroups(suffix: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mark = format!("brig-{suffix}");
    walk(Path::new("/sys/fs/cgroup"), &mut |path, is_dir| {
        if is_dir && path.components().any(|part| part.as_os_str() == mark.as_str()) {
            found.insert(path.display().to_string());
        }
    });
    found
}

fn files(daemon: &Brigd) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for root in [daemon.data_root(), daemon.exec_root()] {
        walk(&root, &mut |path, _| {
            found.insert(path.display().to_string());
        });
    }
    found
}

/// Calls `see` for everything below `dir`; links are not followed.
fn walk(dir: &Path, see: &mut impl FnMut(&Path, bool)) {
    for item in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = item.path();
        let is_dir = item.file_type().is_ok_and(|kind| kind.is_dir());
        see(&path, is_dir);
        if is_dir {
            walk(&path, see);
        }
    }
}

/// Processes that have the daemon's root in their command line: monitors and helpers.
fn processes(root: &str, daemon: u32) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for item in fs::read_dir("/proc").expect("the processes").flatten() {
        let Ok(pid) = item.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(line) = fs::read(item.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(root) && pid != daemon {
            found.insert(line);
        }
    }
    found
}

/// Network namespaces that the daemon holds by a descriptor or a thread.
fn namespaces(daemon: u32) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for item in fs::read_dir(format!("/proc/{daemon}/fd")).into_iter().flatten().flatten() {
        if let Ok(target) = fs::read_link(item.path())
            && target.to_string_lossy().starts_with("net:[")
        {
            found.insert(target.display().to_string());
        }
    }
    for item in fs::read_dir(format!("/proc/{daemon}/task")).into_iter().flatten().flatten() {
        if let Ok(target) = fs::read_link(item.path().join("ns/net")) {
            found.insert(target.display().to_string());
        }
    }
    found
}
