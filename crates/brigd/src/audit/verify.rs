//! Checking the whole log.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde::Serialize;

use super::entry::{self, Entry, Kind};
use super::{MAX_LINE, files, read_head};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// Whether everything is as it was written.
    pub intact: bool,
    /// Whole entries that are as they were written.
    pub entries: u64,
    /// What is wrong, each with its file and line.
    pub problems: Vec<Problem>,
}

/// A place where the log is not as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 for the end of the log.
    pub line: u64,
    /// What is wrong.
    pub reason: String,
}

/// Most problems that are listed.
const MAX_PROBLEMS: usize = 100;

/// Checks every line, and the head against the end.
///
/// # Errors
/// When a file can't be read.
pub fn verify(dir: &Path) -> io::Result<Report> {
    let mut report = Report::default();
    // First, as the log may grow meanwhile.
    let head = read_head(dir);
    let (mut hash, mut seq) = (entry::START.to_owned(), 0_u64);
    let mut sealed = None;
    for path in files(dir)? {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut reader = BufReader::new(File::open(&path)?);
        let mut number = 0;
        loop {
            let mut line = Vec::new();
            if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            number += 1;
            let mut wrong = |reason: String| {
                if report.problems.len() < MAX_PROBLEMS {
                    report.problems.push(Problem { file: file.clone(), line: number, reason });
                }
            };
            let text = String::from_utf8_lossy(&line);
            let parts = text.strip_suffix('\n').and_then(entry::split);
            let Some((sum, body)) = parts else {
                wrong("the line is not an entry".to_owned());
                continue;
            };
            let Ok(parsed) = serde_json::from_str::<Entry>(body) else {
                wrong("the entry cannot be read".to_owned());
                continue;
            };
            if parsed.seq != seq + 1 {
                wrong(format!(
                    "entry {} follows entry {seq}: lines were removed or reordered",
                    parsed.seq
                ));
            } else if entry::chained(&hash, body) != sum {
                wrong(format!("entry {} was changed", parsed.seq));
            } else if parsed.kind == Kind::Alarm {
                wrong(format!("alarm at start of the daemon: {}", parsed.note));
            } else {
                report.entries += 1;
            }
            // Go on from what stands there, so that one change is one problem.
            hash = sum.to_owned();
            seq = parsed.seq;
            if let Ok(Some(head)) = &head
                && head.count == seq
            {
                sealed = Some(hash.clone());
            }
        }
    }
    let at_end = match head {
        Ok(Some(head)) if seq < head.count => {
            Some(format!("the log ends at entry {seq}, but had {} when it was sealed", head.count))
        }
        Ok(Some(head)) if head.count > 0 && sealed.as_deref() != Some(&head.hash) => {
            Some(format!("entry {} is not the one that was sealed", head.count))
        }
        // The first seal follows within a second.
        Ok(Some(_)) => None,
        Ok(None) if report.entries < 2 => None,
        Ok(None) => Some("the head of the log is missing".to_owned()),
        Err(error) => Some(format!("the head of the log cannot be read: {error}")),
    };
    report.problems.extend(at_end.map(|reason| Problem {
        file: super::HEAD_FILE.to_owned(),
        line: 0,
        reason,
    }));
    report.intact = report.problems.is_empty();
    Ok(report)
}
