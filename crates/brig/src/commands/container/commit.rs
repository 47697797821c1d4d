//! `commit`.

use brig_types::reference::Reference;
use clap::Args;
use serde::Deserialize;

use crate::cli::flags::optional_boolean;
use crate::cli::leaf;
use crate::client::Call;
use crate::commands::checked;
use crate::context::Context;
use crate::error::{Result, message};

leaf!(
    COMMIT,
    "commit",
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    CommitArgs,
    commit
);

#[derive(Args, Debug)]
struct CommitArgs {
    /// Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
    #[arg(long, short = 'a')]
    author: Option<String>,
    /// Apply Dockerfile instruction to the created image
    #[arg(long, short = 'c')]
    change: Vec<String>,
    /// Commit message
    #[arg(long, short = 'm')]
    message: Option<String>,
    #[command(flatten)]
    pause: Pause,
    #[arg(hide = true)]
    container: String,
    #[arg(hide = true)]
    reference: Option<String>,
}

#[derive(Deserialize)]
struct Made {
    #[serde(rename = "Id")]
    id: String,
}

async fn commit(context: &Context, args: CommitArgs) -> Result<()> {
    let container = checked("container", &args.container)?;
    let mut call = Call::post("/commit")
        .query("container", container)
        .query_opt("comment", args.message.as_deref())
        .query_opt("author", args.author.as_deref())
        .query("pause", if args.pause.0 { "1" } else { "0" });
    if let Some(name) = &args.reference {
        let name = Reference::parse(name).map_err(|e| message(e.to_string()))?;
        if name.digest().is_some() {
            return Err(message("refusing to create a tag with a digest reference"));
        }
        let name = name.with_default_tag();
        call = call.query("repo", name.name()).query_opt("tag", name.tag());
    }
    for change in &args.change {
        call = call.query("changes", change);
    }
    let made: Made = context.client.json(call).await?;
    crate::output::line(&made.id)
}

/// `--pause`, on by default.
#[derive(Debug)]
struct Pause(bool);

impl clap::FromArgMatches for Pause {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(matches.get_one::<bool>("pause").copied().unwrap_or(true)))
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Pause {
    fn augment_args(command: clap::Command) -> clap::Command {
        let arg = optional_boolean(clap::Arg::new("pause").long("pause").short('p'));
        command.arg(arg.help("Pause container during commit (default true)"))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}
