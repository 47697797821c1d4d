//! `audit …`: who did what, and whether the record of it is whole.

use clap::Args;
use serde::Deserialize;

use crate::cli::{Leaf, leaf};
use crate::client::Call;
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::list::{Listing, Row};
use crate::parse::time::timestamp;

leaf!(LS, "ls" | "list", "[OPTIONS]", "List what was done and what was denied", LsArgs, ls);
leaf!(
    VERIFY,
    "verify",
    "",
    "Check that nothing was removed, changed or reordered",
    VerifyArgs,
    verify
);

/// `audit …`.
pub(crate) const COMMANDS: &[&Leaf] = &[&LS, &VERIFY];

#[derive(Args, Debug)]
struct LsArgs {
    /// Show entries since this time, or so long ago
    #[arg(long)]
    since: Option<String>,
    /// Show entries before this time
    #[arg(long)]
    until: Option<String>,
    /// Show entries of this principal (uid:1000, cert:NAME, ssh:FINGERPRINT, lent:ROLE)
    #[arg(long)]
    principal: Option<String>,
    /// Show entries of this action, or of all below it (service, service.update)
    #[arg(long)]
    action: Option<String>,
    /// Show denials only
    #[arg(long)]
    denied: bool,
    /// Number of entries to show, from the end
    #[arg(long, short = 'n')]
    last: Option<u32>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    seq: u64,
    time: String,
    kind: String,
    principal: String,
    transport: String,
    container: String,
    action: String,
    object: String,
    role: String,
    rule: String,
    allowed: bool,
    status: Option<u16>,
    note: String,
}

async fn ls(context: &Context, args: LsArgs) -> Result<()> {
    let now = brig_api::time::now();
    let time = |text: &Option<String>| text.as_deref().map(|text| timestamp(text, now)).transpose();
    let call = Call::get("/brig/audit")
        .query_opt("since", time(&args.since)?)
        .query_opt("until", time(&args.until)?)
        .query_opt("principal", args.principal.as_deref())
        .query_opt("action", args.action.as_deref())
        .query_opt("limit", args.last.map(|last| last.to_string()))
        .query_if("denied", args.denied);
    let entries: Vec<Entry> = context.client.json(call).await?;
    let rows: Vec<Row> = entries.iter().map(row).collect();
    let listing = Listing {
        table: "{{.Time}}\t{{.Principal}}\t{{.Action}}\t{{.Object}}\t{{.Decision}}\t{{.Status}}\t{{.Rule}}",
        headers: &[
            ("Seq", "SEQ"),
            ("Time", "TIME"),
            ("Kind", "KIND"),
            ("Principal", "PRINCIPAL"),
            ("Transport", "TRANSPORT"),
            ("Container", "CONTAINER"),
            ("Action", "ACTION"),
            ("Object", "OBJECT"),
            ("Decision", "DECISION"),
            ("Status", "STATUS"),
            ("Role", "ROLE"),
            ("Rule", "RULE"),
            ("Note", "NOTE"),
        ],
        id: "Seq",
    };
    listing.print(&rows, args.format.as_deref(), false)
}

fn row(entry: &Entry) -> Row {
    let decision = match (entry.kind.as_str(), entry.allowed) {
        ("decision", true) => "allowed",
        ("decision", false) => "denied",
        (other, _) => other,
    };
    Row::new()
        .with("Seq", entry.seq.to_string())
        .with("Time", entry.time.as_str())
        .with("Kind", entry.kind.as_str())
        .with("Principal", entry.principal.as_str())
        .with("Transport", entry.transport.as_str())
        .with("Container", entry.container.as_str())
        .with("Action", entry.action.as_str())
        .with("Object", entry.object.as_str())
        .with("Decision", decision)
        .with("Status", entry.status.map(|status| status.to_string()).unwrap_or_default())
        .with("Role", entry.role.as_str())
        .with("Rule", entry.rule.as_str())
        .with("Note", entry.note.as_str())
}

#[derive(Args, Debug)]
struct VerifyArgs {}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Report {
    intact: bool,
    entries: u64,
    problems: Vec<Problem>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Problem {
    file: String,
    line: u64,
    reason: String,
}

async fn verify(context: &Context, _: VerifyArgs) -> Result<()> {
    let report: Report = context.client.json(Call::get("/brig/audit/verify")).await?;
    if report.intact {
        return crate::output::line(&format!(
            "The audit log is intact: {} entries",
            report.entries
        ));
    }
    for problem in &report.problems {
        let place = match problem.line {
            0 => problem.file.clone(),
            line => format!("{}:{line}", problem.file),
        };
        crate::output::line(&format!("{place}: {}", problem.reason))?;
    }
    Err(message(format!("the audit log is damaged in {} places", report.problems.len())))
}
