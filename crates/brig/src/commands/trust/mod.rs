//! `trust …`, and what other commands ask of content trust.

mod cosign;
#[cfg(feature = "trust-server")]
mod import;
mod inspect;
mod key;
mod passphrase;
mod policy;
mod resolve;
mod revoke;
#[cfg(feature = "trust-server")]
mod serve;
mod session;
mod sign;
mod signer;

use crate::cli::Leaf;

pub(crate) use resolve::{
    ContentTrust, pull_trusted, tag_trusted, trusted_for_run, trusted_for_service,
};
pub(crate) use sign::{Pushed, sign_pushed};

/// `trust …`.
pub(crate) const COMMANDS: &[&Leaf] = &[
    &policy::EXPLAIN,
    &inspect::INSPECT,
    &revoke::REVOKE,
    &sign::SIGN,
    &cosign::VERIFY,
    &cosign::MIGRATE,
    #[cfg(feature = "trust-server")]
    &import::IMPORT,
    #[cfg(feature = "trust-server")]
    &serve::SERVE,
];
/// `trust cosign …`.
pub(crate) const COSIGN_COMMANDS: &[&Leaf] = cosign::COMMANDS;
/// `trust key …`.
pub(crate) const KEY_COMMANDS: &[&Leaf] = &[&key::GENERATE, &key::LOAD, &key::ROTATE];
/// `trust policy …`.
pub(crate) const POLICY_COMMANDS: &[&Leaf] =
    &[&policy::INSPECT, &policy::RM, &policy::SET, &policy::TEST];
/// `trust signer …`.
pub(crate) const SIGNER_COMMANDS: &[&Leaf] = &[&signer::ADD, &signer::REMOVE];
