//! The HTTP side: listeners, connections, the version prefix, routing, bodies and streams.
//!
//! Nothing here knows what a container is. [`route`] holds the shape of a route, `crate::routes`
//! the table of them, `crate::api` the handlers.

pub mod body;
pub mod call;
pub mod connection;
pub mod error;
pub mod hijack;
pub mod lent;
pub mod listener;
pub mod open;
mod pace;
pub mod peer;
pub mod pool;
pub mod query;
pub mod route;
pub mod service;
pub mod tls;
mod unread;
pub mod version;
pub mod websocket;

pub use body::Response;
pub use call::Call;
pub use error::ApiError;
pub use route::{Handler, Route, Router, Verb};
