//! `cluster keys`: which data keys are in use, and another one.

use brig_api::cluster::ClusterKeys;
use clap::Args;

use crate::cli::leaf;
use crate::client::Call;
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::line;
use crate::output::list::{Listing, Row};

leaf!(
    KEYS,
    "keys",
    "[OPTIONS] [rotate]",
    "Show the keys that seal the cluster's objects, or seal everything with a new one",
    KeysArgs,
    keys
);

#[derive(Args, Debug)]
struct KeysArgs {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    #[arg(hide = true)]
    words: Vec<String>,
}

async fn keys(context: &Context, args: KeysArgs) -> Result<()> {
    match args.words.as_slice() {
        [] => show(context, args.format.as_deref()).await,
        [word] if word == "rotate" => {
            context.client.none(Call::post("/brig/cluster/keys/rotate")).await?;
            line(&format!(
                "The cluster's objects are being sealed with a new data key. '{} cluster keys' shows how far that is.",
                context.program
            ))
        }
        _ => Err(message("expected nothing, or rotate")),
    }
}

async fn show(context: &Context, format: Option<&str>) -> Result<()> {
    let keys: ClusterKeys = context.client.json(Call::get("/brig/cluster/keys")).await?;
    let known = keys.records.iter().any(|usage| usage.key == keys.current);
    let unused = (!known).then_some((keys.current.as_str(), 0));
    let used = keys.records.iter().map(|usage| (usage.key.as_str(), usage.records));
    let rows: Vec<Row> = unused
        .into_iter()
        .chain(used)
        .map(|(key, records)| {
            Row::new()
                .with("Key", key)
                .with("Records", records.to_string())
                .with("State", if key == keys.current { "current" } else { "to be destroyed" })
        })
        .collect();
    let listing = Listing {
        table: "{{.Key}}\t{{.State}}\t{{.Records}}",
        headers: &[("Key", "KEY"), ("State", "STATE"), ("Records", "RECORDS")],
        id: "Key",
    };
    listing.print(&rows, format, false)?;
    if format.is_some() {
        return Ok(());
    }
    let wrapped = if keys.autolock { "the unlock key" } else { "a key on each manager's disk" };
    line(&format!("\nGeneration: {}, wrapped with {wrapped}", keys.generation))?;
    if keys.rotating {
        line("A change of the data key is under way.")?;
    }
    if !keys.reason.is_empty() {
        line(&format!("Last change: {} ({})", keys.reason, keys.requested_at))?;
    }
    Ok(())
}
