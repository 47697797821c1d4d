//! Compose files as stacks (Compose file format 3, as `docker stack deploy` reads it; what newer
//! files add and a swarm can do is taken too): from YAML to the bodies that the API takes.
//!
//! The way of a file: text → [`value`] → variables ([`interpolate`]) → several files into one
//! ([`merge`]) → fields with types ([`section`]) → specifications ([`service`], [`objects`]).
//! Nothing is sent here.

mod deploy;
mod interpolate;
mod merge;
mod mounts;
mod objects;
mod section;
mod service;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use brig_api::swarm::ServiceSpec;

pub(crate) use interpolate::Lookup;
pub(crate) use objects::{Content, Name, Network};
pub(crate) use value::Value;

use crate::error::{Error, Result, message};
use section::Section;
use value::Map;

/// Marks everything that belongs to a stack, with its name.
pub(crate) const LABEL_NAMESPACE: &str = "com.docker.stack.namespace";
/// A service's image as the file has it.
pub(crate) const LABEL_IMAGE: &str = "com.docker.stack.image";
/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// Nodes and depth of a file: what anchors unfold to counts.
const MAX_NODES: usize = 100_000;
const MAX_DEPTH: usize = 64;
/// What texts with variables may be in.
const SECTIONS: [&str; 5] = ["services", "networks", "volumes", "secrets", "configs"];

/// What the words of a file are read against.
pub(crate) struct Surroundings<'a> {
    /// The stack's name.
    pub(crate) stack: &'a str,
    /// Where relative paths start.
    pub(crate) directory: &'a Path,
    /// The caller's variables.
    pub(crate) lookup: Lookup<'a>,
}

impl Surroundings<'_> {
    fn labels(&self, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut labels = own.clone();
        labels.insert(LABEL_NAMESPACE.to_owned(), self.stack.to_owned());
        labels
    }
}

/// What the user should know about a file that was taken.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Options that were left out.
    pub(crate) ignored: BTreeSet<String>,
    /// Options that mean nothing, and why.
    pub(crate) deprecated: BTreeMap<String, String>,
    pub(crate) warnings: BTreeSet<String>,
}

/// A stack, as the API takes its parts.
#[derive(Debug)]
pub(crate) struct Stack {
    /// Those that services use.
    pub(crate) networks: Vec<Network>,
    pub(crate) secrets: Vec<Content>,
    pub(crate) configs: Vec<Content>,
    /// By name. Ids of secrets and configs are missing.
    pub(crate) services: Vec<ServiceSpec>,
    pub(crate) notes: Notes,
}

/// Reads the files (`-` is stdin) into one tree, its variables replaced where `lookup` is given;
/// and the directory of the first one.
pub(crate) fn read(files: &[String], lookup: Option<Lookup<'_>>) -> Result<(Map, PathBuf)> {
    let mut whole = Map::new();
    for file in files {
        let mut tree =
            parse(&text(file)?).map_err(|e| message(format!("failed to parse {file}: {e}")))?;
        for section in SECTIONS {
            if let (Some(value), Some(lookup)) = (tree.get_mut(section), lookup) {
                interpolate::values(value, section, lookup)?;
            }
        }
        merge::maps(&mut whole, tree);
    }
    let first = files.first().map_or("-", String::as_str);
    let here =
        || std::env::current_dir().map_err(|e| Error::io("finding the working directory", e));
    let directory = match Path::new(first).parent() {
        Some(parent) if first != "-" => here()?.join(parent),
        _ => here()?,
    };
    Ok((whole, directory))
}

fn text(file: &str) -> Result<String> {
    let failed = |source| Error::io(format!("open {file}"), source);
    let bytes = if file == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
        bytes
    } else {
        crate::parse::env::read_limited(Path::new(file), MAX_FILE)?
    };
    if bytes.len() as u64 > MAX_FILE {
        return Err(message(format!("{file} is larger than {MAX_FILE} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| message(format!("{file}: invalid UTF-8")))
}

/// Reads one YAML document.
fn parse(text: &str) -> Result<Map, String> {
    let options = serde_saphyr::options! {
        // As the files mean them: `yes` is a word, and a mode starts with 0.
        strict_booleans: true,
        legacy_octal_numbers: true,
        budget: serde_saphyr::budget! {
            max_nodes: MAX_NODES,
            max_depth: MAX_DEPTH,
        },
    };
    match serde_saphyr::from_str_with_options::<Value>(text, options) {
        Ok(Value::Map(map)) => Ok(map),
        Ok(Value::Null) => Err("empty compose file".to_owned()),
        Ok(_) => Err("Top-level object must be a mapping".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// From the tree to what the API takes.
pub(crate) fn stack(tree: Map, surroundings: &Surroundings<'_>) -> Result<Stack> {
    let mut root = Section::new("", Value::Map(tree))?;
    check_version(root.text("version")?.as_deref())?;
    // The stack's name is an argument.
    root.remove("name");
    let mut notes = Notes::default();
    let defined = service::Defined {
        networks: objects::networks(root.section("networks")?, surroundings)?,
        volumes: objects::volumes(root.section("volumes")?)?,
        secrets: objects::contents("secret", root.section("secrets")?, surroundings)?,
        configs: objects::contents("config", root.section("configs")?, surroundings)?,
    };
    let mut used = BTreeSet::new();
    let mut services = Vec::new();
    for (name, section) in
        root.section("services")?.map_or_else(|| Ok(Vec::new()), Section::sections)?
    {
        let service = service::service(&name, section, &defined, surroundings, &mut notes)?;
        used.extend(service.networks);
        services.push(service.spec);
    }
    root.finish()?;
    Ok(Stack {
        networks: defined
            .networks
            .into_iter()
            .filter(|(name, _)| used.contains(name))
            .map(|(_, network)| network)
            .collect(),
        secrets: defined.secrets.into_values().collect(),
        configs: defined.configs.into_values().collect(),
        services,
        notes,
    })
}

/// Versions 1 and 2 are other formats; without a version it is the newest.
fn check_version(version: Option<&str>) -> Result<()> {
    match version {
        None | Some("") => Ok(()),
        Some(version) if version == "3" || version.starts_with("3.") => Ok(()),
        Some(version) => Err(message(format!(
            "unsupported Compose file version: {version}; stacks need version 3, or none"
        ))),
    }
}

#[cfg(test)]
mod tests;
