//! `trust revoke`.

use brig_trust::remote::Action;
use brig_trust::{Change, Repository};
use brig_types::reference::Reference;
use clap::Args;

use super::session::Session;
use super::sign::signable_roles;
use crate::cli::leaf;
use crate::context::Context;
use crate::error::{Result, message};

leaf!(REVOKE, "revoke", "[OPTIONS] IMAGE[:TAG]", "Remove trust for an image", RevokeArgs, revoke);

#[derive(Args, Debug)]
struct RevokeArgs {
    /// Do not prompt for confirmation
    #[arg(long, short = 'y')]
    yes: bool,
    #[arg(hide = true)]
    image: String,
}

async fn revoke(context: &Context, args: RevokeArgs) -> Result<()> {
    let image = args.image.as_str();
    let reference = Reference::parse(image).map_err(|e| message(e.to_string()))?;
    if reference.digest().is_some() {
        return Err(message(format!("cannot use a digest reference for {image}")));
    }
    if reference.tag().is_none() && !args.yes {
        let answer = crate::output::prompt(&format!(
            "Confirm you would like to delete all signature data for {image}? [y/N] "
        ))?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return crate::output::line("\nAborting action.");
        }
    }
    let failed = |error: crate::error::Error| {
        message(format!("could not remove signature for {image}: {}", error.text()))
    };
    let mut session = Session::open(context, &reference, Action::Push).await?;
    session.drop_unpublished()?;
    let known = session.read_to_change().await.map_err(failed)?.ok_or_else(|| {
        failed(message(format!("{} does not have trust data for {}", host(&session), session.gun)))
    })?;
    let changes = removals(&session, &known, reference.tag()).map_err(failed)?;
    session.publish(&known, &changes).await.map_err(failed)?;
    crate::output::line(&format!("Successfully deleted signature for {image}"))
}

fn host(session: &Session) -> String {
    use brig_trust::remote::Remote as _;
    session.remote.host().to_owned()
}

fn removals(session: &Session, known: &Repository, tag: Option<&str>) -> Result<Vec<Change>> {
    let tags = match tag {
        Some(tag) => vec![known.released(tag).map_err(|e| message(e.to_string()))?.name],
        None => known.all_released().into_keys().collect(),
    };
    if tags.is_empty() {
        return Err(message("no signed tags to remove"));
    }
    let mut changes = Vec::new();
    for tag in tags {
        for role in signable_roles(session, known, &tag)? {
            // A role that has not signed it has nothing to take back.
            let has =
                known.targets.get(&role).is_some_and(|f| f.document.targets.contains_key(&tag));
            if has {
                changes.push(Change::Remove { role, name: tag.clone() });
            }
        }
    }
    Ok(changes)
}
