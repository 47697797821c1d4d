//! `ps` / `container ls`.

use std::collections::BTreeMap;

use brig_api::container::{ContainerSummary, PortSummary};
use clap::Args;
use time::OffsetDateTime;

use crate::cli::leaf;
use crate::client::Call;
use crate::commands::filters;
use crate::context::Context;
use crate::error::Result;
use crate::output::human::{ellipsis, short_id, since_unix, size, timestamp};
use crate::output::list::{Listing, Row};

leaf!(PS, "ps", "[OPTIONS]", "List containers", PsArgs, ps);
leaf!(LS, "ls" | "list" | "ps", "[OPTIONS]", "List containers", PsArgs, ps);

const HEADERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("RunningFor", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("LocalVolumes", "LOCAL VOLUMES"),
];
const COLUMNS: &str =
    "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
/// Longest command and mount that are shown.
const MAX_COMMAND: usize = 20;
const MAX_MOUNT: usize = 15;

#[derive(Args, Debug)]
struct PsArgs {
    /// Show all containers (default shows just running)
    #[arg(long, short = 'a')]
    all: bool,
    /// Filter output based on conditions provided
    #[arg(long, short = 'f')]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Show n last created containers (includes all states)
    #[arg(long, short = 'n', default_value_t = -1)]
    last: i64,
    /// Show the latest created container (includes all states)
    #[arg(long, short = 'l')]
    latest: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only display container IDs
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Display total file sizes
    #[arg(long, short = 's')]
    size: bool,
}

async fn ps(context: &Context, args: PsArgs) -> Result<()> {
    let format = args
        .format
        .clone()
        .or_else(|| context.config.text("psFormat").filter(|_| !args.quiet).map(str::to_owned));
    let limit = if args.latest && args.last == -1 { 1 } else { args.last };
    // Sizes cost the daemon time: only asked for when they are shown.
    let shows_size = args.size
        || format
            .as_deref()
            .is_some_and(|f| f == "json" || f.contains(".Size") || f.contains("json ."));
    let call = Call::get("/containers/json")
        .query_if("all", args.all)
        .query_opt("limit", (limit > 0).then(|| limit.to_string()))
        .query_if("size", shows_size)
        .filters(&filters(&args.filter)?);
    let containers: Vec<ContainerSummary> = context.client.json(call).await?;
    let now = brig_api::time::now();
    let rows: Vec<Row> = containers.iter().map(|c| row(c, !args.no_trunc, now)).collect();
    let table = if args.size { format!("{COLUMNS}\t{{{{.Size}}}}") } else { COLUMNS.to_owned() };
    Listing { table: &table, headers: HEADERS, id: "ID" }.print(
        &rows,
        format.as_deref(),
        args.quiet,
    )
}

/// The row of `system df -v`.
pub(crate) fn summary_row(container: &ContainerSummary, now: OffsetDateTime) -> Row {
    row(container, true, now)
}

fn row(container: &ContainerSummary, trunc: bool, now: OffsetDateTime) -> Row {
    let id = if trunc { short_id(&container.id) } else { &container.id };
    let command =
        if trunc { ellipsis(&container.command, MAX_COMMAND) } else { container.command.clone() };
    let networks: Vec<&str> =
        container.network_settings.networks.keys().map(String::as_str).collect();
    let mounts: Vec<String> = container
        .mounts
        .iter()
        .map(|mount| {
            let name = if mount.name.is_empty() { &mount.source } else { &mount.name };
            if trunc { ellipsis(name, MAX_MOUNT) } else { name.clone() }
        })
        .collect();
    let local = container.mounts.iter().filter(|mount| mount.driver == "local").count();
    Row::new()
        .with("ID", id)
        .with("Image", image(container, trunc))
        .with("Command", format!("{command:?}"))
        .with("CreatedAt", timestamp(container.created))
        .with("RunningFor", since_unix(container.created, now))
        .with("Status", container.status.as_str())
        .with("State", container.state.as_str())
        .with("Ports", ports(&container.ports))
        .with("Names", names(container, trunc))
        .with("Size", sizes(container))
        .with("Mounts", mounts.join(","))
        .with("LocalVolumes", local.to_string())
        .with("Networks", networks.join(","))
        .labels(&container.labels)
}

fn image(container: &ContainerSummary, trunc: bool) -> String {
    if container.image.is_empty() {
        return "<no image>".to_owned();
    }
    if !trunc {
        return container.image.clone();
    }
    let id = short_id(&container.image_id);
    if !id.is_empty() && id == short_id(&container.image) {
        return id.to_owned();
    }
    // A digest beside a tag says nothing that the reader needs.
    match container.image.split_once('@') {
        Some((name, _)) if name.rsplit('/').next().is_some_and(|last| last.contains(':')) => {
            name.to_owned()
        }
        _ => container.image.clone(),
    }
}

fn names(container: &ContainerSummary, trunc: bool) -> String {
    let names = container.names.iter().map(|name| name.trim_start_matches('/'));
    // Names with a slash are links of other containers.
    let names: Vec<&str> = names.filter(|name| !(trunc && name.contains('/'))).collect();
    names.join(",")
}

fn sizes(container: &ContainerSummary) -> String {
    let own = size(container.size_rw.unwrap_or_default());
    match container.size_root_fs {
        Some(all) if all > 0 => format!("{own} (virtual {})", size(all)),
        _ => own,
    }
}

/// `0.0.0.0:8080-8081->80-81/tcp, 9/udp`: ports in a row are one range.
fn ports(ports: &[PortSummary]) -> String {
    let mut sorted: Vec<&PortSummary> = ports.iter().collect();
    sorted.sort_by_key(|p| (p.private_port, p.ip.clone(), p.public_port, p.kind.clone()));
    // First and last private port of a run, by what the run has in common.
    let mut runs: BTreeMap<String, (u16, u16)> = BTreeMap::new();
    let mut published = Vec::new();
    let mut unpublished = Vec::new();
    let mut finished = |key: &str, (first, last): (u16, u16)| {
        let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
        match key.split_once('/') {
            Some((ip, kind)) if !ip.is_empty() => {
                published.push(format!("{}:{range}->{range}/{kind}", bracketed(ip)))
            }
            Some((_, kind)) => unpublished.push(format!("{range}/{kind}")),
            None => {}
        }
    };
    let mut mapped = Vec::new();
    for port in sorted {
        let key = if port.ip.is_empty() {
            format!("/{}", port.kind)
        } else {
            format!("{}/{}", port.ip, port.kind)
        };
        if !port.ip.is_empty() && port.public_port != port.private_port {
            mapped.push(format!(
                "{}:{}->{}/{}",
                bracketed(&port.ip),
                port.public_port,
                port.private_port,
                port.kind
            ));
            continue;
        }
        match runs.get_mut(&key) {
            Some((_, last)) if port.private_port == last.saturating_add(1) => {
                *last = port.private_port
            }
            Some(run) => {
                finished(&key, *run);
                *run = (port.private_port, port.private_port);
            }
            None => {
                runs.insert(key, (port.private_port, port.private_port));
            }
        }
    }
    for (key, run) in &runs {
        finished(key, *run);
    }
    let mut all = unpublished;
    all.extend(published);
    all.extend(mapped);
    all.join(", ")
}

fn bracketed(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, private: u16, public: u16) -> PortSummary {
        PortSummary {
            ip: ip.to_owned(),
            private_port: private,
            public_port: public,
            kind: "tcp".to_owned(),
        }
    }

    #[test]
    fn ports_in_a_row_are_ranges() {
        assert_eq!(
            ports(&[port("0.0.0.0", 80, 8080), port("::", 80, 8080)]),
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
        );
        assert_eq!(
            ports(&[port("", 80, 0), port("", 81, 0), port("", 90, 0)]),
            "80-81/tcp, 90/tcp"
        );
        assert_eq!(
            ports(&[port("0.0.0.0", 80, 80), port("0.0.0.0", 81, 81)]),
            "0.0.0.0:80-81->80-81/tcp"
        );
        assert_eq!(ports(&[]), "");
    }

    #[test]
    fn a_row_is_dockers() {
        let now = OffsetDateTime::from_unix_timestamp(1000).unwrap();
        let container = ContainerSummary {
            id: "0123456789abcdef".into(),
            names: vec!["/web".into(), "/other/web".into()],
            image: "busybox:1@sha256:00".into(),
            command: "sh -c 'sleep 1000; exit'".into(),
            created: 990,
            status: "Up 10 seconds".into(),
            size_rw: Some(1000),
            size_root_fs: Some(4_261_574),
            ..ContainerSummary::default()
        };
        let row = row(&container, true, now);
        let text = Listing { table: COLUMNS, headers: HEADERS, id: "ID" }
            .render(&[row], "{{.ID}}|{{.Image}}|{{.Command}}|{{.RunningFor}}|{{.Names}}|{{.Size}}")
            .unwrap();
        assert_eq!(
            text,
            "0123456789ab|busybox:1|\"sh -c 'sleep 1000; …\"|10 seconds ago|web|1kB (virtual 4.26MB)\n"
        );
        let head = Listing { table: COLUMNS, headers: HEADERS, id: "ID" }.render(&[], "").unwrap();
        assert_eq!(
            head,
            "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
        );
    }
}
