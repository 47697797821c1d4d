//! Errors as the API answers them: a status and `{"message": …}`.

use brig_types::error::{Categorized, ErrorKind, chain};
use http::{HeaderValue, StatusCode, header};

use super::body::{self, Response};

/// An error answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    plain_text: bool,
}

impl ApiError {
    /// An error of this category.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let status =
            StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, message: message.into(), plain_text: false }
    }

    /// The request is wrong (400).
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParameter, message)
    }

    /// There is no such thing (404).
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// The state of things forbids it (409).
    #[must_use]
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// Not in this version (501).
    #[must_use]
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotImplemented, message)
    }

    /// Our fault (500).
    #[must_use]
    pub fn system(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::System, message)
    }

    /// More was sent than the route takes (413).
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            message: format!("request body is larger than {limit} bytes"),
            plain_text: false,
        }
    }

    /// What unknown paths and methods get.
    #[must_use]
    pub fn page_not_found() -> Self {
        Self::not_found("page not found")
    }

    /// The same error, answered as plain text.
    #[must_use]
    pub fn as_plain_text(mut self) -> Self {
        self.plain_text = true;
        self
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The text.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The answer.
    #[must_use]
    pub fn into_response(self) -> Response {
        if self.status == StatusCode::NOT_MODIFIED {
            return body::empty(self.status);
        }
        if self.plain_text {
            let mut response = http::Response::new(body::full(self.message));
            *response.status_mut() = self.status;
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );
            return response;
        }
        let shape = serde_json::json!({ "message": self.message });
        let mut response = http::Response::new(body::full(format!("{shape}\n")));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, body::JSON);
        response
    }
}

/// Every error of the crates below is answered by its category; the text is the whole chain of
/// causes.
impl<E: Categorized> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self::new(error.kind(), chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot do it")]
    struct Outer(ErrorKind, #[source] std::io::Error);

    impl Categorized for Outer {
        fn kind(&self) -> ErrorKind {
            self.0
        }
    }

    async fn text(response: Response) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_category_decides_the_status_and_the_chain_is_the_text() {
        for (kind, status) in [
            (ErrorKind::InvalidParameter, 400),
            (ErrorKind::Unauthorized, 401),
            (ErrorKind::Forbidden, 403),
            (ErrorKind::NotFound, 404),
            (ErrorKind::Conflict, 409),
            (ErrorKind::NotImplemented, 501),
            (ErrorKind::Unavailable, 503),
            (ErrorKind::System, 500),
        ] {
            let error = ApiError::from(Outer(kind, std::io::Error::other("the disk \"is\" full")));
            let response = error.into_response();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
            let text = text(response).await;
            assert_eq!(text, "{\"message\":\"cannot do it: the disk \\\"is\\\" full\"}\n");
        }
    }

    #[tokio::test]
    async fn nothing_to_do_has_no_body() {
        let response = ApiError::new(ErrorKind::NotModified, "ignored").into_response();
        assert_eq!(response.status(), 304);
        assert!(response.headers().get(header::CONTENT_TYPE).is_none());
        assert_eq!(text(response).await, "");
    }
}
