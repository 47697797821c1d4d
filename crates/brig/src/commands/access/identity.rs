//! `access issue`, `identities`, `revoke`: certificates with a role, as files for docker's and
//! brig's contexts.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use brig_pki::csr::NodeKey;
use brig_types::secret::SecretBytes;
use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cli::leaf;
use crate::client::{Address, Call};
use crate::context::Context;
use crate::contexts::{self, Archive, Meta, RENEWS, TlsFiles};
use crate::error::{Error, Result, message};
use crate::output::list::{Listing, Row};
use crate::output::{line, print_bytes, warn};
use crate::parse::duration;

leaf!(
    ISSUE,
    "issue",
    "[OPTIONS] NAME",
    "Issue a certificate with a role, as a file for 'context import'",
    IssueArgs,
    issue
);
leaf!(
    IDENTITIES,
    "identities",
    "[OPTIONS]",
    "List who has a certificate of the engine's own authority",
    IdentitiesArgs,
    identities
);
leaf!(
    REVOKE,
    "revoke",
    "NAME [NAME...]",
    "Take certificates away and cut their connections",
    RevokeArgs,
    revoke
);

/// What a role is bound to.
#[derive(Args, Debug, Default)]
pub(super) struct ScopeArgs {
    /// Role: admin, operator, deployer, viewer, or one that your policies name
    #[arg(long)]
    pub(super) role: Option<String>,
    /// Service that the role is about
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    /// Stack that the role is about
    #[arg(long = "stack", value_name = "NAME")]
    stacks: Vec<String>,
    /// Secret that may be used
    #[arg(long = "secret", value_name = "NAME")]
    secrets: Vec<String>,
    /// Network that may be joined
    #[arg(long = "network", value_name = "NAME")]
    networks: Vec<String>,
    /// Volume that may be mounted
    #[arg(long = "volume", value_name = "NAME")]
    volumes: Vec<String>,
}

impl ScopeArgs {
    /// As the engine wants it.
    pub(super) fn wish(&self) -> Result<Map<String, Value>> {
        let Some(role) = &self.role else {
            return Err(message(
                "a role is needed: --role viewer (or operator, deployer, admin); docs/access.md says what they may do",
            ));
        };
        let mut wish = Map::new();
        wish.insert("Role".to_owned(), json!(role));
        for (key, list) in [
            ("Services", &self.services),
            ("Stacks", &self.stacks),
            ("Secrets", &self.secrets),
            ("Networks", &self.networks),
            ("Volumes", &self.volumes),
        ] {
            wish.insert(key.to_owned(), json!(list));
        }
        Ok(wish)
    }
}

/// Whole seconds of a duration, at least one.
pub(super) fn seconds(nanoseconds: i64) -> i64 {
    nanoseconds.div_euclid(1_000_000_000).max(1)
}

/// A certificate, as the engine answers it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Given {
    pub(super) name: String,
    pub(super) role: String,
    certificate: String,
    authority: String,
    pub(super) ends: String,
    hosts: Vec<String>,
}

#[derive(Args, Debug)]
struct IssueArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Lifetime of the certificate (s|m|h|d)
    #[arg(long, value_parser = duration::with_days, default_value = "24h")]
    ttl: i64,
    /// Let the holder's brig renew it past half of its life
    #[arg(long)]
    renew: bool,
    /// Address of the engine in the context, tcp://HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    host: Option<String>,
    /// File to write, - for stdout (default NAME.dockercontext)
    #[arg(long, short = 'o', value_name = "FILE")]
    out: Option<String>,
    #[arg(hide = true)]
    name: String,
}

async fn issue(context: &Context, args: IssueArgs) -> Result<()> {
    let mut wish = args.scope.wish()?;
    if let Some(host) = &args.host
        && !matches!(Address::parse(host, true)?, Address::Tcp { .. })
    {
        return Err(message(format!("invalid host {host:?}: expected tcp://HOST:PORT")));
    }
    let path = args.out.clone().unwrap_or_else(|| format!("{}.dockercontext", args.name));
    // Not to issue what cannot be written down.
    let mut file = if path == "-" { None } else { Some(create(&path)?) };
    let key = NodeKey::generate().map_err(|error| pki(&error))?;
    let request = key.csr_pem().map_err(|error| pki(&error))?;
    wish.insert("Lifetime".to_owned(), json!(seconds(args.ttl)));
    wish.insert("Renews".to_owned(), json!(args.renew));
    wish.insert("Request".to_owned(), json!(String::from_utf8_lossy(&request)));
    wish.insert("Host".to_owned(), json!(args.host.clone().unwrap_or_default()));
    let call = Call::post("/brig/access/identities").query("name", &args.name).json(&wish)?;
    let given: Result<Given> = context.client.json(call).await;
    let given = match given {
        Ok(given) => given,
        Err(error) => {
            if path != "-" {
                // It is ours and empty.
                let _ = std::fs::remove_file(&path);
            }
            return Err(error);
        }
    };
    // The way that we came is one that works.
    let own = context.client.endpoint().to_string();
    let own = Some(own).filter(|own| own.starts_with("tcp://"));
    let host = args.host.clone().or(own).or_else(|| given.hosts.first().cloned());
    let host = host.ok_or_else(|| message("the engine named no address of its own: --host"))?;
    let tar = archive(&args.name, &host, &given, &key, args.renew).to_tar()?;
    let Some(file) = &mut file else {
        return print_bytes(tar.expose_secret());
    };
    file.write_all(tar.expose_secret())
        .and_then(|()| file.sync_all())
        .map_err(|source| Error::io(format!("write {path}"), source))?;
    line(&path)?;
    warn(&format!(
        "{} is {:?} until {}, at {host}. The file holds the key: give it to nobody else.\nUse it:  docker context import {} {path} && docker --context {} ps",
        given.name, given.role, given.ends, args.name, args.name
    ));
    Ok(())
}

fn create(path: &str) -> Result<std::fs::File> {
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => {
            message(format!("{path} exists already; it may hold a key that is in use: --out FILE"))
        }
        _ => Error::io(format!("open {path}"), source),
    })
}

/// What went wrong with keys and certificates.
pub(super) fn pki(error: &(dyn std::error::Error + 'static)) -> Error {
    message(brig_types::error::chain(error))
}

fn archive(name: &str, host: &str, given: &Given, key: &NodeKey, renews: bool) -> Archive {
    let mut meta = Meta { name: name.to_owned(), ..Meta::default() };
    meta.describe(&format!("{} as {}", given.name, given.role));
    if renews {
        meta.metadata.insert(RENEWS.to_owned(), Value::Bool(true));
    }
    meta.set_endpoint(host, false);
    let secret = |text: &str| Some(SecretBytes::new(text.as_bytes().to_vec()));
    let files = TlsFiles {
        ca: secret(&given.authority),
        cert: secret(&given.certificate),
        key: Some(key.key_pem()),
    };
    Archive { meta, tls: files.for_context() }
}

#[derive(Args, Debug)]
struct IdentitiesArgs {
    /// Show those that have expired or were revoked, too
    #[arg(long, short = 'a')]
    all: bool,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display names
    #[arg(long, short = 'q')]
    quiet: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Identity {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    role: String,
    services: Vec<String>,
    stacks: Vec<String>,
    secrets: Vec<String>,
    state: String,
    renews: bool,
    issued_by: String,
    issued: String,
    ends: String,
    revoked: String,
    last_seen: String,
    fingerprints: Vec<String>,
}

async fn identities(context: &Context, args: IdentitiesArgs) -> Result<()> {
    let known: Vec<Identity> = context.client.json(Call::get("/brig/access/identities")).await?;
    let rows: Vec<Row> = known
        .iter()
        .filter(|one| args.all || one.state == "active")
        .map(|one| {
            Row::new()
                .with("ID", one.id.as_str())
                .with("Name", one.name.as_str())
                .with("Role", one.role.as_str())
                .with("Services", one.services.join(","))
                .with("Stacks", one.stacks.join(","))
                .with("Secrets", one.secrets.join(","))
                .with("Status", one.state.as_str())
                .with("Renews", one.renews)
                .with("IssuedBy", one.issued_by.as_str())
                .with("Issued", one.issued.as_str())
                .with("Ends", one.ends.as_str())
                .with("Revoked", one.revoked.as_str())
                .with("LastSeen", one.last_seen.as_str())
                .with("Fingerprint", one.fingerprints.last().cloned().unwrap_or_default())
                .with("Fingerprints", one.fingerprints.clone())
        })
        .collect();
    let listing = Listing {
        table: "{{.Name}}\t{{.Role}}\t{{.Status}}\t{{.Issued}}\t{{.Ends}}\t{{.LastSeen}}\t{{.Fingerprint}}",
        headers: &[
            ("Name", "NAME"),
            ("Role", "ROLE"),
            ("Status", "STATUS"),
            ("Issued", "ISSUED"),
            ("Ends", "ENDS"),
            ("LastSeen", "LAST SEEN"),
            ("Fingerprint", "FINGERPRINT"),
            ("Services", "SERVICES"),
            ("Stacks", "STACKS"),
            ("Secrets", "SECRETS"),
            ("IssuedBy", "ISSUED BY"),
            ("Renews", "RENEWS"),
            ("Revoked", "REVOKED"),
        ],
        id: "Name",
    };
    listing.print(&rows, args.format.as_deref(), args.quiet)
}

#[derive(Args, Debug)]
struct RevokeArgs {
    #[arg(hide = true, required = true)]
    names: Vec<String>,
}

async fn revoke(context: &Context, args: RevokeArgs) -> Result<()> {
    let mut failed = Vec::new();
    for name in &args.names {
        let path = format!("/brig/access/identities/{}", escaped(name));
        match context.client.none(Call::delete(path)).await {
            Ok(()) => line(name)?,
            Err(error) => failed.push(error.text()),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(message(failed.join("\n"))) }
}

/// One segment of a path.
pub(super) fn escaped(text: &str) -> String {
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    text.bytes()
        .map(|b| if safe(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Keeps what was issued as a context of this user's.
pub(super) fn keep(
    context: &Context,
    name: &str,
    host: &str,
    files: &TlsFiles,
    description: &str,
) -> Result<()> {
    let store = contexts::Store::in_config(&context.globals.config_dir());
    let mut meta = Meta { name: name.to_owned(), ..Meta::default() };
    meta.describe(description);
    meta.metadata.insert(RENEWS.to_owned(), Value::Bool(true));
    meta.set_endpoint(host, false);
    store.put_tls(name, &files.for_context())?;
    store.put_meta(&meta)
}
