//! `/configs`.

use brig_api::swarm::{ConfigSpec, CreateResponse};
use http::StatusCode;

use super::{Answer, convert, local, secrets, versions};
use crate::access::{Action, object};
use crate::server::{Call, body};

const FILTERS: [&str; 3] = ["id", "label", "name"];

/// `GET /configs`.
pub(super) async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.check_keys(&FILTERS)?;
    let configs = local::control(&call.state)?.configs();
    let shown: Vec<_> = configs
        .iter()
        .filter(|config| {
            let annotations = config.spec.as_ref().and_then(|spec| spec.annotations.as_ref());
            secrets::matches(&filters, &config.id, annotations)
        })
        .filter(|config| call.authorized.may(Action::ConfigInspect, &object::config(config)))
        .map(|config| convert::config::json(config))
        .collect();
    body::ok(&shown)
}

/// `GET /configs/{id}`.
pub(super) async fn inspect(call: Call) -> Answer {
    let config = local::control(&call.state)?.config(call.param("id"))?;
    body::ok(&convert::config::json(&config))
}

/// `POST /configs/create`.
pub(super) async fn create(mut call: Call) -> Answer {
    let control = local::control(&call.state)?;
    let request: ConfigSpec = call.required_json().await?;
    let id = control.create_config(convert::config::spec(&request)).await?;
    body::json(StatusCode::CREATED, &CreateResponse { id })
}

/// `POST /configs/{id}/update`: only labels may change.
pub(super) async fn update(mut call: Call) -> Answer {
    let version = versions::required(&call.query, "config")?;
    let control = local::control(&call.state)?;
    let request: ConfigSpec = call.required_json().await?;
    control.update_config(call.param("id"), version, convert::config::spec(&request)).await?;
    Ok(body::empty(StatusCode::OK))
}

/// `DELETE /configs/{id}`.
pub(super) async fn remove(call: Call) -> Answer {
    local::control(&call.state)?.remove_config(call.param("id")).await?;
    Ok(body::empty(StatusCode::NO_CONTENT))
}
