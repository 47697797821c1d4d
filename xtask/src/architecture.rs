//! Which crate may use which: the table of ARCHITECTURE.md, held against `cargo metadata`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// A crate of ours and the crates of ours that it may use, beside those that [`EVERYBODYS`] are.
const ALLOWED: &[(&str, &[&str])] = &[
    ("brig-types", &[]),
    ("brig-files", &[]),
    ("brig-api", &[]),
    ("brig-proto", &[]),
    ("brig-sys", &[]),
    ("brig-pki", &[]),
    ("brig-archive", &["brig-sys"]),
    ("brig-store", &["brig-proto", "brig-pki"]),
    ("brig-access", &[]),
    ("brig-image", &["brig-pki", "brig-sys"]),
    ("brig-trust", &["brig-pki"]),
    ("brig-runtime", &["brig-sys"]),
    ("brig-network", &["brig-sys"]),
    (
        "brig-engine",
        &[
            "brig-api",
            "brig-sys",
            "brig-pki",
            "brig-archive",
            "brig-image",
            "brig-runtime",
            "brig-network",
        ],
    ),
    ("brig-swarm", &["brig-proto", "brig-pki", "brig-store"]),
    ("brig-scan", &["brig-sys", "brig-pki"]),
    (
        "brigd",
        &[
            "brig-access",
            "brig-api",
            "brig-proto",
            "brig-sys",
            "brig-pki",
            "brig-store",
            "brig-image",
            "brig-runtime",
            "brig-network",
            "brig-engine",
            "brig-swarm",
            "brig-trust",
            "brig-trust-server",
            "brig-scan",
        ],
    ),
    ("brig-trust-server", &["brig-pki", "brig-trust"]),
    (
        "brig",
        &["brig-api", "brig-archive", "brig-pki", "brig-trust-server", "brig-trust", "brig-scan"],
    ),
];

/// What everything may use.
const EVERYBODYS: &[&str] = &["brig-types", "brig-files"];

/// Crates that stand outside of the table: they test or check, and ship nothing.
const UNBOUND: &[&str] = &["xtask", "brig-e2e"];

/// A library with one owner each: whoever else wants it asks the owner.
const OWNED: &[(&str, &[&str])] = &[
    ("age", &["brig-pki"]),
    ("bcrypt", &["brig-pki"]),
    ("aws-lc-rs", &["brig-pki"]),
    ("axum", &["brigd"]),
    ("hickory-proto", &["brig-network"]),
    ("libc", &["brig-sys"]),
    ("cedar-policy", &["brig-access"]),
    ("crypto_secretbox", &["brig-pki"]),
    ("pkcs8", &["brig-pki"]),
    ("rcgen", &["brig-pki"]),
    // The trust server stands alone, without the cluster's store and its protocols.
    ("redb", &["brig-store", "brig-trust-server"]),
    ("reqwest", &["brig-image"]),
    ("rtnetlink", &["brig-network"]),
    ("rustls", &["brig-pki"]),
    ("scrypt", &["brig-pki"]),
    ("tonic", &["brig-proto", "brig-store", "brig-swarm"]),
    ("x509-parser", &["brig-pki"]),
];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

fn metadata(root: &Path) -> Result<Metadata> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("running cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("reading cargo metadata")
}

/// Dependencies that the tables do not allow.
pub(crate) fn broken_directions(root: &Path) -> Result<Vec<String>> {
    Ok(broken_in(&metadata(root)?))
}

fn broken_in(metadata: &Metadata) -> Vec<String> {
    let ours: Vec<&str> = metadata.packages.iter().map(|p| p.name.as_str()).collect();
    let mut broken = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        if UNBOUND.contains(&name) {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
            broken.push(format!("{name}: not in the table of crate directions"));
            continue;
        };
        let shipped = package.dependencies.iter().filter(|d| d.kind.as_deref() != Some("dev"));
        for dependency in shipped {
            let used = dependency.name.as_str();
            if ours.contains(&used) && !EVERYBODYS.contains(&used) && !allowed.contains(&used) {
                broken.push(format!("{name} uses {used}, which its direction does not allow"));
            }
            if let Some((_, owners)) = OWNED.iter().find(|(library, _)| *library == used)
                && !owners.contains(&name)
            {
                broken.push(format!("{name} uses {used}, which belongs to {}", owners.join(", ")));
            }
        }
    }
    broken
}

/// Rows of the table that ARCHITECTURE.md does not show as they are.
pub(crate) fn undocumented_directions(root: &Path) -> Result<Vec<String>> {
    let path = root.join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path:?}"))?;
    Ok(ALLOWED
        .iter()
        .filter_map(|(name, allowed)| {
            let uses = if allowed.is_empty() {
                "–".to_owned()
            } else {
                allowed.iter().map(|used| format!("`{used}`")).collect::<Vec<_>>().join(", ")
            };
            let row_end = format!("| {uses} |");
            let shown = text.lines().any(|line| {
                line.starts_with(&format!("| `{name}` |")) && line.ends_with(&row_end)
            });
            (!shown).then(|| {
                format!("ARCHITECTURE.md: the row of {name} should start \"| `{name}` |\" and end \"{row_end}\"")
            })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, Option<&str>)]) -> Package {
        Package {
            name: name.to_owned(),
            dependencies: dependencies
                .iter()
                .map(|(name, kind)| Dependency {
                    name: (*name).to_owned(),
                    kind: kind.map(str::to_owned),
                })
                .collect(),
        }
    }

    #[test]
    fn a_wrong_arrow_is_named() {
        let metadata = Metadata {
            packages: vec![
                package("brig-types", &[]),
                package("brig-api", &[("brig-types", None), ("rustls", None)]),
                package("brig-store", &[("brig-api", None), ("brig-proto", None)]),
                package("brig-image", &[("brig-api", Some("dev"))]),
                package("brig-new", &[]),
            ],
        };
        assert_eq!(
            broken_in(&metadata),
            [
                "brig-api uses rustls, which belongs to brig-pki",
                "brig-store uses brig-api, which its direction does not allow",
                "brig-new: not in the table of crate directions",
            ]
        );
    }
}
