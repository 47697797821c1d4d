//! Importers: the publishers' own formats, found out by their content, from files, folders and
//! archives of them.

mod alpine;
mod csaf;
mod debian;
mod enrich;
mod language;
mod osv;
mod support;
mod ubuntu;
mod walk;

use super::{Collector, DbError, Feed};

pub use walk::{MAX_DOCUMENT, MAX_FEED, import_path, import_reader};

/// What the words of a record must not exceed; longer ones are cut.
const MAX_TEXT: usize = 300;

/// Reads one document into the collector, whatever its format. False when it is in none that is
/// known here.
///
/// # Errors
/// A sentence, when the format is known and the content is not as it should be.
pub fn import_document(into: &mut Collector, path: &str, bytes: &[u8]) -> Result<bool, String> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let head = bytes.trim_ascii_start();
    if name.starts_with("security-support-") {
        return support::security_support(into, name, text(bytes)?).map(|()| true);
    }
    // A list of advisories begins with a bracket, too: `[29 Mar 2023] DSA-…`.
    let list =
        head.strip_prefix(b"[").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"{"));
    if head.starts_with(b"{") || list {
        return json(into, head);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Ok(false);
    };
    if head.starts_with(b"```toml") {
        return language::rustsec(into, text).map(|()| true);
    }
    let first = text
        .lines()
        .map(str::trim_end)
        .find(|line| !line.is_empty() && !line.starts_with('#'))
        .unwrap_or_default();
    match first {
        "cve,epss,percentile" => return enrich::epss(into, text).map(|()| true),
        "cve,cvss3_base" => return enrich::base_scores(into, text).map(|()| true),
        _ if first.starts_with("version,codename,series,") => {
            return support::releases(into, name, text).map(|()| true);
        }
        _ => {}
    }
    if debian::is_list(text) {
        debian::list(into, text);
        return Ok(true);
    }
    if text.starts_with("Candidate:") || text.starts_with("PublicDate") || text.starts_with("CRD:")
    {
        return ubuntu::tracker(into, text).map(|()| true);
    }
    if name.ends_with(".yaml") || name.ends_with(".yml") {
        return yaml(into, path, text);
    }
    Ok(false)
}

fn json(into: &mut Collector, bytes: &[u8]) -> Result<bool, String> {
    use serde::de::IgnoredAny;

    /// The keys that tell formats apart.
    #[derive(serde::Deserialize)]
    struct Probe {
        affected: Option<IgnoredAny>,
        id: Option<IgnoredAny>,
        modified: Option<IgnoredAny>,
        #[serde(rename = "catalogVersion")]
        catalog: Option<IgnoredAny>,
        document: Option<IgnoredAny>,
        packages: Option<IgnoredAny>,
        reponame: Option<IgnoredAny>,
        module_name: Option<IgnoredAny>,
    }
    let wrong = |error: serde_json::Error| error.to_string();
    let probe: Probe = match serde_json::from_slice(bytes) {
        Ok(probe) => probe,
        // A list, or an object whose values are not these: no format of ours.
        Err(error) if error.is_data() => return Ok(false),
        Err(error) => return Err(wrong(error)),
    };
    if probe.catalog.is_some() {
        enrich::kev(into, bytes)?;
    } else if probe.document.is_some() {
        return csaf::advisory(into, bytes);
    } else if probe.packages.is_some() && probe.reponame.is_some() {
        alpine::secdb(into, serde_json::from_slice(bytes).map_err(wrong)?)?;
    } else if probe.module_name.is_some() {
        language::npm_working_group(into, bytes)?;
    } else if probe.id.is_some() && (probe.affected.is_some() || probe.modified.is_some()) {
        osv::record(into, serde_json::from_slice(bytes).map_err(wrong)?);
    } else {
        return debian::tracker(into, bytes);
    }
    Ok(true)
}

fn yaml(into: &mut Collector, path: &str, text: &str) -> Result<bool, String> {
    let starts = |key: &str| text.lines().any(|line| line.starts_with(key));
    if starts("packages:") && starts("reponame:") {
        alpine::secdb(into, from_yaml(text)?)?;
    } else if starts("gem:") {
        language::rubysec(into, path, from_yaml(text)?)?;
    } else if text
        .lines()
        .any(|line| line.starts_with("reference:") && line.contains("composer://"))
    {
        language::friends_of_php(into, path, from_yaml(text)?)?;
    } else if starts("id:") && starts("affected:") {
        osv::record(into, from_yaml(text)?);
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn from_yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_saphyr::from_str(text)
        .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| error.to_string())
}

/// One line, cut at a length that a table can bear.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if line.len() + word.len() >= MAX_TEXT {
            line.push('…');
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

/// The day of a time, when it is one.
fn day(time: &str) -> &str {
    match time.get(..10) {
        Some(day) if day.bytes().filter(|b| *b == b'-').count() == 2 && day > "1990" => day,
        _ => "",
    }
}

/// What was read; a feed of which nothing was understood is none.
fn finish(into: &mut Collector, origin: &str) -> Result<Feed, DbError> {
    match into.feeds.last() {
        Some(feed) if feed.records > 0 => Ok(feed.clone()),
        _ => {
            into.take_back();
            Err(DbError::Unknown(origin.to_owned()))
        }
    }
}
