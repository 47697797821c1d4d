//! `inspect` of anything: one kind after the other, the first that has the name.

use clap::Args;
use serde_json::Value;

use crate::cli::leaf;
use crate::client::Call;
use crate::commands::{checked, inspect};
use crate::context::Context;
use crate::error::{Error, Result, message};

leaf!(
    INSPECT,
    "inspect",
    "[OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on brig objects",
    InspectArgs,
    run
);

#[derive(Args, Debug)]
struct InspectArgs {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(long, short = 'f')]
    format: Option<String>,
    /// Display total file sizes if the type is container
    #[arg(long, short = 's')]
    size: bool,
    /// Only inspect objects of the given type
    #[arg(long = "type")]
    kind: Option<String>,
    #[arg(required = true, hide = true)]
    names: Vec<String>,
}

/// Kinds in the order in which they are tried; those of the cluster only on managers.
const KINDS: [(&str, bool); 9] = [
    ("container", false),
    ("image", false),
    ("network", false),
    ("volume", false),
    ("service", true),
    ("task", true),
    ("node", true),
    ("secret", true),
    ("config", true),
];

fn call(kind: &str, name: &str, size: bool) -> Call {
    match kind {
        "container" => Call::get(format!("/containers/{name}/json")).query_if("size", size),
        "image" => Call::get(format!("/images/{name}/json")),
        "service" => Call::get(format!("/services/{name}")).query("insertDefaults", "true"),
        kind => Call::get(format!("/{kind}s/{name}")),
    }
}

async fn run(context: &Context, args: InspectArgs) -> Result<()> {
    if let Some(kind) = args.kind.as_deref()
        && !KINDS.iter().any(|(known, _)| *known == kind)
    {
        return Err(message(format!(
            "{kind:?} is not a valid value for --type: must be one of {}",
            KINDS.map(|(known, _)| known).join(", ")
        )));
    }
    inspect::print_all(&args.names, args.format.as_deref(), |name| find(context, &args, name)).await
}

async fn find(context: &Context, args: &InspectArgs, name: String) -> Result<inspect::Found> {
    let name = checked("object", &name)?;
    let client = &context.client;
    if let Some(kind) = args.kind.as_deref() {
        return inspect::fetch(client, call(kind, name, args.size)).await;
    }
    let mut manager = None;
    for (kind, in_cluster) in KINDS {
        if in_cluster && !is_manager_once(&mut manager, context).await {
            break;
        }
        match inspect::fetch(client, call(kind, name, args.size)).await {
            Ok(value) => return Ok(value),
            Err(error) if try_next(&error, kind) => {}
            Err(error) => return Err(error),
        }
    }
    Err(message(format!("Error: No such object: {name}")))
}

/// Whether an error only says that this kind has no such object.
fn try_next(error: &Error, kind: &str) -> bool {
    match error {
        Error::Api { status: 404 | 501, .. } => true,
        // Names of other kinds are not always names of images.
        Error::Api { status: 400, .. } => kind == "image",
        Error::Api { status: 503, .. } => !matches!(kind, "container" | "image"),
        _ => false,
    }
}

async fn is_manager(context: &Context) -> bool {
    let info: Result<Value> = context.client.json(Call::get("/info")).await;
    info.is_ok_and(|info| {
        info.pointer("/Swarm/ControlAvailable").and_then(Value::as_bool).unwrap_or(false)
    })
}

/// Asks once, and only when it matters.
async fn is_manager_once(known: &mut Option<bool>, context: &Context) -> bool {
    match known {
        Some(known) => *known,
        None => *known.insert(is_manager(context).await),
    }
}
