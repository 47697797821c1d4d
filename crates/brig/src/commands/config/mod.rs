//! `config …`.

use brig_api::data::Base64;
use brig_api::swarm::{Config, ConfigSpec, CreateResponse};
use clap::Args;

use super::secret::{pretty, read};
use crate::cli::{Leaf, leaf};
use crate::client::Call;
use crate::commands::stored::{LsArgs, ls};
use crate::commands::{checked, each, inspect};
use crate::context::Context;
use crate::error::Result;
use crate::parse::key_value_map;

leaf!(
    CREATE,
    "create",
    "[OPTIONS] CONFIG file|-",
    "Create a config from a file or STDIN",
    CreateArgs,
    create
);
leaf!(
    INSPECT,
    "inspect",
    "[OPTIONS] CONFIG [CONFIG...]",
    "Display detailed information on one or more configs",
    InspectArgs,
    run_inspect
);
leaf!(LS, "ls" | "list", "[OPTIONS]", "List configs", LsArgs, ls::<Config>);
leaf!(RM, "rm" | "remove", "CONFIG [CONFIG...]", "Remove one or more configs", RmArgs, rm);

/// `config …`.
pub(crate) const COMMANDS: &[&Leaf] = &[&CREATE, &INSPECT, &LS, &RM];

/// The largest config: 1000 KiB.
pub(crate) const MAX_CONFIG: usize = 1000 * 1024;

#[derive(Args, Debug)]
struct CreateArgs {
    /// Config labels
    #[arg(long, short = 'l')]
    label: Vec<String>,
    /// Template driver
    #[arg(long)]
    template_driver: Option<String>,
    #[arg(hide = true)]
    config: String,
    #[arg(hide = true)]
    file: String,
}

async fn create(context: &Context, args: CreateArgs) -> Result<()> {
    let spec = ConfigSpec {
        name: args.config,
        labels: key_value_map(&args.label),
        data: Base64(read(&args.file, MAX_CONFIG, "config")?.expose_secret().to_vec()),
        templating: args
            .template_driver
            .map(|name| brig_api::mount::Driver { name, ..Default::default() }),
    };
    let response: CreateResponse =
        context.client.json(Call::post("/configs/create").json(&spec)?).await?;
    crate::output::line(&response.id)
}

#[derive(Args, Debug)]
struct InspectArgs {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(long, short = 'f')]
    format: Option<String>,
    /// Print the information in a human friendly format
    #[arg(long)]
    pretty: bool,
    #[arg(required = true, hide = true)]
    configs: Vec<String>,
}

async fn run_inspect(context: &Context, args: InspectArgs) -> Result<()> {
    if args.pretty {
        let mut text = String::new();
        for name in &args.configs {
            let config: Config = context
                .client
                .json(Call::get(format!("/configs/{}", checked("config", name)?)))
                .await?;
            text.push_str(&pretty(
                &config.id,
                &config.spec.name,
                &config.spec.labels,
                &config.created_at,
                &config.updated_at,
                None,
            ));
            text.push_str(&format!("Data:\n{}\n", String::from_utf8_lossy(&config.spec.data.0)));
        }
        return crate::output::print(&text);
    }
    inspect::print_all(&args.configs, args.format.as_deref(), |name| async move {
        inspect::fetch(
            &context.client,
            Call::get(format!("/configs/{}", checked("config", &name)?)),
        )
        .await
    })
    .await
}

#[derive(Args, Debug)]
struct RmArgs {
    #[arg(required = true, hide = true)]
    configs: Vec<String>,
}

async fn rm(context: &Context, args: RmArgs) -> Result<()> {
    each(&args.configs, |name| async move {
        context.client.none(Call::delete(format!("/configs/{}", checked("config", &name)?))).await
    })
    .await
}
