//! `container prune`.

use brig_api::system::ContainersPruneReport;
use clap::Args;

use crate::cli::leaf;
use crate::client::Call;
use crate::commands::filters;
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::human::size;
use crate::output::{print, prompt};

leaf!(PRUNE, "prune", "[OPTIONS]", "Remove all stopped containers", PruneArgs, prune);

#[derive(Args, Debug)]
struct PruneArgs {
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long)]
    filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(long, short = 'f')]
    force: bool,
}

async fn prune(context: &Context, args: PruneArgs) -> Result<()> {
    let filters = filters(&args.filter)?;
    if !args.force {
        let answer = prompt(
            "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] ",
        )?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(message("container prune has been cancelled"));
        }
    }
    let call = Call::post("/containers/prune").filters(&filters);
    let report: ContainersPruneReport = context.client.json(call).await?;
    let mut text = String::new();
    if !report.containers_deleted.is_empty() {
        text.push_str("Deleted Containers:\n");
        for id in &report.containers_deleted {
            text.push_str(id);
            text.push('\n');
        }
        text.push('\n');
    }
    let freed = i64::try_from(report.space_reclaimed).unwrap_or(i64::MAX);
    text.push_str(&format!("Total reclaimed space: {}\n", size(freed)));
    print(&text)
}
