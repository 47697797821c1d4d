//! Routes of Docker's API that this version does not serve, each with a way out where there is
//! one. They are in the table so that clients get a clear 501 instead of `page not found`.

use crate::server::{ApiError, Call, Response};

type Answer = Result<Response, ApiError>;

fn refuse(text: &str) -> Answer {
    Err(ApiError::not_implemented(text))
}

/// `GET /containers/{id}/changes`.
///
/// # Errors
/// Always 501.
pub async fn changes(_: Call) -> Answer {
    refuse("listing a container's changed files is not available in this version")
}

/// `GET /containers/{id}/stats`.
///
/// # Errors
/// Always 501.
pub async fn stats(_: Call) -> Answer {
    refuse("container statistics are not available in this version")
}

/// `GET /containers/{id}/export`.
///
/// # Errors
/// Always 501.
pub async fn export(_: Call) -> Answer {
    refuse("exporting a container's file system is not available in this version")
}

/// `/containers/{id}/archive`.
///
/// # Errors
/// Always 501.
pub async fn copy(_: Call) -> Answer {
    refuse("copying files from and to containers is not available in this version")
}

/// `POST /containers/{id}/update`.
///
/// # Errors
/// Always 501.
pub async fn update(_: Call) -> Answer {
    refuse("changing a container's resources is not available in this version; create it anew")
}

/// The sessions of BuildKit.
///
/// # Errors
/// Always 501.
pub async fn buildkit(_: Call) -> Answer {
    refuse(
        "this engine has no BuildKit: build with DOCKER_BUILDKIT=0, or use \"docker buildx\" with \
         the docker-container or remote driver and push to a registry or load the archive",
    )
}
