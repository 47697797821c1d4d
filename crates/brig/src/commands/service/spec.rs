//! From `service create`'s flags to the specification. Nothing is sent here.

use std::collections::BTreeMap;

use brig_api::Empty;
use brig_api::engine_access;
use brig_api::swarm::{
    ContainerSpec, DnsConfig, EndpointSpec, Limit, Placement, ReplicatedJob, ReplicatedService,
    ResourceRequirements, Resources, ServiceMode, ServiceSpec,
};

use super::create::CreateArgs;
use super::{changes, references};
use crate::error::{Result, message};
use crate::parse::env::{process_env, variables};
use crate::parse::key_value_map;
use crate::parse::port::service_ports;
use crate::parse::security::capabilities;

/// The containers' labels, among them the one that says what they are lent.
fn container_labels(args: &CreateArgs) -> BTreeMap<String, String> {
    let mut labels = key_value_map(&args.container_label);
    if let Some(access) = &args.engine_access {
        labels.insert(engine_access::LABEL.to_owned(), access.to_string());
    }
    labels
}

/// Builds the specification; ids of networks, secrets and configs are still missing.
pub(super) fn from_flags(args: &CreateArgs) -> Result<ServiceSpec> {
    let mut command = args.command.iter();
    let image = command.next().map_or("", String::as_str);
    let (cap_add, cap_drop) = capabilities(&args.cap_add, &args.cap_drop);
    let mut ports = Vec::new();
    for port in &args.publish {
        ports.extend(service_ports(port)?);
    }
    let container = ContainerSpec {
        image: references::normalized(image)?,
        labels: container_labels(args),
        args: command.cloned().collect(),
        env: variables(&args.env_file, &args.env, &process_env)?,
        groups: args.group.clone(),
        mounts: args.mount.clone(),
        hosts: args.host.iter().map(|host| swarm_host(host)).collect(),
        dns_config: Some(DnsConfig {
            nameservers: args.dns.clone(),
            search: args.dns_search.clone(),
            options: args.dns_option.clone(),
        }),
        sysctls: key_value_map(&args.sysctl),
        capability_add: cap_add,
        capability_drop: cap_drop,
        ulimits: args.ulimit.clone(),
        ..ContainerSpec::default()
    };
    let mut spec = ServiceSpec {
        name: args.name.clone(),
        labels: key_value_map(&args.label),
        mode: mode(&args.mode)?,
        endpoint_spec: Some(EndpointSpec { mode: "vip".to_owned(), ports }),
        ..ServiceSpec::default()
    };
    spec.task_template.container_spec = Some(container);
    spec.task_template.resources = Some(ResourceRequirements {
        limits: Some(Limit::default()),
        reservations: Some(Resources {
            generic_resources: args.generic_resource.clone(),
            ..Resources::default()
        }),
    });
    spec.task_template.placement = Some(Placement {
        constraints: args.constraint.clone(),
        preferences: args.placement_pref.clone(),
        ..Placement::default()
    });
    changes::apply(&args.service, &mut spec)?;
    Ok(spec)
}

fn mode(text: &str) -> Result<ServiceMode> {
    let none = ServiceMode::default();
    Ok(match text {
        "replicated" => ServiceMode { replicated: Some(ReplicatedService::default()), ..none },
        "global" => ServiceMode { global: Some(Empty {}), ..none },
        "replicated-job" => ServiceMode { replicated_job: Some(ReplicatedJob::default()), ..none },
        "global-job" => ServiceMode { global_job: Some(Empty {}), ..none },
        other => {
            return Err(message(format!(
                "Unknown mode: {other}, only replicated and global supported"
            )));
        }
    })
}

/// `host:ip` as a line of `/etc/hosts`.
pub(super) fn swarm_host(host: &str) -> String {
    match host.split_once(':') {
        Some((name, address)) => format!("{address} {name}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;
    use serde_json::{Value, json};

    use super::*;

    fn spec(line: &str) -> Result<Value> {
        let command = super::super::create::CREATE.command("brig service create");
        let words = line.split_whitespace().map(std::ffi::OsString::from).collect();
        let words = crate::cli::flags::end_at_first_argument(&command, words);
        let matches =
            command.try_get_matches_from(std::iter::once("c".into()).chain(words)).unwrap();
        let args = CreateArgs::from_arg_matches(&matches).unwrap();
        Ok(serde_json::to_value(from_flags(&args)?).unwrap())
    }

    #[test]
    fn most_flags_are_the_captured_body() {
        let body = spec(
            "--name s2 --label l=1 --container-label cl=2 --entrypoint sleep --hostname {{.Node.Hostname}} -e A=b \
             --workdir /x --user root --group 5 --init --stop-signal SIGTERM --tty --read-only \
             --mount type=volume,source=sv,target=/v --mount type=tmpfs,target=/t --mount type=bind,source=/b,target=/b,readonly \
             --stop-grace-period 2s --health-cmd true --health-interval 2s --host h:1.2.3.4 --dns 8.8.8.8 \
             --cap-add CHOWN --cap-drop ALL --ulimit nofile=10:20 --limit-cpu 0.5 --limit-memory 64m --limit-pids 50 \
             --reserve-memory 8m --restart-condition on-failure --restart-delay 1s --restart-max-attempts 3 --restart-window 10s \
             --constraint node.role==manager --placement-pref spread=node.labels.zone --replicas-max-per-node 5 \
             --log-driver json-file --log-opt max-size=1m --replicas 2 --update-parallelism 2 --update-delay 1s \
             --update-failure-action rollback --update-monitor 2s --update-max-failure-ratio 0.5 --update-order start-first \
             -p 18090:80 busybox 1000",
        )
        .unwrap();
        assert_eq!(
            body,
            json!({
                "Name": "s2", "Labels": {"l": "1"},
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "busybox:latest", "Labels": {"cl": "2"}, "Command": ["sleep"], "Args": ["1000"],
                        "Hostname": "{{.Node.Hostname}}", "Env": ["A=b"], "Dir": "/x", "User": "root", "Groups": ["5"],
                        "Init": true, "StopSignal": "SIGTERM", "TTY": true, "ReadOnly": true,
                        "Mounts": [{"Type": "volume", "Source": "sv", "Target": "/v"}, {"Type": "tmpfs", "Target": "/t"},
                            {"Type": "bind", "Source": "/b", "Target": "/b", "ReadOnly": true}],
                        "StopGracePeriod": 2_000_000_000_i64,
                        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000_i64},
                        "Hosts": ["1.2.3.4 h"], "DNSConfig": {"Nameservers": ["8.8.8.8"]},
                        "CapabilityAdd": ["CAP_CHOWN"], "CapabilityDrop": ["ALL"],
                        "Ulimits": [{"Name": "nofile", "Hard": 20, "Soft": 10}]},
                    "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864, "Pids": 50},
                        "Reservations": {"MemoryBytes": 8_388_608}},
                    "RestartPolicy": {"Condition": "on-failure", "Delay": 1_000_000_000, "MaxAttempts": 3, "Window": 10_000_000_000_i64},
                    "Placement": {"Constraints": ["node.role==manager"],
                        "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}], "MaxReplicas": 5},
                    "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}}, "ForceUpdate": 0},
                "Mode": {"Replicated": {"Replicas": 2}},
                "UpdateConfig": {"Parallelism": 2, "Delay": 1_000_000_000, "FailureAction": "rollback",
                    "Monitor": 2_000_000_000_i64, "MaxFailureRatio": 0.5, "Order": "start-first"},
                "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 18090, "PublishMode": "ingress"}]}
            })
        );
    }

    #[test]
    fn modes_and_their_limits() {
        assert_eq!(spec("--mode global x").unwrap()["Mode"], json!({"Global": {}}));
        assert_eq!(spec("x").unwrap()["Mode"], json!({"Replicated": {}}));
        assert_eq!(
            spec("--mode replicated-job --replicas 3 --max-concurrent 2 x").unwrap()["Mode"],
            json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 3}})
        );
        for line in [
            "--mode nope x",
            "--mode global --replicas 2 x",
            "--max-concurrent 1 x",
            "Bad",
            "-p x y",
        ] {
            assert!(spec(line).is_err(), "{line}");
        }
    }
}
