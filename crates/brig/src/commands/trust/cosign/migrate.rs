//! `trust migrate`: signs anew, as cosign does, what content trust vouches for.

use std::path::PathBuf;

use brig_trust::cosign::{
    Annotations, Attaching, Expected, Identity, KeyPair, Placement, attach, find, judge,
};
use brig_trust::registry::Registry;
use brig_trust::remote::Action;
use brig_trust::{Repository, Target};
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use clap::Args;

use super::super::inspect::signers_of;
use super::super::session::{Session, explained};
use super::{RegistryFlags, keys, registry, said};
use crate::cli::leaf;
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::table;

leaf!(
    MIGRATE,
    "migrate",
    "[OPTIONS] --key FILE REPOSITORY",
    "Sign with cosign's signatures what content trust vouches for",
    MigrateArgs,
    migrate
);

/// What a new signature says of the tag that was signed for.
const TAG: &str = "tag";

#[derive(Args, Debug)]
struct MigrateArgs {
    /// Private key to sign with
    #[arg(long, value_name = "file")]
    key: Option<PathBuf>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    registry: RegistryFlags,
    #[arg(hide = true)]
    repository: String,
}

/// What became of a tag.
enum Outcome {
    Signed { is_moved: bool },
    WouldSign { is_moved: bool },
    SignedBefore,
    Refused(String),
}

impl Outcome {
    fn text(&self) -> String {
        const MOVED: &str = "; the tag is another image in the registry";
        let moved = |is_moved: &bool| if *is_moved { MOVED } else { "" };
        match self {
            Self::Signed { is_moved } => format!("signed{}", moved(is_moved)),
            Self::WouldSign { is_moved } => format!("would be signed{}", moved(is_moved)),
            Self::SignedBefore => "signed before".to_owned(),
            // One row, one line.
            Self::Refused(why) => format!("refused: {}", why.replace(['\n', '\t'], " ")),
        }
    }
}

async fn migrate(context: &Context, args: MigrateArgs) -> Result<()> {
    let reference = Reference::parse(&args.repository).map_err(|e| message(e.to_string()))?;
    if reference.tag().is_some() || reference.digest().is_some() {
        return Err(message(format!(
            "name the repository alone: all tags of {} that are signed are taken",
            reference.repository().familiar()
        )));
    }
    let key = args.key.ok_or_else(|| message("name the private key: --key FILE"))?;
    let session = Session::open(context, &reference, Action::Pull).await?;
    let trusted = session.read().await.map_err(|error| explained(&session.gun, &error))?;
    let released = trusted.all_released();
    if released.is_empty() {
        return Err(message(format!("no signed tags for {}", reference.familiar_name())));
    }
    let pair = keys::private(&key)?;
    let registry = registry(context, &reference, &args.registry).await?;
    let move_one = Move {
        reference: &reference,
        trusted: &trusted,
        registry: &registry,
        pair: &pair,
        is_dry: args.dry_run,
    };
    let mut rows = "TAG\tDIGEST\tSIGNERS\tRESULT\n".to_owned();
    let mut refused = 0_usize;
    for (tag, target) in &released {
        let outcome = match move_one.tag(tag).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Refused(error.text()),
        };
        refused += usize::from(matches!(outcome, Outcome::Refused(_)));
        let digest = target.digest().unwrap_or_default();
        let signers = signers_of(&trusted, target).join(", ");
        rows.push_str(&format!("{tag}\t{digest}\t{signers}\t{}\n", outcome.text()));
    }
    crate::output::print(&table::align(&rows))?;
    if refused > 0 {
        return Err(message(format!(
            "{refused} of {} tags were not signed: mend what is said of them and run this again, which leaves alone what is done",
            released.len()
        )));
    }
    Ok(())
}

/// What all tags of a repository have in common.
struct Move<'a> {
    reference: &'a Reference,
    trusted: &'a Repository,
    registry: &'a Registry,
    pair: &'a KeyPair,
    is_dry: bool,
}

impl Move<'_> {
    async fn tag(&self, tag: &str) -> Result<Outcome> {
        // Not what the listing says but what a pull of the tag would take.
        let target = self.trusted.released(tag).map_err(|e| message(e.to_string()))?;
        let tagged = self.reference.with_tag(tag).map_err(|e| message(e.to_string()))?;
        let digest = self.present(&target).await?;
        let annotations = Annotations::from([(TAG.to_owned(), tag.to_owned())]);
        let found = find(self.registry, &digest).await.map_err(|e| said(&e))?;
        let expected = Expected {
            reference: &tagged,
            digest: &digest,
            identity: Identity::Repository,
            annotations: &annotations,
        };
        let own = [self.pair.public().clone()];
        if !judge(&found, &own, &expected).verified.is_empty() {
            return Ok(Outcome::SignedBefore);
        }
        let now = self.registry.resolve(&tagged).await.map_err(|e| said(&e))?;
        let is_moved = now.as_ref() != Some(&digest);
        if self.is_dry {
            return Ok(Outcome::WouldSign { is_moved });
        }
        let repository = self.reference.name();
        let what = Attaching {
            repository: &repository,
            digest: &digest,
            pair: self.pair,
            annotations: &annotations,
            placement: Placement::Tag,
        };
        attach(self.registry, &what).await.map_err(|e| said(&e))?;
        Ok(Outcome::Signed { is_moved })
    }

    /// That the registry has the image, with every length and hash that was signed.
    async fn present(&self, target: &Target) -> Result<Digest> {
        let digest = target.digest().unwrap_or_default();
        let digest = Digest::parse(&digest).map_err(|e| message(e.to_string()))?;
        let found = self.registry.manifest_with_type(digest.as_str()).await;
        let Some(manifest) = found.map_err(|e| said(&e))? else {
            return Err(message("the image is not in the registry any more"));
        };
        target.meta.check(digest.as_str(), &manifest.body).map_err(|e| said(&e))?;
        Ok(digest)
    }
}
