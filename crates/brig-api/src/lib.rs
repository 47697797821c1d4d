//! The Docker Engine API as data: request and answer bodies, filters, stream frames, progress
//! lines, times and registry credentials, with docker's field names and encodings.
//!
//! This crate is the only place that knows how those things look on the wire. It does no I/O and
//! decides nothing: the daemon fills the answers, the CLI fills the requests.
//!
//! Conventions of all models: a missing or `null` field decodes to its default; fields that docker
//! always sends are always written; fields marked *omitempty* are left out when they hold their
//! default. Times are RFC 3339 text ([`time`]), durations nanoseconds, sizes bytes.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

#[macro_use]
mod model;

pub mod archive;
pub mod auth;
pub mod cluster;
pub mod container;
pub mod data;
pub mod engine_access;
pub mod error;
pub mod event;
pub mod exec;
pub mod expiring;
pub mod filters;
pub mod host_config;
pub mod image;
pub mod info;
pub mod inspect;
pub mod inventory;
pub mod mount;
pub mod network;
pub mod nullable;
pub mod progress;
pub mod scan;
pub mod service;
pub mod stats;
pub mod stream;
pub mod swarm;
pub mod system;
pub mod time;
pub mod version;
pub mod volume;

pub use model::Empty;
