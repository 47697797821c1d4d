//! `trust signer add` and `remove`.

use std::path::{Path, PathBuf};

use brig_pki::signing::{PublicKeyFile, public_key_file};
use brig_trust::remote::Action;
use brig_trust::{Change, Key, Repository, Role};
use brig_types::error::chain;
use brig_types::reference::Reference;
use clap::Args;

use super::session::Session;
use crate::cli::leaf;
use crate::context::Context;
use crate::error::{Result, message};

leaf!(ADD, "add", "OPTIONS NAME REPOSITORY [REPOSITORY...]", "Add a signer", AddArgs, add);
leaf!(
    REMOVE,
    "remove",
    "[OPTIONS] NAME REPOSITORY [REPOSITORY...]",
    "Remove a signer",
    RemoveArgs,
    remove
);

/// The largest public key file.
const MAX_PUBLIC_KEY: u64 = 1 << 20;
const RELEASES: &str = "releases";

/// Whether docker's clients take this as a signer's or key's name.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.bytes().next().is_some_and(plain)
        && name.bytes().all(|b| plain(b) || matches!(b, b'-' | b'_'))
}

/// The changes that make somebody a signer, whose tags are released.
pub(super) fn new_signer(name: &str, keys: &[Key]) -> Result<Vec<Change>> {
    let role = Role::signer(name).map_err(|e| message(e.to_string()))?;
    let delegate =
        |role| Change::Delegate { role, keys: keys.to_vec(), paths: vec![String::new()] };
    Ok(vec![delegate(role), delegate(Role::releases())])
}

#[derive(Args, Debug)]
struct AddArgs {
    /// Path to the signer's public key file
    #[arg(long)]
    key: Vec<PathBuf>,
    #[arg(hide = true)]
    name: String,
    #[arg(hide = true, required = true)]
    repositories: Vec<String>,
}

async fn add(context: &Context, args: AddArgs) -> Result<()> {
    let name = &args.name;
    if !is_name(name) {
        return Err(message(format!(
            "signer name \"{name}\" must start with lowercase alphanumeric characters and can include \"-\" or \"_\" after the first character"
        )));
    }
    if name == RELEASES {
        return Err(message("releases is a reserved keyword, use a different signer name"));
    }
    if args.key.is_empty() {
        return Err(message("path to a public key must be provided using the `--key` flag"));
    }
    let keys = args.key.iter().map(|path| public_key(path)).collect::<Result<Vec<_>>>()?;
    let changes = new_signer(name, &keys)?;
    let mut failed = Vec::new();
    for repository in &args.repositories {
        crate::output::line(&format!("Adding signer \"{name}\" to {repository}..."))?;
        match add_to(context, repository, &changes).await {
            Ok(()) => crate::output::line(&format!(
                "Successfully added signer: {name} to {repository}\n"
            ))?,
            Err(error) => {
                crate::output::warn(&format!("{}\n", error.text()));
                failed.push(repository.as_str());
            }
        }
    }
    match failed.as_slice() {
        [] => Ok(()),
        failed => Err(message(format!("failed to add signer to: {}", failed.join(", ")))),
    }
}

async fn add_to(context: &Context, repository: &str, changes: &[Change]) -> Result<()> {
    let mut session = open(context, repository).await?;
    let read = match session.read_to_change().await {
        Ok(read) => read,
        Err(error) => {
            // Of a repository that was seen before.
            if session.remembered().await.is_some() {
                session.leave(changes, None);
            }
            return Err(error);
        }
    };
    match read {
        Some(known) => session.publish_all(&known, changes).await,
        None => {
            crate::output::line(&format!("Initializing signed repository for {repository}..."))?;
            session.initialise(changes).await?;
            crate::output::line(&format!("Successfully initialized \"{repository}\""))
        }
    }
}

async fn open(context: &Context, repository: &str) -> Result<Session> {
    let reference = Reference::parse(repository).map_err(|e| message(e.to_string()))?;
    Session::open(context, &reference, Action::Push).await
}

fn public_key(path: &Path) -> Result<Key> {
    let unreadable = |why: String| {
        message(format!("could not parse public key from file: {}: {why}", path.display()))
    };
    let content = crate::parse::env::read_limited(path, MAX_PUBLIC_KEY).map_err(|error| {
        message(format!("unable to read public key from file: {}", error.text()))
    })?;
    let file = public_key_file(&content).map_err(|e| unreadable(chain(&e)))?;
    let key = match file {
        PublicKeyFile::Key(der) => Key::from_spki(&der),
        PublicKeyFile::Certificate(pem) => Key::from_signer_certificate(&pem),
    }
    .map_err(|e| unreadable(chain(&e)))?;
    if let Ok(certificate) = key.certificate()
        && certificate.not_after <= brig_api::time::now()
    {
        return Err(unreadable("the certificate has expired".to_owned()));
    }
    Ok(key)
}

#[derive(Args, Debug)]
struct RemoveArgs {
    /// Do not prompt for confirmation before removing the most recent signer
    #[arg(long, short = 'f')]
    force: bool,
    #[arg(hide = true)]
    name: String,
    #[arg(hide = true, required = true)]
    repositories: Vec<String>,
}

async fn remove(context: &Context, args: RemoveArgs) -> Result<()> {
    let name = &args.name;
    let mut failed = Vec::new();
    for repository in &args.repositories {
        crate::output::line(&format!("Removing signer \"{name}\" from {repository}..."))?;
        match remove_from(context, repository, name, args.force).await {
            Ok(true) => {
                crate::output::line(&format!("Successfully removed {name} from {repository}\n"))?
            }
            Ok(false) => crate::output::line("\nAborting action.")?,
            Err(error) => {
                crate::output::warn(&format!("{}\n", error.text()));
                failed.push(repository.as_str());
            }
        }
    }
    match failed.as_slice() {
        [] => Ok(()),
        failed => Err(message(format!("error removing signer from: {}", failed.join(", ")))),
    }
}

/// Whether it was removed.
async fn remove_from(context: &Context, repository: &str, name: &str, force: bool) -> Result<bool> {
    if name == RELEASES {
        return Err(message("releases is a reserved keyword and cannot be removed"));
    }
    let mut session = open(context, repository).await?;
    let none = || message(format!("no signer {name} for repository {repository}"));
    let known = session.read_to_change().await?.ok_or_else(|| {
        message(format!("error retrieving signers for {repository}: no trust data"))
    })?;
    let role = Role::signer(name).map_err(|_| none())?;
    let ids = known
        .targets
        .get(&Role::Targets)
        .and_then(|targets| targets.document.delegation(&role))
        .map(|delegation| delegation.key_ids.clone())
        .ok_or_else(none)?;
    if !force && signed_last_release(&known, &ids) {
        let answer = crate::output::prompt(&format!(
            "The signer \"{name}\" signed the last released version of {repository}. Removing this signer will make {repository} unpullable. Are you sure you want to continue? [y/N] "
        ))?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(false);
        }
    }
    let changes = [Change::WithdrawKeys { role: Role::releases(), ids }, Change::Withdraw { role }];
    session.publish_all(&known, &changes).await?;
    Ok(true)
}

/// Whether too few signatures of the releases are left without these keys.
fn signed_last_release(known: &Repository, ids: &[brig_trust::KeyId]) -> bool {
    let releases = Role::releases();
    let Some(file) = known.targets.get(&releases) else {
        return false;
    };
    let threshold = known
        .targets
        .get(&Role::Targets)
        .and_then(|targets| targets.document.delegation(&releases))
        .map_or(1, |delegation| delegation.threshold);
    let left = file
        .signatures
        .iter()
        .filter(|signature| !ids.iter().any(|id| id.as_str() == signature.key_id))
        .count();
    !file.signatures.is_empty() && left < threshold
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "0", "nigel-p_1"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "_a", "A", "a/b", "a.b", "é"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
