//! `cluster restore`: a cluster out of a backup, on a machine that is in none.

use std::path::PathBuf;

use brig_api::cluster::RestoreAnswer;
use clap::Args;

use super::opening::OpeningFlags;
use crate::cli::leaf;
use crate::client::Call;
use crate::commands::swarm::print_unlock_key;
use crate::context::Context;
use crate::error::Result;
use crate::output::line;
use crate::parse::swarm::listen_addr;

leaf!(
    RESTORE,
    "restore",
    "[OPTIONS] FILE",
    "Make this node the manager of a cluster out of a backup",
    RestoreArgs,
    restore
);

#[derive(Args, Debug)]
struct RestoreArgs {
    /// Advertised address (format: "<ip|interface>[:port]")
    #[arg(long, default_value = "")]
    advertise_addr: String,
    /// Address or interface to use for data path traffic (format: "<ip|interface>")
    #[arg(long, default_value = "")]
    data_path_addr: String,
    /// Listen address (format: "<ip|interface>[:port]")
    #[arg(long, default_value = "0.0.0.0:2377", value_parser = listen_addr)]
    listen_addr: String,
    #[command(flatten)]
    opening: OpeningFlags,
    #[arg(hide = true)]
    file: PathBuf,
}

async fn restore(context: &Context, args: RestoreArgs) -> Result<()> {
    let body = args.opening.body(&args.file).await?;
    let call = Call::post("/brig/cluster/restore")
        .query("listenAddr", &args.listen_addr)
        .query("advertiseAddr", &args.advertise_addr)
        .query("dataPathAddr", &args.data_path_addr)
        .stream("application/octet-stream", body);
    let answer: RestoreAnswer = context.client.send(call).await?.json().await?;
    line(&format!("Cluster restored: current node ({}) is now its manager.", answer.node_id))?;
    super::backup::print(&answer.backup)?;
    line(&format!(
        "\nThe managers that it had are taken out of it. Workers that know this address come back by themselves, others\njoin again: '{} swarm join-token worker' says how, and the tokens are the old ones.",
        context.program
    ))?;
    if answer.backup.autolock {
        line("")?;
        print_unlock_key(context).await?;
    }
    Ok(())
}
