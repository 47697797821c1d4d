//! The daemon: configuration, listeners, the Engine API, and the composition of everything below
//! it into one process.
//!
//! A request's way is one straight line: [`server`] (HTTP) → [`routes`] (which handler) →
//! [`access`] (may they) → [`api`] or [`swarm`] (JSON to calls) → the engine or the cluster. The
//! way back of cluster work is [`executor`], through which the agent runs its tasks on the
//! engine. [`app`] puts all of it together and takes it down again.
//!
//! What it is not: an engine. Whatever works without HTTP lives in the crates below.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod access;
pub mod admission;
pub mod api;
pub mod app;
pub mod audit;
pub mod build;
pub mod cli;
#[cfg(test)]
mod compat;
pub mod config;
pub mod engine_id;
pub mod executor;
pub mod host;
pub mod instance;
pub mod inventory;
pub mod logging;
pub mod notify;
pub mod parts;
pub mod programs;
pub mod purge;
pub mod routes;
pub mod scan;
pub mod server;
pub mod signals;
pub mod state;
pub mod swarm;
pub mod tools;
pub mod trust_server;
