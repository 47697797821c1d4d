//! Adding to and taking from a service's lists.

use std::collections::BTreeMap;

use brig_api::engine_access;
use brig_api::swarm::{
    ConfigReference, DnsConfig, GenericResource, PortConfig, SecretReference, ServiceSpec,
};

use super::UpdateArgs;
use crate::commands::service::changes::container;
use crate::commands::service::spec::swarm_host;
use crate::error::{Result, message};
use crate::parse::env::{process_env, variables};
use crate::parse::key_value;
use crate::parse::port::service_ports;
use crate::parse::security::capabilities;

/// Secrets: those of the same target are replaced.
pub(super) fn secrets(
    list: &mut Vec<SecretReference>,
    add: Vec<SecretReference>,
    remove: &[String],
) {
    list.retain(|secret| !remove.contains(&secret.secret_name));
    let target = |s: &SecretReference| s.file.as_ref().map(|file| file.name.clone());
    for secret in add {
        list.retain(|known| target(known) != target(&secret));
        list.push(secret);
    }
}

/// Configs, as [`secrets`].
pub(super) fn configs(
    list: &mut Vec<ConfigReference>,
    add: Vec<ConfigReference>,
    remove: &[String],
) {
    list.retain(|config| !remove.contains(&config.config_name));
    let target = |c: &ConfigReference| c.file.as_ref().map(|file| file.name.clone());
    for config in add {
        list.retain(|known| target(known) != target(&config));
        list.push(config);
    }
}

fn map(map: &mut BTreeMap<String, String>, add: &[String], remove: &[String]) {
    map.retain(|key, _| !remove.contains(key));
    map.extend(add.iter().map(|entry| key_value(entry)));
}

fn set(list: &mut Vec<String>, add: &[String], remove: &[String]) {
    list.retain(|item| !remove.contains(item));
    for item in add {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

fn name_of(entry: &str) -> &str {
    entry.split('=').next().unwrap_or(entry)
}

/// Everything that needs no request.
pub(super) fn lists(args: &UpdateArgs, spec: &mut ServiceSpec) -> Result<()> {
    map(&mut spec.labels, &args.label_add, &args.label_rm);
    let c = container(spec);
    map(&mut c.labels, &args.container_label_add, &args.container_label_rm);
    if args.engine_access_rm {
        c.labels.remove(engine_access::LABEL);
    }
    if let Some(access) = &args.engine_access {
        c.labels.insert(engine_access::LABEL.to_owned(), access.to_string());
    }
    map(&mut c.sysctls, &args.sysctl_add, &args.sysctl_rm);
    set(&mut c.groups, &args.group_add, &args.group_rm);

    let added = variables(&[], &args.env_add, &process_env)?;
    c.env.retain(|known| {
        let name = name_of(known);
        !args.env_rm.iter().any(|gone| gone == name)
            && !added.iter().any(|new| name_of(new) == name)
    });
    c.env.extend(added);

    let removed: Vec<String> = args.host_rm.iter().map(|host| swarm_host(host)).collect();
    c.hosts.retain(|line| {
        !removed.iter().any(|gone| line == gone || line.split(' ').skip(1).any(|name| name == gone))
    });
    for host in args.host_add.iter().map(|host| swarm_host(host)) {
        if !c.hosts.contains(&host) {
            c.hosts.push(host);
        }
    }

    let dns_given = [
        &args.dns_add,
        &args.dns_rm,
        &args.dns_search_add,
        &args.dns_search_rm,
        &args.dns_option_add,
        &args.dns_option_rm,
    ]
    .iter()
    .any(|list| !list.is_empty());
    if dns_given {
        let dns: &mut DnsConfig = c.dns_config.get_or_insert_default();
        set(&mut dns.nameservers, &args.dns_add, &args.dns_rm);
        set(&mut dns.search, &args.dns_search_add, &args.dns_search_rm);
        set(&mut dns.options, &args.dns_option_add, &args.dns_option_rm);
    }

    for mount in &args.mount_add {
        c.mounts.retain(|known| known.target != mount.target);
        c.mounts.push(mount.clone());
    }
    c.mounts.retain(|mount| !args.mount_rm.contains(&mount.target));
    for ulimit in &args.ulimit_add {
        c.ulimits.retain(|known| known.name != ulimit.name);
        c.ulimits.push(ulimit.clone());
    }
    c.ulimits.retain(|ulimit| !args.ulimit_rm.contains(&ulimit.name));
    c.ulimits.sort_by(|a, b| a.name.cmp(&b.name));

    if !(args.cap_add.is_empty() && args.cap_drop.is_empty()) {
        // Adding a capability takes it from those that are dropped, and the other way round.
        let (add, drop) = capabilities(&args.cap_add, &args.cap_drop);
        c.capability_drop.retain(|known| !add.contains(known));
        c.capability_add.retain(|known| !drop.contains(known));
        set(&mut c.capability_add, &add, &[]);
        set(&mut c.capability_drop, &drop, &[]);
        c.capability_add.sort();
        c.capability_drop.sort();
    }
    placement(args, spec);
    generic(args, spec)?;
    ports(args, spec)
}

fn placement(args: &UpdateArgs, spec: &mut ServiceSpec) {
    let given = !(args.constraint_add.is_empty()
        && args.constraint_rm.is_empty()
        && args.placement_pref_add.is_empty()
        && args.placement_pref_rm.is_empty());
    if !given {
        return;
    }
    let placement = spec.task_template.placement.get_or_insert_default();
    set(&mut placement.constraints, &args.constraint_add, &args.constraint_rm);
    placement.constraints.sort();
    placement.preferences.retain(|known| !args.placement_pref_rm.contains(known));
    placement.preferences.extend(args.placement_pref_add.iter().cloned());
}

fn kind_of(resource: &GenericResource) -> &str {
    match (&resource.named_resource_spec, &resource.discrete_resource_spec) {
        (Some(named), _) => &named.kind,
        (None, Some(discrete)) => &discrete.kind,
        (None, None) => "",
    }
}

fn generic(args: &UpdateArgs, spec: &mut ServiceSpec) -> Result<()> {
    if args.generic_resource_add.is_empty() && args.generic_resource_rm.is_empty() {
        return Ok(());
    }
    let resources = spec.task_template.resources.get_or_insert_default();
    let list = &mut resources.reservations.get_or_insert_default().generic_resources;
    for kind in &args.generic_resource_rm {
        if !list.iter().any(|known| kind_of(known) == kind) {
            return Err(message(format!("could not find generic-resource `{kind}` to remove it")));
        }
        list.retain(|known| kind_of(known) != kind);
    }
    for resource in &args.generic_resource_add {
        list.retain(|known| kind_of(known) != kind_of(resource));
        list.push(resource.clone());
    }
    Ok(())
}

fn ports(args: &UpdateArgs, spec: &mut ServiceSpec) -> Result<()> {
    if args.publish_add.is_empty() && args.publish_rm.is_empty() {
        return Ok(());
    }
    let list: &mut Vec<PortConfig> = &mut spec.endpoint_spec.get_or_insert_default().ports;
    for text in &args.publish_rm {
        // By target port: `80`, `80/udp`, or a whole mapping.
        let gone = service_ports(text)?;
        list.retain(|known| {
            !gone.iter().any(|gone| {
                gone.target_port == known.target_port
                    && (gone.protocol == known.protocol)
                    && (gone.published_port == 0 || gone.published_port == known.published_port)
            })
        });
    }
    for text in &args.publish_add {
        for port in service_ports(text)? {
            if list.iter().any(|known| {
                known.published_port == port.published_port
                    && port.published_port != 0
                    && known.protocol == port.protocol
                    && known.target_port != port.target_port
            }) {
                return Err(message(format!(
                    "conflicting port mapping between {}:{}/{} and an existing port",
                    port.published_port, port.target_port, port.protocol
                )));
            }
            list.retain(|known| {
                (known.target_port, &known.protocol, known.published_port)
                    != (port.target_port, &port.protocol, port.published_port)
            });
            list.push(port);
        }
    }
    list.sort_by_key(|port| (port.target_port, port.published_port));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;
    use serde_json::{Value, json};

    use super::*;

    fn edited(before: Value, line: &str) -> Value {
        let matches = super::super::UPDATE
            .command("brig service update")
            .try_get_matches_from(std::iter::once("u").chain(line.split_whitespace()))
            .unwrap();
        let args = UpdateArgs::from_arg_matches(&matches).unwrap();
        let mut spec: ServiceSpec = serde_json::from_value(before).unwrap();
        crate::commands::service::changes::apply(&args.service, &mut spec).unwrap();
        lists(&args, &mut spec).unwrap();
        serde_json::to_value(spec).unwrap()
    }

    #[test]
    fn lists_are_changed_in_place() {
        let before = json!({
            "Name": "s", "Labels": {"a": "1", "b": "2"},
            "TaskTemplate": {"ContainerSpec": {"Image": "x", "Env": ["A=1", "B=2"], "Hosts": ["1.1.1.1 h"],
                "CapabilityDrop": ["CAP_CHOWN"], "Mounts": [{"Type": "volume", "Source": "v", "Target": "/v"}]}},
            "Mode": {"Replicated": {"Replicas": 1}},
            "EndpointSpec": {"Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]},
        });
        let after = edited(
            before,
            "--label-rm a --label-add c=3 --env-add A=9 --env-rm B --host-rm h:1.1.1.1 --cap-add CHOWN --mount-rm /v \
             --mount-add type=tmpfs,target=/t --publish-rm 80 --publish-add 9090:90 --replicas 4 --constraint-add node.role==worker \
             --limit-memory 64m s",
        );
        assert_eq!(after["Labels"], json!({"b": "2", "c": "3"}));
        let container = &after["TaskTemplate"]["ContainerSpec"];
        assert_eq!(container["Env"], json!(["A=9"]));
        assert_eq!(container.get("Hosts"), None);
        assert_eq!(container["CapabilityAdd"], json!(["CAP_CHOWN"]));
        assert_eq!(container.get("CapabilityDrop"), None);
        assert_eq!(container["Mounts"], json!([{"Type": "tmpfs", "Target": "/t"}]));
        assert_eq!(after["Mode"], json!({"Replicated": {"Replicas": 4}}));
        assert_eq!(
            after["EndpointSpec"]["Ports"],
            json!([{"Protocol": "tcp", "TargetPort": 90, "PublishedPort": 9090, "PublishMode": "ingress"}])
        );
        assert_eq!(
            after["TaskTemplate"]["Placement"],
            json!({"Constraints": ["node.role==worker"]})
        );
        assert_eq!(
            after["TaskTemplate"]["Resources"],
            json!({"Limits": {"MemoryBytes": 67_108_864}})
        );
    }

    #[test]
    fn nothing_given_changes_nothing() {
        let before = json!({
            "Name": "s", "Labels": {}, "TaskTemplate": {"ContainerSpec": {"Image": "x", "Healthcheck": {"Test": ["CMD", "y"], "Interval": 5}}, "ForceUpdate": 3},
            "Mode": {"Global": {}},
        });
        assert_eq!(edited(before.clone(), "s"), before);
        let health = edited(before, "--health-timeout 1s s");
        assert_eq!(
            health["TaskTemplate"]["ContainerSpec"]["Healthcheck"],
            json!({"Test": ["CMD", "y"], "Interval": 5, "Timeout": 1_000_000_000})
        );
    }
}
