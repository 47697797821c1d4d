//! Routes of Docker's API that this version does not serve, each with a way out where there is
//! one. They are in the table so that clients get a clear 501 instead of `page not found`.

use crate::server::{ApiError, Call, Response};

type Answer = Result<Response, ApiError>;

fn refuse(text: &str) -> Answer {
    Err(ApiError::not_implemented(text))
}

/// `GET /images/search`.
///
/// # Errors
/// Always 501.
pub async fn search(_: Call) -> Answer {
    refuse("searching registries is not available in this version; use the registry's web page")
}

/// `GET /images/get`.
///
/// # Errors
/// Always 501.
pub async fn save(_: Call) -> Answer {
    refuse("saving images is not available in this version; skopeo copies them from registries")
}

/// `POST /images/{name}/push`.
///
/// # Errors
/// Always 501.
pub async fn push(_: Call) -> Answer {
    refuse("pushing images is not available in this version; use buildah or skopeo")
}

/// `POST /commit`.
///
/// # Errors
/// Always 501.
pub async fn commit(_: Call) -> Answer {
    refuse("making images of containers is not available in this version; use buildah")
}

/// `POST /build` and the sessions of BuildKit.
///
/// # Errors
/// Always 501.
pub async fn build(_: Call) -> Answer {
    refuse(
        "this engine does not build images; use \"docker buildx\" with the docker-container or \
         remote driver, or buildah, and push to a registry or load the archive",
    )
}
