//! Lists of tasks, for `service ps` and `node ps`.

use std::collections::BTreeMap;

use brig_api::swarm::{Node, PortConfig, Service, Task};
use brig_types::reference::Reference;
use time::OffsetDateTime;

use clap::Args;

use crate::client::{Call, Client};
use crate::context::Context;
use crate::error::Result;
use crate::output::human::{capitalized, natural_order, short_id, since};
use crate::output::list::{Listing, Row};

const HEADERS: &[(&str, &str)] =
    &[("DesiredState", "DESIRED STATE"), ("CurrentState", "CURRENT STATE")];
const TABLE: &str = "{{.ID}}\t{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}\t{{.Ports}}";
/// Longest error that is shown.
const MAX_ERROR: usize = 30;

/// Flags of the commands that list tasks.
#[derive(Args, Debug)]
pub(super) struct PsFlags {
    /// Filter output based on conditions provided
    #[arg(long, short = 'f')]
    pub(super) filter: Vec<String>,
    /// Pretty-print tasks using a Go template
    #[arg(long)]
    pub(super) format: Option<String>,
    /// Do not map IDs to Names
    #[arg(long)]
    no_resolve: bool,
    /// Do not truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display task IDs
    #[arg(long, short = 'q')]
    quiet: bool,
}

impl PsFlags {
    /// The format that was asked for, else the user's own for tasks.
    pub(super) fn format_of<'a>(&'a self, context: &'a Context) -> Option<&'a str> {
        let own = || context.config.text("tasksFormat").filter(|_| !self.quiet);
        self.format.as_deref().or_else(own)
    }

    pub(super) const fn options<'a>(&self, format: Option<&'a str>) -> Options<'a> {
        Options { format, quiet: self.quiet, no_trunc: self.no_trunc, no_resolve: self.no_resolve }
    }
}

/// How tasks are printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options<'a> {
    pub(super) format: Option<&'a str>,
    pub(super) quiet: bool,
    pub(super) no_trunc: bool,
    pub(super) no_resolve: bool,
}

/// Names by id, asked for once each.
#[derive(Debug)]
pub(super) struct Names<'a> {
    client: &'a Client,
    resolve: bool,
    known: BTreeMap<String, String>,
}

impl<'a> Names<'a> {
    /// Names are looked up only if `resolve`.
    pub(super) fn new(client: &'a Client, resolve: bool) -> Self {
        Self { client, resolve, known: BTreeMap::new() }
    }

    /// A service's name, or its id.
    pub(super) async fn service(&mut self, id: &str) -> Result<String> {
        if !self.resolve || id.is_empty() {
            return Ok(id.to_owned());
        }
        if let Some(name) = self.known.get(id) {
            return Ok(name.clone());
        }
        let call = Call::get(format!("/services/{id}")).query("insertDefaults", "false");
        let name = match self.client.json::<Service>(call).await {
            Ok(service) => service.spec.name,
            Err(error) if error.is_not_found() => id.to_owned(),
            Err(error) => return Err(error),
        };
        self.known.insert(id.to_owned(), name.clone());
        Ok(name)
    }

    /// A node's name, or its id.
    pub(super) async fn node(&mut self, id: &str) -> Result<String> {
        if !self.resolve || id.is_empty() {
            return Ok(id.to_owned());
        }
        if let Some(name) = self.known.get(id) {
            return Ok(name.clone());
        }
        let name = match self.client.json::<Node>(Call::get(format!("/nodes/{id}"))).await {
            Ok(node) if !node.spec.name.is_empty() => node.spec.name,
            Ok(node) if !node.description.hostname.is_empty() => node.description.hostname,
            Ok(_) => id.to_owned(),
            Err(error) if error.is_not_found() => id.to_owned(),
            Err(error) => return Err(error),
        };
        self.known.insert(id.to_owned(), name.clone());
        Ok(name)
    }
}

/// Prints tasks: by name, the newest of each slot first, its older ones below it.
pub(super) async fn print(client: &Client, tasks: Vec<Task>, options: Options<'_>) -> Result<()> {
    let mut names = Names::new(client, !options.no_resolve);
    let mut named = Vec::new();
    for task in tasks {
        let service = names.service(&task.service_id).await?;
        let name = match (task.slot, options.no_resolve) {
            (0, _) if task.service_id.is_empty() => task.name.clone(),
            (0, _) => format!("{service}.{}", task.node_id),
            (slot, _) => format!("{service}.{slot}"),
        };
        let node = names.node(&task.node_id).await?;
        named.push((name, node, task));
    }
    named.sort_by(|(a, _, x), (b, _, y)| {
        natural_order(a, b).then_with(|| y.created_at.cmp(&x.created_at))
    });
    let now = brig_api::time::now();
    let mut previous = String::new();
    let rows: Vec<Row> = named
        .iter()
        .map(|(name, node, task)| {
            let shown = if *name == previous { format!(" \\_ {name}") } else { name.clone() };
            previous.clone_from(name);
            row(task, &shown, node, options.no_trunc, now)
        })
        .collect();
    Listing { table: TABLE, headers: HEADERS, id: "ID" }.print(&rows, options.format, options.quiet)
}

fn row(task: &Task, name: &str, node: &str, no_trunc: bool, now: OffsetDateTime) -> Row {
    let image = task.spec.container_spec.as_ref().map_or("", |spec| spec.image.as_str());
    let state = capitalized(&task.status.state);
    Row::new()
        .with("ID", if no_trunc { &task.id } else { short_id(&task.id) })
        .with("Name", name)
        .with("Image", if no_trunc { image.to_owned() } else { without_digest(image) })
        .with("Node", node)
        .with("DesiredState", capitalized(&task.desired_state))
        .with(
            "CurrentState",
            format!("{state} {}", since(&task.status.timestamp, now).to_lowercase()),
        )
        .with("Error", error_text(&task.status.err, no_trunc))
        .with("Ports", ports(&task.status.port_status.ports))
}

fn error_text(error: &str, no_trunc: bool) -> String {
    if error.is_empty() {
        return String::new();
    }
    if no_trunc {
        format!("\"{error}\"")
    } else {
        format!("\"{}\"", crate::output::human::ellipsis(error, MAX_ERROR))
    }
}

fn ports(ports: &[PortConfig]) -> String {
    let texts: Vec<String> = ports
        .iter()
        .filter(|port| !port.protocol.is_empty())
        .map(|port| format!("*:{}->{}/{}", port.published_port, port.target_port, port.protocol))
        .collect();
    texts.join(",")
}

/// An image as lists show it: the tag, without the digest.
pub(super) fn without_digest(image: &str) -> String {
    match Reference::parse(image) {
        Ok(reference) => match reference.tag() {
            Some(tag) => format!("{}:{tag}", reference.familiar_name()),
            None => reference.familiar(),
        },
        Err(_) => image.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_one_row() {
        let task: Task = serde_json::from_value(serde_json::json!({
            "ID": "0123456789abcdefghijklmno", "DesiredState": "shutdown", "Slot": 1,
            "Spec": {"ContainerSpec": {"Image": format!("busybox:1@sha256:{}", "0".repeat(64))}},
            "Status": {"State": "failed", "Timestamp": "2024-01-01T00:00:00Z",
                "Err": "task: non-zero exit (137): dockerexec", "PortStatus": {"Ports":
                [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080}]}}}))
        .unwrap();
        let now = brig_api::time::parse("2024-01-01T00:01:00Z").unwrap();
        let listing = Listing { table: TABLE, headers: HEADERS, id: "ID" };
        assert_eq!(
            listing
                .render(&[row(&task, "s.1", "n1", false, now)], &TABLE.replace('\t', "|"))
                .unwrap(),
            "0123456789ab|s.1|busybox:1|n1|Shutdown|Failed about a minute ago|\"task: non-zero exit (137): do…\"|*:8080->80/tcp\n"
        );
    }
}
