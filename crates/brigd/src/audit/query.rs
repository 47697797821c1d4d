//! Reading entries back.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::entry::{self, Entry, Kind};
use super::{MAX_LINE, files};

/// Most entries of an answer.
pub const MAX_ENTRIES: usize = 10_000;

/// Which entries are wanted.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Not older than this.
    pub since: Option<OffsetDateTime>,
    /// Older than this.
    pub until: Option<OffsetDateTime>,
    /// Of this principal.
    pub principal: Option<String>,
    /// Of this action, or of all that begin with it and a dot.
    pub action: Option<String>,
    /// Denials only.
    pub denied: bool,
    /// The last so many; 0 for as many as there may be.
    pub limit: usize,
}

impl Selection {
    fn takes(&self, entry: &Entry) -> bool {
        let at = OffsetDateTime::parse(&entry.time, &Rfc3339).ok();
        let after = |limit: OffsetDateTime| at.is_some_and(|at| at >= limit);
        let before = |limit: OffsetDateTime| at.is_some_and(|at| at < limit);
        let action = |wanted: &str| {
            entry.action == wanted
                || entry.action.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('.'))
        };
        self.since.is_none_or(after)
            && self.until.is_none_or(before)
            && self.principal.as_deref().is_none_or(|wanted| entry.principal == wanted)
            && self.action.as_deref().is_none_or(action)
            && !(self.denied && (entry.kind != Kind::Decision || entry.allowed))
    }
}

/// The entries in the order they were written; a decision has the status of its outcome.
///
/// # Errors
/// When a file can't be read.
pub fn read(dir: &Path, selection: &Selection) -> io::Result<Vec<Entry>> {
    let most = match selection.limit {
        0 => MAX_ENTRIES,
        n => n.min(MAX_ENTRIES),
    };
    let mut found: std::collections::VecDeque<Entry> = std::collections::VecDeque::new();
    let mut outcomes: HashMap<String, Option<u16>> = HashMap::new();
    for path in files(dir)? {
        let mut reader = BufReader::new(File::open(&path)?);
        let mut line = Vec::new();
        while reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line).into_owned();
            line.clear();
            let Some((_, body)) = entry::split(text.trim_end()) else { continue };
            let Ok(entry) = serde_json::from_str::<Entry>(body) else { continue };
            match (entry.kind, entry.status) {
                (Kind::Outcome, status) => {
                    if let Some(known) = outcomes.get_mut(&entry.request) {
                        *known = status;
                    }
                }
                _ if selection.takes(&entry) => {
                    outcomes.insert(entry.request.clone(), None);
                    found.push_back(entry);
                    if found.len() > most
                        && let Some(gone) = found.pop_front()
                    {
                        outcomes.remove(&gone.request);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(found
        .into_iter()
        .map(|entry| Entry {
            status: entry.status.or_else(|| outcomes.get(&entry.request).copied().flatten()),
            ..entry
        })
        .collect())
}
