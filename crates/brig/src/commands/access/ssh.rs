//! `access ssh add|ls|rm`: SSH keys that are worth a role and no shell.

use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::identity::ScopeArgs;
use crate::cli::leaf;
use crate::client::Call;
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::list::{Listing, Row};
use crate::output::{line, warn};
use crate::parse::env::read_limited;

leaf!(
    SSH,
    "ssh",
    "add|ls|rm [OPTIONS] [KEY|FILE...]",
    "Add, list or remove SSH keys that reach the engine with a role, and no shell",
    SshArgs,
    ssh
);

/// Largest file with a public key.
const MAX_KEY: u64 = 64 << 10;

#[derive(Args, Debug)]
struct SshArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Login on the engine's host that the key opens (default your own)
    #[arg(long, short = 'u')]
    user: Option<String>,
    /// Do not change the login's authorized_keys, print the line for it
    #[arg(long)]
    print: bool,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display fingerprints
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(hide = true)]
    words: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Key {
    #[serde(rename = "ID")]
    id: String,
    fingerprint: String,
    comment: String,
    user: String,
    role: String,
    services: Vec<String>,
    stacks: Vec<String>,
    secrets: Vec<String>,
    added: String,
    added_by: String,
    line: String,
    file: String,
}

async fn ssh(context: &Context, args: SshArgs) -> Result<()> {
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["add", rest @ ..] if !rest.is_empty() => add(context, &args, rest).await,
        ["ls" | "list"] => ls(context, &args).await,
        ["rm" | "remove", rest @ ..] if !rest.is_empty() => {
            for key in rest {
                let gone: Vec<Key> =
                    context.client.json(Call::delete(format!("/brig/access/ssh/{key}"))).await?;
                for key in gone {
                    line(&key.fingerprint)?;
                }
            }
            Ok(())
        }
        _ => Err(message(format!(
            "expected one of:\n  {path} add KEY|FILE --role ROLE [--user LOGIN]\n  {path} ls\n  {path} rm FINGERPRINT",
            path = context.path
        ))),
    }
}

/// A key is some words, a file is one.
async fn add(context: &Context, args: &SshArgs, words: &[&str]) -> Result<()> {
    let key = match words {
        [path] if !path.contains(' ') => {
            let bytes = read_limited(std::path::Path::new(path), MAX_KEY)?;
            String::from_utf8(bytes)
                .map_err(|_| message(format!("{path} is no public key: it is no text")))?
        }
        words => words.join(" "),
    };
    if key.contains("PRIVATE KEY") {
        return Err(message(
            "that is a private key; the public one has the same name and ends in .pub",
        ));
    }
    let mut wish = args.scope.wish()?;
    wish.insert("Key".to_owned(), json!(key));
    wish.insert("User".to_owned(), json!(args.user.clone().unwrap_or_default()));
    wish.insert("Print".to_owned(), json!(args.print));
    let added: Key = context.client.json(Call::post("/brig/access/ssh").json(&wish)?).await?;
    if args.print {
        line(&added.line)?;
        warn(&format!("This line belongs into {}", added.file));
    } else {
        line(&added.fingerprint)?;
        warn(&format!(
            "{} is {:?} for whoever logs in as {:?} with that key:  docker -H ssh://{}@HOST ps",
            added.fingerprint, added.role, added.user, added.user
        ));
    }
    Ok(())
}

async fn ls(context: &Context, args: &SshArgs) -> Result<()> {
    let keys: Vec<Key> = context.client.json(Call::get("/brig/access/ssh")).await?;
    let rows: Vec<Row> = keys
        .iter()
        .map(|key| {
            Row::new()
                .with("ID", key.id.as_str())
                .with("Fingerprint", key.fingerprint.as_str())
                .with("User", key.user.as_str())
                .with("Role", key.role.as_str())
                .with("Services", key.services.join(","))
                .with("Stacks", key.stacks.join(","))
                .with("Secrets", key.secrets.join(","))
                .with("Comment", key.comment.as_str())
                .with("Added", key.added.as_str())
                .with("AddedBy", key.added_by.as_str())
        })
        .collect();
    let listing = Listing {
        table: "{{.Fingerprint}}\t{{.User}}\t{{.Role}}\t{{.Added}}\t{{.Comment}}",
        headers: &[
            ("Fingerprint", "FINGERPRINT"),
            ("User", "USER"),
            ("Role", "ROLE"),
            ("Added", "ADDED"),
            ("AddedBy", "ADDED BY"),
            ("Comment", "COMMENT"),
            ("Services", "SERVICES"),
            ("Stacks", "STACKS"),
            ("Secrets", "SECRETS"),
        ],
        id: "Fingerprint",
    };
    listing.print(&rows, args.format.as_deref(), args.quiet)
}
