//! `swarm unlock` and `unlock-key`: managers whose keys are not on their disks.

use brig_api::swarm::{Swarm, UnlockKey};
use brig_api::system::SystemInfo;
use clap::Args;

use super::spec::{Rotate, send};
use crate::cli::leaf;
use crate::client::Call;
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::line;
use crate::terminal::secret;

leaf!(UNLOCK, "unlock", "", "Unlock swarm", UnlockArgs, unlock);
leaf!(UNLOCK_KEY, "unlock-key", "[OPTIONS]", "Manage the unlock key", UnlockKeyArgs, unlock_key);

#[derive(Args, Debug)]
struct UnlockArgs {}

async fn unlock(context: &Context, _: UnlockArgs) -> Result<()> {
    let info: SystemInfo = context.client.json(Call::get("/info")).await?;
    match info.swarm.local_node_state.as_str() {
        "inactive" => return Err(message("Error: This node is not part of a swarm")),
        "locked" => {}
        _ => return Err(message("Error: swarm is not locked")),
    }
    let key = secret::ask("Enter unlock key: ")?;
    let len = key.expose_secret().len();
    let request = UnlockKey { unlock_key: key };
    context.client.none(Call::post("/swarm/unlock").secret_json(&request, len)?).await
}

#[derive(Args, Debug)]
struct UnlockKeyArgs {
    /// Only display token
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Rotate unlock key
    #[arg(long)]
    rotate: bool,
}

async fn unlock_key(context: &Context, args: UnlockKeyArgs) -> Result<()> {
    if args.rotate {
        let swarm: Swarm = context.client.json(Call::get("/swarm")).await?;
        if !swarm.spec.encryption_config.auto_lock_managers {
            return Err(message("cannot rotate because autolock is not turned on"));
        }
        let rotate = Rotate { unlock_key: true, ..Rotate::default() };
        send(context, swarm.version.index, &swarm.spec, rotate).await?;
        if !args.quiet {
            line("Successfully rotated manager unlock key.\n")?;
        }
    }
    let key: UnlockKey = context.client.json(Call::get("/swarm/unlockkey")).await?;
    if key.unlock_key.is_empty() {
        return Err(message("no unlock key is set"));
    }
    if args.quiet {
        return line(key.unlock_key.expose_secret());
    }
    print(context, &key)
}

/// Prints the key that a locked manager is unlocked with.
pub(crate) async fn print_unlock_key(context: &Context) -> Result<()> {
    let key: UnlockKey = context.client.json(Call::get("/swarm/unlockkey")).await?;
    if key.unlock_key.is_empty() {
        return Ok(());
    }
    print(context, &key)
}

fn print(context: &Context, key: &UnlockKey) -> Result<()> {
    line(&format!(
        "To unlock a swarm manager after it restarts, run the `{} swarm unlock`\ncommand and provide the following key:\n\n    {}\n\n\
         Remember to store this key in a password manager, since without it you\nwill not be able to restart the manager.",
        context.program,
        key.unlock_key.expose_secret()
    ))
}
