//! `/secrets`. Content goes in and never comes out.

use brig_api::filters::Filters;
use brig_api::swarm::{CreateResponse, SecretSpec};
use brig_proto::swarm::Annotations;
use http::StatusCode;

use super::{Answer, convert, local, versions};
use crate::access::{Action, object};
use crate::server::{Call, body};

const FILTERS: [&str; 4] = ["id", "label", "name", "names"];

/// `GET /secrets`.
pub(super) async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.check_keys(&FILTERS)?;
    let secrets = local::control(&call.state)?.secrets();
    let shown: Vec<_> = secrets
        .iter()
        .filter(|secret| {
            let annotations = secret.spec.as_ref().and_then(|spec| spec.annotations.as_ref());
            matches(&filters, &secret.id, annotations)
        })
        .filter(|secret| call.authorized.may(Action::SecretInspect, &object::secret(secret)))
        .map(|secret| convert::secret::json(secret))
        .collect();
    body::ok(&shown)
}

/// Whether a secret or config satisfies the filters.
pub(super) fn matches(filters: &Filters, id: &str, annotations: Option<&Annotations>) -> bool {
    let (name, labels) = convert::name_and_labels(annotations);
    filters.matches_prefix("id", id)
        && filters.matches_prefix("name", &name)
        && filters.matches_exactly("names", &name)
        && filters.matches_labels("label", &labels)
}

/// `GET /secrets/{id}`.
pub(super) async fn inspect(call: Call) -> Answer {
    let secret = local::control(&call.state)?.secret(call.param("id"))?;
    body::ok(&convert::secret::json(&secret))
}

/// `POST /secrets/create`.
pub(super) async fn create(mut call: Call) -> Answer {
    let control = local::control(&call.state)?;
    let request: SecretSpec = call.required_json().await?;
    let id = control.create_secret(convert::secret::spec(&request)).await?;
    body::json(StatusCode::CREATED, &CreateResponse { id })
}

/// `POST /secrets/{id}/update`: only labels may change.
pub(super) async fn update(mut call: Call) -> Answer {
    let version = versions::required(&call.query, "secret")?;
    let control = local::control(&call.state)?;
    let request: SecretSpec = call.required_json().await?;
    control.update_secret(call.param("id"), version, convert::secret::spec(&request)).await?;
    Ok(body::empty(StatusCode::OK))
}

/// `DELETE /secrets/{id}`.
pub(super) async fn remove(call: Call) -> Answer {
    local::control(&call.state)?.remove_secret(call.param("id")).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let annotations = Annotations {
            name: "db.pass".into(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..Annotations::default()
        };
        for (key, value, expected) in [
            ("id", "ab", true),
            ("id", "b", false),
            ("name", "db", true),
            ("name", "pass", false),
            ("names", "db", false),
            ("names", "db.pass", true),
            ("label", "a=b", true),
            ("label", "a=c", false),
        ] {
            let filters = Filters::new().with(key, value);
            assert_eq!(matches(&filters, "abc", Some(&annotations)), expected, "{key}={value}");
        }
    }
}
