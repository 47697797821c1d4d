//! `DOCKER_CONTENT_TRUST`: a tag becomes the digest that was signed for it, or nothing happens.

use brig_trust::remote::Action;
use brig_trust::{LookupError, Target};
use brig_types::digest::Digest;
use brig_types::reference::Reference;

use super::session::{Session, explained};
use crate::cli::flags::optional_boolean;
use crate::cli::globals::variable;
use crate::client::Call;
use crate::context::Context;
use crate::error::{Result, message};

const VARIABLE: &str = "DOCKER_CONTENT_TRUST";
const FLAG: &str = "disable_content_trust";

/// `--disable-content-trust`, or what the environment says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ContentTrust {
    /// Whether tags are resolved by their signatures.
    pub(crate) enabled: bool,
}

impl ContentTrust {
    /// As the environment says it, for commands without the flag.
    pub(crate) fn from_environment() -> Self {
        // As docker reads it: what is not a way to say "no" is a "yes".
        let no = ["0", "f", "F", "false", "False", "FALSE"];
        Self { enabled: variable(VARIABLE).is_some_and(|value| !no.contains(&value.as_str())) }
    }
}

impl clap::FromArgMatches for ContentTrust {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        Ok(match matches.get_one::<bool>(FLAG) {
            Some(disabled) => Self { enabled: !disabled },
            None => Self::from_environment(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for ContentTrust {
    fn augment_args(command: clap::Command) -> clap::Command {
        let arg = clap::Arg::new(FLAG).long("disable-content-trust");
        command.arg(optional_boolean(arg).help("Skip image verification (default true)"))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// What a tag that is signed but not released is called; each command has its own words.
enum Words {
    Tag,
    Unknown,
    Whole,
}

async fn lookup(context: &Context, reference: &Reference, words: Words) -> Result<Target> {
    let session = Session::open(context, reference, Action::Pull).await?;
    let repository = session.read().await.map_err(|error| explained(&session.gun, &error))?;
    let tag = reference.tag().unwrap_or_default();
    repository.released(tag).map_err(|error| match (&error, words) {
        (LookupError::NotReleased(_), Words::Whole) => {
            message(format!("No trust data for {}", reference.familiar()))
        }
        (LookupError::NotReleased(_), Words::Unknown) => {
            message(LookupError::Unknown(tag.to_owned()).to_string())
        }
        _ => message(error.to_string()),
    })
}

fn digest_of(target: &Target) -> Result<Digest> {
    Digest::parse(&target.digest().unwrap_or_default()).map_err(|e| message(e.to_string()))
}

/// The repository at the digest that was signed for the tag. What is given by digest stays.
pub(crate) async fn trusted_for_run(
    context: &Context,
    reference: &Reference,
) -> Result<Option<Reference>> {
    if reference.digest().is_some() {
        return Ok(None);
    }
    let reference = reference.clone().with_default_tag();
    let target = lookup(context, &reference, Words::Unknown).await?;
    Ok(Some(reference.repository().with_digest(digest_of(&target)?)))
}

/// The image of a service with the digest that was signed for its tag.
pub(crate) async fn trusted_for_service(context: &Context, image: &str) -> Result<String> {
    let failed = |text: String| {
        message(format!("failed to resolve image digest using content trust: {text}"))
    };
    let reference = Reference::parse(image).map_err(|e| failed(e.to_string()))?;
    if reference.digest().is_some() {
        return Ok(image.to_owned());
    }
    let reference = reference.with_default_tag();
    let target = lookup(context, &reference, Words::Whole).await.map_err(|e| failed(e.text()))?;
    Ok(reference.with_digest(digest_of(&target)?).familiar())
}

/// What a trusted pull gets: the digest of the tag, or those of all released tags.
pub(crate) async fn pull_trusted(
    context: &Context,
    reference: &Reference,
) -> Result<Vec<(Reference, Reference)>> {
    let pair = |tag: &str, target: &Target| -> Result<(Reference, Reference)> {
        let tagged = reference.with_tag(tag).map_err(|e| message(e.to_string()))?;
        Ok((tagged, reference.repository().with_digest(digest_of(target)?)))
    };
    if let Some(tag) = reference.tag() {
        let target = lookup(context, reference, Words::Tag).await?;
        return Ok(vec![pair(tag, &target)?]);
    }
    let session = Session::open(context, reference, Action::Pull).await?;
    let repository = session.read().await.map_err(|error| explained(&session.gun, &error))?;
    let released = repository.all_released();
    if released.is_empty() {
        return Err(message(format!("no signed tags for {}", reference.familiar_name())));
    }
    released.iter().map(|(tag, target)| pair(tag, target)).collect()
}

/// Gives what was pulled by digest its tag.
pub(crate) async fn tag_trusted(
    context: &Context,
    digested: &Reference,
    tagged: &Reference,
) -> Result<()> {
    crate::output::warn(&format!("Tagging {} as {}", digested.familiar(), tagged.familiar()));
    let call = Call::post(format!("/images/{}/tag", digested.familiar()))
        .query("repo", tagged.name())
        .query_opt("tag", tagged.tag());
    context.client.none(call).await
}
