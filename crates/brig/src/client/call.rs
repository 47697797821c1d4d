//! Requests before they are sent.

use std::convert::Infallible;
use std::io;

use brig_api::version::ApiVersion;
use brig_types::secret::SecretBytes;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, Request};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use serde::Serialize;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use crate::error::{Error, Result, message};

/// A request's body.
pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// Size of the pieces in which files are sent, in bytes.
const CHUNK: usize = 128 * 1024;

/// A body that is in memory.
fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// A call of the API: path without version, query, headers, body.
#[derive(Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    query: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Option<Body>,
    /// The first header that cannot be sent; reported when the request is made.
    bad_header: Option<HeaderName>,
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: String::new(),
            headers: Vec::new(),
            body: None,
            bad_header: None,
        }
    }

    /// A GET.
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// A HEAD.
    pub(crate) fn head(path: impl Into<String>) -> Self {
        Self::new(Method::HEAD, path)
    }

    /// A POST.
    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// A PUT.
    pub(crate) fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    /// A DELETE.
    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// The path without version and query.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Adds a query value.
    #[must_use]
    pub(crate) fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        if !self.query.is_empty() {
            self.query.push('&');
        }
        self.query.push_str(name);
        self.query.push('=');
        escape(value.as_ref(), is_query_safe, &mut self.query);
        self
    }

    /// Adds `name=1` if it is so.
    #[must_use]
    pub(crate) fn query_if(self, name: &str, yes: bool) -> Self {
        if yes { self.query(name, "1") } else { self }
    }

    /// Adds a query value if there is one.
    #[must_use]
    pub(crate) fn query_opt(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Adds filters if there are any.
    #[must_use]
    pub(crate) fn filters(self, filters: &brig_api::filters::Filters) -> Self {
        if filters.is_empty() { self } else { self.query("filters", filters.to_json()) }
    }

    /// Adds a header.
    #[must_use]
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::try_from(value) {
            Ok(mut header) => {
                header.set_sensitive(name.as_str().contains("auth"));
                self.headers.push((name, header));
            }
            Err(_) => self.bad_header = Some(name),
        }
        self
    }

    /// Sets a JSON body.
    pub(crate) fn json<T: Serialize>(self, body: &T) -> Result<Self> {
        let mut bytes = serde_json::to_vec(body)
            .map_err(|source| Error::Answer { path: self.path.clone(), source })?;
        bytes.push(b'\n');
        Ok(self.json_bytes(bytes.into()))
    }

    /// Sets a JSON body with a secret in it; the encoded text is wiped when it has been sent.
    pub(crate) fn secret_json<T: Serialize>(self, body: &T, secret_len: usize) -> Result<Self> {
        struct Wiped(SecretBytes);

        impl AsRef<[u8]> for Wiped {
            fn as_ref(&self) -> &[u8] {
                self.0.expose_secret()
            }
        }

        // Room for the base64 text and the rest, so that growing leaves no copies behind.
        let mut bytes = Vec::with_capacity(secret_len / 3 * 4 + 64 * 1024);
        serde_json::to_writer(&mut bytes, body)
            .map_err(|source| Error::Answer { path: self.path.clone(), source })?;
        Ok(self.json_bytes(Bytes::from_owner(Wiped(SecretBytes::new(bytes)))))
    }

    fn json_bytes(mut self, bytes: Bytes) -> Self {
        self.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        self.body = Some(full(bytes));
        self
    }

    /// Sets a body that is read while it is sent, in chunks.
    #[must_use]
    pub(crate) fn stream(
        mut self,
        content_type: &'static str,
        source: impl AsyncRead + Send + Sync + 'static,
    ) -> Self {
        use futures_util::TryStreamExt as _;
        let stream = ReaderStream::with_capacity(source, CHUNK).map_ok(Frame::data);
        self.headers.push((CONTENT_TYPE, HeaderValue::from_static(content_type)));
        self.body = Some(StreamBody::new(stream).boxed());
        self
    }

    /// The HTTP request.
    pub(crate) fn into_request(self, version: Option<ApiVersion>) -> Result<Request<Body>> {
        if let Some(name) = self.bad_header {
            return Err(message(format!("the value of the {name} header cannot be sent")));
        }
        let mut uri = String::with_capacity(self.path.len() + self.query.len() + 16);
        if let Some(version) = version {
            uri.push_str(&format!("/v{version}"));
        }
        escape(&self.path, is_path_safe, &mut uri);
        if !self.query.is_empty() {
            uri.push('?');
            uri.push_str(&self.query);
        }
        let has_body = self.body.is_some();
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(&uri)
            .body(self.body.unwrap_or_else(|| full(Bytes::new())))
            .map_err(|_| message(format!("invalid request path {:?}", self.path)))?;
        let headers = request.headers_mut();
        headers.extend(self.headers);
        if !has_body && self.method == Method::POST {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Ok(request)
    }
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~')
}

const fn is_query_safe(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b':' | b'/' | b'@')
}

/// Image references go into paths as they are: slashes, colons and at signs stay.
const fn is_path_safe(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'/' | b':' | b'@' | b'+' | b'$' | b'!' | b'*' | b'(' | b')' | b',' | b'='
        )
}

fn escape(text: &str, is_safe: fn(u8) -> bool, out: &mut String) {
    for byte in text.bytes() {
        if is_safe(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_stay_in_the_path_and_queries_are_escaped() {
        let call = Call::get("/images/127.0.0.1:5000/a b@sha256:0/json")
            .query("filters", r#"{"a=b":true}"#)
            .query_if("all", true)
            .query_if("size", false);
        let request = call.into_request(Some(ApiVersion::new(1, 41))).unwrap();
        assert_eq!(
            request.uri().to_string(),
            "/v1.41/images/127.0.0.1:5000/a%20b@sha256:0/json?filters=%7B%22a%3Db%22:true%7D&all=1"
        );
    }

    #[test]
    fn posts_without_body_have_a_length() {
        let request = Call::post("/containers/x/start").into_request(None).unwrap();
        assert_eq!(request.headers()[CONTENT_LENGTH], "0");
        let bad = Call::get("/x").header(http::header::ACCEPT, "a\nb");
        assert!(bad.into_request(None).is_err());
    }
}
