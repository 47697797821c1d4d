//! `/services`.

use brig_api::auth::RegistryAuth;
use brig_api::container::UpdateResponse;
use brig_api::engine_access;
use brig_api::filters::Filters;
use brig_api::swarm::{ServiceCreateResponse, ServiceSpec};
use brig_proto::swarm as proto;
use brig_proto::swarm::container_spec::PullOptions;
use brig_proto::swarm::service_spec::Mode;
use brig_proto::swarm::task_spec::Runtime;
use brig_swarm::{RegistryAuthFrom, UpdateOptions};
use brig_types::error::ErrorKind;
use http::StatusCode;

use super::{Answer, convert, local, service_status, versions};
use crate::access::{Action, lend, mask, object};
use crate::admission::services::image_of;
use crate::server::{ApiError, Call, body};

const FILTERS: [&str; 5] = ["id", "label", "mode", "name", "runtime"];
const MODES: [&str; 4] = ["replicated", "global", "replicated-job", "global-job"];
const RUNTIMES: [&str; 3] = ["container", "plugin", "attachment"];

/// `GET /services`.
pub(super) async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.check_keys(&FILTERS)?;
    filters.check_values("mode", &MODES)?;
    filters.check_values("runtime", &RUNTIMES)?;
    let with_status = call.query.flag("status");
    let control = local::control(&call.state)?;
    let shown: Vec<_> = control
        .services()
        .iter()
        .filter(|service| matches(&filters, service))
        .map(|service| (object::service(service, &control), service))
        .filter(|(object, _)| call.authorized.may(Action::ServiceInspect, object))
        .map(|(object, service)| {
            let json = convert::service::json(service);
            let mut json = mask::service(&call.authorized, &object, json);
            if with_status {
                let tasks = control.tasks_of_service(&service.id);
                json.service_status = Some(service_status::count(service, &tasks));
            }
            json
        })
        .collect();
    body::ok(&shown)
}

fn matches(filters: &Filters, service: &proto::Service) -> bool {
    let spec = service.spec.as_ref();
    let (name, labels) = convert::name_and_labels(spec.and_then(|spec| spec.annotations.as_ref()));
    let mode = match spec.and_then(|spec| spec.mode.as_ref()) {
        Some(Mode::Replicated(_)) => "replicated",
        Some(Mode::Global(_)) => "global",
        Some(Mode::ReplicatedJob(_)) => "replicated-job",
        Some(Mode::GlobalJob(_)) => "global-job",
        None => "",
    };
    let runtime = convert::template::runtime_word(spec.and_then(|spec| spec.task.as_ref()));
    filters.matches_prefix("id", &service.id)
        && filters.matches_prefix("name", &name)
        && filters.matches_labels("label", &labels)
        && filters.matches_exactly("mode", mode)
        && filters.matches_exactly("runtime", runtime)
}

/// `GET /services/{id}`.
pub(super) async fn inspect(call: Call) -> Answer {
    let control = local::control(&call.state)?;
    let service = control.service(call.param("id"))?;
    let object = object::service(&service, &control);
    let mut json = mask::service(&call.authorized, &object, convert::service::json(&service));
    if call.query.flag("insertDefaults") {
        convert::service::insert_defaults(&mut json.spec);
    }
    body::ok(&json)
}

/// `POST /services/create`.
pub(super) async fn create(mut call: Call) -> Answer {
    let control = local::control(&call.state)?;
    let mut request: ServiceSpec = call.required_json().await?;
    if request.name.is_empty() {
        request.name = brig_engine::random_name(0);
    }
    check_access(&call, &request)?;
    let mut spec = convert::service::spec(&request)?;
    let auth = add_credentials(&call, &mut spec)?;
    let warnings = judge(&call, &mut spec, None, auth.as_ref()).await?;
    let id = control.create_service(spec).await?;
    let response = ServiceCreateResponse { id, warnings };
    body::json(StatusCode::CREATED, &response)
}

/// What the containers are lent must make sense before it gets to any node.
fn check_access(call: &Call, spec: &ServiceSpec) -> Result<(), ApiError> {
    let Some(container) = &spec.task_template.container_spec else { return Ok(()) };
    let access = engine_access::asked(None, &container.labels)
        .map_err(|error| ApiError::invalid(error.to_string()))?;
    lend::check_role(&call.state.gate, access.as_ref())
}

/// `POST /services/{id}/update`.
pub(super) async fn update(mut call: Call) -> Answer {
    let version = versions::required(&call.query, "service")?;
    let options = UpdateOptions {
        registry_auth_from: match call.query.text("registryAuthFrom") {
            None | Some("" | "spec") => RegistryAuthFrom::Spec,
            Some("previous-spec") => RegistryAuthFrom::PreviousSpec,
            Some(_) => return Err(ApiError::invalid("unsupported registryAuthFrom value")),
        },
        roll_back: match call.query.text("rollback") {
            None | Some("" | "none") => false,
            Some("previous") => true,
            Some(other) => {
                return Err(ApiError::invalid(format!("unrecognized rollback option {other}")));
            }
        },
    };
    let control = local::control(&call.state)?;
    let request: ServiceSpec = call.required_json().await?;
    check_access(&call, &request)?;
    let mut spec = convert::service::spec(&request)?;
    let auth = add_credentials(&call, &mut spec)?;
    let service = control.service(call.param("id"))?;
    let warnings = if options.roll_back {
        // Judged as it will be; the spec that was sent is not looked at.
        let mut previous = service.previous_spec.clone().unwrap_or_default();
        judge(&call, &mut previous, service.spec.as_ref(), auth.as_ref()).await?
    } else {
        judge(&call, &mut spec, service.spec.as_ref(), auth.as_ref()).await?
    };
    control.update_service(call.param("id"), version, spec, options).await?;
    body::ok(&UpdateResponse { warnings })
}

/// Whether the image may start; the spec is pinned to what was judged.
async fn judge(
    call: &Call,
    spec: &mut proto::ServiceSpec,
    current: Option<&proto::ServiceSpec>,
    auth: Option<&RegistryAuth>,
) -> Result<Vec<String>, ApiError> {
    let admission = &call.state.admission;
    let asked = image_of(spec).to_owned();
    admission.judge_service(spec, current, auth).await.map_err(|refused| {
        let refusal = brig_engine::Refusal::from(refused);
        call.state.engine.events().emit("image", "refuse", &asked, refusal.attributes);
        ApiError::new(ErrorKind::Forbidden, refusal.message)
    })
}

/// `DELETE /services/{id}`.
pub(super) async fn remove(call: Call) -> Answer {
    local::control(&call.state)?.remove_service(call.param("id")).await?;
    Ok(body::empty(StatusCode::OK))
}

/// Lets nodes pull with the client's registry credentials. They travel as they came.
fn add_credentials(
    call: &Call,
    spec: &mut proto::ServiceSpec,
) -> Result<Option<RegistryAuth>, ApiError> {
    let Some(header) = call.header(brig_api::auth::HEADER).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let auth = RegistryAuth::from_header(header)?;
    if auth.is_anonymous() {
        return Ok(None);
    }
    let runtime = spec.task.as_mut().and_then(|task| task.runtime.as_mut());
    if let Some(Runtime::Container(container)) = runtime {
        container.pull_options = Some(PullOptions { registry_auth: header.to_owned() });
    }
    Ok(Some(auth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let service = proto::Service {
            id: "abc".into(),
            spec: Some(proto::ServiceSpec {
                annotations: Some(proto::Annotations {
                    name: "st_web".into(),
                    labels: [("com.docker.stack.namespace".to_owned(), "st".to_owned())].into(),
                    ..proto::Annotations::default()
                }),
                task: Some(proto::TaskSpec {
                    runtime: Some(Runtime::Container(proto::ContainerSpec::default())),
                    ..proto::TaskSpec::default()
                }),
                mode: Some(Mode::Global(proto::GlobalService {})),
                ..proto::ServiceSpec::default()
            }),
            ..proto::Service::default()
        };
        for (key, value, expected) in [
            ("id", "ab", true),
            ("name", "st_", true),
            ("name", "web", false),
            ("label", "com.docker.stack.namespace", true),
            ("label", "com.docker.stack.namespace=st", true),
            ("label", "com.docker.stack.namespace=other", false),
            ("mode", "global", true),
            ("mode", "replicated", false),
            ("runtime", "container", true),
            ("runtime", "plugin", false),
        ] {
            let filters = Filters::new().with(key, value);
            assert_eq!(matches(&filters, &service), expected, "{key}={value}");
        }
    }
}
