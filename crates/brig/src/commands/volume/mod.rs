//! `volume …`.

use brig_api::volume::{Volume, VolumeCreateRequest, VolumeListResponse};
use clap::Args;

use crate::cli::{Leaf, leaf};
use crate::client::Call;
use crate::commands::{checked, each, filters, inspect};
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::human::{natural_order, size};
use crate::output::list::{Listing, Row};
use crate::parse::key_value_map;

leaf!(CREATE, "create", "[OPTIONS] [VOLUME]", "Create a volume", CreateArgs, create);
leaf!(
    INSPECT,
    "inspect",
    "[OPTIONS] VOLUME [VOLUME...]",
    "Display detailed information on one or more volumes",
    InspectArgs,
    run_inspect
);
leaf!(LS, "ls" | "list", "[OPTIONS]", "List volumes", LsArgs, ls);
leaf!(
    RM,
    "rm" | "remove",
    "[OPTIONS] VOLUME [VOLUME...]",
    "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    RmArgs,
    rm
);

/// `volume …`.
pub(crate) const COMMANDS: &[&Leaf] = &[&CREATE, &INSPECT, &LS, &super::prune::VOLUME, &RM];

#[derive(Args, Debug)]
struct CreateArgs {
    /// Specify volume driver name
    #[arg(long, short = 'd', default_value = "local")]
    driver: String,
    /// Specify volume name
    #[arg(long, hide = true)]
    name: Option<String>,
    /// Set metadata for a volume
    #[arg(long)]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(long, short = 'o')]
    opt: Vec<String>,
    #[arg(hide = true)]
    volume: Option<String>,
}

async fn create(context: &Context, args: CreateArgs) -> Result<()> {
    let name = match (args.volume, args.name) {
        (Some(_), Some(_)) => {
            return Err(message(
                "conflicting options: cannot specify a volume-name through both --name and as a positional arg",
            ));
        }
        (name, other) => name.or(other).unwrap_or_default(),
    };
    let request = VolumeCreateRequest {
        name,
        driver: args.driver,
        driver_opts: key_value_map(&args.opt),
        labels: key_value_map(&args.label),
        cluster_volume_spec: None,
    };
    let volume: Volume = context.client.json(Call::post("/volumes/create").json(&request)?).await?;
    crate::output::line(&volume.name)
}

#[derive(Args, Debug)]
struct InspectArgs {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(long, short = 'f')]
    format: Option<String>,
    #[arg(required = true, hide = true)]
    volumes: Vec<String>,
}

async fn run_inspect(context: &Context, args: InspectArgs) -> Result<()> {
    inspect::print_all(&args.volumes, args.format.as_deref(), |name| async move {
        inspect::fetch(
            &context.client,
            Call::get(format!("/volumes/{}", checked("volume", &name)?)),
        )
        .await
    })
    .await
}

#[derive(Args, Debug)]
struct LsArgs {
    /// Provide filter values (e.g. "dangling=true")
    #[arg(long, short = 'f')]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display volume names
    #[arg(long, short = 'q')]
    quiet: bool,
}

async fn ls(context: &Context, args: LsArgs) -> Result<()> {
    let call = Call::get("/volumes").filters(&filters(&args.filter)?);
    let response: VolumeListResponse = context.client.json(call).await?;
    let mut volumes = response.volumes;
    volumes.sort_by(|a, b| natural_order(&a.name, &b.name));
    let rows: Vec<Row> = volumes
        .iter()
        .map(|volume| {
            let usage = volume.usage_data.as_ref();
            Row::new()
                .with("Name", volume.name.as_str())
                .with("Driver", volume.driver.as_str())
                .with("Scope", volume.scope.as_str())
                .with("Mountpoint", volume.mountpoint.as_str())
                .with("Links", usage.map_or("N/A".to_owned(), |usage| usage.ref_count.to_string()))
                .with("Size", usage.map_or("N/A".to_owned(), |usage| size(usage.size)))
                .labels(&volume.labels)
        })
        .collect();
    let listing = Listing {
        table: "{{.Driver}}\t{{.Name}}",
        headers: &[("Name", "VOLUME NAME")],
        id: "Name",
    };
    let format = args
        .format
        .as_deref()
        .or_else(|| context.config.text("volumesFormat").filter(|_| !args.quiet));
    listing.print(&rows, format, args.quiet)
}

#[derive(Args, Debug)]
struct RmArgs {
    /// Force the removal of one or more volumes
    #[arg(long, short = 'f')]
    force: bool,
    #[arg(required = true, hide = true)]
    volumes: Vec<String>,
}

async fn rm(context: &Context, args: RmArgs) -> Result<()> {
    each(&args.volumes, |name| async move {
        let call = Call::delete(format!("/volumes/{}", checked("volume", &name)?))
            .query_if("force", args.force);
        context.client.none(call).await
    })
    .await
}
