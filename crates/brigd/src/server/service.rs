//! From a request to its handler: version, route, access, then the handler, then the headers
//! that every answer has.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use brig_api::version::MAX;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use tracing::Instrument as _;

use super::body::{self, Response};
use super::call::Call;
use super::error::ApiError;
use super::peer::PeerWatch;
use super::query::Query;
use super::route::{Lifetime, Route, Router};
use super::version;
use crate::access::{self, Object, Principal};
use crate::state::AppState;

/// Longest path of a request.
const MAX_PATH: usize = 8 << 10;

/// Answers requests.
#[derive(Clone, Debug)]
pub struct ApiService {
    state: AppState,
    router: Arc<Router>,
}

impl ApiService {
    /// A service over these routes.
    #[must_use]
    pub const fn new(state: AppState, router: Arc<Router>) -> Self {
        Self { state, router }
    }

    /// The daemon.
    #[must_use]
    pub const fn state(&self) -> &AppState {
        &self.state
    }

    /// Answers one request.
    ///
    /// Dropping the future ends a handler that only reads; one that changes something goes on.
    pub async fn answer(
        &self,
        request: Request<Incoming>,
        principal: Principal,
        peer: PeerWatch,
    ) -> Response {
        let slot = peer.slot().clone();
        let busy = slot.begin();
        let mut response = match self.dispatch(request, principal, peer).await {
            Ok(response) => response,
            Err(error) => {
                if error.status().is_server_error() {
                    tracing::warn!(
                        status = error.status().as_u16(),
                        error = error.message(),
                        "request failed"
                    );
                } else {
                    tracing::debug!(
                        status = error.status().as_u16(),
                        error = error.message(),
                        "request refused"
                    );
                }
                error.into_response()
            }
        };
        common_headers(response.headers_mut());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            slot.hold();
        }
        // The work is over when the last byte of the answer is.
        response.map(|body| body::held(body, busy))
    }

    async fn dispatch(
        &self,
        mut request: Request<Incoming>,
        principal: Principal,
        peer: PeerWatch,
    ) -> Result<Response, ApiError> {
        let raw = request.uri().path();
        if raw.len() > MAX_PATH {
            return Err(ApiError::page_not_found());
        }
        let decoded =
            percent_decode_str(raw).decode_utf8().map_err(|_| ApiError::page_not_found())?;
        let (version, path) = version::split(&decoded)?;
        let Some((route, params)) = self.router.find(request.method(), path, version) else {
            return Err(ApiError::page_not_found());
        };
        let authorized =
            access::authorize(principal.clone(), route.action, Object { name: params.object() })?;
        tracing::debug!(method = %request.method(), path, %version, %principal, "request");
        let upgrade = request
            .headers()
            .contains_key(header::UPGRADE)
            .then(|| hyper::upgrade::on(&mut request));
        let query = Query::parse(request.uri().query());
        let (parts, body) = request.into_parts();
        let call = Call {
            state: self.state.clone(),
            authorized,
            route,
            version,
            params,
            query,
            headers: parts.headers,
            body: Some(body),
            upgrade,
            peer,
        };
        self.run(route, call).await
    }

    async fn run(&self, route: &'static Route, call: Call) -> Result<Response, ApiError> {
        let span = tracing::debug_span!("call", action = route.action.name());
        // A bug in one handler must not take the daemon down, nor leave its client without answer.
        let handler = AssertUnwindSafe((route.handler)(call)).catch_unwind().instrument(span);
        let outcome = match route.lifetime {
            Lifetime::Connection => handler.await,
            Lifetime::Detached => match self.state.tasks.spawn(handler).await {
                Ok(outcome) => outcome,
                Err(_) => return Err(ApiError::system("the request was interrupted")),
            },
        };
        outcome.unwrap_or_else(|_| {
            tracing::error!(?route, "a handler panicked");
            Err(ApiError::system("internal error; see the daemon's log"))
        })
    }
}

fn common_headers(headers: &mut HeaderMap) {
    const SERVER: HeaderValue =
        HeaderValue::from_static(concat!("brig/", env!("CARGO_PKG_VERSION"), " (linux)"));
    headers.insert(header::SERVER, SERVER);
    headers.insert("ostype", HeaderValue::from_static("linux"));
    headers.insert("docker-experimental", HeaderValue::from_static("false"));
    if let Ok(version) = HeaderValue::from_str(&MAX.to_string()) {
        headers.insert("api-version", version);
    }
}
