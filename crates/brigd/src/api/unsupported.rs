//! Routes of Docker's API that this version does not serve, each with a way out where there is
//! one. They are in the table so that clients get a clear 501 instead of `page not found`.

use crate::server::{ApiError, Call, Response};

type Answer = Result<Response, ApiError>;

fn refuse(text: &str) -> Answer {
    Err(ApiError::not_implemented(text))
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
