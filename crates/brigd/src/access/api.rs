//! `/brig/access` and `/brig/audit`: the rules, their explanation, and the log.

use std::time::SystemTime;

use brig_access::{Action, Facts, Object, Principal, Request};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::enrol::register;
use super::object;
use crate::api::blocking::blocking;
use crate::api::times;
use crate::audit::query::{self, Selection};
use crate::audit::verify;
use crate::route;
use crate::server::{ApiError, Call, Response, Route, body};

type Answer = Result<Response, ApiError>;

/// Routes about rights.
pub static ROUTES: &[Route] = &[
    route!(GET "/brig/access", AccessInspect, inspect),
    route!(POST "/brig/access/explain", AccessExplain, explain),
    route!(GET "/brig/audit", AuditRead, audit),
    route!(GET "/brig/audit/verify", AuditVerify, verify_audit),
];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Bound {
    principal: String,
    role: String,
    services: Vec<String>,
    stacks: Vec<String>,
    secrets: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    directory: String,
    local: String,
    bindings: Vec<Bound>,
    policies: Vec<ShownPolicy>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownPolicy {
    name: String,
    effect: &'static str,
    text: String,
}

/// `GET /brig/access`.
async fn inspect(call: Call) -> Answer {
    let gate = &call.state.gate;
    let rules = gate.rules();
    let bindings = rules.bindings();
    let list = |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>();
    body::ok(&Shown {
        directory: gate.dir().display().to_string(),
        local: bindings.local.clone().unwrap_or_else(|| "admin".to_owned()),
        bindings: bindings
            .bindings
            .iter()
            .map(|binding| Bound {
                principal: binding.subject(),
                role: binding.role.clone(),
                services: list(&binding.services),
                stacks: list(&binding.stacks),
                secrets: list(&binding.secrets),
            })
            .collect(),
        policies: rules
            .policies()
            .map(|(name, forbids, text)| ShownPolicy {
                name,
                effect: if forbids { "forbid" } else { "permit" },
                text,
            })
            .collect(),
    })
}

/// What would be asked.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Question {
    /// Nothing for the caller.
    #[serde(default)]
    principal: String,
    action: String,
    /// Name of the object; looked up.
    #[serde(default)]
    object: String,
    /// Instead of looking it up.
    #[serde(default)]
    given: Option<Object>,
    #[serde(default)]
    facts: Option<Facts>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Explained {
    allowed: bool,
    rule: String,
    role: String,
    reason: String,
    principal: String,
    object: Object,
}

/// Somebody who was only named, with what the register or the key gives them.
fn with_grants(call: &Call, principal: Principal) -> Principal {
    match principal {
        Principal::Certificate { name, fingerprint, grants } if grants.is_empty() => {
            let now = OffsetDateTime::now_utc();
            let grants = call.state.authority.with(|access| {
                register::named(access, &name, now)
                    .filter(|one| register::standing(one, now) == register::Standing::Active)
                    .map(register::grant)
            });
            Principal::Certificate { name, fingerprint, grants: grants.into_iter().collect() }
        }
        Principal::SshKey { fingerprint, grants } if grants.is_empty() => {
            let known = call.state.ssh.list();
            let of_key = known.iter().filter(|key| key.fingerprint == fingerprint);
            let grants = of_key.flat_map(|key| key.principal().own_grants().to_vec()).collect();
            Principal::SshKey { fingerprint, grants }
        }
        other => other,
    }
}

/// `POST /brig/access/explain`.
async fn explain(mut call: Call) -> Answer {
    let question: Question = call.required_json().await?;
    let action = Action::parse(&question.action).ok_or_else(|| {
        ApiError::invalid(format!("there is no action {:?}; see docs/access.md", question.action))
    })?;
    let caller = call.authorized.principal().clone();
    let principal = if question.principal.is_empty() {
        caller.clone()
    } else {
        Principal::parse(&question.principal).ok_or_else(|| {
            ApiError::invalid(format!(
                "{:?} is no principal: expected uid:UID, uid:UID:GID, cert:NAME, ssh:FINGERPRINT or lent:ROLE",
                question.principal
            ))
        })?
    };
    let principal = with_grants(&call, principal);
    let others = principal.name() != caller.name();
    let may_all = call.authorized.may(Action::AccessInspect, &Object::named("access", ""));
    if others && !may_all {
        return Err(ApiError::new(
            brig_types::error::ErrorKind::Forbidden,
            "only who may see all rules may ask about other principals",
        ));
    }
    let object = match question.given {
        Some(object) => object,
        None if question.object.is_empty() => Object::named(object::kind(action), ""),
        None => object::find(&call.state, "", action, &question.object).await,
    };
    let facts = question.facts.unwrap_or_else(|| Facts {
        // Without wishes: what keeps its name and its stack.
        makes: !object.name.is_empty(),
        name: object.name.clone(),
        stack: object.stack.clone(),
        ..Facts::default()
    });
    let rules = call.state.gate.rules();
    let decision =
        rules.decide(&Request { principal: &principal, action, object: &object, facts: &facts });
    // SECURITY: who may not look at an object learns nothing of it by asking.
    let shown = if may_all { object } else { Object::named(&object.kind, &question.object) };
    body::ok(&Explained {
        allowed: decision.allowed,
        rule: decision.rule,
        role: decision.role,
        reason: decision.reason,
        principal: principal.name(),
        object: shown,
    })
}

fn moment(call: &Call, key: &str) -> Result<Option<OffsetDateTime>, ApiError> {
    times::parameter(call.query.text(key))
}

/// `GET /brig/audit`.
async fn audit(call: Call) -> Answer {
    let owned = |key: &str| call.query.non_empty(key).map(str::to_owned);
    let selection = Selection {
        since: moment(&call, "since")?,
        until: moment(&call, "until")?,
        principal: owned("principal"),
        action: owned("action"),
        denied: call.query.flag("denied"),
        limit: call.query.number("limit")?.unwrap_or(0),
    };
    let dir = call.state.gate.audit().dir().to_owned();
    let entries =
        blocking(move || query::read(&dir, &selection).map_err(|error| cannot_read(&error)))
            .await?;
    body::ok(&entries)
}

/// `GET /brig/audit/verify`.
async fn verify_audit(call: Call) -> Answer {
    let log = call.state.gate.audit().clone();
    let started = SystemTime::now();
    let report = blocking(move || {
        // What is still on its way to the disk is part of what is checked.
        if let Err(error) = log.seal() {
            return Err(ApiError::from(SealFailed(error)));
        }
        verify::verify(log.dir()).map_err(|error| cannot_read(&error))
    })
    .await?;
    tracing::debug!(took = ?started.elapsed().ok(), entries = report.entries, "audit log checked");
    body::ok(&report)
}

fn cannot_read(error: &std::io::Error) -> ApiError {
    ApiError::system(format!("cannot read the audit log: {error}"))
}

#[derive(Debug, thiserror::Error)]
#[error("the audit log cannot be sealed")]
struct SealFailed(#[source] crate::audit::AuditError);

impl brig_types::error::Categorized for SealFailed {
    fn kind(&self) -> brig_types::error::ErrorKind {
        brig_types::error::ErrorKind::System
    }
}
