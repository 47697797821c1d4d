use brig_types::digest::Digest;

use super::*;
use crate::inventory::Limits;
use crate::inventory::layer::read_layer;

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files {
        let (kind, name) = match name.strip_suffix('@') {
            Some(name) => (b'2', name),
            None if name.ends_with('/') => (b'5', *name),
            None => (b'0', *name),
        };
        let mut block = [0_u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000644");
        let size = if kind == b'0' { content.len() } else { 0 };
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[156] = kind;
        if kind == b'2' {
            block[157..157 + content.len()].copy_from_slice(content.as_bytes());
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend(block);
        if kind == b'0' {
            out.extend(content.as_bytes());
            out.resize(out.len().next_multiple_of(512), 0);
        }
    }
    out
}

fn merged(layers: &[&[(&str, &str)]]) -> Inventory {
    let read: Vec<LayerInventory> = layers
        .iter()
        .map(|files| {
            let layer = read_layer(&tar(files)[..], &Limits::default()).unwrap();
            // As it would be stored.
            serde_json::from_str(&serde_json::to_string(&layer).unwrap()).unwrap()
        })
        .collect();
    let with_facts: Vec<(Layer, &LayerInventory)> = read
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            let diff_id = digest(index);
            (Layer { diff_id, created_by: None, created: None, size: 0 }, layer)
        })
        .collect();
    merge(&with_facts, ImageFacts::default())
}

fn digest(index: usize) -> Digest {
    Digest::from_sha256([u8::try_from(index + 1).unwrap(); 32])
}

fn listed(inventory: &Inventory) -> Vec<String> {
    inventory
        .packages
        .iter()
        .map(|package| {
            let layer = package.layer.as_ref().and_then(|digest| inventory.layer_index(digest));
            format!("{} {} {}", package.name, package.version, layer.unwrap())
        })
        .collect()
}

fn status(packages: &[(&str, &str)]) -> String {
    packages
        .iter()
        .map(|(name, version)| {
            format!("Package: {name}\nStatus: install ok installed\nVersion: {version}\n\n")
        })
        .collect()
}

const STATUS: &str = "var/lib/dpkg/status";

#[test]
fn a_package_belongs_to_the_layer_that_first_had_its_record() {
    let base = status(&[("libc6", "2.36"), ("gone", "1")]);
    let more = status(&[("libc6", "2.36"), ("curl", "7.88")]);
    let newer = status(&[("libc6", "2.37"), ("curl", "7.88"), ("gone", "1")]);
    let inventory =
        merged(&[&[(STATUS, &base)], &[(STATUS, &more)], &[("etc/x", "")], &[(STATUS, &newer)]]);
    assert_eq!(listed(&inventory), ["curl 7.88 1", "gone 1 3", "libc6 2.37 3"]);
}

const META: &str = "usr/lib/python3/dist-packages/a-1.dist-info/METADATA";
const META_TEXT: &str = "Name: a\nVersion: 1\n";
const NODE: &str = "app/node_modules/b/package.json";
const NODE_TEXT: &str = "{\"name\":\"b\",\"version\":\"2\"}";

#[test]
fn whiteouts_act_on_lower_layers_only() {
    let base: &[(&str, &str)] = &[(META, META_TEXT), (NODE, NODE_TEXT)];
    let names = |above: &[(&str, &str)]| listed(&merged(&[base, above]));
    assert_eq!(names(&[]), ["a 1 0", "b 2 0"]);
    assert_eq!(names(&[("app/node_modules/.wh.b", "")]), ["a 1 0"]);
    assert_eq!(names(&[(".wh.app", "")]), ["a 1 0"]);
    assert_eq!(names(&[("app/.wh..wh..opq", "")]), ["a 1 0"]);
    assert_eq!(names(&[(".wh..wh..opq", "")]), [""; 0]);
    // What the layer itself brings stays, whatever the order.
    assert_eq!(names(&[(NODE, NODE_TEXT), ("app/.wh..wh..opq", "")]), ["a 1 0", "b 2 1"]);
    assert_eq!(names(&[("app/.wh..wh..opq", ""), (NODE, NODE_TEXT)]), ["a 1 0", "b 2 1"]);
    assert_eq!(names(&[("app/.wh.node_modules", ""), (NODE, NODE_TEXT)]), ["a 1 0", "b 2 1"]);
    // Written again as it was: it was there before.
    assert_eq!(names(&[(NODE, NODE_TEXT)]), ["a 1 0", "b 2 0"]);
    // AUFS' marks remove nothing.
    assert_eq!(names(&[(".wh..wh.plnk", ""), (".wh..wh.aufs", "")]), ["a 1 0", "b 2 0"]);
}

#[test]
fn a_file_over_a_folder_hides_what_was_in_it() {
    let base: &[(&str, &str)] = &[(META, META_TEXT), (NODE, NODE_TEXT)];
    let names = |above: &[(&str, &str)]| listed(&merged(&[base, above]));
    assert_eq!(names(&[("app", "a file")]), ["a 1 0"]);
    assert_eq!(names(&[("app/node_modules@", "/elsewhere")]), ["a 1 0"]);
    // A folder, or something unreadable, in a file's place.
    assert_eq!(names(&[(&format!("{NODE}/"), "")]), ["a 1 0"]);
    let broken = merged(&[base, &[(NODE, "{")]]);
    assert_eq!(listed(&broken), ["a 1 0"]);
    assert_eq!(broken.unread.len(), 1);
    assert_eq!(broken.unread[0].layer, Some(digest(1)));
    // And what was unreadable is forgotten with its file.
    assert!(merged(&[&[(NODE, "{")], &[(".wh.app", "")]]).unread.is_empty());
}

#[test]
fn the_last_of_two_entries_with_one_name_counts() {
    let other = "{\"name\":\"b\",\"version\":\"3\"}";
    assert_eq!(listed(&merged(&[&[(NODE, NODE_TEXT), (NODE, other)]])), ["b 3 0"]);
    assert_eq!(listed(&merged(&[&[(NODE, NODE_TEXT), (&format!("{NODE}@"), "x")]])), [""; 0]);
}

#[test]
fn what_the_system_owns_is_marked() {
    let list = format!("/.\n/{META}\n");
    let inventory = merged(&[&[
        (STATUS, &status(&[("python3-a", "1.0-2")])),
        ("var/lib/dpkg/info/python3-a.list", &list),
        (META, META_TEXT),
        (NODE, NODE_TEXT),
    ]]);
    let owner =
        |name: &str| inventory.packages.iter().find(|p| p.name == name).unwrap().owned_by.clone();
    assert_eq!(owner("a").as_deref(), Some("python3-a"));
    assert_eq!(owner("b"), None);
    assert_eq!(owner("python3-a"), None);
}

#[test]
fn links_are_told_and_not_followed_outside() {
    let inventory = merged(&[&[
        ("var/lib/dpkg/status@", "/etc/shadow"),
        ("etc/os-release@", "../usr/lib/os-release"),
        ("usr/lib/os-release", "ID=debian\nVERSION_ID=12\n"),
    ]]);
    assert_eq!(inventory.unread.len(), 1);
    assert_eq!(inventory.unread[0].path, STATUS);
    assert!(inventory.unread[0].reason.contains("/etc/shadow"), "{:?}", inventory.unread);
    assert_eq!(inventory.distribution.unwrap().qualifier(), "debian-12");
    assert_eq!(resolve("a/b", "../../../x"), "x");
    assert_eq!(resolve("a/b", "c/./d"), "a/c/d");
}

#[test]
fn a_loop_of_links_ends() {
    let inventory = merged(&[&[
        ("etc/os-release@", "../usr/lib/os-release"),
        ("usr/lib/os-release@", "../../etc/os-release"),
    ]]);
    assert_eq!((inventory.unread.len(), inventory.distribution), (2, None));
}

#[test]
fn entries_that_escape_are_told() {
    let inventory = merged(&[&[("../../var/lib/dpkg/status", &status(&[("evil", "1")]))]]);
    assert!(inventory.packages.is_empty());
    assert_eq!(inventory.unread[0].reason, "its name leads above the image's root");
}
