//! Who may do what: principals, actions, what a request asks for, and the decision about it.
//!
//! Decisions come from Cedar policies: those of the ready roles, which are built in, and those of
//! the operator's. This crate is the only one that knows Cedar. It does no I/O but reading policy
//! files, and knows nothing of HTTP: the daemon turns requests into [`Facts`] and [`Object`]s.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod action;
mod attributes;
pub mod bindings;
mod condition;
pub mod decide;
pub mod facts;
pub mod policy;
pub mod principal;

pub use action::{Action, Class};
pub use bindings::{Bindings, Grant, Scope};
pub use decide::{Decision, Request, Rules};
pub use facts::{Facts, Object, Reference};
pub use policy::{LoadError, RoleName};
pub use principal::{Principal, Transport};
