//! Alpine's secdb and the databases in its form (Wolfi, Chainguard, MinimOS): fixes by version.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::db::{Collector, Range, Row, SpaceName, State, Tier};
use crate::version::Scheme;

#[derive(Debug, Deserialize)]
pub(super) struct Secdb {
    #[serde(default)]
    distroversion: Option<String>,
    #[serde(default)]
    urlprefix: Option<String>,
    #[serde(default)]
    packages: Option<Vec<Entry>>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    pkg: Package,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    #[serde(default)]
    secfixes: Option<BTreeMap<String, Option<Vec<Option<String>>>>>,
}

pub(super) fn secdb(into: &mut Collector, secdb: Secdb) -> Result<(), String> {
    let prefix = secdb.urlprefix.as_deref().unwrap_or_default();
    let name = match secdb.distroversion.as_deref() {
        Some(version) => format!("alpine:{}", version.strip_prefix('v').unwrap_or(version)),
        None if prefix.contains("wolfi") => "wolfi".to_owned(),
        None if prefix.contains("cgr.dev") || prefix.contains("chainguard") => {
            "chainguard".to_owned()
        }
        None if prefix.contains("minim") => "minimos".to_owned(),
        None => return Err("it does not say which distribution it is about".to_owned()),
    };
    let space = SpaceName { name, scheme: Scheme::Apk };
    for Entry { pkg } in secdb.packages.unwrap_or_default() {
        into.counted("");
        for (version, ids) in pkg.secfixes.unwrap_or_default() {
            for line in ids.into_iter().flatten().flatten() {
                let Some(flaw) = flaw(&line) else { continue };
                let mut row = Row {
                    package: pkg.name.clone(),
                    flaw: flaw.to_owned(),
                    advisory: flaw.to_owned(),
                    tier: Tier::Verdict,
                    ..Row::default()
                };
                // `0` says that it never was.
                if version == "0" {
                    row.state = State::NotAffected;
                } else {
                    row.ranges.push(Range::before(&version));
                }
                into.row(&space, row);
            }
        }
    }
    Ok(())
}

/// Several ids can stand in one text; a CVE is the one that others know.
fn flaw(line: &str) -> Option<&str> {
    let ids = || {
        line.split([' ', ',', ';', '(', ')'])
            .filter(|word| word.contains('-') && word.starts_with(|c: char| c.is_ascii_uppercase()))
    };
    ids().find(|id| id.starts_with("CVE-")).or_else(|| ids().next())
}
