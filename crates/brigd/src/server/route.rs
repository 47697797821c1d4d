//! The shape of a route, and finding the one that a request means.
//!
//! Image names stand unescaped in the middle of docker's paths (`/images/host:5000/a/b/json`),
//! which the usual path routers cannot express: a catch-all may only come last. So patterns have
//! `{name*}` for one or more segments wherever it is needed, and matching is a walk over the
//! table.

use std::future::Future;
use std::pin::Pin;

use brig_api::version::{ApiVersion, MIN};
use http::Method;

use super::body::Response;
use super::call::Call;
use super::error::ApiError;
use crate::access::Action;

/// What a handler gives back.
pub type Answer = Pin<Box<dyn Future<Output = Result<Response, ApiError>> + Send>>;
/// Does what a route promises.
pub type Handler = fn(Call) -> Answer;

/// The methods that the API knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Headers only.
    Head,
    /// Read.
    Get,
    /// Change.
    Post,
    /// Upload.
    Put,
    /// Remove.
    Delete,
}

impl Verb {
    fn of(method: &Method) -> Option<Self> {
        Some(match *method {
            Method::HEAD => Self::Head,
            Method::GET => Self::Get,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::DELETE => Self::Delete,
            _ => return None,
        })
    }
}

/// What a route takes as a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRule {
    /// JSON of at most so many bytes, or nothing.
    Json(usize),
    /// Bytes without end, read as they come.
    Stream,
}

/// Whether a handler goes on when its client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Ends with the connection: it only reads.
    Connection,
    /// Goes on to its end: half a change is worse than an answer that nobody hears.
    Detached,
}

/// One row of the route table.
#[derive(Clone, Copy)]
pub struct Route {
    /// The method.
    pub verb: Verb,
    /// The path without version: literal segments, `{name}` for one, `{name*}` for several.
    pub path: &'static str,
    /// First version of the API that has it.
    pub since: ApiVersion,
    /// Last version of the API that has it.
    pub until: Option<ApiVersion>,
    /// What is asked of the access rules.
    pub action: Action,
    /// What it takes as a body.
    pub body: BodyRule,
    /// Whether it outlives its client.
    pub lifetime: Lifetime,
    /// What does it, by name: `module::function`.
    pub service: &'static str,
    /// What does it.
    pub handler: Handler,
}

/// Largest JSON body unless a route says otherwise.
pub const DEFAULT_JSON_LIMIT: usize = 1 << 20;

impl Route {
    /// A route of all versions; all but GET and HEAD outlive their clients.
    #[must_use]
    pub const fn new(
        verb: Verb,
        path: &'static str,
        action: Action,
        service: &'static str,
        handler: Handler,
    ) -> Self {
        let lifetime = match verb {
            Verb::Get | Verb::Head => Lifetime::Connection,
            Verb::Post | Verb::Put | Verb::Delete => Lifetime::Detached,
        };
        Self {
            verb,
            path,
            since: MIN,
            until: None,
            action,
            body: BodyRule::Json(DEFAULT_JSON_LIMIT),
            lifetime,
            service,
            handler,
        }
    }

    /// The route exists from this version on.
    #[must_use]
    pub const fn since(self, major: u16, minor: u16) -> Self {
        Self { since: ApiVersion::new(major, minor), ..self }
    }

    /// The route takes a JSON body of at most `limit` bytes.
    #[must_use]
    pub const fn json(self, limit: usize) -> Self {
        Self { body: BodyRule::Json(limit), ..self }
    }

    /// The route reads its body as a stream.
    #[must_use]
    pub const fn streamed(self) -> Self {
        Self { body: BodyRule::Stream, ..self }
    }

    /// The route ends with its client's connection although its method is not GET.
    #[must_use]
    pub const fn attended(self) -> Self {
        Self { lifetime: Lifetime::Connection, ..self }
    }

    fn serves(&self, version: ApiVersion) -> bool {
        version >= self.since && self.until.is_none_or(|until| version <= until)
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {} ({})", self.verb, self.path, self.action)
    }
}

/// A row of the route table: method, path, action, handler, and what deviates from the defaults.
#[macro_export]
macro_rules! route {
    (@verb HEAD) => { $crate::server::Verb::Head };
    (@verb GET) => { $crate::server::Verb::Get };
    (@verb POST) => { $crate::server::Verb::Post };
    (@verb PUT) => { $crate::server::Verb::Put };
    (@verb DELETE) => { $crate::server::Verb::Delete };
    ($verb:ident $path:literal, $action:ident, $handler:path $(, $option:ident($($value:expr),*))* $(,)?) => {
        $crate::server::Route::new(
            $crate::route!(@verb $verb),
            $path,
            $crate::access::Action::$action,
            ::std::stringify!($handler),
            |call| ::std::boxed::Box::pin($handler(call)),
        )$(.$option($($value),*))*
    };
}

/// Values of the segments in braces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(&'static str, String)>);

impl Params {
    /// The value of a segment; empty if the route has none of that name.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value.as_str())
    }

    /// Puts another name of the same object in place of the first value.
    pub fn pin(&mut self, id: String) {
        if let Some((_, value)) = self.0.first_mut() {
            *value = id;
        }
    }

    /// The first value: the object that the path is about.
    #[must_use]
    pub fn object(&self) -> Option<&str> {
        self.0.first().map(|(_, value)| value.as_str())
    }
}

/// Finds routes.
#[derive(Debug)]
pub struct Router {
    routes: Vec<&'static Route>,
}

impl Router {
    /// A router over these tables; earlier rows win.
    #[must_use]
    pub fn new(tables: &[&'static [Route]]) -> Self {
        Self { routes: tables.iter().flat_map(|table| table.iter()).collect() }
    }

    /// The rows in order.
    #[must_use]
    pub fn routes(&self) -> &[&'static Route] {
        &self.routes
    }

    /// The route of a request, and what its path says.
    #[must_use]
    pub fn find(
        &self,
        method: &Method,
        path: &str,
        version: ApiVersion,
    ) -> Option<(&'static Route, Params)> {
        let verb = Verb::of(method)?;
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        self.routes.iter().find_map(|route| {
            if route.verb != verb || !route.serves(version) {
                return None;
            }
            capture(route.path, &segments).map(|params| (*route, params))
        })
    }
}

/// Matches segments against a pattern that has at most one `{name*}`.
fn capture(pattern: &'static str, segments: &[&str]) -> Option<Params> {
    let mut params = Params::default();
    let parts: Vec<&'static str> = pattern.trim_start_matches('/').split('/').collect();
    let mut rest = segments;
    for (index, part) in parts.iter().enumerate() {
        let taken = match many(part) {
            Some(_) => rest.len().checked_sub(parts.len() - index - 1)?,
            None => 1,
        };
        if taken == 0 || taken > rest.len() {
            return None;
        }
        let (here, after) = rest.split_at(taken);
        rest = after;
        let value = here.join("/");
        match many(part).or_else(|| one(part)) {
            Some(_) if here.iter().any(|segment| segment.is_empty()) => return None,
            Some(name) => params.0.push((name, value)),
            None if value == *part => {}
            None => return None,
        }
    }
    rest.is_empty().then_some(params)
}

fn many(part: &'static str) -> Option<&'static str> {
    part.strip_prefix('{')?.strip_suffix("*}")
}

fn one(part: &'static str) -> Option<&'static str> {
    part.strip_prefix('{')?.strip_suffix('}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(path: &str) -> Vec<&str> {
        path.trim_start_matches('/').split('/').collect()
    }

    fn name(pattern: &'static str, path: &str) -> Option<String> {
        capture(pattern, &segments(path)).map(|params| params.text("name").to_owned())
    }

    #[test]
    fn image_names_hold_slashes() {
        for (path, expected) in [
            ("/images/busybox/json", Some("busybox")),
            ("/images/127.0.0.1:5000/a/b:1/json", Some("127.0.0.1:5000/a/b:1")),
            ("/images/json/json", Some("json")),
            ("/images/json", None),
            ("/images//json", None),
            ("/images/a//b/json", None),
            ("/images/a/jsonx", None),
        ] {
            assert_eq!(name("/images/{name*}/json", path).as_deref(), expected, "{path}");
        }
        assert_eq!(
            name("/images/{name*}", "/images/a/b@sha256:1").as_deref(),
            Some("a/b@sha256:1")
        );
    }

    #[test]
    fn one_segment_is_one_segment() {
        assert_eq!(name("/containers/{name}/json", "/containers/x/json").as_deref(), Some("x"));
        for path in ["/containers/x/y/json", "/containers//json", "/containers/x/json/", "/"] {
            assert_eq!(name("/containers/{name}/json", path), None, "{path}");
        }
        assert_eq!(capture("/info", &segments("/info")), Some(Params::default()));
    }

    proptest::proptest! {
        #[test]
        fn any_name_comes_back(name in "[a-z0-9:.@_-]{1,8}(/[a-z0-9:.@_-]{1,8}){0,4}") {
            let path = format!("/images/{name}/history");
            proptest::prop_assert_eq!(super::tests::name("/images/{name*}/history", &path), Some(name));
        }

        #[test]
        fn no_path_panics(path in "\\PC{0,40}") {
            let _ = capture("/images/{name*}/json", &segments(&path));
            let _ = capture("/a/{b}/c", &segments(&path));
        }
    }
}
