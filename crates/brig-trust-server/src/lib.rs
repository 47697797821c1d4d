//! The trust server: Notary v1 over HTTPS, as docker's and notary's clients speak it.
//!
//! It keeps for each repository the files that its publishers signed, checks what they send
//! before anybody sees it, and signs snapshots and timestamps with keys of its own. It is no
//! authority: clients believe signatures, and this server can at most withhold news from them.
//!
//! A request's way is [`route`] (what is asked for) → `auth` (who asks) → [`service`] →
//! `repositories` (one repository's state, publishing) → [`storage`]: a file of its own, or what
//! whoever uses this crate brings along.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod auth;
pub mod import;
pub mod multipart;
pub mod route;
pub mod server;
pub mod storage;
pub mod vault;

mod fault;
mod feed;
mod metrics;
mod place;
mod publish;
mod repositories;
mod repository;
mod service;

pub use place::{HandedOver, Place, hand_over};
pub use repositories::{ImportError, Imported};
pub use server::{CacheAges, Config, ImportFailure, ServerError, TrustServer, import_into};

/// Reads an upload's body as the server does, and drops it. For the fuzzer.
#[doc(hidden)]
pub fn read_upload(content_type: &str, body: &bytes::Bytes) -> bool {
    multipart::parse(content_type, body).is_ok_and(|parts| publish::Upload::read(parts).is_ok())
}

/// Takes a request apart as the server does: its route, the feed's query, and what its credentials
/// say. For the fuzzer.
#[doc(hidden)]
pub async fn read_request(
    request: &http::request::Parts,
    authentication: &auth::Authentication,
) -> bool {
    let route = route::Route::parse(&request.method, request.uri.path());
    let query = request.uri.query().unwrap_or_default();
    let _ = feed::parse(query);
    authentication.check(&request.headers, &route.access()).await.is_ok()
}
