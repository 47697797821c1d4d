//! `stack ls`, `services`, `ps`.

use std::collections::BTreeMap;

use brig_api::filters::Filters;
use brig_api::swarm::{Service, Task};
use clap::Args;

use super::{checked, of_stack};
use crate::cli::leaf;
use crate::client::Call;
use crate::commands::tasks::PsFlags;
use crate::commands::{filters, service, tasks};
use crate::compose::LABEL_NAMESPACE;
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::human::natural_order;
use crate::output::list::{Listing, Row};

leaf!(LS, "ls" | "list", "[OPTIONS]", "List stacks", LsArgs, ls);
leaf!(PS, "ps", "[OPTIONS] STACK", "List the tasks in the stack", PsArgs, ps);
leaf!(
    SERVICES,
    "services",
    "[OPTIONS] STACK",
    "List the services in the stack",
    ServicesArgs,
    services
);

#[derive(Args, Debug)]
struct LsArgs {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
}

async fn ls(context: &Context, args: LsArgs) -> Result<()> {
    let labelled = Filters::new().with("label", LABEL_NAMESPACE);
    let services: Vec<Service> =
        context.client.json(Call::get("/services").filters(&labelled)).await?;
    let mut stacks: BTreeMap<&str, usize> = BTreeMap::new();
    for service in &services {
        if let Some(stack) = service.spec.labels.get(LABEL_NAMESPACE) {
            *stacks.entry(stack).or_default() += 1;
        }
    }
    let mut stacks: Vec<(&str, usize)> = stacks.into_iter().collect();
    stacks.sort_by(|(a, _), (b, _)| natural_order(a, b));
    let rows: Vec<Row> = stacks
        .into_iter()
        .map(|(name, services)| {
            Row::new().with("Name", name).with("Services", services.to_string())
        })
        .collect();
    let listing = Listing { table: "{{.Name}}\t{{.Services}}", headers: &[], id: "Name" };
    let format = args.format.as_deref().or_else(|| context.config.text("stacksFormat"));
    listing.print(&rows, format, false)
}

#[derive(Args, Debug)]
struct ServicesArgs {
    /// Filter output based on conditions provided
    #[arg(long, short = 'f')]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display IDs
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(hide = true)]
    stack: String,
}

/// A stack's own filter, and the user's.
fn selection(stack: &str, flags: &[String]) -> Result<Filters> {
    checked(stack)?;
    let mut selection = filters(flags)?;
    selection.add("label", format!("{LABEL_NAMESPACE}={stack}"));
    Ok(selection)
}

async fn services(context: &Context, args: ServicesArgs) -> Result<()> {
    let selection = selection(&args.stack, &args.filter)?;
    let found = service::found(context, &selection, args.quiet).await?;
    if found.is_empty() {
        crate::output::warn(&format!("Nothing found in stack: {}", args.stack));
        return Ok(());
    }
    service::print(context, &found, args.format.as_deref(), args.quiet)
}

#[derive(Args, Debug)]
struct PsArgs {
    #[command(flatten)]
    flags: PsFlags,
    #[arg(hide = true)]
    stack: String,
}

async fn ps(context: &Context, args: PsArgs) -> Result<()> {
    let selection = selection(&args.stack, &args.flags.filter)?;
    let found: Vec<Task> = context.client.json(Call::get("/tasks").filters(&selection)).await?;
    if found.is_empty() {
        return Err(message(format!("nothing found in stack: {}", args.stack)));
    }
    let format = args.flags.format_of(context);
    let options = args.flags.options(format);
    tasks::print(&context.client, found, options).await
}

/// The services of a stack.
pub(super) async fn services_of(context: &Context, stack: &str) -> Result<Vec<Service>> {
    context.client.json(Call::get("/services").filters(&of_stack(stack))).await
}
