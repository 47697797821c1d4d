//! `trust sign`, and the signing that follows a push.

use brig_pki::signing::{Curve, SigningKey};
use brig_trust::keystore::KeyInfo;
use brig_trust::remote::Action;
use brig_trust::{Change, FileMeta, Key, Repository, Role};
use brig_types::digest::Digest;
use brig_types::error::chain;
use brig_types::reference::Reference;
use clap::Args;

use super::cosign;
use super::inspect::signers_of;
use super::passphrase::Terminal;
use super::session::Session;
use super::signer::new_signer;
use crate::cli::leaf;
use crate::client::Call;
use crate::commands::image::push_for_signing;
use crate::context::Context;
use crate::error::{Result, message};

leaf!(SIGN, "sign", "[OPTIONS] IMAGE:TAG", "Sign an image", SignArgs, sign);

#[derive(Args, Debug)]
struct SignArgs {
    /// Sign a locally tagged image
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    with_key: cosign::SignWithKey,
    #[arg(hide = true)]
    image: String,
}

/// An image as its registry took it.
#[derive(Clone, Debug)]
pub(crate) struct Pushed {
    pub(crate) tag: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
}

async fn sign(context: &Context, args: SignArgs) -> Result<()> {
    let image = args.image.as_str();
    if let Some(key) = &args.with_key.key {
        return cosign::sign(context, &args.with_key, key, image).await;
    }
    args.with_key.check_absent()?;
    let reference = Reference::parse(image).map_err(|e| message(e.to_string()))?;
    if reference.digest().is_some() {
        return Err(message(format!("cannot use a digest reference for {image}")));
    }
    let Some(tag) = reference.tag().map(str::to_owned) else {
        return Err(message(format!("no tag specified for {image}")));
    };
    let mut session = Session::open(context, &reference, Action::Push).await?;
    session.drop_unpublished()?;
    let known = match session.read_to_change().await? {
        Some(known) => known,
        None => {
            check_local(context, image).await?;
            let known = initialise(&mut session).await?;
            crate::output::line(&format!("Created signer: {}", session.username))?;
            crate::output::line(&format!("Finished initializing signed repository for {image}"))?;
            known
        }
    };
    let released = known.released(&tag).ok().filter(|_| !args.local);
    let Some(target) = released else {
        check_local(context, image).await?;
        crate::output::warn(&format!(
            "Signing and pushing trust data for local image {image}, may overwrite remote trust data"
        ));
        let pushed = push_for_signing(context, &reference).await?;
        return sign_known(&mut session, known, pushed).await;
    };
    crate::output::line(&format!("Signing and pushing trust metadata for {image}"))?;
    let failed = failed_to_sign(&reference, &tag);
    let changes = additions(&session, &known, &tag, &target.meta).map_err(&failed)?;
    let mut signers = signers_of(&known, &target);
    signers.sort();
    crate::output::line(&format!(
        "Existing signatures for tag {tag} digest {} from:\n{}",
        target.digest().unwrap_or_default().trim_start_matches("sha256:"),
        signers.join(", ")
    ))?;
    session.publish(&known, &changes).await.map_err(&failed)?;
    crate::output::line(&format!("Successfully signed {}:{tag}", reference.name()))
}

/// Makes the repository, with the user as its first signer.
async fn initialise(session: &mut Session) -> Result<Repository> {
    let name = session.username.clone();
    if Role::signer(&name).is_err() {
        return Err(message(format!(
            "could not add signer to repo: targets/{name}: tuf: invalid role targets/{name}. invalid delegation role name: log in to the registry with a name in lower case, or add a signer with `brig trust signer add`"
        )));
    }
    let failed = |e: &dyn std::error::Error| message(chain(e));
    let id = match session.keys.first_of_role(&name).map_err(|e| failed(&e))? {
        Some(id) => id,
        None => {
            let key = SigningKey::generate(Curve::P256).map_err(|e| failed(&e))?;
            let info = KeyInfo::signer(&name);
            session.keys.add(key, &info, &mut Terminal).map_err(|e| failed(&e))?
        }
    };
    let key = session.keys.open(&id, &mut Terminal).map_err(|e| failed(&e))?;
    let key = Key::of(key).map_err(|e| failed(&e))?;
    session.initialise(&new_signer(&name, &[key])?).await
}

async fn check_local(context: &Context, image: &str) -> Result<()> {
    context.client.none(Call::get(format!("/images/{image}/json"))).await
}

/// Signs what a push has put into the registry.
pub(crate) async fn sign_pushed(
    context: &Context,
    reference: &Reference,
    pushed: Pushed,
) -> Result<()> {
    crate::output::line("Signing and pushing trust metadata")?;
    let mut session = Session::open(context, reference, Action::Push).await?;
    let read = match session.read_to_change().await {
        Ok(read) => read,
        Err(error) => {
            leave_pushed(&session, &pushed).await;
            return Err(error);
        }
    };
    match read {
        Some(known) => {
            let changes = additions(&session, &known, &pushed.tag, &meta(&pushed)?);
            let failed = failed_to_sign(reference, &pushed.tag);
            session.publish_all(&known, &changes.map_err(&failed)?).await.map_err(&failed)?;
            crate::output::line(&format!("Successfully signed {}:{}", session.gun, pushed.tag))
        }
        None => {
            let meta = meta(&pushed)?;
            let tag = pushed.tag;
            let role = Role::Targets;
            session.initialise(&[Change::Add { role, name: tag.clone(), meta }]).await?;
            let gun = session.gun.as_str();
            crate::output::line(&format!("Finished initializing \"{gun}\""))?;
            crate::output::line(&format!("Successfully signed {gun}:{tag}"))
        }
    }
}

/// Leaves what a push would have signed, as far as it is known who signs here.
async fn leave_pushed(session: &Session, pushed: &Pushed) {
    let Some(known) = session.remembered().await else { return };
    let Ok(meta) = meta(pushed) else { return };
    if let Ok(changes) = additions(session, &known, &pushed.tag, &meta) {
        session.leave(&changes, Some(&known));
    }
}

async fn sign_known(session: &mut Session, known: Repository, pushed: Pushed) -> Result<()> {
    crate::output::line("Signing and pushing trust metadata")?;
    publish_pushed(session, known, pushed).await
}

async fn publish_pushed(session: &mut Session, known: Repository, pushed: Pushed) -> Result<()> {
    let tag = pushed.tag.clone();
    let gun = session.gun.to_string();
    let failed = |error: crate::error::Error| {
        message(format!("failed to sign {gun}:{tag}: {}", error.text()))
    };
    let changes = additions(session, &known, &tag, &meta(&pushed)?).map_err(failed)?;
    session.publish(&known, &changes).await.map_err(failed)?;
    crate::output::line(&format!("Successfully signed {gun}:{tag}"))
}

fn failed_to_sign<'a>(
    reference: &Reference,
    tag: &'a str,
) -> impl Fn(crate::error::Error) -> crate::error::Error + use<'a> {
    let name = reference.name();
    move |error| message(format!("failed to sign {name}:{tag}: {}", error.text()))
}

fn meta(pushed: &Pushed) -> Result<FileMeta> {
    let hash =
        Digest::parse(&pushed.digest).ok().and_then(|digest| hex_hash(digest.hex())).ok_or_else(
            || message(format!("the daemon's digest {:?} cannot be signed", pushed.digest)),
        )?;
    Ok(FileMeta::of_image(hash, pushed.size))
}

fn hex_hash(hex: &str) -> Option<[u8; 32]> {
    let mut hash = [0_u8; 32];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(hash)
}

fn additions(
    session: &Session,
    known: &Repository,
    tag: &str,
    meta: &FileMeta,
) -> Result<Vec<Change>> {
    let roles = signable_roles(session, known, tag)?;
    let add = |role| Change::Add { role, name: tag.to_owned(), meta: meta.clone() };
    Ok(roles.into_iter().map(add).collect())
}

/// Docker's rule: every direct delegation whose key is here; without any delegation, `targets`.
pub(super) fn signable_roles(
    session: &Session,
    known: &Repository,
    tag: &str,
) -> Result<Vec<Role>> {
    let Some(targets) = known.targets.get(&Role::Targets) else {
        return Ok(vec![Role::Targets]);
    };
    let delegations = &targets.document.delegations;
    if delegations.roles.is_empty() {
        return Ok(vec![Role::Targets]);
    }
    let roles: Vec<Role> = delegations
        .roles
        .iter()
        .filter(|delegation| delegation.allows(tag))
        .map(|delegation| delegation.name.clone())
        .filter(|role| known.signing_ids(role).iter().any(|(_, id)| session.keys.has(id)))
        .collect();
    if roles.is_empty() {
        return Err(message("no valid signing keys for delegation roles"));
    }
    Ok(roles)
}
