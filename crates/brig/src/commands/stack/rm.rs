//! `stack rm`.

use std::time::Duration;

use brig_api::network::NetworkInspect;
use brig_api::swarm::{Config, Secret, Service, Task};
use clap::Args;
use serde::de::DeserializeOwned;

use super::ls::services_of;
use super::{Detach, checked, of_stack};
use crate::cli::leaf;
use crate::client::Call;
use crate::context::Context;
use crate::error::{Failures, Result, message};
use crate::output::human::natural_order;

leaf!(
    RM,
    "rm" | "remove" | "down",
    "[OPTIONS] STACK [STACK...]",
    "Remove one or more stacks",
    RmArgs,
    rm
);

/// Time between two looks at the tasks that are left.
const INTERVAL: Duration = Duration::from_millis(200);
/// States that a task does not leave any more.
const ENDED: [&str; 6] = ["complete", "shutdown", "failed", "rejected", "remove", "orphaned"];

#[derive(Args, Debug)]
struct RmArgs {
    #[command(flatten)]
    detach: Detach,
    #[arg(required = true, hide = true)]
    stacks: Vec<String>,
}

async fn rm(context: &Context, args: RmArgs) -> Result<()> {
    for stack in &args.stacks {
        checked(stack)?;
    }
    let mut failures = Failures::default();
    for stack in &args.stacks {
        let _ = failures.keep(remove(context, stack).await)?;
        if args.detach.0 == Some(false) {
            wait(context, stack).await?;
        }
    }
    failures.finish()
}

/// What a stack has, of one kind: names and ids.
async fn found<T: DeserializeOwned>(
    context: &Context,
    path: &str,
    stack: &str,
    named: impl Fn(T) -> (String, String),
) -> Result<Vec<(String, String)>> {
    let call = Call::get(path).filters(&of_stack(stack));
    Ok(context.client.json::<Vec<T>>(call).await?.into_iter().map(named).collect())
}

async fn remove(context: &Context, stack: &str) -> Result<()> {
    let mut services: Vec<Service> = services_of(context, stack).await?;
    services.sort_by(|a, b| natural_order(&a.spec.name, &b.spec.name));
    let services = services.into_iter().map(|s| (s.spec.name, s.id)).collect();
    let networks = found(context, "/networks", stack, |n: NetworkInspect| (n.name, n.id)).await?;
    let secrets = found(context, "/secrets", stack, |s: Secret| (s.spec.name, s.id)).await?;
    let configs = found(context, "/configs", stack, |c: Config| (c.spec.name, c.id)).await?;
    let kinds: [(&str, Vec<(String, String)>); 4] =
        [("service", services), ("secret", secrets), ("config", configs), ("network", networks)];
    if kinds.iter().all(|(_, found)| found.is_empty()) {
        crate::output::warn(&format!("Nothing found in stack: {stack}"));
        return Ok(());
    }
    let mut failed = false;
    for (kind, objects) in kinds {
        for (name, id) in objects {
            crate::output::line(&format!("Removing {kind} {name}"))?;
            if let Err(error) = context.client.none(Call::delete(format!("/{kind}s/{id}"))).await {
                crate::output::warn(&format!("Failed to remove {kind} {id}: {}", error.text()));
                failed = true;
            }
        }
    }
    if failed {
        return Err(message(format!("Failed to remove some resources from stack: {stack}")));
    }
    Ok(())
}

/// Waits until no task of the stack runs any more.
async fn wait(context: &Context, stack: &str) -> Result<()> {
    loop {
        let tasks: Vec<Task> =
            context.client.json(Call::get("/tasks").filters(&of_stack(stack))).await?;
        if tasks.iter().all(|task| ENDED.contains(&task.status.state.as_str())) {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
