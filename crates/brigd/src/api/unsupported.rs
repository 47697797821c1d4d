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

/// Getting plugins, or making them.
///
/// # Errors
/// Always 501.
pub async fn plugins(_: Call) -> Answer {
    refuse(
        "this engine has no plugins: volumes of other machines are mounted with \"docker volume \
         create -o type=nfs\" and the like, and logs go to the drivers that are built in",
    )
}

/// Checkpoints of processes.
///
/// # Errors
/// Always 501.
pub async fn checkpoints(_: Call) -> Answer {
    refuse(
        "this engine keeps no checkpoints of processes: \"docker pause\" stops them for a while, \
         \"docker commit\" keeps their files",
    )
}
