//! `service ls`, `ps`, `rm`.

use brig_api::filters::Filters;
use brig_api::swarm::{Node, PortConfig, Service, Task};
use clap::Args;

use crate::cli::leaf;
use crate::client::Call;
use crate::commands::tasks::{self, PsFlags, without_digest};
use crate::commands::{checked, each, filters};
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::human::{natural_order, short_id};
use crate::output::list::{Listing, Row};

leaf!(LS, "ls" | "list", "[OPTIONS]", "List services", LsArgs, ls);
leaf!(
    PS,
    "ps",
    "[OPTIONS] SERVICE [SERVICE...]",
    "List the tasks of one or more services",
    PsArgs,
    ps
);
leaf!(RM, "rm" | "remove", "SERVICE [SERVICE...]", "Remove one or more services", RmArgs, rm);

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
    let services = found(context, &filters(&args.filter)?, args.quiet).await?;
    print(context, &services, args.format.as_deref(), args.quiet)
}

/// Services by name; their tasks are counted unless only ids are shown.
pub(crate) async fn found(
    context: &Context,
    filters: &Filters,
    quiet: bool,
) -> Result<Vec<Service>> {
    let call = Call::get("/services").filters(filters);
    let call = if quiet { call } else { call.query("status", "true") };
    let mut services: Vec<Service> = context.client.json(call).await?;
    services.sort_by(|a, b| natural_order(&a.spec.name, &b.spec.name));
    if !quiet && services.iter().any(|service| service.service_status.is_none()) {
        count_tasks(context, &mut services).await?;
    }
    Ok(services)
}

/// Prints services as a list.
pub(crate) fn print(
    context: &Context,
    services: &[Service],
    format: Option<&str>,
    quiet: bool,
) -> Result<()> {
    let rows: Vec<Row> = services.iter().map(row).collect();
    let listing = Listing {
        table: "{{.ID}}\t{{.Name}}\t{{.Mode}}\t{{.Replicas}}\t{{.Image}}\t{{.Ports}}",
        headers: &[],
        id: "ID",
    };
    let format = format.or_else(|| context.config.text("servicesFormat").filter(|_| !quiet));
    listing.print(&rows, format, quiet)
}

/// Counts tasks where the daemon does not.
async fn count_tasks(context: &Context, services: &mut [Service]) -> Result<()> {
    let ids = services
        .iter()
        .fold(Filters::new(), |filters, service| filters.with("service", &service.id));
    let tasks: Vec<Task> = context.client.json(Call::get("/tasks").filters(&ids)).await?;
    let nodes: Vec<Node> = context.client.json(Call::get("/nodes")).await?;
    let is_up = |id: &str| nodes.iter().any(|node| node.id == id && node.status.state != "down");
    for service in services.iter_mut().filter(|service| service.service_status.is_none()) {
        let own = tasks.iter().filter(|task| task.service_id == service.id);
        let mut status = brig_api::swarm::ServiceStatus::default();
        for task in own {
            let wanted = task.desired_state != "shutdown" && task.desired_state != "remove";
            status.desired_tasks += u64::from(wanted);
            status.running_tasks +=
                u64::from(task.status.state == "running" && is_up(&task.node_id));
            status.completed_tasks += u64::from(task.status.state == "complete");
        }
        if let Some(replicated) = &service.spec.mode.replicated {
            status.desired_tasks = replicated.replicas.unwrap_or(1);
        }
        service.service_status = Some(status);
    }
    Ok(())
}

fn row(service: &Service) -> Row {
    let container = service.spec.task_template.container_spec.as_ref();
    Row::new()
        .with("ID", short_id(&service.id))
        .with("Name", service.spec.name.as_str())
        .with("Mode", mode(service))
        .with("Replicas", replicas(service))
        .with("Image", container.map(|c| without_digest(&c.image)).unwrap_or_default())
        .with("Ports", ports(&service.endpoint.ports))
        .labels(&service.spec.labels)
}

/// The mode's name.
pub(super) fn mode(service: &Service) -> &'static str {
    let mode = &service.spec.mode;
    match () {
        () if mode.global.is_some() => "global",
        () if mode.replicated.is_some() => "replicated",
        () if mode.replicated_job.is_some() => "replicated job",
        () if mode.global_job.is_some() => "global job",
        () => "",
    }
}

fn replicas(service: &Service) -> String {
    let status = service.service_status.clone().unwrap_or_default();
    let mode = &service.spec.mode;
    let mut text = format!("{}/{}", status.running_tasks, status.desired_tasks);
    if let Some(job) = &mode.replicated_job {
        text.push_str(&format!(
            " ({}/{} completed)",
            status.completed_tasks,
            job.total_completions.unwrap_or_default()
        ));
    } else if mode.global_job.is_some() {
        text.push_str(&format!(
            " ({}/{} completed)",
            status.completed_tasks,
            status.desired_tasks + status.completed_tasks
        ));
    }
    let max =
        service.spec.task_template.placement.as_ref().map_or(0, |placement| placement.max_replicas);
    if max > 0 && (mode.replicated.is_some() || mode.replicated_job.is_some()) {
        text.push_str(&format!(" (max {max} per node)"));
    }
    text
}

/// Ports of the routing mesh; those in a row are one range.
fn ports(ports: &[PortConfig]) -> String {
    let mut sorted: Vec<&PortConfig> =
        ports.iter().filter(|port| port.publish_mode == "ingress").collect();
    sorted.sort_by(|a, b| {
        (&a.protocol, a.target_port, a.published_port).cmp(&(
            &b.protocol,
            b.target_port,
            b.published_port,
        ))
    });
    let mut texts: Vec<String> = Vec::new();
    let mut at = 0;
    while let Some(first) = sorted.get(at) {
        let mut len = 1;
        while sorted.get(at + len).is_some_and(|next| {
            let offset = u32::try_from(len).unwrap_or(u32::MAX);
            next.protocol == first.protocol
                && next.target_port == first.target_port + offset
                && next.published_port == first.published_port + offset
        }) {
            len += 1;
        }
        let last = u32::try_from(len - 1).unwrap_or_default();
        let range = |port: u32| {
            if last == 0 { port.to_string() } else { format!("{port}-{}", port + last) }
        };
        texts.push(format!(
            "*:{}->{}/{}",
            range(first.published_port),
            range(first.target_port),
            first.protocol
        ));
        at += len;
    }
    texts.join(", ")
}

#[derive(Args, Debug)]
struct PsArgs {
    #[command(flatten)]
    flags: PsFlags,
    #[arg(required = true, hide = true)]
    services: Vec<String>,
}

async fn ps(context: &Context, args: PsArgs) -> Result<()> {
    let by = |key: &str| args.services.iter().fold(Filters::new(), |f, name| f.with(key, name));
    let mut found: Vec<Service> =
        context.client.json(Call::get("/services").filters(&by("id"))).await?;
    found.extend(
        context.client.json::<Vec<Service>>(Call::get("/services").filters(&by("name"))).await?,
    );
    let mut wanted = filters(&args.flags.filter)?;
    let mut missing = Vec::new();
    let mut any = false;
    for name in &args.services {
        // An id, a name, or the beginning of one id.
        let exact = found
            .iter()
            .find(|s| s.id == *name)
            .or_else(|| found.iter().find(|s| s.spec.name == *name));
        let id = match exact {
            Some(service) => Some(service.id.clone()),
            None => {
                let mut ids: Vec<&String> = found
                    .iter()
                    .map(|s| &s.id)
                    .filter(|id| id.starts_with(name.as_str()))
                    .collect();
                ids.dedup();
                match ids.as_slice() {
                    [] => None,
                    [id] => Some((*id).clone()),
                    _ => {
                        return Err(message(format!(
                            "multiple services found with provided prefix: {name}"
                        )));
                    }
                }
            }
        };
        match id {
            Some(id) => {
                wanted.add("service", id);
                any = true;
            }
            None => missing.push(format!("no such service: {name}")),
        }
    }
    if any {
        let tasks: Vec<Task> = context.client.json(Call::get("/tasks").filters(&wanted)).await?;
        let format = args.flags.format_of(context);
        let options = args.flags.options(format);
        tasks::print(&context.client, tasks, options).await?;
    }
    if missing.is_empty() { Ok(()) } else { Err(message(missing.join("\n"))) }
}

#[derive(Args, Debug)]
struct RmArgs {
    #[arg(required = true, hide = true)]
    services: Vec<String>,
}

async fn rm(context: &Context, args: RmArgs) -> Result<()> {
    each(&args.services, |name| async move {
        context.client.none(Call::delete(format!("/services/{}", checked("service", &name)?))).await
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_one_row() {
        let service: Service = serde_json::from_value(serde_json::json!({
            "ID": "0123456789abcdefghijklmno",
            "Spec": {"Name": "web", "Mode": {"Replicated": {"Replicas": 3}}, "TaskTemplate": {
                "ContainerSpec": {"Image": format!("nginx:1@sha256:{}", "0".repeat(64))}, "Placement": {"MaxReplicas": 2}}},
            "ServiceStatus": {"RunningTasks": 2, "DesiredTasks": 3},
            "Endpoint": {"Ports": [
                {"Protocol": "tcp", "TargetPort": 81, "PublishedPort": 8081, "PublishMode": "ingress"},
                {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"},
                {"Protocol": "udp", "TargetPort": 53, "PublishedPort": 53, "PublishMode": "host"}]}}))
        .unwrap();
        let format = "{{.ID}}|{{.Name}}|{{.Mode}}|{{.Replicas}}|{{.Image}}|{{.Ports}}";
        let listing = Listing { table: "{{.ID}}\t{{.Replicas}}", headers: &[], id: "ID" };
        assert_eq!(
            listing.render(&[row(&service)], format).unwrap(),
            "0123456789ab|web|replicated|2/3 (max 2 per node)|nginx:1|*:8080-8081->80-81/tcp\n"
        );
        assert_eq!(listing.render(&[], "").unwrap(), "ID        REPLICAS\n");
    }
}
