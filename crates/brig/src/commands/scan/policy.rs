//! `scan policy …`: what may start on an engine, or in its swarm.

use std::path::{Path, PathBuf};

use brig_scan::gate::Policy;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::failed;
use crate::cli::leaf;
use crate::client::Call;
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::output::table::align;

leaf!(SET, "set", "[OPTIONS] FILE|-", "Let only images start that a policy admits", FileArgs, set);
leaf!(INSPECT, "inspect", "", "Show the policy and its exceptions", NoArgs, inspect);
leaf!(REMOVE, "rm", "", "Let every image start again", NoArgs, remove);
leaf!(
    TEST,
    "test",
    "[OPTIONS] FILE|-",
    "Show which services and containers a policy would refuse",
    FileArgs,
    test
);

const ROUTE: &str = "/brig/policies/scan";
/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 256 << 10;

#[derive(Args, Debug)]
struct FileArgs {
    #[arg(hide = true, required = true)]
    file: PathBuf,
}

#[derive(Args, Debug)]
struct NoArgs {}

/// The policy as the engine has it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct InForce {
    pub(super) version: u64,
    scope: String,
    document: Value,
}

impl InForce {
    /// The policy, understood.
    pub(super) fn policy(&self) -> Result<Policy> {
        Policy::parse(self.document.to_string().as_bytes()).map_err(failed)
    }
}

/// What is in force; nothing where there is no policy.
pub(super) async fn in_force(context: &Context) -> Result<Option<InForce>> {
    match context.client.json(Call::get(ROUTE)).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts a policy in force in place of the one with this version.
pub(super) async fn put(context: &Context, policy: &Policy, version: u64) -> Result<InForce> {
    let call = Call::put(ROUTE).query("version", version.to_string()).json(policy)?;
    context.client.json(call).await
}

fn read(path: &Path) -> Result<Policy> {
    use std::io::Read as _;
    let io = |source| Error::io(format!("reading {}", path.display()), source);
    let mut bytes = Vec::new();
    let source: Box<dyn std::io::Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(path).map_err(io)?),
    };
    source.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(io)?;
    Policy::parse_new(&bytes)
        .map_err(|error| message(format!("{}: {}", path.display(), failed(error).text())))
}

async fn set(context: &Context, args: FileArgs) -> Result<()> {
    let mut policy = read(&args.file)?;
    let before = in_force(context).await?;
    if let Some(before) = &before
        && policy.exceptions.is_empty()
    {
        // They are somebody else's business: who writes rules does not take them away.
        policy.exceptions = before.policy()?.exceptions;
    }
    let version = before.map_or(0, |before| before.version);
    let now = put(context, &policy, version).await?;
    let whose = if now.scope == "swarm" { "the swarm's" } else { "this engine's" };
    crate::output::line(&format!(
        "{whose} scan policy is version {} now: {} rules, {} exceptions",
        now.version,
        policy.rules.len(),
        policy.exceptions.0.len()
    ))
}

async fn inspect(context: &Context, _: NoArgs) -> Result<()> {
    let found: Value = context.client.json(Call::get(ROUTE)).await?;
    crate::output::line(&serde_json::to_string_pretty(&found).unwrap_or_default())
}

async fn remove(context: &Context, _: NoArgs) -> Result<()> {
    let found: InForce = context.client.json(Call::get(ROUTE)).await?;
    context.client.none(Call::delete(ROUTE).query("version", found.version.to_string())).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Tested {
    kind: String,
    name: String,
    image: String,
    admitted: bool,
    enforced: bool,
    rule: String,
    reason: String,
    warnings: Vec<String>,
}

async fn test(context: &Context, args: FileArgs) -> Result<()> {
    let mut policy = read(&args.file)?;
    if policy.exceptions.is_empty()
        && let Some(before) = in_force(context).await?
    {
        policy.exceptions = before.policy()?.exceptions;
    }
    let call = Call::post(format!("{ROUTE}/test")).json(&policy)?;
    let tested: Vec<Tested> = context.client.json(call).await?;
    let mut table = "KIND\tNAME\tIMAGE\tRULE\tOUTCOME\n".to_owned();
    let mut details = String::new();
    let mut refused = false;
    for one in &tested {
        let outcome = match (one.admitted, one.enforced) {
            (true, _) if one.warnings.is_empty() => "admitted",
            (true, _) | (false, false) => "admitted with a warning",
            (false, true) => "refused",
        };
        refused |= !one.admitted && one.enforced;
        table.push_str(&format!(
            "{}\t{}\t{}\t{}\t{outcome}\n",
            one.kind, one.name, one.image, one.rule
        ));
        if !one.reason.is_empty() {
            details.push_str(&format!("\n{} {}:{}\n", one.kind, one.name, one.reason));
        }
    }
    crate::output::print(&format!("{}{details}", align(&table)))?;
    if refused { Err(Error::Status(1)) } else { Ok(()) }
}
