//! Configs. Unlike secrets they are shown with their content.

use brig_api::swarm as api;
use brig_proto::swarm as proto;

use super::{annotations, driver, driver_json, meta, name_and_labels};

/// A new config's spec, or the one to replace an old one with.
#[must_use]
pub fn spec(spec: &api::ConfigSpec) -> proto::ConfigSpec {
    proto::ConfigSpec {
        annotations: Some(annotations(&spec.name, &spec.labels)),
        data: spec.data.0.clone(),
        templating: spec.templating.as_ref().map(driver),
    }
}

/// A config.
#[must_use]
pub fn json(config: &proto::Config) -> api::Config {
    let meta = meta(config.meta.as_ref());
    let spec = config.spec.clone().unwrap_or_default();
    let (name, labels) = name_and_labels(spec.annotations.as_ref());
    api::Config {
        id: config.id.clone(),
        version: meta.version,
        created_at: meta.created_at,
        updated_at: meta.updated_at,
        spec: api::ConfigSpec {
            name,
            labels,
            data: brig_api::data::Base64(spec.data),
            templating: spec.templating.as_ref().map(driver_json),
        },
    }
}
