//! `access …` and `auth …`: the rules in force, why they decide as they do, and who gets in from
//! elsewhere.

mod enroll;
mod identity;
mod ssh;

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cli::{Leaf, leaf};
use crate::client::Call;
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::list::{Listing, Row};

leaf!(LS, "ls" | "list", "[OPTIONS]", "List who has which role", LsArgs, ls);
leaf!(
    EXPLAIN,
    "explain",
    "[OPTIONS] ACTION [OBJECT]",
    "Tell whether something would be allowed, and the rule that decides",
    ExplainArgs,
    explain
);

/// `access …`.
pub(crate) const COMMANDS: &[&Leaf] = &[
    &enroll::APPROVE,
    &enroll::DENY,
    &enroll::ENROLL,
    &identity::IDENTITIES,
    &identity::ISSUE,
    &LS,
    &enroll::OPEN,
    &enroll::PENDING,
    &identity::REVOKE,
    &ssh::SSH,
];
/// `auth …`.
pub(crate) const AUTH_COMMANDS: &[&Leaf] = &[&EXPLAIN];

/// Largest file with a request.
const MAX_REQUEST: u64 = 1 << 20;

#[derive(Args, Debug)]
struct LsArgs {
    /// List the policies instead of the bindings
    #[arg(long)]
    policies: bool,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Shown {
    local: String,
    bindings: Vec<Bound>,
    policies: Vec<Policy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Bound {
    principal: String,
    role: String,
    services: Vec<String>,
    stacks: Vec<String>,
    secrets: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Policy {
    name: String,
    effect: String,
    text: String,
}

async fn ls(context: &Context, args: LsArgs) -> Result<()> {
    let shown: Shown = context.client.json(Call::get("/brig/access")).await?;
    if args.policies {
        let rows: Vec<Row> = shown
            .policies
            .iter()
            .map(|policy| {
                Row::new()
                    .with("Name", policy.name.as_str())
                    .with("Effect", policy.effect.as_str())
                    .with("Text", policy.text.as_str())
            })
            .collect();
        let listing = Listing {
            table: "{{.Name}}\t{{.Effect}}",
            headers: &[("Name", "POLICY"), ("Effect", "EFFECT"), ("Text", "TEXT")],
            id: "Name",
        };
        return listing.print(&rows, args.format.as_deref(), false);
    }
    let rest = Bound {
        principal: "(other local processes)".to_owned(),
        role: shown.local.clone(),
        ..Bound::default()
    };
    let rows: Vec<Row> = shown
        .bindings
        .iter()
        .chain(std::iter::once(&rest))
        .map(|bound| {
            Row::new()
                .with("Principal", bound.principal.as_str())
                .with("Role", bound.role.as_str())
                .with("Services", bound.services.join(","))
                .with("Stacks", bound.stacks.join(","))
                .with("Secrets", bound.secrets.join(","))
        })
        .collect();
    let listing = Listing {
        table: "{{.Principal}}\t{{.Role}}\t{{.Services}}\t{{.Stacks}}\t{{.Secrets}}",
        headers: &[
            ("Principal", "PRINCIPAL"),
            ("Role", "ROLE"),
            ("Services", "SERVICES"),
            ("Stacks", "STACKS"),
            ("Secrets", "SECRETS"),
        ],
        id: "Principal",
    };
    listing.print(&rows, args.format.as_deref(), false)
}

#[derive(Args, Debug)]
struct ExplainArgs {
    /// Ask for another principal: uid:UID, uid:UID:GID, cert:NAME, ssh:FINGERPRINT, lent:ROLE
    #[arg(long = "as")]
    principal: Option<String>,
    /// Read the question from a JSON file: Principal, Action, Object, Facts
    #[arg(long)]
    request: Option<std::path::PathBuf>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[arg(hide = true)]
    words: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Explained {
    allowed: bool,
    rule: String,
    role: String,
    reason: String,
    principal: String,
}

async fn explain(context: &Context, args: ExplainArgs) -> Result<()> {
    let mut question = match &args.request {
        Some(path) => read(path)?,
        None => Map::new(),
    };
    match args.words.as_slice() {
        [] if args.request.is_some() => {}
        [action] => drop(question.insert("Action".to_owned(), json!(action))),
        [action, object] => {
            question.insert("Action".to_owned(), json!(action));
            question.insert("Object".to_owned(), json!(object));
        }
        _ => return Err(message("expected ACTION [OBJECT], or --request FILE")),
    }
    if let Some(principal) = &args.principal {
        question.insert("Principal".to_owned(), json!(principal));
    }
    let call = Call::post("/brig/access/explain").json(&question)?;
    let answer: Value = context.client.json(call).await?;
    if args.json {
        return crate::output::line(&answer.to_string());
    }
    let explained: Explained = serde_json::from_value(answer)
        .map_err(|source| message(format!("the answer cannot be read: {source}")))?;
    let verdict = if explained.allowed { "allowed" } else { "denied" };
    crate::output::line(&format!("{verdict} by policy {:?}", explained.rule))?;
    crate::output::line(&format!("principal: {}", explained.principal))?;
    if !explained.role.is_empty() {
        crate::output::line(&format!("role: {}", explained.role))?;
    }
    if !explained.reason.is_empty() {
        crate::output::line(&format!("reason: {}", explained.reason))?;
    }
    Ok(())
}

fn read(path: &std::path::Path) -> Result<Map<String, Value>> {
    use std::io::Read as _;
    let failed = |error: &dyn std::fmt::Display| {
        message(format!("cannot read the request in {}: {error}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let mut text = String::new();
    file.take(MAX_REQUEST).read_to_string(&mut text).map_err(|error| failed(&error))?;
    serde_json::from_str(&text).map_err(|error| failed(&error))
}
