//! `stack config`: the files as they are understood.

use clap::Args;

use crate::cli::leaf;
use crate::compose::{self, Surroundings, Value};
use crate::context::Context;
use crate::error::{Result, message};
use crate::parse::env::process_env;

leaf!(
    CONFIG,
    "config",
    "[OPTIONS]",
    "Outputs the final config file, after doing merges and interpolations",
    ConfigArgs,
    config
);

#[derive(Args, Debug)]
struct ConfigArgs {
    /// Path to a Compose file, or "-" to read from stdin
    #[arg(long, short = 'c')]
    compose_file: Vec<String>,
    /// Skip interpolation and output only merged config
    #[arg(long)]
    skip_interpolation: bool,
}

async fn config(_context: &Context, args: ConfigArgs) -> Result<()> {
    if args.compose_file.is_empty() {
        return Err(message("please specify a Compose file (with --compose-file)"));
    }
    let interpolate = (!args.skip_interpolation).then_some(&process_env as compose::Lookup<'_>);
    let (tree, directory) = compose::read(&args.compose_file, interpolate)?;
    if !args.skip_interpolation {
        // Mistakes are told here, not at the deployment.
        let surroundings =
            Surroundings { stack: "config", directory: &directory, lookup: &process_env };
        compose::stack(tree.clone(), &surroundings)?;
    }
    let text = serde_saphyr::to_string(&Value::Map(tree))
        .map_err(|e| message(format!("the files cannot be written as YAML: {e}")))?;
    crate::output::print(&text)
}
