//! The feed of changes: which stretch is asked for, and how it is written.

use brig_pki::hash;
use bytes::Bytes;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::fault::Fault;
use crate::storage::{Category, Change, Stretch};

/// Records without a wish.
const DEFAULT_RECORDS: usize = 100;
/// Records that one answer has at most.
const MAX_RECORDS: u64 = 1000;

/// Reads the query.
pub(crate) fn parse(query: &str) -> Result<(Stretch, usize), Fault> {
    let (mut records, mut change_id) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "records" if records.is_none() => records = Some(value),
            "change_id" if change_id.is_none() => change_id = Some(value),
            _ => {}
        }
    }
    let number = |value: Option<&str>| value.and_then(|value| value.parse::<i64>().ok());
    let records = number(records.as_deref())
        .ok_or_else(|| Fault::invalid_parameters("records must be a whole number"))?;
    let id = match change_id.as_deref() {
        None | Some("") => 0,
        some => number(some)
            .ok_or_else(|| Fault::invalid_parameters("change_id must be a whole number"))?,
    };
    let limit = match records.unsigned_abs() {
        0 => DEFAULT_RECORDS,
        wanted => usize::try_from(wanted.min(MAX_RECORDS)).unwrap_or(DEFAULT_RECORDS),
    };
    // Who starts at the end goes backwards, whatever the number's sign.
    let stretch = match (u64::try_from(id), records < 0) {
        (Ok(id), false) => Stretch::After(id),
        (Ok(id), true) if id > 0 => Stretch::Before(Some(id)),
        _ => Stretch::Before(None),
    };
    Ok((stretch, limit))
}

/// Writes the answer.
pub(crate) fn answer(changes: &[Change]) -> Result<Bytes, serde_json::Error> {
    #[derive(Serialize)]
    struct Answer {
        count: usize,
        records: Vec<Record>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Record {
        #[serde(rename = "ID")]
        id: String,
        created_at: String,
        #[serde(rename = "GUN")]
        gun: String,
        version: u64,
        #[serde(rename = "SHA256")]
        sha256: String,
        category: &'static str,
    }
    let time = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    let records: Vec<_> = changes
        .iter()
        .map(|change| Record {
            id: change.id.to_string(),
            created_at: time(change.at),
            gun: change.gun.clone(),
            version: change.version,
            sha256: change.digest.map(|digest| hash::hex(&digest)).unwrap_or_default(),
            category: match change.category {
                Category::Update => "update",
                Category::Deletion => "deletion",
            },
        })
        .collect();
    serde_json::to_vec(&Answer { count: records.len(), records }).map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches() {
        for (query, stretch, limit) in [
            ("records=0", Stretch::After(0), 100),
            ("records=5&change_id=", Stretch::After(0), 5),
            ("change_id=7&records=5", Stretch::After(7), 5),
            ("records=-3", Stretch::Before(None), 3),
            ("records=-3&change_id=9", Stretch::Before(Some(9)), 3),
            ("records=3&change_id=-1", Stretch::Before(None), 3),
            ("records=-9223372036854775808", Stretch::Before(None), 1000),
            ("records=9999999", Stretch::After(0), 1000),
        ] {
            assert_eq!(parse(query).unwrap(), (stretch, limit), "{query}");
        }
        for query in ["", "records=", "records=x", "records=1&change_id=x", "records=1.5"] {
            assert_eq!(parse(query).unwrap_err().code(), "INVALID_PARAMETERS", "{query}");
        }
    }
}
