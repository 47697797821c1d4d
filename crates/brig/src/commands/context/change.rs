//! `context create`, `update`, `use`, `rm`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{current, store};
use crate::cli::leaf;
use crate::client::Address;
use crate::config_file::ConfigFile;
use crate::context::Context;
use crate::contexts::{self, DEFAULT, Meta, Store, TlsFile, TlsFiles};
use crate::error::{Failures, Result, message};
use crate::output::{line, warn};

leaf!(CREATE, "create", "[OPTIONS] CONTEXT", "Create a context", CreateArgs, create);
leaf!(UPDATE, "update", "[OPTIONS] CONTEXT", "Update a context", UpdateArgs, update);
leaf!(USE, "use", "CONTEXT", "Set the current docker context", UseArgs, use_context);
leaf!(RM, "rm" | "remove", "CONTEXT [CONTEXT...]", "Remove one or more contexts", RmArgs, rm);

#[derive(Args, Debug)]
struct CreateArgs {
    /// Description of the context
    #[arg(long, default_value = "")]
    description: String,
    /// Set the docker endpoint: from, host, ca, cert, key, skip-tls-verify
    #[arg(long, value_name = "stringToString", value_parser = endpoint_flag)]
    docker: Vec<BTreeMap<String, String>>,
    /// Create context from a named context
    #[arg(long, default_value = "")]
    from: String,
    #[arg(hide = true)]
    context: String,
}

async fn create(context: &Context, args: CreateArgs) -> Result<()> {
    let store = store(context);
    contexts::validate_name(&args.context)?;
    if store.exists(&args.context) {
        return Err(message(format!("context {:?} already exists", args.context)));
    }
    let config = merged(args.docker);
    let (mut meta, tls) = if !args.from.is_empty() {
        existing(context, &store, &args.from)?
    } else if let Some(config) = &config {
        let mut meta = Meta::default();
        let tls = apply(context, &store, config, &mut meta)?;
        (meta, tls)
    } else {
        existing(context, &store, &current(context))?
    };
    meta.name.clone_from(&args.context);
    if !args.description.is_empty() {
        meta.describe(&args.description);
    }
    // The key first: a context that is there is complete.
    store.put_tls(&meta.name, &tls)?;
    store.put_meta(&meta)?;
    line(&args.context)?;
    warn(&format!("Successfully created context {:?}", args.context));
    Ok(())
}

#[derive(Args, Debug)]
struct UpdateArgs {
    /// Description of the context
    #[arg(long, default_value = "")]
    description: String,
    /// Set the docker endpoint: from, host, ca, cert, key, skip-tls-verify
    #[arg(long, value_name = "stringToString", value_parser = endpoint_flag)]
    docker: Vec<BTreeMap<String, String>>,
    #[arg(hide = true)]
    context: String,
}

async fn update(context: &Context, args: UpdateArgs) -> Result<()> {
    let store = store(context);
    contexts::validate_name(&args.context)?;
    let mut meta = store.meta(&args.context)?;
    if !args.description.is_empty() {
        meta.describe(&args.description);
    }
    if let Some(config) = merged(args.docker) {
        let tls = apply(context, &store, &config, &mut meta)?;
        store.put_tls(&args.context, &tls)?;
    }
    store.put_meta(&meta)?;
    line(&args.context)?;
    warn(&format!("Successfully updated context {:?}", args.context));
    Ok(())
}

/// `host=…,ca=…`: CSV of pairs, as pflag reads it.
fn endpoint_flag(text: &str) -> Result<BTreeMap<String, String>, String> {
    let fields = crate::parse::csv::fields(text).map_err(|error| error.0)?;
    fields
        .iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(format!("{field} must be formatted as key=value")),
        })
        .collect()
}

/// All `--docker` flags as one; `None` without any.
fn merged(flags: Vec<BTreeMap<String, String>>) -> Option<BTreeMap<String, String>> {
    (!flags.is_empty()).then(|| flags.into_iter().flatten().collect())
}

/// Reads an endpoint's configuration into a context and answers its TLS files.
fn apply(
    context: &Context,
    store: &Store,
    config: &BTreeMap<String, String>,
    meta: &mut Meta,
) -> Result<Vec<TlsFile>> {
    read_endpoint(context, store, config, meta).map_err(|error| {
        message(format!("unable to create docker endpoint config: {}", error.text()))
    })
}

fn read_endpoint(
    context: &Context,
    store: &Store,
    config: &BTreeMap<String, String>,
    meta: &mut Meta,
) -> Result<Vec<TlsFile>> {
    const KEYS: [&str; 6] = ["from", "host", "ca", "cert", "key", "skip-tls-verify"];
    let unknown: Vec<String> = config
        .keys()
        .filter(|key| !KEYS.contains(&key.as_str()))
        .map(|key| format!("unrecognized config key: {key}"))
        .collect();
    if !unknown.is_empty() {
        return Err(message(unknown.join("\n")));
    }
    if let Some(from) = config.get("from") {
        let (source, tls) = existing(context, store, from)?;
        meta.set_endpoint(source.host(), source.skips_verification());
        return Ok(tls);
    }
    let value = |key: &str| config.get(key).map(String::as_str).filter(|text| !text.is_empty());
    let path = |key: &str| value(key).map(home);
    let files =
        TlsFiles::read(path("ca").as_deref(), path("cert").as_deref(), path("key").as_deref())?;
    let skip = match value("skip-tls-verify") {
        None => false,
        Some(text) => crate::parse::boolean(text)
            .map_err(|_| message(format!("skip-tls-verify: parsing {text:?}: invalid syntax")))?,
    };
    let host = value("host").unwrap_or_default();
    // Only what could not be used by either CLI is refused now.
    if host.starts_with("ssh://") {
        Address::parse(host, true)
            .map_err(|e| message(format!("invalid docker endpoint options: {}", e.text())))?;
    }
    if !files.is_empty() {
        files
            .client(skip)
            .map_err(|e| message(format!("invalid docker endpoint options: {}", e.text())))?;
    }
    meta.set_endpoint(host, skip);
    Ok(files.for_context())
}

/// `~/…` as docker's own example has it, where no shell has replaced it behind the `=`.
fn home(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) if !Path::new(text).exists() => home.join(rest),
        _ => text.into(),
    }
}

/// A context that is there, or what the default one means now.
pub(super) fn existing(
    context: &Context,
    store: &Store,
    name: &str,
) -> Result<(Meta, Vec<TlsFile>)> {
    if name != DEFAULT {
        return Ok((store.meta(name)?, store.tls(name)?));
    }
    let (host, files, skip) = contexts::default_context(&context.globals, &context.program)?;
    let mut meta = Meta { name: DEFAULT.to_owned(), ..Meta::default() };
    meta.describe(contexts::CURRENT_HOST);
    meta.set_endpoint(&host, skip);
    Ok((meta, files.unwrap_or_default().for_context()))
}

#[derive(Args, Debug)]
struct UseArgs {
    #[arg(hide = true)]
    context: String,
}

async fn use_context(context: &Context, args: UseArgs) -> Result<()> {
    let name = &args.context;
    if name != DEFAULT {
        contexts::validate_name(name)?;
        store(context).meta(name)?;
    }
    let mut config = ConfigFile::load(&context.globals.config_dir());
    config.set_text("currentContext", Some(name.as_str()).filter(|name| *name != DEFAULT))?;
    line(name)?;
    warn(&format!("Current context is now {name:?}"));
    if name != DEFAULT
        && let Some((variable, _)) = contexts::host_variable()
    {
        warn(&format!(
            "Warning: {variable} environment variable overrides the active context. To use {name:?}, either set the global --context flag, or unset {variable} environment variable."
        ));
    }
    Ok(())
}

#[derive(Args, Debug)]
struct RmArgs {
    /// Force the removal of a context in use
    #[arg(long, short = 'f')]
    force: bool,
    #[arg(required = true, hide = true)]
    contexts: Vec<String>,
}

async fn rm(context: &Context, args: RmArgs) -> Result<()> {
    let mut failures = Failures::default();
    let current = current(context);
    for name in &args.contexts {
        let removed = remove(context, name, args.force, name == &current);
        if failures.keep(removed)?.is_some() {
            line(name)?;
        }
    }
    failures.finish()
}

fn remove(context: &Context, name: &str, force: bool, is_current: bool) -> Result<()> {
    if name == DEFAULT {
        return Err(message("context \"default\" cannot be removed"));
    }
    let store = store(context);
    if is_current {
        if !force {
            return Err(message(format!(
                "context {name:?} is in use, set -f flag to force remove"
            )));
        }
        // First, so that no command finds a context that is not there.
        ConfigFile::load(&context.globals.config_dir()).set_text("currentContext", None)?;
    }
    if !force && !store.exists(name) {
        return Err(message(format!("context {name:?} does not exist")));
    }
    store.remove(name)
}
