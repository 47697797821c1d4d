//! `network …`.

mod create;

use brig_api::network::{
    ConnectRequest, DisconnectRequest, EndpointIpamConfig, EndpointSettings, NetworkInspect,
};
use clap::Args;

use crate::cli::{Leaf, leaf};
use crate::client::Call;
use crate::commands::{checked, filters, forgive_missing, inspect};
use crate::context::Context;
use crate::error::{Failures, Result};
use crate::output::human::{natural_order, short_id};
use crate::output::list::{Listing, Row};
use crate::parse::key_value_map;

leaf!(LS, "ls" | "list", "[OPTIONS]", "List networks", LsArgs, ls);
leaf!(
    INSPECT,
    "inspect",
    "[OPTIONS] NETWORK [NETWORK...]",
    "Display detailed information on one or more networks",
    InspectArgs,
    run_inspect
);
leaf!(RM, "rm" | "remove", "NETWORK [NETWORK...]", "Remove one or more networks", RmArgs, rm);
leaf!(
    CONNECT,
    "connect",
    "[OPTIONS] NETWORK CONTAINER",
    "Connect a container to a network",
    ConnectArgs,
    connect
);
leaf!(
    DISCONNECT,
    "disconnect",
    "[OPTIONS] NETWORK CONTAINER",
    "Disconnect a container from a network",
    DisconnectArgs,
    disconnect
);

/// `network …`.
pub(crate) const COMMANDS: &[&Leaf] =
    &[&CONNECT, &create::CREATE, &DISCONNECT, &INSPECT, &LS, &super::prune::NETWORK, &RM];

#[derive(Args, Debug)]
struct LsArgs {
    /// Provide filter values (e.g. "driver=bridge")
    #[arg(long, short = 'f')]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Do not truncate the output
    #[arg(long)]
    no_trunc: bool,
    /// Only display network IDs
    #[arg(long, short = 'q')]
    quiet: bool,
}

async fn ls(context: &Context, args: LsArgs) -> Result<()> {
    let call = Call::get("/networks").filters(&filters(&args.filter)?);
    let mut networks: Vec<NetworkInspect> = context.client.json(call).await?;
    networks.sort_by(|a, b| natural_order(&a.name, &b.name));
    let rows: Vec<Row> = networks
        .iter()
        .map(|network| {
            Row::new()
                .with("ID", if args.no_trunc { &network.id } else { short_id(&network.id) })
                .with("Name", network.name.as_str())
                .with("Driver", network.driver.as_str())
                .with("Scope", network.scope.as_str())
                .with("IPv4", network.enable_ipv4.unwrap_or(true).to_string())
                .with("IPv6", network.enable_ipv6.to_string())
                .with("Internal", network.internal.to_string())
                .with("CreatedAt", network.created.as_str())
                .labels(&network.labels)
        })
        .collect();
    let headers = &[("ID", "NETWORK ID"), ("CreatedAt", "CREATED AT")];
    let listing =
        Listing { table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}", headers, id: "ID" };
    let format = args
        .format
        .as_deref()
        .or_else(|| context.config.text("networksFormat").filter(|_| !args.quiet));
    listing.print(&rows, format, args.quiet)
}

#[derive(Args, Debug)]
struct InspectArgs {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(long, short = 'f')]
    format: Option<String>,
    /// Verbose output for diagnostics
    #[arg(long, short = 'v')]
    verbose: bool,
    #[arg(required = true, hide = true)]
    networks: Vec<String>,
}

async fn run_inspect(context: &Context, args: InspectArgs) -> Result<()> {
    inspect::print_all(&args.networks, args.format.as_deref(), |name| async move {
        let call = Call::get(format!("/networks/{}", checked("network", &name)?));
        let call = if args.verbose { call.query("verbose", "true") } else { call };
        inspect::fetch(&context.client, call).await
    })
    .await
}

#[derive(Args, Debug)]
struct RmArgs {
    /// Do not error if the network does not exist
    #[arg(long, short = 'f')]
    force: bool,
    #[arg(required = true, hide = true)]
    networks: Vec<String>,
}

async fn rm(context: &Context, args: RmArgs) -> Result<()> {
    let mut failures = Failures::default();
    for name in &args.networks {
        let name = checked("network", name)?;
        match context.client.none(Call::delete(format!("/networks/{name}"))).await {
            Err(error) if args.force && error.is_not_found() => forgive_missing(Err(error), true)?,
            result => {
                if failures.keep(result)?.is_some() {
                    crate::output::line(name)?;
                }
            }
        }
    }
    failures.finish()
}

#[derive(Args, Debug)]
struct ConnectArgs {
    /// Add network-scoped alias for the container
    #[arg(long, value_delimiter = ',')]
    alias: Vec<String>,
    /// Driver options for the network
    #[arg(long, value_delimiter = ',')]
    driver_opt: Vec<String>,
    /// Highest gw-priority provides the default gateway. Accepts positive and negative values
    #[arg(long)]
    gw_priority: Option<i64>,
    /// IPv4 address (e.g., "172.30.100.104")
    #[arg(long, default_value = "")]
    ip: String,
    /// IPv6 address (e.g., "2001:db8::33")
    #[arg(long, default_value = "")]
    ip6: String,
    /// Add link to another container
    #[arg(long)]
    link: Vec<String>,
    /// Add a link-local address for the container
    #[arg(long, value_delimiter = ',')]
    link_local_ip: Vec<String>,
    #[arg(hide = true)]
    network: String,
    #[arg(hide = true)]
    container: String,
}

impl ConnectArgs {
    fn request(&self) -> ConnectRequest {
        ConnectRequest {
            container: self.container.clone(),
            endpoint_config: Some(EndpointSettings {
                ipam_config: Some(EndpointIpamConfig {
                    ipv4_address: self.ip.clone(),
                    ipv6_address: self.ip6.clone(),
                    link_local_ips: self.link_local_ip.clone(),
                }),
                links: self.link.clone(),
                aliases: self.alias.clone(),
                driver_opts: key_value_map(&self.driver_opt),
                gw_priority: self.gw_priority,
                ..EndpointSettings::default()
            }),
        }
    }
}

async fn connect(context: &Context, args: ConnectArgs) -> Result<()> {
    let network = checked("network", &args.network)?;
    context
        .client
        .none(Call::post(format!("/networks/{network}/connect")).json(&args.request())?)
        .await
}

#[derive(Args, Debug)]
struct DisconnectArgs {
    /// Force the container to disconnect from a network
    #[arg(long, short = 'f')]
    force: bool,
    #[arg(hide = true)]
    network: String,
    #[arg(hide = true)]
    container: String,
}

async fn disconnect(context: &Context, args: DisconnectArgs) -> Result<()> {
    let network = checked("network", &args.network)?;
    let body = DisconnectRequest { container: args.container, force: args.force };
    context.client.none(Call::post(format!("/networks/{network}/disconnect")).json(&body)?).await
}
