//! `scan exception …`: somebody answers for a flaw, somewhere, until a day.

use brig_scan::gate::{Exception, Exceptions, Policy, Scope};
use brig_scan::matching::is_day;
use brig_types::prefix::ImagePrefix;
use clap::Args;

use super::{db, policy};
use crate::cli::leaf;
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::table::align;

leaf!(
    ADD,
    "add",
    "[OPTIONS] VULNERABILITY",
    "Answer for a vulnerability, or a kind of doubt, until a day",
    AddArgs,
    add
);
leaf!(LIST, "ls", "", "List exceptions to the scan policy", ListArgs, list);
leaf!(REMOVE, "rm", "ID...", "Take exceptions away", RemoveArgs, remove);

#[derive(Args, Debug)]
struct AddArgs {
    /// Images by prefix: a registry, a folder, a repository; "*" for all
    #[arg(long)]
    image: Option<String>,
    /// Only for this service
    #[arg(long)]
    service: Option<String>,
    /// Only for this stack
    #[arg(long)]
    stack: Option<String>,
    /// Only in this package (may be given several times)
    #[arg(long)]
    package: Vec<String>,
    /// Who answers for it
    #[arg(long)]
    owner: String,
    /// Why
    #[arg(long)]
    reason: String,
    /// The last day that it holds, such as 2026-12-31
    #[arg(long)]
    expires: String,
    #[arg(hide = true, required = true)]
    vulnerability: String,
}

#[derive(Args, Debug)]
struct ListArgs {}

#[derive(Args, Debug)]
struct RemoveArgs {
    #[arg(hide = true, required = true)]
    ids: Vec<String>,
}

async fn in_force(context: &Context) -> Result<(Policy, u64)> {
    let found = policy::in_force(context).await?.ok_or_else(|| {
        message("there is no scan policy, so nothing needs an exception; see: brig scan policy set")
    })?;
    Ok((found.policy()?, found.version))
}

async fn add(context: &Context, args: AddArgs) -> Result<()> {
    let image = args
        .image
        .as_deref()
        .map(ImagePrefix::parse)
        .transpose()
        .map_err(|error| message(error.to_string()))?;
    let exception = Exception {
        id: args.vulnerability,
        packages: args.package,
        scope: Scope { image, service: args.service, stack: args.stack },
        reason: args.reason,
        owner: args.owner,
        expires: args.expires,
    };
    if !is_day(&exception.expires) {
        let day = &exception.expires;
        return Err(message(format!("--expires {day:?} is no day: write it as 2026-12-31")));
    }
    let (mut current, version) = in_force(context).await?;
    let key = exception.key();
    if !exception.holds(today().as_str()) {
        crate::output::warn(&format!("WARNING: {} is over already", exception.expires));
    }
    // The same flaw at the same place has one exception: the newer one.
    current.exceptions.0.retain(|other| other.key() != key);
    current.exceptions.0.push(exception);
    policy::put(context, &current, version).await?;
    crate::output::line(&key)
}

fn today() -> String {
    db::now().get(..10).unwrap_or_default().to_owned()
}

async fn list(context: &Context, _: ListArgs) -> Result<()> {
    let exceptions = match policy::in_force(context).await? {
        Some(found) => found.policy()?.exceptions,
        None => Exceptions::default(),
    };
    let today = today();
    let mut table = "ID\tVULNERABILITY\tPACKAGES\tSCOPE\tOWNER\tEXPIRES\tREASON\n".to_owned();
    for exception in &exceptions.0 {
        let packages = match exception.packages.as_slice() {
            [] => "all".to_owned(),
            some => some.join(","),
        };
        let over = if exception.holds(&today) { "" } else { " (over)" };
        table.push_str(&format!(
            "{}\t{}\t{packages}\t{}\t{}\t{}{over}\t{}\n",
            exception.key(),
            exception.id,
            exception.scope,
            exception.owner,
            exception.expires,
            exception.reason.replace(['\n', '\t'], " "),
        ));
    }
    crate::output::print(&align(&table))
}

async fn remove(context: &Context, args: RemoveArgs) -> Result<()> {
    let (mut current, version) = in_force(context).await?;
    for id in &args.ids {
        let before = current.exceptions.0.len();
        current.exceptions.0.retain(|exception| exception.key() != *id);
        if current.exceptions.0.len() == before {
            return Err(message(format!("no such exception: {id}; see: brig scan exception ls")));
        }
    }
    policy::put(context, &current, version).await?;
    for id in &args.ids {
        crate::output::line(id)?;
    }
    Ok(())
}
