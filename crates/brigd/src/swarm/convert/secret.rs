//! Secrets. Their content goes in and never comes out.

use brig_api::swarm as api;
use brig_proto::swarm as proto;

use super::{annotations, driver, driver_json, meta, name_and_labels};

/// A new secret's spec, or the one to replace an old one with.
#[must_use]
pub fn spec(spec: &api::SecretSpec) -> proto::SecretSpec {
    let mut message = proto::SecretSpec::default();
    message.annotations = Some(annotations(&spec.name, &spec.labels));
    message.data = spec.data.expose_secret().to_vec();
    message.templating = spec.templating.as_ref().map(driver);
    message.driver = spec.driver.as_ref().map(driver);
    message
}

/// A secret without its content.
#[must_use]
pub fn json(secret: &proto::Secret) -> api::Secret {
    let meta = meta(secret.meta.as_ref());
    let spec = secret.spec.as_ref();
    let (name, labels) = name_and_labels(spec.and_then(|spec| spec.annotations.as_ref()));
    api::Secret {
        id: secret.id.clone(),
        version: meta.version,
        created_at: meta.created_at,
        updated_at: meta.updated_at,
        spec: api::SecretSpec {
            name,
            labels,
            data: Default::default(),
            driver: spec.and_then(|spec| spec.driver.as_ref()).map(driver_json),
            templating: spec.and_then(|spec| spec.templating.as_ref()).map(driver_json),
        },
    }
}
