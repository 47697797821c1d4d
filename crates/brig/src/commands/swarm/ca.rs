//! `swarm ca`.

use brig_api::swarm::Swarm;
use clap::Args;

use crate::cli::leaf;
use crate::client::Call;
use crate::context::Context;
use crate::error::{Result, message};

leaf!(CA, "ca", "[OPTIONS]", "Display the root CA", CaArgs, ca);

#[derive(Args, Debug)]
struct CaArgs {
    /// Rotate the swarm CA
    #[arg(long, hide = true)]
    rotate: bool,
}

async fn ca(context: &Context, args: CaArgs) -> Result<()> {
    if args.rotate {
        return Err(message("rotating the root CA is not available in this version of brig"));
    }
    let swarm: Swarm = context.client.json(Call::get("/swarm")).await?;
    if swarm.tls_info.trust_root.is_empty() {
        return Err(message("No CA information available"));
    }
    crate::output::line(swarm.tls_info.trust_root.trim_end())
}
