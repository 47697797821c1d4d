//! Lock files: what a project wants, perhaps not what is installed. Read from directories only.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::package::{Ecosystem, EvidenceKind, Package};
use crate::purl::normal_python_name;

use super::{ParseError, Parsed};

fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ParseError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ParseError::malformed(format!("it is no lock file: {error}")))
}

#[derive(Deserialize)]
struct NpmLock {
    #[serde(default)]
    packages: BTreeMap<String, NpmEntry>,
    #[serde(default)]
    dependencies: BTreeMap<String, NpmOld>,
}

#[derive(Deserialize)]
struct NpmEntry {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    link: bool,
    #[serde(default)]
    dev: bool,
}

#[derive(Deserialize)]
struct NpmOld {
    #[serde(default)]
    version: String,
    #[serde(default)]
    dev: bool,
    #[serde(default)]
    dependencies: BTreeMap<String, NpmOld>,
}

/// Reads `package-lock.json` of any version, without what is for development only.
///
/// # Errors
/// [`ParseError::Malformed`] when it is no such file.
pub fn npm(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    let lock: NpmLock = json(bytes)?;
    let mut parsed = Parsed::default();
    for (place, entry) in &lock.packages {
        let Some((_, folder)) = place.rsplit_once("node_modules/") else { continue };
        if let Some(version) = entry.version.as_deref().filter(|_| !entry.link && !entry.dev) {
            let name = entry.name.as_deref().unwrap_or(folder);
            parsed.push(Package::new(
                Ecosystem::Npm,
                name,
                version,
                path,
                EvidenceKind::Declared,
            ))?;
        }
    }
    if lock.packages.is_empty() {
        old_npm(&lock.dependencies, path, &mut parsed)?;
    }
    Ok(parsed)
}

// JSON's own bound on depth bounds this one.
fn old_npm(
    entries: &BTreeMap<String, NpmOld>,
    path: &str,
    parsed: &mut Parsed,
) -> Result<(), ParseError> {
    for (name, entry) in entries {
        if entry.dev {
            continue;
        }
        let aliased = entry.version.strip_prefix("npm:").and_then(|real| real.rsplit_once('@'));
        let (name, version) = aliased.unwrap_or((name, &entry.version));
        // Others are folders and addresses.
        if version.starts_with(|c: char| c.is_ascii_digit()) {
            parsed.push(Package::new(
                Ecosystem::Npm,
                name,
                version,
                path,
                EvidenceKind::Declared,
            ))?;
        }
        old_npm(&entry.dependencies, path, parsed)?;
    }
    Ok(())
}

/// Reads the `[[package]]` tables that Cargo, Poetry, PDM and uv write.
///
/// # Errors
/// [`ParseError`] when it lists too much.
pub fn tables(bytes: &[u8], path: &str, ecosystem: Ecosystem) -> Result<Parsed, ParseError> {
    let text = String::from_utf8_lossy(bytes);
    let mut parsed = Parsed::default();
    let (mut inside, mut name, mut version, mut registry) = (false, None, None, true);
    let mut finish =
        |name: &mut Option<String>, version: &mut Option<String>, registry: bool| match (
            name.take(),
            version.take(),
        ) {
            (Some(name), Some(version)) if registry => {
                let name =
                    if ecosystem == Ecosystem::PyPi { normal_python_name(&name) } else { name };
                parsed.push(Package::new(ecosystem, name, version, path, EvidenceKind::Declared))
            }
            _ => Ok(()),
        };
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            finish(&mut name, &mut version, registry)?;
            (inside, registry) = (line == "[[package]]", true);
            continue;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| inside) else { continue };
        let value = value.trim();
        match key.trim() {
            "name" => name = quoted(value),
            "version" => version = quoted(value),
            // uv's own project.
            "source" => registry = !value.contains("virtual =") && !value.contains("editable ="),
            _ => {}
        }
    }
    finish(&mut name, &mut version, registry)?;
    Ok(parsed)
}

fn quoted(value: &str) -> Option<String> {
    let inner = value.strip_prefix('"')?;
    Some(inner.get(..inner.find('"')?)?.to_owned())
}

/// Reads `requirements.txt`: lines that pin a version.
///
/// # Errors
/// [`ParseError`] when it lists too much.
pub fn requirements(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    let text = String::from_utf8_lossy(bytes);
    let mut parsed = Parsed::default();
    for line in text.lines() {
        let line = line.split(['#', ';', '\\']).next().unwrap_or_default();
        let line = line.split(" --").next().unwrap_or_default().trim();
        let Some((name, version)) = line.split_once("==") else { continue };
        let version = version.trim_start_matches('=').trim();
        let name = name.split('[').next().unwrap_or_default().trim();
        if version.contains(['*', ',', ' ']) || name.contains([' ', '/', ':']) {
            continue;
        }
        let name = normal_python_name(name);
        parsed.push(Package::new(Ecosystem::PyPi, name, version, path, EvidenceKind::Declared))?;
    }
    Ok(parsed)
}

#[derive(Deserialize)]
struct Pipfile {
    #[serde(default)]
    default: BTreeMap<String, PipfileEntry>,
}

#[derive(Deserialize)]
struct PipfileEntry {
    #[serde(default)]
    version: String,
}

/// Reads `Pipfile.lock`.
///
/// # Errors
/// [`ParseError::Malformed`] when it is no such file.
pub fn pipfile(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    let lock: Pipfile = json(bytes)?;
    let mut parsed = Parsed::default();
    for (name, entry) in lock.default {
        if let Some(version) = entry.version.strip_prefix("==") {
            let name = normal_python_name(&name);
            parsed.push(Package::new(
                Ecosystem::PyPi,
                name,
                version,
                path,
                EvidenceKind::Declared,
            ))?;
        }
    }
    Ok(parsed)
}

/// Reads `Gemfile.lock`: the gems of its `specs:`.
///
/// # Errors
/// [`ParseError`] when it lists too much.
pub fn gemfile(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    let text = String::from_utf8_lossy(bytes);
    let mut parsed = Parsed::default();
    let mut specs = false;
    for line in text.lines() {
        if !line.starts_with("    ") {
            specs = line.trim() == "specs:";
            continue;
        }
        // Six spaces begin what a gem asks for.
        let Some(entry) = line.strip_prefix("    ").filter(|rest| specs && !rest.starts_with(' '))
        else {
            continue;
        };
        let Some((name, version)) = entry.split_once(" (") else { continue };
        let version = version.trim_end_matches(')');
        let version = version.split('-').next().unwrap_or(version);
        parsed.push(Package::new(Ecosystem::Gem, name, version, path, EvidenceKind::Declared))?;
    }
    Ok(parsed)
}

/// Reads `go.mod`: what it requires, with its replacements.
///
/// # Errors
/// [`ParseError`] when it lists too much.
pub fn go_mod(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    let text = String::from_utf8_lossy(bytes);
    let mut required: Vec<(String, String)> = Vec::new();
    let mut replaced: BTreeMap<String, Option<(String, String)>> = BTreeMap::new();
    let mut block = String::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default().trim();
        let mut words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            [] => continue,
            [")"] => {
                block.clear();
                continue;
            }
            [verb, "("] => {
                (*verb).clone_into(&mut block);
                continue;
            }
            _ => {}
        }
        let verb = if block.is_empty() { words.remove(0) } else { &block };
        match (verb, words.as_slice()) {
            ("require", [name, version]) => {
                required.push(((*name).to_owned(), (*version).to_owned()));
            }
            ("replace", words) => {
                let Some(arrow) = words.iter().position(|word| *word == "=>") else { continue };
                let Some(old) = words.first() else { continue };
                let new = match words.get(arrow + 1..) {
                    Some([name, version]) => Some(((*name).to_owned(), (*version).to_owned())),
                    _ => None,
                };
                replaced.insert((*old).to_owned(), new);
            }
            _ => {}
        }
    }
    let mut parsed = Parsed::default();
    for (name, version) in required {
        let found = match replaced.get(&name) {
            Some(Some(other)) => other.clone(),
            Some(None) => continue,
            None => (name, version),
        };
        parsed.push(Package::new(Ecosystem::Go, found.0, found.1, path, EvidenceKind::Declared))?;
    }
    Ok(parsed)
}

#[derive(Deserialize)]
struct NuGetLock {
    #[serde(default)]
    dependencies: BTreeMap<String, BTreeMap<String, NuGetEntry>>,
}

#[derive(Deserialize)]
struct NuGetEntry {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    resolved: String,
}

/// Reads `packages.lock.json`.
///
/// # Errors
/// [`ParseError::Malformed`] when it is no such file.
pub fn nuget(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    let lock: NuGetLock = json(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes))?;
    let mut parsed = Parsed::default();
    for (name, entry) in lock.dependencies.into_values().flatten() {
        if entry.kind != "Project" && !entry.resolved.is_empty() {
            let found =
                Package::new(Ecosystem::NuGet, name, entry.resolved, path, EvidenceKind::Declared);
            parsed.push(found)?;
        }
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::names;
    use super::*;

    #[test]
    fn npm_in_its_versions() {
        let three = br#"{"lockfileVersion":3,"packages":{"":{"name":"app","version":"1.0.0"},
            "node_modules/a":{"version":"1.2.3"},"node_modules/b":{"version":"2.0.0","dev":true},
            "node_modules/a/node_modules/@s/c":{"version":"3.0.0"},
            "node_modules/alias":{"name":"real","version":"4.0.0"},
            "node_modules/here":{"resolved":"here","link":true}}}"#;
        assert_eq!(names(&npm(three, "x").unwrap()), ["a 1.2.3", "@s/c 3.0.0", "real 4.0.0"]);
        let one = br#"{"lockfileVersion":1,"dependencies":{"a":{"version":"1.0.0",
            "dependencies":{"b":{"version":"npm:real@2.0.0"}}},"c":{"version":"file:c"}}}"#;
        assert_eq!(names(&npm(one, "x").unwrap()), ["a 1.0.0", "real 2.0.0"]);
    }

    #[test]
    fn tables_of_packages() {
        let text = b"version = 3\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\ndependencies = [\n \"x\",\n]\n\n[package.metadata]\nname = \"no\"\n\n[[package]]\nname = \"A_b\"\nversion = \"2\"\n";
        assert_eq!(names(&tables(text, "x", Ecosystem::Cargo).unwrap()), ["serde 1.0.1", "A_b 2"]);
        let uv = b"[[package]]\nname = \"app\"\nversion = \"0.1\"\nsource = { virtual = \".\" }\n[[package]]\nname = \"A_b\"\nversion = \"2\"\n";
        assert_eq!(names(&tables(uv, "x", Ecosystem::PyPi).unwrap()), ["a-b 2"]);
    }

    #[test]
    fn the_others() {
        let pins = b"Django[argon2]==4.2.1 ; python_version > '3' # x\nflask>=2\nrequests==2.*\nurllib3==1.26 --hash=sha256:x\n-r other.txt\n";
        assert_eq!(names(&requirements(pins, "x").unwrap()), ["django 4.2.1", "urllib3 1.26"]);
        let pipfile_text = br#"{"default":{"Flask":{"version":"==2.0"},"x":{}},"develop":{"y":{"version":"==1"}}}"#;
        assert_eq!(names(&pipfile(pipfile_text, "x").unwrap()), ["flask 2.0"]);
        let gems = b"GEM\n  remote: https://x/\n  specs:\n    nokogiri (1.13.6-x86_64-linux)\n      racc (~> 1.4)\n    rake (13.0.6)\n\nPLATFORMS\n  ruby\n";
        assert_eq!(names(&gemfile(gems, "x").unwrap()), ["nokogiri 1.13.6", "rake 13.0.6"]);
        let go = b"module m\ngo 1.22\nrequire (\n\ta.b/c v1.0.0 // indirect\n\td.e/f v2.0.0\n\tg.h/i v1.0.0\n)\nreplace d.e/f => d.e/g v2.1.0\nreplace g.h/i v1.0.0 => ../i\n";
        assert_eq!(names(&go_mod(go, "x").unwrap()), ["a.b/c v1.0.0", "d.e/g v2.1.0"]);
        let nuget_text = br#"{"version":1,"dependencies":{"net6.0":{"A.B":{"type":"Direct","resolved":"1.0.0"},"p":{"type":"Project"}}}}"#;
        assert_eq!(names(&nuget(nuget_text, "x").unwrap()), ["A.B 1.0.0"]);
    }

    proptest! {
        #[test]
        fn any_text_ends(text in "(?s).{0,200}") {
            let bytes = text.as_bytes();
            let _ = (npm(bytes, "x"), requirements(bytes, "x"), gemfile(bytes, "x"));
            let _ = (go_mod(bytes, "x"), nuget(bytes, "x"), pipfile(bytes, "x"));
            let _ = tables(bytes, "x", Ecosystem::Cargo);
        }
    }
}
