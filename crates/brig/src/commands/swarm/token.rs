//! `swarm join-token`, and what `init` prints.

use brig_api::swarm::{Node, Swarm};
use brig_api::system::SystemInfo;
use clap::Args;

use super::spec::{Rotate, send};
use crate::cli::leaf;
use crate::client::Call;
use crate::commands::node::tolerance;
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::{line, warn};
use crate::parse::duration;

leaf!(
    JOIN_TOKEN,
    "join-token",
    "[OPTIONS] (worker|manager)",
    "Manage join tokens",
    TokenArgs,
    join_token
);

#[derive(Args, Debug)]
struct TokenArgs {
    /// Only display token
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Rotate join token
    #[arg(long)]
    rotate: bool,
    /// How long nodes may join with the new token (ns|us|ms|s|m|h) (default for ever)
    #[arg(long, value_parser = duration::positive)]
    ttl: Option<i64>,
    /// How many nodes may join with the new token (default any number)
    #[arg(long)]
    uses: Option<u32>,
    #[arg(hide = true)]
    role: String,
}

async fn join_token(context: &Context, args: TokenArgs) -> Result<()> {
    let role = args.role.as_str();
    if !matches!(role, "worker" | "manager") {
        return Err(message(format!("unknown role {role}")));
    }
    let limited = args.ttl.is_some() || args.uses.is_some();
    if limited && !args.rotate {
        return Err(message("--ttl and --uses are of a new token: use them with --rotate"));
    }
    if args.rotate {
        let swarm: Swarm = context.client.json(Call::get("/swarm")).await?;
        let rotate = Rotate {
            worker_token: role == "worker",
            manager_token: role == "manager",
            lifetime: args.ttl,
            uses: args.uses,
            ..Rotate::default()
        };
        send(context, swarm.version.index, &swarm.spec, rotate).await?;
        if limited {
            check_limit(context, role).await?;
        }
        if !args.quiet {
            line(&format!("Successfully rotated {role} join token.\n"))?;
        }
    }
    if args.quiet {
        let swarm: Swarm = context.client.json(Call::get("/swarm")).await?;
        return line(token(&swarm, role));
    }
    let info: SystemInfo = context.client.json(Call::get("/info")).await?;
    print_join_command(context, &info.swarm.node_id, role).await?;
    if role == "manager" {
        let before = tolerance::managers(context).await?;
        if let Some(text) = tolerance::warning(before, before + 1) {
            warn(&text);
        }
    }
    Ok(())
}

/// Other daemons make a token without limits and say nothing.
async fn check_limit(context: &Context, role: &str) -> Result<()> {
    let tokens = context.client.json::<Swarm>(Call::get("/swarm")).await?.join_tokens;
    let limit = if role == "manager" { tokens.manager_limit } else { tokens.worker_limit };
    if limit.is_none() {
        return Err(message(format!(
            "the {role} join token was rotated, but this daemon does not limit join tokens"
        )));
    }
    Ok(())
}

fn token<'a>(swarm: &'a Swarm, role: &str) -> &'a str {
    if role == "manager" {
        swarm.join_tokens.manager.expose_secret()
    } else {
        swarm.join_tokens.worker.expose_secret()
    }
}

/// Prints the command that another node joins with.
pub(super) async fn print_join_command(context: &Context, node: &str, role: &str) -> Result<()> {
    let node: Node = context.client.json(Call::get(format!("/nodes/{node}"))).await?;
    let swarm: Swarm = context.client.json(Call::get("/swarm")).await?;
    let Some(status) = node.manager_status else {
        return Ok(());
    };
    line(&format!(
        "To add a {role} to this swarm, run the following command:\n\n    {} swarm join --token {} {}\n",
        context.program,
        token(&swarm, role),
        status.addr
    ))
}
