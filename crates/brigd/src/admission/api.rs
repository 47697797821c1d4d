//! `/brig/policies` and `/brig/admission`: policies, what a new one would do, and why an image may
//! start or may not.

use brig_engine::{ListOptions, Occasion, Origin};
use brig_types::reference::Reference;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::gate::{Decision, Gate, Subject, Verdict};
use super::policies::{MAX_DOCUMENT, PolicyError, PolicyInForce};
use super::{hook, services};
use crate::route;
use crate::server::{ApiError, Call, Response, Route, body};
use crate::swarm::local;

type Answer = Result<Response, ApiError>;

/// Routes about what may start.
pub static ROUTES: &[Route] = &[
    route!(GET "/brig/policies", PolicyInspect, list),
    route!(GET "/brig/policies/{name}", PolicyInspect, inspect),
    route!(PUT "/brig/policies/{name}", PolicyUpdate, put, json(MAX_DOCUMENT)),
    route!(DELETE "/brig/policies/{name}", PolicyUpdate, remove),
    route!(POST "/brig/policies/{name}/test", PolicyInspect, test, json(MAX_DOCUMENT)),
    route!(GET "/brig/admission/explain", AdmissionExplain, explain),
];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    name: String,
    version: u64,
    scope: &'static str,
    changed_by: String,
    changed_at: i64,
    document: Value,
}

fn shown(policy: &PolicyInForce) -> Shown {
    Shown {
        name: policy.name.clone(),
        version: policy.version,
        scope: policy.scope.as_str(),
        changed_by: policy.changed_by.clone(),
        changed_at: policy.changed_at,
        document: serde_json::from_slice(&policy.document).unwrap_or_default(),
    }
}

/// `GET /brig/policies`.
async fn list(call: Call) -> Answer {
    let policies = call.state.admission.policies.list().await?;
    body::ok(&policies.iter().map(shown).collect::<Vec<_>>())
}

fn gate(call: &Call) -> Result<&dyn Gate, ApiError> {
    let name = call.param("name");
    call.state.admission.gate(name).ok_or_else(|| {
        ApiError::not_found(format!("there is no policy {name:?}: expected trust or scan"))
    })
}

/// `GET /brig/policies/{name}`.
async fn inspect(call: Call) -> Answer {
    let name = gate(&call)?.name();
    let found = call.state.admission.policies.find(name).await?;
    body::ok(&shown(&found.ok_or_else(|| PolicyError::NotFound(name.to_owned()))?))
}

/// The version that is replaced; 0, or none, for a first one.
fn version(call: &Call) -> Result<u64, ApiError> {
    Ok(call.query.number::<u64>("version")?.unwrap_or(0))
}

/// `PUT /brig/policies/{name}?version=N`.
async fn put(mut call: Call) -> Answer {
    let version = version(&call)?;
    let document = document(&mut call).await?;
    let name = gate(&call)?.name();
    let by = call.authorized.principal().name();
    let policy = call.state.admission.policies.put(name, document, version, by).await?;
    call.state.gate.note(
        &call.authorized,
        name,
        format!("{name} policy: version {} in place of {version}", policy.version),
    );
    body::ok(&shown(&policy))
}

/// The candidate in the body, as it would be stored.
async fn document(call: &mut Call) -> Result<Vec<u8>, ApiError> {
    let sent: Value = call.required_json().await?;
    let gate = gate(call)?;
    gate.canonical(sent.to_string().as_bytes())
        .map_err(|reason| PolicyError::Invalid { name: gate.name().to_owned(), reason }.into())
}

/// `DELETE /brig/policies/{name}?version=N`.
async fn remove(call: Call) -> Answer {
    let name = gate(&call)?.name();
    let version = version(&call)?;
    call.state.admission.policies.remove(name, version).await?;
    call.state.gate.note(&call.authorized, name, format!("{name} policy: removed"));
    Ok(body::empty(StatusCode::NO_CONTENT))
}

/// What a policy says of something that is there.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tested {
    kind: &'static str,
    #[serde(rename = "ID")]
    id: String,
    name: String,
    image: String,
    #[serde(flatten)]
    decision: ShownDecision,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownDecision {
    admitted: bool,
    enforced: bool,
    rule: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Value::is_null")]
    details: Value,
}

impl From<Decision> for ShownDecision {
    fn from(decision: Decision) -> Self {
        let Decision { verdict, enforced, rule, digest, warnings, details } = decision;
        let (admitted, reason) = match verdict {
            Verdict::Admitted => (true, String::new()),
            Verdict::Refused(reason) => (false, reason),
        };
        let digest = digest.map(|digest| digest.to_string()).unwrap_or_default();
        Self { admitted, enforced, rule, digest, reason, warnings, details }
    }
}

/// `POST /brig/policies/{name}/test`: what a policy would say of the services of the cluster and
/// of the containers of this node, were they made now.
async fn test(mut call: Call) -> Answer {
    let document = document(&mut call).await?;
    let gate = gate(&call)?;
    let policy = PolicyInForce::candidate(gate.name(), document);
    let mut tested = Vec::new();
    if let Ok(control) = local::control(&call.state) {
        for service in control.services() {
            let Some(spec) = service.spec.as_ref() else { continue };
            let image = services::image_of(spec);
            let Ok(reference) = Reference::parse(image).map(Reference::with_default_tag) else {
                continue;
            };
            let (name, stack) = services::names(spec);
            let subject = Subject {
                asked: image,
                digest: reference.digest().cloned(),
                reference: Some(reference),
                local: None,
                origin: &Origin::Client,
                occasion: Occasion::Create,
                auth: None,
                service: &name,
                stack: &stack,
            };
            let decision = gate.judge(&policy, &subject).await.into();
            let (id, image) = (service.id.clone(), image.to_owned());
            tested.push(Tested { kind: "service", id, name: name.clone(), image, decision });
        }
    }
    let options = ListOptions { all: true, ..ListOptions::default() };
    for container in call.state.engine.list(options).await? {
        // Those of tasks are what their service is.
        if container.labels.contains_key("com.docker.swarm.task.id") {
            continue;
        }
        let Ok(image) = call.state.engine.images().resolve(&container.image_id) else { continue };
        let request = hook::request(&container.image, &image, Origin::Client);
        let decision = gate.judge(&policy, &hook::subject(&request, None)).await.into();
        let name = container.names.first().map(|name| name.trim_start_matches('/').to_owned());
        tested.push(Tested {
            kind: "container",
            id: container.id,
            name: name.unwrap_or_default(),
            image: container.image,
            decision,
        });
    }
    body::ok(&tested)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Explained {
    image: String,
    /// Whether the image is on this node: then that one was judged.
    local: bool,
    admitted: bool,
    gates: Vec<ExplainedGate>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ExplainedGate {
    policy: String,
    version: u64,
    scope: &'static str,
    #[serde(flatten)]
    decision: ShownDecision,
}

/// `GET /brig/admission/explain?image=REF`: what would be said of an image, and why.
async fn explain(call: Call) -> Answer {
    let asked = call.query.text("image").unwrap_or_default();
    if asked.is_empty() {
        return Err(ApiError::invalid("no image was named"));
    }
    let auth = call
        .header(brig_api::auth::HEADER)
        .filter(|text| !text.is_empty())
        .map(brig_api::auth::RegistryAuth::from_header)
        .transpose()?;
    let found = call.state.engine.images().resolve(asked).ok();
    let request = found.as_ref().map(|image| hook::request(asked, image, Origin::Client));
    let mut subject = match &request {
        Some(request) => hook::subject(request, auth.as_ref()),
        None => {
            let reference = crate::api::images::reference(asked, None)?.with_default_tag();
            Subject {
                asked,
                digest: reference.digest().cloned(),
                reference: Some(reference),
                local: None,
                origin: &Origin::Client,
                occasion: Occasion::Create,
                auth: auth.as_ref(),
                service: "",
                stack: "",
            }
        }
    };
    let mut explained = Explained {
        image: asked.to_owned(),
        local: request.is_some(),
        admitted: true,
        gates: Vec::new(),
    };
    for (gate, policy) in call.state.admission.in_force().await? {
        let decision = gate.judge(&policy, &subject).await;
        if decision.digest.is_some() {
            subject.digest.clone_from(&decision.digest);
        }
        explained.admitted &= decision.verdict == Verdict::Admitted || !decision.enforced;
        explained.gates.push(ExplainedGate {
            policy: policy.name.clone(),
            version: policy.version,
            scope: policy.scope.as_str(),
            decision: decision.into(),
        });
    }
    body::ok(&explained)
}
