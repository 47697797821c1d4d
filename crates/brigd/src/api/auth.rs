//! `POST /auth`: whether a registry takes a client's credentials.

use brig_api::auth::RegistryAuth;
use brig_api::system::{AuthRequest, AuthResponse};

use super::image_transfer::credentials_of;
use crate::server::{ApiError, Call, Response, body};

/// Asks the registry. The credentials go nowhere else and are not kept.
///
/// # Errors
/// The registry refuses them, or can't be asked.
pub async fn login(mut call: Call) -> Result<Response, ApiError> {
    let request: AuthRequest = call.required_json().await?;
    let auth = RegistryAuth {
        username: request.username,
        password: request.password,
        serveraddress: request.serveraddress,
        identitytoken: request.identitytoken,
        registrytoken: request.registrytoken,
        ..RegistryAuth::default()
    };
    call.state.engine.images().login(&auth.serveraddress, credentials_of(&auth)).await?;
    body::ok(&AuthResponse { status: "Login Succeeded".to_owned(), ..AuthResponse::default() })
}
