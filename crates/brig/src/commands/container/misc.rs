//! `container inspect`, `top`, `port`.

use brig_api::container::{ContainerInspect, TopResponse};
use clap::Args;

use crate::cli::leaf;
use crate::client::Call;
use crate::commands::{checked, inspect};
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::human::natural_order;
use crate::output::{print, table};

leaf!(
    INSPECT,
    "inspect",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Display detailed information on one or more containers",
    InspectArgs,
    run_inspect
);
leaf!(
    TOP,
    "top",
    "CONTAINER [ps OPTIONS]",
    "Display the running processes of a container",
    TopArgs,
    top,
    true
);
leaf!(
    PORT,
    "port",
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List port mappings or a specific mapping for the container",
    PortArgs,
    port
);

/// `top`'s least column width.
const TOP_WIDTH: usize = 20;

#[derive(Args, Debug)]
struct InspectArgs {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(long, short = 'f')]
    format: Option<String>,
    /// Display total file sizes
    #[arg(long, short = 's')]
    size: bool,
    #[arg(required = true, hide = true)]
    containers: Vec<String>,
}

async fn run_inspect(context: &Context, args: InspectArgs) -> Result<()> {
    inspect::print_all(&args.containers, args.format.as_deref(), |name| async move {
        let call = Call::get(format!("/containers/{}/json", checked("container", &name)?));
        inspect::fetch(&context.client, call.query_if("size", args.size)).await
    })
    .await
}

#[derive(Args, Debug)]
struct TopArgs {
    #[arg(required = true, hide = true)]
    command: Vec<String>,
}

async fn top(context: &Context, args: TopArgs) -> Result<()> {
    let (name, options) =
        args.command.split_first().map_or(("", &[][..]), |(n, o)| (n.as_str(), o));
    let mut call = Call::get(format!("/containers/{}/top", checked("container", name)?));
    if !options.is_empty() {
        call = call.query("ps_args", options.join(" "));
    }
    let top: TopResponse = context.client.json(call).await?;
    let rows = std::iter::once(&top.titles).chain(&top.processes);
    let text: String = rows.map(|row| format!("{}\n", row.join("\t"))).collect();
    print(&table::align_with(&text, TOP_WIDTH))
}

#[derive(Args, Debug)]
struct PortArgs {
    #[arg(hide = true)]
    container: String,
    #[arg(hide = true)]
    port: Option<String>,
}

async fn port(context: &Context, args: PortArgs) -> Result<()> {
    let name = checked("container", &args.container)?;
    let container: ContainerInspect =
        context.client.json(Call::get(format!("/containers/{name}/json"))).await?;
    let lines = port_lines(&container, args.port.as_deref())?;
    print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

fn port_lines(container: &ContainerInspect, wanted: Option<&str>) -> Result<Vec<String>> {
    let ports = &container.network_settings.ports;
    let address = |binding: &brig_api::container::PortBinding| match binding.host_ip.contains(':') {
        true => format!("[{}]:{}", binding.host_ip, binding.host_port),
        false => format!("{}:{}", binding.host_ip, binding.host_port),
    };
    let mut lines: Vec<String> = match wanted {
        Some(wanted) => {
            let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
            if number.parse::<u16>().is_err() {
                return Err(message(format!("invalid port: {wanted}")));
            }
            match ports.get(&format!("{number}/{protocol}")).and_then(Option::as_ref) {
                Some(bindings) if !bindings.is_empty() => bindings.iter().map(address).collect(),
                _ => {
                    return Err(message(format!(
                        "no public port '{number}/{protocol}' published for {}",
                        container.name.trim_start_matches('/')
                    )));
                }
            }
        }
        None => ports
            .iter()
            .flat_map(|(port, bindings)| {
                bindings
                    .iter()
                    .flatten()
                    .map(move |binding| format!("{port} -> {}", address(binding)))
            })
            .collect(),
    };
    lines.sort_by(|a, b| natural_order(a, b));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_listed_as_docker_does() {
        let container: ContainerInspect = serde_json::from_value(serde_json::json!({
            "Name": "/x",
            "NetworkSettings": {"Ports": {
                "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
                "9/udp": null, "9/tcp": [{"HostIp": "127.0.0.1", "HostPort": "9"}]}}
        }))
        .unwrap();
        assert_eq!(
            port_lines(&container, None).unwrap(),
            ["9/tcp -> 127.0.0.1:9", "80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080",]
        );
        assert_eq!(port_lines(&container, Some("80")).unwrap(), ["0.0.0.0:8080", "[::]:8080"]);
        assert_eq!(
            port_lines(&container, Some("9/udp")).unwrap_err().text(),
            "no public port '9/udp' published for x"
        );
        assert!(port_lines(&container, Some("x")).is_err());
    }
}
