//! Removing what nobody uses: `container prune`, `image prune`, `volume prune`, `network prune`,
//! `builder prune`, `system prune`.

use brig_api::filters::Filters;
use brig_api::image::ImagesPruneReport;
use brig_api::network::NetworksPruneReport;
use brig_api::system::ContainersPruneReport;
use brig_api::volume::VolumesPruneReport;
use clap::Args;
use serde::Deserialize;

use crate::cli::{Leaf, leaf};
use crate::client::Call;
use crate::commands::filters;
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::{print, prompt};

leaf!(CONTAINER, "prune", "[OPTIONS]", "Remove all stopped containers", PlainArgs, container);
leaf!(IMAGE, "prune", "[OPTIONS]", "Remove unused images", AllArgs, image);
leaf!(VOLUME, "prune", "[OPTIONS]", "Remove unused local volumes", AllArgs, volume);
leaf!(NETWORK, "prune", "[OPTIONS]", "Remove all unused networks", PlainArgs, network);
leaf!(BUILDER, "prune", "[OPTIONS]", "Remove build cache", BuilderArgs, builder);
leaf!(SYSTEM, "prune", "[OPTIONS]", "Remove unused data", SystemArgs, system);

/// `builder …`.
pub(crate) const BUILDER_COMMANDS: &[&Leaf] = &[&super::image::BUILD, &BUILDER];

#[derive(Args, Debug)]
struct PlainArgs {
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(long, short = 'f')]
    force: bool,
}

#[derive(Args, Debug)]
struct AllArgs {
    /// Remove all unused ones, not just dangling or anonymous ones
    #[arg(long, short = 'a')]
    all: bool,
    #[command(flatten)]
    plain: PlainArgs,
}

#[derive(Args, Debug)]
struct BuilderArgs {
    /// Amount of disk space to keep for cache
    #[arg(long)]
    keep_storage: Option<String>,
    #[command(flatten)]
    all: AllArgs,
}

#[derive(Args, Debug)]
struct SystemArgs {
    /// Prune anonymous volumes
    #[arg(long)]
    volumes: bool,
    #[command(flatten)]
    all: AllArgs,
}

/// What went, and how much of the disk came back.
#[derive(Debug, Default)]
struct Pruned {
    text: String,
    reclaimed: u64,
}

impl Pruned {
    fn new(title: &str, names: &[String], reclaimed: u64) -> Self {
        let mut text = String::new();
        if !names.is_empty() {
            text = format!("{title}:\n{}\n\n", names.join("\n"));
        }
        Self { text, reclaimed }
    }

    fn print(&self) -> Result<()> {
        print(&format!("{}{}", self.text, total(self.reclaimed)))
    }
}

fn total(reclaimed: u64) -> String {
    format!("Total reclaimed space: {}\n", brig_api::progress::human_size(reclaimed))
}

/// Asks unless it is forced; "no" is an error, as for docker.
fn confirm(warning: &str, force: bool, what: &str) -> Result<()> {
    if force {
        return Ok(());
    }
    let answer = prompt(&format!("{warning}Are you sure you want to continue? [y/N] "))?;
    match answer.trim() {
        "y" | "Y" => Ok(()),
        _ => Err(message(format!("{what} prune has been cancelled"))),
    }
}

async fn container(context: &Context, args: PlainArgs) -> Result<()> {
    let filters = filters(&args.filter)?;
    confirm("WARNING! This will remove all stopped containers.\n", args.force, "container")?;
    containers(context, &filters).await?.print()
}

async fn image(context: &Context, args: AllArgs) -> Result<()> {
    let warning = if args.all {
        "WARNING! This will remove all images without at least one container associated to them.\n"
    } else {
        "WARNING! This will remove all dangling images.\n"
    };
    let filters = filters(&args.plain.filter)?;
    confirm(warning, args.plain.force, "image")?;
    images(context, filters, args.all).await?.print()
}

async fn images(context: &Context, mut filters: Filters, all: bool) -> Result<Pruned> {
    filters.add("dangling", if all { "false" } else { "true" });
    let call = Call::post("/images/prune").filters(&filters);
    let report: ImagesPruneReport = context.client.json(call).await?;
    let lines: Vec<String> = report
        .images_deleted
        .iter()
        .map(|item| match (&item.untagged, &item.deleted) {
            (Some(name), _) => format!("untagged: {name}"),
            (None, id) => format!("deleted: {}", id.as_deref().unwrap_or_default()),
        })
        .collect();
    Ok(Pruned::new("Deleted Images", &lines, report.space_reclaimed))
}

async fn volume(context: &Context, args: AllArgs) -> Result<()> {
    let warning = if args.all {
        "WARNING! This will remove all local volumes not used by at least one container.\n"
    } else {
        "WARNING! This will remove anonymous local volumes not used by at least one container.\n"
    };
    let mut filters = filters(&args.plain.filter)?;
    if args.all {
        if filters.contains("all") {
            return Err(message(
                "conflicting options: cannot specify both --all and --filter all=1",
            ));
        }
        filters.add("all", "true");
    }
    confirm(warning, args.plain.force, "volume")?;
    volumes(context, &filters).await?.print()
}

async fn volumes(context: &Context, filters: &Filters) -> Result<Pruned> {
    let call = Call::post("/volumes/prune").filters(filters);
    let report: VolumesPruneReport = context.client.json(call).await?;
    Ok(Pruned::new("Deleted Volumes", &report.volumes_deleted, report.space_reclaimed))
}

async fn network(context: &Context, args: PlainArgs) -> Result<()> {
    let filters = filters(&args.filter)?;
    confirm(
        "WARNING! This will remove all custom networks not used by at least one container.\n",
        args.force,
        "network",
    )?;
    // Networks take no space, so no sum is told.
    print(&networks(context, &filters).await?.text)
}

async fn networks(context: &Context, filters: &Filters) -> Result<Pruned> {
    let call = Call::post("/networks/prune").filters(filters);
    let report: NetworksPruneReport = context.client.json(call).await?;
    Ok(Pruned::new("Deleted Networks", &report.networks_deleted, 0))
}

async fn containers(context: &Context, filters: &Filters) -> Result<Pruned> {
    let call = Call::post("/containers/prune").filters(filters);
    let report: ContainersPruneReport = context.client.json(call).await?;
    Ok(Pruned::new("Deleted Containers", &report.containers_deleted, report.space_reclaimed))
}

async fn builder(context: &Context, args: BuilderArgs) -> Result<()> {
    let filters = filters(&args.all.plain.filter)?;
    let warning = if args.all.all {
        "WARNING! This will remove all build cache. "
    } else {
        "WARNING! This will remove all dangling build cache. "
    };
    confirm(warning, args.all.plain.force, "builder")?;
    cache(context, &filters, args.all.all, args.keep_storage.as_deref()).await?.print()
}

async fn cache(
    context: &Context,
    filters: &Filters,
    all: bool,
    keep: Option<&str>,
) -> Result<Pruned> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Report {
        caches_deleted: Option<Vec<String>>,
        space_reclaimed: u64,
    }
    let keep = keep
        .map(crate::parse::size::bytes)
        .transpose()
        .map_err(|e| message(e.to_string()))?
        .map(|bytes| bytes.to_string());
    let call = Call::post("/build/prune")
        .query_if("all", all)
        .query_opt("keep-storage", keep)
        .filters(filters);
    let report: Report = context.client.json(call).await?;
    let deleted = report.caches_deleted.unwrap_or_default();
    Ok(Pruned::new("Deleted build cache objects", &deleted, report.space_reclaimed))
}

async fn system(context: &Context, args: SystemArgs) -> Result<()> {
    let filters = filters(&args.all.plain.filter)?;
    if args.volumes && filters.contains("until") {
        return Err(message("ERROR: The \"until\" filter is not supported with \"--volumes\""));
    }
    confirm(&warning(&args), args.all.plain.force, "system")?;
    let mut done = vec![containers(context, &filters).await?, networks(context, &filters).await?];
    if args.volumes {
        done.push(volumes(context, &filters).await?);
    }
    done.push(images(context, filters, args.all.all).await?);
    // The cache knows no filters: with some, it is not what is meant.
    if args.all.plain.filter.is_empty() {
        done.push(cache(context, &Filters::new(), args.all.all, None).await?);
    }
    let text: String = done.iter().map(|one| one.text.as_str()).collect();
    print(&format!("{text}{}", total(done.iter().map(|one| one.reclaimed).sum())))
}

fn warning(args: &SystemArgs) -> String {
    let mut lines =
        vec!["all stopped containers", "all networks not used by at least one container"];
    if args.volumes {
        lines.push("all anonymous volumes not used by at least one container");
    }
    if args.all.all {
        lines.push("all images without at least one container associated to them");
        lines.push("all build cache");
    } else {
        lines.push("all dangling images");
        lines.push("unused build cache");
    }
    let mut text = String::from("WARNING! This will remove:\n");
    for line in lines {
        text.push_str(&format!("  - {line}\n"));
    }
    if !args.all.plain.filter.is_empty() {
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        for filter in &args.all.plain.filter {
            text.push_str(&format!("  - {filter}\n"));
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_says_what_goes() {
        let args = SystemArgs {
            volumes: true,
            all: AllArgs {
                all: true,
                plain: PlainArgs { filter: vec!["label=x".into()], force: false },
            },
        };
        assert_eq!(
            warning(&args),
            "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n  - all anonymous volumes not used by at least one container\n  - all images without at least one container associated to them\n  - all build cache\n\n  Items to be pruned will be filtered with:\n  - label=x\n\n"
        );
        let one = Pruned::new("Deleted Volumes", &["a".into(), "b".into()], 0);
        assert_eq!(one.text, "Deleted Volumes:\na\nb\n\n");
        assert_eq!(Pruned::new("x", &[], 0).text, "");
        assert_eq!(total(1_234_567), "Total reclaimed space: 1.235MB\n");
    }
}
