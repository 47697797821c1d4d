//! `context ls`, `show`, `inspect`.

use clap::Args;
use serde_json::{Map, Value, json};

use super::change::existing;
use super::{current, store};
use crate::cli::leaf;
use crate::context::Context;
use crate::contexts::{self, DEFAULT, Meta, Store, TlsFile};
use crate::error::{Failures, Result};
use crate::output::human::{ellipsis, natural_order};
use crate::output::list::{Listing, Row};
use crate::output::template::Template;
use crate::output::{indent, line, print, warn};

leaf!(LS, "ls" | "list", "[OPTIONS]", "List contexts", LsArgs, ls);
leaf!(SHOW, "show", "", "Print the name of the current context", ShowArgs, show);
leaf!(
    INSPECT,
    "inspect",
    "[OPTIONS] [CONTEXT] [CONTEXT...]",
    "Display detailed information on one or more contexts",
    InspectArgs,
    inspect
);

/// Width of the column for errors.
const ERROR_WIDTH: usize = 45;
/// Where the default context is kept.
const IN_MEMORY: &str = "<IN MEMORY>";

#[derive(Args, Debug)]
struct LsArgs {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only show context names
    #[arg(long, short = 'q')]
    quiet: bool,
}

/// A line of the list.
struct Line {
    name: String,
    description: String,
    host: String,
    error: String,
}

async fn ls(context: &Context, args: LsArgs) -> Result<()> {
    let current = current(context);
    let mut lines: Vec<Line> = store(context).list()?.into_iter().map(stored).collect();
    lines.push(default_line(context));
    if !lines.iter().any(|line| line.name == current) {
        let error = store(context).meta(&current).err().map(|e| e.text()).unwrap_or_default();
        lines.push(Line {
            name: current.clone(),
            description: String::new(),
            host: String::new(),
            error,
        });
    }
    lines.sort_by(|a, b| natural_order(&a.name, &b.name));
    let format = args.format.as_deref().unwrap_or_default();
    let is_table = format.is_empty() || format.starts_with("table");
    let rows: Vec<Row> = lines
        .into_iter()
        .map(|line| {
            let is_current = line.name == current;
            let star = is_table && !args.quiet && is_current;
            let name = if star { format!("{} *", line.name) } else { line.name };
            Row::new()
                .with("Name", name)
                .with("Current", is_current)
                .with("Description", line.description)
                .with("DockerEndpoint", line.host)
                .with("Error", ellipsis(&line.error, ERROR_WIDTH))
        })
        .collect();
    let listing = Listing {
        table: "{{.Name}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}",
        headers: &[("DockerEndpoint", "DOCKER ENDPOINT")],
        id: "Name",
    };
    listing.print(&rows, args.format.as_deref(), args.quiet)?;
    if let Some((variable, _)) = contexts::host_variable() {
        warn(&format!(
            "Warning: {variable} environment variable overrides the active context. To use a context, either set the global --context flag, or unset {variable} environment variable."
        ));
    }
    Ok(())
}

fn stored(meta: Meta) -> Line {
    Line {
        description: meta.description().to_owned(),
        host: meta.host().to_owned(),
        name: meta.name,
        error: String::new(),
    }
}

fn default_line(context: &Context) -> Line {
    let host = contexts::default_context(&context.globals, &context.program);
    let (host, error) = match host {
        Ok((host, ..)) => (host, String::new()),
        Err(error) => (String::new(), error.text()),
    };
    Line { name: DEFAULT.to_owned(), description: contexts::CURRENT_HOST.to_owned(), host, error }
}

#[derive(Args, Debug)]
struct ShowArgs {}

async fn show(context: &Context, _: ShowArgs) -> Result<()> {
    line(&current(context))
}

#[derive(Args, Debug)]
struct InspectArgs {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(long, short = 'f')]
    format: Option<String>,
    #[arg(hide = true)]
    contexts: Vec<String>,
}

async fn inspect(context: &Context, args: InspectArgs) -> Result<()> {
    let names = if args.contexts.is_empty() { vec![current(context)] } else { args.contexts };
    let store = store(context);
    let mut failures = Failures::default();
    let mut found = Vec::new();
    for name in &names {
        let described = existing(context, &store, name)
            .and_then(|(meta, tls)| describe(&store, name, meta, &tls));
        found.extend(failures.keep(described)?);
    }
    match args.format.as_deref() {
        None | Some("") => {
            let texts: Vec<String> =
                found.iter().map(|json| format!("    {}", indent(json, 1))).collect();
            match texts.is_empty() {
                true => print("[]\n")?,
                false => print(&format!("[\n{}\n]\n", texts.join(",\n")))?,
            }
        }
        Some(format) => {
            let template = Template::parse(if format == "json" { "{{json .}}" } else { format })?;
            for json in &found {
                let value: Value = serde_json::from_str(json).unwrap_or_default();
                line(&template.render_value(&value)?)?;
            }
        }
    }
    failures.finish()
}

/// A context as `inspect` shows it, in docker's order of fields.
fn describe(store: &Store, name: &str, mut meta: Meta, tls: &[TlsFile]) -> Result<String> {
    let mut material: Map<String, Value> = Map::new();
    for file in tls {
        let files = material.entry(file.endpoint.clone()).or_insert_with(|| json!([]));
        if let Some(files) = files.as_array_mut() {
            files.push(file.name.clone().into());
        }
    }
    let storage = match name {
        DEFAULT => {
            meta.metadata.clear();
            [IN_MEMORY.to_owned(), IN_MEMORY.to_owned()]
        }
        name => [store.meta_dir(name), store.tls_dir(name)].map(|dir| dir.display().to_string()),
    };
    let text = |value: &Value| value.to_string().replace('<', "\\u003c").replace('>', "\\u003e");
    Ok(format!(
        r#"{{"Name":{},"Metadata":{},"Endpoints":{},"TLSMaterial":{},"Storage":{{"MetadataPath":{},"TLSPath":{}}}}}"#,
        text(&meta.name.into()),
        text(&meta.metadata.into()),
        text(&meta.endpoints.into()),
        text(&material.into()),
        text(&storage[0].as_str().into()),
        text(&storage[1].as_str().into()),
    ))
}
