//! `info`.

use brig_api::swarm::{ClusterInfo, SwarmInfo};
use brig_api::system::SystemInfo;
use clap::Args;
use serde_json::Value;

use crate::cli::leaf;
use crate::client::Call;
use crate::context::Context;
use crate::error::Result;
use crate::output::human::binary_size;
use crate::output::template::Template;
use crate::parse::duration;

leaf!(INFO, "info", "[OPTIONS]", "Display system-wide information", InfoArgs, info);

#[derive(Args, Debug)]
struct InfoArgs {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(long, short = 'f')]
    format: Option<String>,
}

async fn info(context: &Context, args: InfoArgs) -> Result<()> {
    let client = format!(
        "Client:\n Version:    {}\n Context:    {}\n Debug Mode: false\n\nServer:\n",
        env!("CARGO_PKG_VERSION"),
        crate::contexts::current(&context.globals, &context.config)
    );
    let raw: Result<Value> = context.client.json(Call::get("/info")).await;
    let raw = match (raw, args.format.as_deref()) {
        (Ok(raw), _) => raw,
        (Err(error), None | Some("")) => {
            crate::output::print(&client)?;
            return Err(error);
        }
        (Err(error), _) => return Err(error),
    };
    if let Some(format) = args.format.as_deref().filter(|format| !format.is_empty()) {
        let template = Template::parse(if format == "json" { "{{json .}}" } else { format })?;
        return crate::output::line(&template.render_value(&raw)?);
    }
    let info: SystemInfo = serde_json::from_value(raw)
        .map_err(|source| crate::error::Error::Answer { path: "/info".to_owned(), source })?;
    crate::output::print(&client)?;
    crate::output::print(&server_text(&info))?;
    for warning in &info.warnings {
        crate::output::warn(warning);
    }
    Ok(())
}

fn server_text(info: &SystemInfo) -> String {
    let mut out = String::new();
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!(" {label}: {value}\n"));
        }
    };
    line("Containers", &info.containers.to_string());
    line(" Running", &info.containers_running.to_string());
    line(" Paused", &info.containers_paused.to_string());
    line(" Stopped", &info.containers_stopped.to_string());
    line("Images", &info.images.to_string());
    line("Server Version", &info.server_version);
    line("Storage Driver", &info.driver);
    for [name, value] in &info.driver_status {
        line(&format!(" {name}"), value);
    }
    line("Logging Driver", &info.logging_driver);
    line("Cgroup Driver", &info.cgroup_driver);
    line("Cgroup Version", &info.cgroup_version);
    out.push_str(" Plugins:\n");
    for (kind, names) in [
        ("Volume", &info.plugins.volume),
        ("Network", &info.plugins.network),
        ("Log", &info.plugins.log),
    ] {
        if !names.is_empty() {
            out.push_str(&format!("  {kind}: {}\n", names.join(" ")));
        }
    }
    out.push_str(&swarm_text(&info.swarm));
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!(" {label}: {value}\n"));
        }
    };
    let runtimes: Vec<&str> = info.runtimes.keys().map(String::as_str).collect();
    line("Runtimes", &runtimes.join(" "));
    line("Default Runtime", &info.default_runtime);
    line("Init Binary", &info.init_binary);
    line("containerd version", &info.containerd_commit.id);
    line("runc version", &info.runc_commit.id);
    line("init version", &info.init_commit.id);
    if !info.security_options.is_empty() {
        out.push_str(" Security Options:\n");
        for option in &info.security_options {
            out.push_str(&security_option(option));
        }
    }
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!(" {label}: {value}\n"));
        }
    };
    line("Kernel Version", &info.kernel_version);
    line("Operating System", &info.operating_system);
    line("OSType", &info.os_type);
    line("Architecture", &info.architecture);
    line("CPUs", &info.ncpu.to_string());
    line("Total Memory", &binary_size(info.mem_total));
    line("Name", &info.name);
    line("ID", &info.id);
    line("Docker Root Dir", &info.docker_root_dir);
    line("Debug Mode", &info.debug.to_string());
    line("HTTP Proxy", &info.http_proxy);
    line("HTTPS Proxy", &info.https_proxy);
    line("No Proxy", &info.no_proxy);
    if !info.labels.is_empty() {
        out.push_str(" Labels:\n");
        for label in &info.labels {
            out.push_str(&format!("  {label}\n"));
        }
    }
    out.push_str(&format!(" Experimental: {}\n", info.experimental_build));
    let insecure = info
        .registry_config
        .index_configs
        .values()
        .filter(|index| !index.secure)
        .map(|index| &index.name);
    let insecure: Vec<&String> =
        insecure.chain(&info.registry_config.insecure_registry_cidrs).collect();
    if !insecure.is_empty() {
        out.push_str(" Insecure Registries:\n");
        for registry in insecure {
            out.push_str(&format!("  {registry}\n"));
        }
    }
    out.push_str(&format!(" Live Restore Enabled: {}\n", info.live_restore_enabled));
    out
}

/// `name=seccomp,profile=builtin` as docker prints it.
fn security_option(option: &str) -> String {
    let mut text = String::new();
    for (index, field) in option.split(',').enumerate() {
        let (key, value) = field.split_once('=').unwrap_or(("", field));
        if index == 0 {
            text.push_str(&format!("  {value}\n"));
        } else {
            text.push_str(&format!("   {}: {value}\n", crate::output::human::capitalized(key)));
        }
    }
    text
}

fn swarm_text(swarm: &SwarmInfo) -> String {
    let mut text = format!(" Swarm: {}\n", swarm.local_node_state);
    if matches!(swarm.local_node_state.as_str(), "inactive" | "locked" | "") {
        return text;
    }
    text.push_str(&format!("  NodeID: {}\n", swarm.node_id));
    if !swarm.error.is_empty() {
        text.push_str(&format!("  Error: {}\n", swarm.error));
    }
    text.push_str(&format!("  Is Manager: {}\n", swarm.control_available));
    if swarm.control_available
        && let Some(cluster) = &swarm.cluster
    {
        text.push_str(&cluster_text(swarm, cluster));
    }
    text.push_str(&format!("  Node Address: {}\n", swarm.node_addr));
    if !swarm.remote_managers.is_empty() {
        let mut addresses: Vec<&str> =
            swarm.remote_managers.iter().map(|peer| peer.addr.as_str()).collect();
        addresses.sort_unstable();
        text.push_str("  Manager Addresses:\n");
        for address in addresses {
            text.push_str(&format!("   {address}\n"));
        }
    }
    text
}

fn cluster_text(swarm: &SwarmInfo, cluster: &ClusterInfo) -> String {
    let spec = &cluster.spec;
    let pools = if cluster.default_addr_pool.is_empty() {
        String::new()
    } else {
        format!(
            "  Default Address Pool: {}  \n  SubnetSize: {}\n",
            cluster.default_addr_pool.join("  "),
            cluster.subnet_size
        )
    };
    let history = spec.orchestration.task_history_retention_limit.unwrap_or_default();
    let mut external = String::new();
    for (index, ca) in spec.ca_config.external_cas.iter().enumerate() {
        if index == 0 {
            external.push_str("   External CAs:\n");
        }
        external.push_str(&format!("     {}: {}\n", ca.protocol, ca.url));
    }
    let rotation = if cluster.root_rotation_in_progress { "true" } else { "false" };
    format!(
        "  ClusterID: {}\n  Managers: {}\n  Nodes: {}\n{pools}  Data Path Port: {}\n  Orchestration:\n   \
         Task History Retention Limit: {history}\n  Raft:\n   Snapshot Interval: {}\n   \
         Number of Old Snapshots to Retain: {}\n   Heartbeat Tick: {}\n   Election Tick: {}\n  Dispatcher:\n   \
         Heartbeat Period: {}\n  CA Configuration:\n   Expiry Duration: {}\n   Force Rotate: {}\n{external}  \
         Autolock Managers: {}\n  Root Rotation In Progress: {rotation}\n",
        cluster.id,
        swarm.managers,
        swarm.nodes,
        cluster.data_path_port,
        spec.raft.snapshot_interval,
        spec.raft.keep_old_snapshots.unwrap_or_default(),
        spec.raft.heartbeat_tick,
        spec.raft.election_tick,
        words(spec.dispatcher.heartbeat_period),
        words(spec.ca_config.node_cert_expiry),
        spec.ca_config.force_rotate,
        spec.encryption_config.auto_lock_managers,
    )
}

fn words(nanos: i64) -> String {
    if nanos == 0 { duration::format(0) } else { brig_api::time::in_words(nanos / 1_000_000_000) }
}
