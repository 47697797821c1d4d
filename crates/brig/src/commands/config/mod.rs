//! `config …`.

use brig_api::data::Base64;
use brig_api::swarm::{Config, ConfigSpec, CreateResponse};
use clap::Args;

use super::secret::read;
use crate::cli::{Leaf, leaf};
use crate::client::Call;
use crate::commands::stored::{InspectArgs, LsArgs, RmArgs, inspect, ls, rm};
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
    inspect::<Config>
);
leaf!(LS, "ls" | "list", "[OPTIONS]", "List configs", LsArgs, ls::<Config>);
leaf!(
    RM,
    "rm" | "remove",
    "CONFIG [CONFIG...]",
    "Remove one or more configs",
    RmArgs,
    rm::<Config>
);

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
