//! Plugins, of which there are none: whatever name a client gives is not found, in docker's words.

use crate::server::body;
use crate::server::{ApiError, Call, Response};

type Answer = Result<Response, ApiError>;

/// `GET /plugins`: there are none.
///
/// # Errors
/// None.
pub async fn list(_: Call) -> Answer {
    body::ok(&serde_json::json!([]))
}

/// What is asked of a plugin that must be there: `json`, `enable`, `set`, removal and so on.
///
/// # Errors
/// Always 404.
pub async fn unknown(call: Call) -> Answer {
    Err(ApiError::not_found(format!("plugin {:?} not found", call.param("name"))))
}
