//! The cluster's objects between the API's JSON and SwarmKit's messages, both ways, in one place.
//!
//! The field semantics are docker's: what an empty value means, which defaults are filled in when
//! a spec is accepted, which only when it is shown. Nothing here looks at the cluster's state.

pub mod cluster;
pub mod config;
pub mod container;
pub mod network;
pub mod node;
pub mod secret;
pub mod service;
pub mod task;
pub mod template;

use std::collections::BTreeMap;

use brig_api::container::Driver as ApiDriver;
use brig_api::swarm as api;
use brig_api::time::{rfc3339nano, zero};
use brig_proto::swarm as proto;
use brig_types::error::{Categorized, ErrorKind};
use time::OffsetDateTime;

/// A spec that says something that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSpec(pub String);

impl InvalidSpec {
    fn value(what: &str, value: &str) -> Self {
        Self(format!("invalid {what}: {value:?}"))
    }
}

impl Categorized for InvalidSpec {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidParameter
    }
}

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Nanoseconds as a message.
pub(super) fn duration(nanos: i64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: nanos / NANOS_PER_SECOND,
        // The remainder is smaller than a billion.
        nanos: i32::try_from(nanos % NANOS_PER_SECOND).unwrap_or(0),
    }
}

/// A message as nanoseconds; what does not fit becomes the longest there is.
pub(super) fn nanos(duration: &prost_types::Duration) -> i64 {
    duration.seconds.saturating_mul(NANOS_PER_SECOND).saturating_add(i64::from(duration.nanos))
}

/// A point in time; nothing if there is none or it is out of range.
pub(crate) fn moment(at: Option<&prost_types::Timestamp>) -> Option<OffsetDateTime> {
    let at = at?;
    let nanos = i128::from(at.seconds) * i128::from(NANOS_PER_SECOND) + i128::from(at.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()
}

/// A point in time as the API writes it; Go's zero time if there is none.
pub(super) fn time(at: Option<&prost_types::Timestamp>) -> String {
    moment(at).map_or_else(zero, rfc3339nano)
}

/// Version and times of an object.
pub(super) struct MetaFields {
    pub(super) version: api::Version,
    pub(super) created_at: String,
    pub(super) updated_at: String,
}

pub(super) fn meta(meta: Option<&proto::Meta>) -> MetaFields {
    MetaFields {
        version: version(meta.and_then(|meta| meta.version.as_ref())),
        created_at: time(meta.and_then(|meta| meta.created_at.as_ref())),
        updated_at: time(meta.and_then(|meta| meta.updated_at.as_ref())),
    }
}

pub(super) fn version(version: Option<&proto::Version>) -> api::Version {
    api::Version { index: version.map_or(0, |version| version.index) }
}

pub(super) fn annotations(name: &str, labels: &BTreeMap<String, String>) -> proto::Annotations {
    proto::Annotations { name: name.to_owned(), labels: labels.clone(), indices: Vec::new() }
}

pub(crate) fn name_and_labels(
    annotations: Option<&proto::Annotations>,
) -> (String, BTreeMap<String, String>) {
    annotations.map(|a| (a.name.clone(), a.labels.clone())).unwrap_or_default()
}

pub(super) fn driver(driver: &ApiDriver) -> proto::Driver {
    proto::Driver { name: driver.name.clone(), options: driver.options.clone() }
}

pub(super) fn driver_json(driver: &proto::Driver) -> ApiDriver {
    ApiDriver { name: driver.name.clone(), options: driver.options.clone() }
}

/// An enumerator's word in the API: lower case. Numbers from a newer node give nothing.
pub(crate) fn word<E: TryFrom<i32>>(value: i32, name: fn(&E) -> &'static str) -> String {
    E::try_from(value).map(|value| name(&value).to_ascii_lowercase()).unwrap_or_default()
}

/// The same with dashes for underscores (`stop-first`).
pub(super) fn dashed<E: TryFrom<i32>>(value: i32, name: fn(&E) -> &'static str) -> String {
    word(value, name).replace('_', "-")
}

/// Reads an enumerator's word; an empty one is `None`.
pub(super) fn parse_word<E>(
    text: &str,
    what: &str,
    parse: fn(&str) -> Option<E>,
) -> Result<Option<E>, InvalidSpec> {
    if text.is_empty() {
        return Ok(None);
    }
    let upper = text.to_ascii_uppercase().replace('-', "_");
    parse(&upper).map(Some).ok_or_else(|| InvalidSpec::value(what, text))
}

#[cfg(test)]
mod tests;
