//! What a client is told when something is wrong: status, code and text, as the clients know them.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

/// Clients look into bodies of at most 1 KiB.
const MAX_BODY: usize = 1000;
/// Characters of a detail that are kept when the body would be larger.
const SHORT_DETAIL: usize = 160;

/// An answer that is not what was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    code: &'static str,
    message: &'static str,
    detail: Option<Value>,
}

/// Which part of an upload does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    Validation,
    Hierarchy,
    Root,
    Targets,
    Snapshot,
}

impl Invalid {
    const fn name(self) -> &'static str {
        match self {
            Self::Validation => "ErrValidation",
            Self::Hierarchy => "ErrBadHierarchy",
            Self::Root => "ErrBadRoot",
            Self::Targets => "ErrBadTargets",
            Self::Snapshot => "ErrBadSnapshot",
        }
    }
}

impl Fault {
    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message, detail: None }
    }

    fn with(mut self, detail: Value) -> Self {
        self.detail = Some(detail);
        self
    }

    pub(crate) fn not_found() -> Self {
        Self::no_such_path().with(json!({}))
    }

    /// What is not in the table at all.
    pub(crate) const fn no_such_path() -> Self {
        let message = "You have requested metadata that does not exist.";
        Self::new(StatusCode::NOT_FOUND, "METADATA_NOT_FOUND", message)
    }

    pub(crate) fn malformed_upload(reason: &str) -> Self {
        let message = "The body of your request is malformed.";
        Self::new(StatusCode::BAD_REQUEST, "MALFORMED_UPLOAD", message).with(reason.into())
    }

    pub(crate) fn no_filename() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "NO_FILENAME", "No file/role name provided.")
    }

    pub(crate) fn invalid_role(name: &str) -> Self {
        let message = "The role you are attempting to operate on is invalid.";
        Self::new(StatusCode::BAD_REQUEST, "INVALID_ROLE", message).with(name.into())
    }

    pub(crate) fn malformed_json() -> Self {
        let message = "JSON sent by the client could not be parsed by the server";
        Self::new(StatusCode::BAD_REQUEST, "MALFORMED_JSON", message)
    }

    pub(crate) fn invalid_update(what: Invalid, reason: &str) -> Self {
        let message = "Update sent by the client is invalid.";
        let error = match what {
            Invalid::Hierarchy => json!({ "Missing": "", "Msg": reason }),
            _ => json!({ "Msg": reason }),
        };
        Self::new(StatusCode::BAD_REQUEST, "INVALID_UPDATE", message)
            .with(json!({ "Name": what.name(), "Error": error }))
    }

    pub(crate) fn version() -> Self {
        let message = "A newer version of metadata is already available.";
        Self::new(StatusCode::BAD_REQUEST, "VERSION", message).with(json!({}))
    }

    pub(crate) fn invalid_gun() -> Self {
        let message = "The server does not support actions on images of this name.";
        Self::new(StatusCode::BAD_REQUEST, "INVALID_GUN", message)
    }

    pub(crate) fn invalid_parameters(reason: &str) -> Self {
        let message = "The parameters provided are not valid.";
        Self::new(StatusCode::BAD_REQUEST, "INVALID_PARAMETERS", message).with(reason.into())
    }

    pub(crate) fn unauthorized(access: Value) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required").with(access)
    }

    /// Our own failure. What it is goes to the log, not to the client.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "unknown error")
    }

    pub(crate) fn overloaded() -> Self {
        let message = "The server is busy. Try again in a moment.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
    }

    /// The trust data is somewhere else, or nowhere, at the moment.
    pub(crate) fn unavailable(reason: &str) -> Self {
        let message = "The server cannot serve trust data at the moment.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message).with(reason.into())
    }

    /// More than is kept.
    pub(crate) fn too_large(reason: &str) -> Self {
        let message = "The metadata is larger than the server keeps.";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", message).with(reason.into())
    }

    #[cfg(test)]
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The name of what an upload breaks, and the reason.
    #[cfg(test)]
    pub(crate) fn reason(&self) -> Option<(&str, &str)> {
        let detail = self.detail.as_ref()?;
        Some((detail.get("Name")?.as_str()?, detail.get("Error")?.get("Msg")?.as_str()?))
    }

    /// The body. Never larger than what clients read of it.
    pub(crate) fn body(&self) -> Bytes {
        let body = self.encode(self.detail.as_ref());
        if body.len() <= MAX_BODY {
            return body.into();
        }
        let mut detail = self.detail.clone().unwrap_or_default();
        shorten(&mut detail);
        let body = self.encode(Some(&detail));
        if body.len() <= MAX_BODY { body.into() } else { self.encode(None).into() }
    }

    fn encode(&self, detail: Option<&Value>) -> Vec<u8> {
        #[derive(Serialize)]
        struct Errors<'a> {
            errors: [Error<'a>; 1],
        }
        #[derive(Serialize)]
        struct Error<'a> {
            code: &'a str,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<&'a Value>,
        }
        let errors = [Error { code: self.code, message: self.message, detail }];
        let mut body = serde_json::to_vec(&Errors { errors }).unwrap_or_default();
        body.push(b'\n');
        body
    }
}

fn shorten(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some((at, _)) = text.char_indices().nth(SHORT_DETAIL) {
                text.truncate(at);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_what_the_clients_read() {
        let body = Fault::invalid_update(Invalid::Root, "no").body();
        let detail = json!({"Name": "ErrBadRoot", "Error": {"Msg": "no"}});
        let message = "Update sent by the client is invalid.";
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            json!({"errors": [{"code": "INVALID_UPDATE", "message": message, "detail": detail}]})
        );
        let body = Fault::no_filename().body();
        assert_eq!(
            body,
            "{\"errors\":[{\"code\":\"NO_FILENAME\",\"message\":\"No file/role name provided.\"}]}\n"
        );
    }

    #[test]
    fn a_long_reason_is_cut_and_its_name_stays() {
        for text in ["x".repeat(5000), "\u{1}".repeat(5000), "é\"".repeat(900)] {
            let body = Fault::invalid_update(Invalid::Targets, &text).body();
            assert!(body.len() <= 1024);
            let answer: Value = serde_json::from_slice(&body).unwrap();
            assert!(answer["errors"][0]["code"] == "INVALID_UPDATE");
        }
        let body = Fault::invalid_update(Invalid::Targets, &"x".repeat(5000)).body();
        assert!(String::from_utf8_lossy(&body).contains("ErrBadTargets"));
    }
}
