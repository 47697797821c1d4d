//! `image inspect`, `rmi`, `tag`, `history`.

use brig_api::image::{HistoryItem, ImageDeleteItem};
use brig_types::reference::Reference;
use clap::Args;

use crate::cli::flags::optional_boolean;
use crate::cli::leaf;
use crate::client::Call;
use crate::commands::{checked, inspect};
use crate::context::Context;
use crate::error::{Failures, Result, message};
use crate::output::human::{ellipsis, short_id, since_unix, size, timestamp};
use crate::output::list::{Listing, Row};

leaf!(
    INSPECT,
    "inspect",
    "[OPTIONS] IMAGE [IMAGE...]",
    "Display detailed information on one or more images",
    InspectArgs,
    run_inspect
);
leaf!(RMI, "rmi", "[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", RmArgs, rm);
leaf!(RM, "rm" | "remove", "[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images", RmArgs, rm);
leaf!(
    TAG,
    "tag",
    "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    TagArgs,
    tag
);
leaf!(HISTORY, "history", "[OPTIONS] IMAGE", "Show the history of an image", HistoryArgs, history);

#[derive(Args, Debug)]
struct InspectArgs {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(long, short = 'f')]
    format: Option<String>,
    #[arg(required = true, hide = true)]
    images: Vec<String>,
}

async fn run_inspect(context: &Context, args: InspectArgs) -> Result<()> {
    inspect::print_all(&args.images, args.format.as_deref(), |name| async move {
        inspect::fetch(
            &context.client,
            Call::get(format!("/images/{}/json", checked("image", &name)?)),
        )
        .await
    })
    .await
}

#[derive(Args, Debug)]
struct RmArgs {
    /// Force removal of the image
    #[arg(long, short = 'f')]
    force: bool,
    /// Do not delete untagged parents
    #[arg(long)]
    no_prune: bool,
    #[arg(required = true, hide = true)]
    images: Vec<String>,
}

async fn rm(context: &Context, args: RmArgs) -> Result<()> {
    let mut failures = Failures::default();
    for image in &args.images {
        let call = Call::delete(format!("/images/{}", checked("image", image)?))
            .query_if("force", args.force)
            .query_if("noprune", args.no_prune);
        let deleted: Result<Vec<ImageDeleteItem>> = context.client.json(call).await;
        match deleted {
            Err(error) if args.force && error.is_not_found() => crate::output::warn(&error.text()),
            deleted => {
                for item in failures.keep(deleted)?.into_iter().flatten() {
                    if let Some(id) = item.deleted {
                        crate::output::line(&format!("Deleted: {id}"))?;
                    } else if let Some(name) = item.untagged {
                        crate::output::line(&format!("Untagged: {name}"))?;
                    }
                }
            }
        }
    }
    failures.finish()
}

#[derive(Args, Debug)]
struct TagArgs {
    #[arg(hide = true)]
    source: String,
    #[arg(hide = true)]
    target: String,
}

async fn tag(context: &Context, args: TagArgs) -> Result<()> {
    let source = checked("image", &args.source)?;
    let target = Reference::parse(&args.target)
        .map_err(|e| {
            message(format!(
                "Error parsing reference: {:?} is not a valid repository/tag: {e}",
                args.target
            ))
        })?
        .with_default_tag();
    if target.digest().is_some() {
        return Err(message("refusing to create a tag with a digest reference"));
    }
    let call = Call::post(format!("/images/{source}/tag"))
        .query("repo", target.name())
        .query_opt("tag", target.tag());
    context.client.none(call).await
}

#[derive(Args, Debug)]
struct HistoryArgs {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    #[command(flatten)]
    human: Human,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(hide = true)]
    image: String,
}

/// `--human`, on by default.
#[derive(Debug)]
struct Human(bool);

impl clap::FromArgMatches for Human {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(matches.get_one::<bool>("human").copied().unwrap_or(true)))
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Human {
    fn augment_args(command: clap::Command) -> clap::Command {
        let arg = optional_boolean(clap::Arg::new("human").long("human").short('H'));
        command.arg(arg.help("Print sizes and dates in human readable format (default true)"))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

const HISTORY_HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
];
const HISTORY_TABLE: &str = "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";
/// Longest command that is shown.
const MAX_CREATED_BY: usize = 45;

async fn history(context: &Context, args: HistoryArgs) -> Result<()> {
    let call = Call::get(format!("/images/{}/history", checked("image", &args.image)?));
    let items: Vec<HistoryItem> = context.client.json(call).await?;
    let now = brig_api::time::now();
    let trunc = !args.no_trunc;
    let rows: Vec<Row> = items
        .iter()
        .map(|item| {
            let created_by = item.created_by.replace('\t', " ");
            let created_at = rfc3339(item.created);
            Row::new()
                .with("ID", if trunc { short_id(&item.id) } else { &item.id })
                .with(
                    "CreatedBy",
                    if trunc { ellipsis(&created_by, MAX_CREATED_BY) } else { created_by },
                )
                .with(
                    "CreatedSince",
                    match (args.human.0, item.created) {
                        (_, 0) => "N/A".to_owned(),
                        (true, created) => since_unix(created, now),
                        (false, _) => created_at.clone(),
                    },
                )
                .with("CreatedAt", created_at)
                .with("Size", if args.human.0 { size(item.size) } else { item.size.to_string() })
                .with("Comment", item.comment.as_str())
        })
        .collect();
    let listing = Listing { table: HISTORY_TABLE, headers: HISTORY_HEADERS, id: "ID" };
    listing.print(&rows, args.format.as_deref(), args.quiet)
}

fn rfc3339(unix: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp(unix)
        .map(brig_api::time::rfc3339nano)
        .unwrap_or_else(|_| timestamp(unix))
}
