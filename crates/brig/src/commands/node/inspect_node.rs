//! `node inspect`.

use brig_api::swarm::Node;
use clap::Args;

use super::resolve;
use crate::cli::leaf;
use crate::client::Call;
use crate::commands::inspect;
use crate::context::Context;
use crate::error::Result;
use crate::output::human::{binary_size, capitalized};

leaf!(
    INSPECT,
    "inspect",
    "[OPTIONS] self|NODE [NODE...]",
    "Display detailed information on one or more nodes",
    InspectArgs,
    run
);

#[derive(Args, Debug)]
struct InspectArgs {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(long, short = 'f')]
    format: Option<String>,
    /// Print the information in a human friendly format
    #[arg(long)]
    pretty: bool,
    #[arg(required = true, hide = true)]
    nodes: Vec<String>,
}

async fn run(context: &Context, args: InspectArgs) -> Result<()> {
    if args.pretty {
        for name in &args.nodes {
            let id = resolve(context, name).await?;
            let node: Node = context.client.json(Call::get(format!("/nodes/{id}"))).await?;
            crate::output::print(&pretty(&node))?;
        }
        return Ok(());
    }
    inspect::print_all(&args.nodes, args.format.as_deref(), |name| async move {
        let id = resolve(context, &name).await?;
        inspect::fetch(&context.client, Call::get(format!("/nodes/{id}"))).await
    })
    .await
}

fn pretty(node: &Node) -> String {
    let mut text = String::new();
    let mut line = |indent: &str, label: &str, value: &str| {
        if !value.is_empty() {
            let label = format!("{indent}{label}:");
            text.push_str(&format!("{label:24}{value}\n"));
        }
    };
    line("", "ID", &node.id);
    line("", "Name", &node.spec.name);
    for (key, value) in &node.spec.labels {
        line("", "Labels", &format!("{key}={value}"));
    }
    line("", "Hostname", &node.description.hostname);
    line("", "Joined at", &node.created_at);
    line("", "Status State", &capitalized(&node.status.state));
    line("", "Status Message", &capitalized(&node.status.message));
    line("", "Availability", &capitalized(&node.spec.availability));
    line("", "Address", &node.status.addr);
    if let Some(manager) = &node.manager_status {
        line("Manager ", "Address", &manager.addr);
        line("Manager ", "Raft Status", &capitalized(&manager.reachability));
        line("Manager ", "Leader", if manager.leader { "Yes" } else { "No" });
    }
    let description = &node.description;
    line("Platform ", "Operating System", &description.platform.os);
    line("Platform ", "Architecture", &description.platform.architecture);
    line("Resources ", "CPUs", &(description.resources.nano_cpus / 1_000_000_000).to_string());
    line("Resources ", "Memory", &binary_size(description.resources.memory_bytes));
    for plugin in &description.engine.plugins {
        line("Plugin ", &plugin.kind, &plugin.name);
    }
    line("", "Engine Version", &description.engine.engine_version);
    for (key, value) in &description.engine.labels {
        line("Engine ", "Label", &format!("{key}={value}"));
    }
    if !description.tls_info.trust_root.is_empty() {
        text.push_str(&format!(
            "TLS Trust Root:\n{}\n",
            description.tls_info.trust_root.trim_end()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_node_is_a_list_of_facts() {
        let node = serde_json::from_value(serde_json::json!({
            "ID": "n1", "Spec": {"Availability": "active", "Labels": {"zone": "a"}}, "Status": {"State": "ready", "Addr": "10.0.0.1"},
            "Description": {"Hostname": "h", "Resources": {"NanoCPUs": 2_000_000_000_i64, "MemoryBytes": 1_073_741_824}},
            "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "10.0.0.1:2377"}}))
        .unwrap();
        let text = super::pretty(&node);
        for line in [
            "ID:                     n1\n",
            "Status State:           Ready\n",
            "Manager Leader:         Yes\n",
            "Resources CPUs:         2\n",
            "Resources Memory:       1GiB\n",
            "Labels:                 zone=a\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
