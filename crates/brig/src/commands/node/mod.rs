//! `node …`.

mod inspect_node;
pub(crate) mod tolerance;

use brig_api::filters::Filters;
use brig_api::swarm::{Node, NodeSpec, Task};
use brig_api::system::SystemInfo;
use clap::Args;

use super::tasks::{self, PsFlags};
use crate::cli::{Leaf, leaf};
use crate::client::Call;
use crate::commands::{checked, each, filters};
use crate::context::Context;
use crate::error::{Failures, Result, message};
use crate::output::human::{capitalized, natural_order};
use crate::output::list::{Listing, Row};
use crate::parse::key_value_map;

leaf!(LS, "ls" | "list", "[OPTIONS]", "List nodes in the swarm", LsArgs, ls);
leaf!(
    PS,
    "ps",
    "[OPTIONS] [NODE...]",
    "List tasks running on one or more nodes, defaults to current node",
    PsArgs,
    ps
);
leaf!(UPDATE, "update", "[OPTIONS] NODE", "Update a node", UpdateArgs, update);
leaf!(
    PROMOTE,
    "promote",
    "NODE [NODE...]",
    "Promote one or more nodes to manager in the swarm",
    Names,
    promote
);
leaf!(
    DEMOTE,
    "demote",
    "NODE [NODE...]",
    "Demote one or more nodes from manager in the swarm",
    Names,
    demote
);
leaf!(
    RM,
    "rm" | "remove",
    "[OPTIONS] NODE [NODE...]",
    "Remove one or more nodes from the swarm",
    RmArgs,
    rm
);

/// `node …`.
pub(crate) const COMMANDS: &[&Leaf] =
    &[&DEMOTE, &inspect_node::INSPECT, &LS, &PROMOTE, &PS, &RM, &UPDATE];

/// `self` as this node's id.
async fn resolve(context: &Context, name: &str) -> Result<String> {
    if name != "self" {
        return checked("node", name).map(str::to_owned);
    }
    let info: SystemInfo = context.client.json(Call::get("/info")).await?;
    if info.swarm.node_id.is_empty() {
        // Asking for nodes gives the answer that says why there is none.
        context.client.none(Call::get("/nodes")).await?;
        return Err(message("This node is not part of a swarm"));
    }
    Ok(info.swarm.node_id)
}

#[derive(Args, Debug)]
struct LsArgs {
    /// Filter output based on conditions provided
    #[arg(long, short = 'f')]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display IDs
    #[arg(long, short = 'q')]
    quiet: bool,
}

async fn ls(context: &Context, args: LsArgs) -> Result<()> {
    let call = Call::get("/nodes").filters(&filters(&args.filter)?);
    let mut nodes: Vec<Node> = context.client.json(call).await?;
    let own = if args.quiet || nodes.is_empty() {
        String::new()
    } else {
        context.client.json::<SystemInfo>(Call::get("/info")).await?.swarm.node_id
    };
    nodes.sort_by(|a, b| natural_order(&a.description.hostname, &b.description.hostname));
    let rows: Vec<Row> = nodes.iter().map(|node| row(node, &own)).collect();
    let listing = Listing {
        table: "{{.ID}} {{if .Self}}*{{else}} {{ end }}\t{{.Hostname}}\t{{.Status}}\t{{.Availability}}\t{{.ManagerStatus}}\t{{.EngineVersion}}",
        headers: &[
            ("Self", ""),
            ("ManagerStatus", "MANAGER STATUS"),
            ("EngineVersion", "ENGINE VERSION"),
            ("TLSStatus", "TLS STATUS"),
        ],
        id: "ID",
    };
    let format = args
        .format
        .as_deref()
        .or_else(|| context.config.text("nodesFormat").filter(|_| !args.quiet));
    listing.print(&rows, format, args.quiet)
}

fn row(node: &Node, own: &str) -> Row {
    let manager = match &node.manager_status {
        Some(status) if status.leader => "Leader".to_owned(),
        Some(status) => capitalized(&status.reachability),
        None => String::new(),
    };
    let tls = if node.description.tls_info.trust_root.is_empty() { "Unknown" } else { "Ready" };
    Row::new()
        .with("ID", node.id.as_str())
        .with("Self", node.id == own)
        .with("Hostname", node.description.hostname.as_str())
        .with("Status", capitalized(&node.status.state))
        .with("Availability", capitalized(&node.spec.availability))
        .with("ManagerStatus", manager)
        .with("EngineVersion", node.description.engine.engine_version.as_str())
        .with("TLSStatus", tls)
}

#[derive(Args, Debug)]
struct PsArgs {
    #[command(flatten)]
    flags: PsFlags,
    #[arg(hide = true)]
    nodes: Vec<String>,
}

async fn ps(context: &Context, args: PsArgs) -> Result<()> {
    let own = ["self".to_owned()];
    let names = if args.nodes.is_empty() { &own[..] } else { &args.nodes };
    let mut failures = Failures::default();
    let mut all: Vec<Task> = Vec::new();
    for name in names {
        let found = async {
            let id = resolve(context, name).await?;
            let node: Node = context.client.json(Call::get(format!("/nodes/{id}"))).await?;
            let filters: Filters = filters(&args.flags.filter)?.with("node", node.id);
            context.client.json::<Vec<Task>>(Call::get("/tasks").filters(&filters)).await
        };
        all.extend(failures.keep(found.await)?.into_iter().flatten());
    }
    let options = args.flags.options(args.flags.format.as_deref());
    if !(all.is_empty() && args.nodes.len() > 1) {
        tasks::print(&context.client, all, options).await?;
    }
    failures.finish()
}

#[derive(Args, Debug)]
struct UpdateArgs {
    /// Availability of the node ("active", "pause", "drain")
    #[arg(long)]
    availability: Option<String>,
    /// Add or update a node label ("key=value")
    #[arg(long)]
    label_add: Vec<String>,
    /// Remove a node label if exists
    #[arg(long)]
    label_rm: Vec<String>,
    /// Role of the node ("worker", "manager")
    #[arg(long)]
    role: Option<String>,
    #[arg(hide = true)]
    node: String,
}

/// Changes a node's specification; gives its id, and whether there was anything to change.
async fn change(
    context: &Context,
    name: &str,
    edit: impl FnOnce(&mut NodeSpec) -> Result<bool>,
) -> Result<(String, bool)> {
    let node: Node =
        context.client.json(Call::get(format!("/nodes/{}", checked("node", name)?))).await?;
    let mut spec = node.spec;
    let role = spec.role.clone();
    if !edit(&mut spec)? {
        return Ok((node.id, false));
    }
    if spec.role != role {
        tolerance::tell(context, &spec.role).await?;
    }
    let call = Call::post(format!("/nodes/{}/update", node.id))
        .query("version", node.version.index.to_string())
        .json(&spec)?;
    context.client.none(call).await.map(|()| (node.id, true))
}

async fn update(context: &Context, args: UpdateArgs) -> Result<()> {
    change(context, &args.node, |spec| {
        if let Some(role) = &args.role {
            spec.role = role.to_ascii_lowercase();
        }
        if let Some(availability) = &args.availability {
            spec.availability = availability.to_ascii_lowercase();
        }
        for label in &args.label_rm {
            if spec.labels.remove(label).is_none() {
                return Err(message(format!("key {label} doesn't exist in node's labels")));
            }
        }
        spec.labels.extend(key_value_map(&args.label_add));
        Ok(true)
    })
    .await?;
    crate::output::line(&args.node)
}

#[derive(Args, Debug)]
struct Names {
    #[arg(required = true, hide = true)]
    nodes: Vec<String>,
}

async fn promote(context: &Context, args: Names) -> Result<()> {
    set_role(context, &args.nodes, "manager").await
}

async fn demote(context: &Context, args: Names) -> Result<()> {
    set_role(context, &args.nodes, "worker").await
}

async fn set_role(context: &Context, names: &[String], role: &str) -> Result<()> {
    for name in names {
        let (id, changed) = change(context, name, |spec| {
            let differs = spec.role != role;
            role.clone_into(&mut spec.role);
            Ok(differs)
        })
        .await?;
        crate::output::line(&match (changed, role) {
            (true, "manager") => format!("Node {name} promoted to a manager in the swarm."),
            (true, _) => format!("Manager {name} demoted in the swarm."),
            (false, _) => format!("Node {id} is already a {role}."),
        })?;
    }
    Ok(())
}

#[derive(Args, Debug)]
struct RmArgs {
    /// Force remove a node from the swarm
    #[arg(long, short = 'f')]
    force: bool,
    #[arg(required = true, hide = true)]
    nodes: Vec<String>,
}

async fn rm(context: &Context, args: RmArgs) -> Result<()> {
    each(&args.nodes, |name| async move {
        let call = Call::delete(format!("/nodes/{}", checked("node", &name)?))
            .query_if("force", args.force);
        context.client.none(call).await
    })
    .await
}
