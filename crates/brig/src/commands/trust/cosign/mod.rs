//! Signatures as cosign makes them: `trust sign --key`, `trust verify`, `trust migrate` and
//! `trust cosign …`.

mod keys;
mod migrate;
mod sign;
mod verify;

use brig_trust::cosign::Annotations;
use brig_trust::registry::{Registry, RegistrySettings};
use brig_trust::remote::Credentials;
use brig_types::digest::Digest;
use brig_types::error::chain;
use brig_types::reference::Reference;
use brig_types::secret::SecretString;
use clap::Args;

use crate::cli::Leaf;
use crate::config_file::registry_key;
use crate::context::Context;
use crate::error::{Error, Result, message};

pub(super) use migrate::MIGRATE;
pub(super) use sign::{SignWithKey, sign};
pub(super) use verify::VERIFY;

/// `trust cosign …`.
pub(super) const COMMANDS: &[&Leaf] = &[&keys::GENERATE, &keys::IMPORT];

/// How the registry is reached.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct RegistryFlags {
    /// Reach the registry without verified TLS, or without TLS
    #[arg(long, alias = "allow-http-registry")]
    allow_insecure_registry: bool,
}

/// An error of a library as the user sees it.
fn said(error: &(dyn std::error::Error + 'static)) -> Error {
    message(chain(error))
}

/// An image's registry, as the user is known to it.
async fn registry(
    context: &Context,
    reference: &Reference,
    flags: &RegistryFlags,
) -> Result<Registry> {
    let domain = reference.domain();
    let login = context.config.credentials(&registry_key(domain)).await;
    let secret = |text: &str| SecretString::new(text.to_owned());
    let credentials = Credentials {
        username: login.username.clone(),
        password: secret(login.password.expose_secret()),
        identity_token: secret(login.identitytoken.expose_secret()),
    };
    let mut settings = RegistrySettings::default();
    if flags.allow_insecure_registry {
        settings.insecure.push(domain.to_owned());
    }
    Registry::open(reference, credentials, &settings).await.map_err(|e| said(&e))
}

/// An image and the digest that it has now.
async fn resolved(registry: &Registry, reference: &Reference) -> Result<Digest> {
    let found = registry.resolve(reference).await.map_err(|e| said(&e))?;
    found.ok_or_else(|| {
        message(format!(
            "{} is not in its registry: push it first (`brig push`)",
            reference.familiar()
        ))
    })
}

fn parsed(image: &str) -> Result<Reference> {
    Reference::parse(image)
        .map(Reference::with_default_tag)
        .map_err(|e| message(format!("{image}: {e}")))
}

/// `-a key=value`.
fn annotations(flags: &[String]) -> Result<Annotations> {
    let pair = |flag: &String| {
        let (name, value) = flag.split_once('=').filter(|(name, _)| !name.is_empty())?;
        Some((name.to_owned(), value.to_owned()))
    };
    flags
        .iter()
        .map(|flag| {
            pair(flag).ok_or_else(|| {
                message(format!("unable to parse annotation: {flag}: it has the form KEY=VALUE"))
            })
        })
        .collect()
}
