//! `service inspect`.

use brig_api::swarm::Service;
use clap::Args;

use super::pretty::pretty;
use crate::cli::leaf;
use crate::client::Call;
use crate::commands::{checked, inspect};
use crate::context::Context;
use crate::error::{Result, message};

leaf!(
    INSPECT,
    "inspect",
    "[OPTIONS] SERVICE [SERVICE...]",
    "Display detailed information on one or more services",
    InspectArgs,
    run
);

#[derive(Args, Debug)]
struct InspectArgs {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(long, short = 'f')]
    format: Option<String>,
    /// Print the information in a human friendly format
    #[arg(long)]
    pretty: bool,
    #[arg(required = true, hide = true)]
    services: Vec<String>,
}

fn call(name: &str) -> Result<Call> {
    Ok(Call::get(format!("/services/{}", checked("service", name)?))
        .query("insertDefaults", "true"))
}

async fn run(context: &Context, args: InspectArgs) -> Result<()> {
    if args.pretty {
        if args.format.is_some() {
            return Err(message("--format is incompatible with human friendly format"));
        }
        for name in &args.services {
            let service: Service = context.client.json(call(name)?).await?;
            crate::output::print(&pretty(&service))?;
        }
        return Ok(());
    }
    inspect::print_all(&args.services, args.format.as_deref(), |name| async move {
        inspect::fetch(&context.client, call(&name)?).await
    })
    .await
}
