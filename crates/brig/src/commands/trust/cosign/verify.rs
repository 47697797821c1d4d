//! `trust verify`.

use std::path::PathBuf;

use brig_trust::cosign::{Expected, Identity, find, judge};
use clap::Args;

use super::{RegistryFlags, annotations, keys, parsed, registry, resolved, said};
use crate::cli::leaf;
use crate::context::Context;
use crate::error::{Failures, Result, message};

leaf!(
    VERIFY,
    "verify",
    "[OPTIONS] --key FILE IMAGE [IMAGE...]",
    "Verify the signatures that cosign or sign --key made of images",
    VerifyArgs,
    verify
);

#[derive(Args, Debug)]
struct VerifyArgs {
    /// Public key; with several, a signature by any of them counts
    #[arg(long, value_name = "file")]
    key: Vec<PathBuf>,
    /// What the signature has to say too
    #[arg(short, long, value_name = "key=value")]
    annotations: Vec<String>,
    /// Which name the signature has to be for: repository, tag (and repository), any
    #[arg(long, value_name = "name", default_value = "repository", value_parser = ["repository", "tag", "any"])]
    identity: String,
    #[command(flatten)]
    registry: RegistryFlags,
    #[arg(hide = true, required = true)]
    images: Vec<String>,
}

async fn verify(context: &Context, args: VerifyArgs) -> Result<()> {
    if args.key.is_empty() {
        return Err(message("name the public key: --key FILE"));
    }
    let mut failures = Failures::default();
    for image in &args.images {
        failures.keep(verify_one(context, &args, image).await)?;
    }
    failures.finish()
}

async fn verify_one(context: &Context, args: &VerifyArgs, image: &str) -> Result<()> {
    let reference = parsed(image)?;
    let annotations = annotations(&args.annotations)?;
    let keys = keys::public(&args.key)?;
    let registry = registry(context, &reference, &args.registry).await?;
    let digest = resolved(&registry, &reference).await?;
    let found = find(&registry, &digest).await.map_err(|error| said(&error))?;
    let identity = match args.identity.as_str() {
        "any" => Identity::Any,
        "tag" => Identity::Tag,
        _ => Identity::Repository,
    };
    let expected =
        Expected { reference: &reference, digest: &digest, identity, annotations: &annotations };
    let judgement = judge(&found, &keys, &expected);
    if judgement.verified.is_empty() {
        return Err(message(format!("no matching signatures for {image}@{digest}: {judgement}")));
    }
    crate::output::warn(&format!(
        "\nVerification for {image}@{digest} --\nThe following checks were performed on each of these signatures:\n  - The cosign claims were validated\n  - The signatures were verified against the specified public key\n"
    ));
    for key in judgement.signers() {
        crate::output::warn(&format!("Signed by key {key}"));
    }
    let payloads: Vec<_> = judgement
        .verified
        .iter()
        .map(|verified| String::from_utf8_lossy(&verified.payload).trim().to_owned())
        .collect();
    crate::output::line(&format!("[{}]", payloads.join(",")))
}
