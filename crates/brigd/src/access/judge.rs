//! From a request to what policies judge: the object, and the facts of the body.
//!
//! The body is read whole, once, and kept: the handler decodes the very bytes that were judged,
//! into the very types. A key that stands twice is refused by the decoder for both.

use brig_access::{Action, Facts, Object};
use brig_api::container::{ContainerCreateRequest, UpdateRequest};
use brig_api::exec::ExecConfig;
use brig_api::network::NetworkCreateRequest;
use brig_api::swarm::{ConfigSpec, SecretSpec, ServiceSpec};
use brig_api::volume::VolumeCreateRequest;
use serde::de::DeserializeOwned;

use super::enrol::api::Wish;
use super::{container, object, service};
use crate::server::query::Query;
use crate::server::{ApiError, Route, route::Params};
use crate::state::AppState;
use crate::swarm::{convert, local};

/// What names the object where the path does not.
pub const OBJECT_KEY: &str = "container";

/// Whether the body of a route has facts.
#[must_use]
pub fn reads_body(route: &Route) -> bool {
    match route.action {
        Action::ContainerCreate
        | Action::ContainerUpdate
        | Action::VolumeCreate
        | Action::NetworkCreate
        | Action::ServiceCreate
        | Action::ServiceUpdate
        | Action::SecretCreate
        | Action::SecretUpdate
        | Action::ConfigCreate
        | Action::ConfigUpdate
        | Action::AccessIssue => true,
        Action::ContainerExec => route.path.ends_with("/{id}/exec"),
        _ => false,
    }
}

/// The object that the path names, looked up.
pub async fn object(state: &AppState, route: &Route, params: &Params, query: &Query) -> Object {
    let kind = object::kind(route.action);
    match (params.object(), route.action) {
        (Some(name), action) => object::find(state, route.path, action, name).await,
        (None, Action::ContainerCommit) => {
            let name = query.text(OBJECT_KEY).unwrap_or_default();
            object::find(state, route.path, route.action, name).await
        }
        (None, Action::ImagePull) => Object::named(kind, &image_name(query)),
        (None, _) => Object { kind: kind.to_owned(), ..Object::default() },
    }
}

fn image_name(query: &Query) -> String {
    let from = query.text("fromImage").unwrap_or_default();
    match query.non_empty("tag") {
        None => from.to_owned(),
        Some(digest) if digest.contains(':') => format!("{from}@{digest}"),
        Some(tag) => format!("{from}:{tag}"),
    }
}

/// What the request asks for.
///
/// # Errors
/// A body that the handler could not read either.
pub async fn facts(
    state: &AppState,
    route: &Route,
    params: &Params,
    query: &Query,
    object: &Object,
    body: &[u8],
) -> Result<Facts, ApiError> {
    Ok(match route.action {
        Action::ContainerCreate => {
            let mut request: ContainerCreateRequest = decode(body)?;
            let binds = &state.config.socket_binds;
            binds
                .settle(&request.config.labels, &mut request.host_config)
                .map_err(|error| ApiError::invalid(error.to_string()))?;
            let volumes = container::host_volumes(state, &request.host_config).await;
            let networking = Some(&request.networking_config);
            let facts =
                container::facts(&request.config, &request.host_config, networking, &volumes);
            let name = query.text("name").unwrap_or_default().to_owned();
            let mut facts = Facts { name, ..facts };
            known_networks(state, &mut facts);
            facts
        }
        Action::ContainerUpdate => {
            let request: UpdateRequest = decode(body)?;
            let mut facts = Facts::default();
            container::of_host(&mut facts, &request.0);
            facts
        }
        Action::ContainerExec if reads_body(route) => {
            let request: ExecConfig = decode(body)?;
            Facts { privileged: request.privileged, ..Facts::default() }
        }
        Action::ContainerExec => {
            // SECURITY: starting what somebody else has prepared is having it oneself.
            let exec = params.object().unwrap_or_default();
            let prepared = state.engine.exec_target(exec);
            let privileged = prepared.is_ok_and(|target| target.privileged);
            Facts { privileged, ..Facts::default() }
        }
        Action::VolumeCreate => {
            let request: VolumeCreateRequest = decode(body)?;
            let mut facts = made(&request.name, &request.labels);
            container::volume_options(&mut facts, &request.driver, &request.driver_opts);
            facts
        }
        Action::NetworkCreate => {
            let request: NetworkCreateRequest = decode(body)?;
            let mut facts = made(&request.name, &request.labels);
            if matches!(request.driver.as_str(), "macvlan" | "ipvlan" | "host") {
                facts.other_access.insert(format!("network driver {}", request.driver));
            }
            facts
        }
        Action::ServiceCreate => of_service(state, &decode::<ServiceSpec>(body)?).await,
        Action::ServiceUpdate => {
            let wanted: ServiceSpec = decode(body)?;
            if query.text("rollback") == Some("previous") {
                // SECURITY: the body does not count then; the specification before this one does.
                of_service(state, &previous(state, &object.id).unwrap_or(wanted)).await
            } else {
                of_service(state, &wanted).await
            }
        }
        Action::SecretCreate | Action::SecretUpdate => {
            let request: SecretSpec = decode(body)?;
            made(&request.name, &request.labels)
        }
        Action::ConfigCreate | Action::ConfigUpdate => {
            let request: ConfigSpec = decode(body)?;
            made(&request.name, &request.labels)
        }
        Action::ImageBuild => {
            let mode = query.text("networkmode").unwrap_or_default();
            let mut facts = Facts::default();
            container::network_mode(&mut facts, mode);
            facts
        }
        Action::AccessIssue => {
            let wish: Wish = decode(body)?;
            let name = if wish.name.is_empty() {
                query.text("name").unwrap_or_default()
            } else {
                &wish.name
            };
            let labels = [("role".to_owned(), wish.role.clone())].into();
            Facts { name: name.to_owned(), labels, ..Facts::default() }
        }
        Action::ImagePull => Facts { image: image_name(query), ..Facts::default() },
        _ => Facts::default(),
    })
}

fn decode<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, ApiError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    // `null` is nothing, as handlers have it.
    serde_json::from_slice::<Option<T>>(body)
        .map(Option::unwrap_or_default)
        .map_err(|error| ApiError::invalid(format!("invalid JSON: {error}")))
}

fn made(name: &str, labels: &std::collections::BTreeMap<String, String>) -> Facts {
    Facts {
        makes: true,
        name: name.to_owned(),
        stack: labels.get(brig_access::facts::STACK_LABEL).cloned().unwrap_or_default(),
        labels: labels.clone(),
        ..Facts::default()
    }
}

async fn of_service(state: &AppState, spec: &ServiceSpec) -> Facts {
    let mut facts = {
        let control = local::control(state).ok();
        service::facts(&state.config.socket_binds.understood(spec), control.as_ref())
    };
    let found = container::volumes_of_host(state, &facts.volumes).await;
    facts.host_mounts.extend(found.into_values());
    facts
}

fn previous(state: &AppState, id: &str) -> Option<ServiceSpec> {
    let service = local::control(state).ok()?.service(id).ok()?;
    convert::service::json(&service).previous_spec
}

/// Networks by their names, whatever they were called in the request.
fn known_networks(state: &AppState, facts: &mut Facts) {
    let networks = std::mem::take(&mut facts.networks);
    for reference in networks {
        let Ok(info) = state.engine.networks().get(&reference.name) else {
            facts.networks.push(reference);
            continue;
        };
        match info.record.name.as_str() {
            "host" => {
                facts.host_namespaces.insert("network=host".to_owned());
            }
            "bridge" | "none" => {}
            name => {
                let stack = info.record.labels.get(brig_access::facts::STACK_LABEL).cloned();
                facts.networks.push(brig_access::Reference {
                    name: name.to_owned(),
                    stack: stack.unwrap_or_default(),
                });
            }
        }
    }
}
