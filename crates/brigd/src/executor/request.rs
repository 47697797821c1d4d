//! From a task to the request that creates its container.

use std::collections::BTreeMap;

use brig_api::Empty;
use brig_api::container::{
    ContainerConfig, ContainerCreateRequest, HostConfig, LogConfig, Mount, NetworkingConfig,
    PortBinding, PortMap, Ulimit,
};
use brig_proto::swarm::port_config::Protocol;
use brig_proto::swarm::privileges::app_armor_opts::AppArmorMode;
use brig_proto::swarm::privileges::seccomp_opts::SeccompMode;
use brig_proto::swarm::{
    ContainerSpec, GenericResource, Privileges, Task, generic_resource, task_spec,
};
use brig_swarm::TaskError;

use super::template::Context;
use super::{Defaults, names};
use crate::swarm::convert::container as convert;

/// Marks networks that every node has by itself.
const PREDEFINED_LABEL: &str = "com.docker.swarm.predefined";
/// Environment variables of the resources that a task was assigned.
const RESOURCE_PREFIX: &str = "DOCKER_RESOURCE_";

/// The container of a task.
pub(super) fn container(task: &Task) -> Result<&ContainerSpec, TaskError> {
    match task.spec.as_ref().and_then(|spec| spec.runtime.as_ref()) {
        Some(task_spec::Runtime::Container(container)) if container.image.is_empty() => {
            Err(TaskError::fatal("ContainerSpec: image reference must be provided"))
        }
        Some(task_spec::Runtime::Container(container)) => Ok(container),
        _ => Err(TaskError::fatal("this node runs containers only")),
    }
}

/// The request that creates a task's container.
pub(super) fn create(
    task: &Task,
    context: &Context,
    defaults: &Defaults,
) -> Result<ContainerCreateRequest, TaskError> {
    let spec = container(task)?;
    let expand =
        |text: &str| context.expand(text).map_err(|error| TaskError::fatal(error.to_string()));
    let ports = port_bindings(task);
    let config = ContainerConfig {
        hostname: expand(&spec.hostname)?,
        user: spec.user.clone(),
        exposed_ports: ports.keys().map(|port| (port.clone(), Empty {})).collect(),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        env: environment(task, spec, &expand)?,
        cmd: spec.args.clone(),
        healthcheck: spec.healthcheck.as_ref().map(convert::health_json),
        image: spec.image.clone(),
        working_dir: spec.dir.clone(),
        entrypoint: spec.command.clone(),
        labels: names::labels(task, spec),
        stop_signal: spec.stop_signal.clone(),
        stop_timeout: spec.stop_grace_period.as_ref().map(|grace| grace.seconds),
        ..ContainerConfig::default()
    };
    let mut host_config = HostConfig {
        network_mode: network_mode(task)?,
        port_bindings: ports,
        mounts: mounts(spec, &expand)?,
        group_add: spec.groups.clone(),
        readonly_rootfs: spec.read_only,
        init: spec.init,
        sysctls: spec.sysctls.clone(),
        cap_add: spec.capability_add.clone(),
        cap_drop: spec.capability_drop.clone(),
        oom_score_adj: spec.oom_score_adj,
        extra_hosts: extra_hosts(spec),
        security_opt: security_options(spec.privileges.as_ref())?,
        pids_limit: (spec.pids_limit > 0).then_some(spec.pids_limit),
        ulimits: spec
            .ulimits
            .iter()
            .map(|limit| Ulimit { name: limit.name.clone(), hard: limit.hard, soft: limit.soft })
            .collect(),
        ..HostConfig::default()
    };
    if let Some(dns) = &spec.dns_config {
        host_config.dns.clone_from(&dns.nameservers);
        host_config.dns_search.clone_from(&dns.search);
        host_config.dns_options.clone_from(&dns.options);
    }
    let requirements = task.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    if let Some(limits) = requirements.and_then(|resources| resources.limits.as_ref()) {
        host_config.memory = limits.memory_bytes;
        host_config.nano_cpus = limits.nano_cpus;
    }
    if let Some(requirements) = requirements {
        if let Some(swap) = requirements.swap_bytes {
            host_config.memory_swap =
                if swap < 0 { -1 } else { host_config.memory.saturating_add(swap) };
        }
        host_config.memory_swappiness = requirements.memory_swappiness;
    }
    if let Some(driver) = &task.log_driver {
        host_config.log_config =
            LogConfig { kind: driver.name.clone(), config: driver.options.clone() };
    }
    // What the manager allowed this node still has to make sense of.
    let settled = defaults.socket_binds.settle(&config.labels, &mut host_config);
    settled.map_err(|error| TaskError::fatal(error.to_string()))?;
    crate::api::defaults::fill(&mut host_config, &defaults.containers, &defaults.network);
    Ok(ContainerCreateRequest {
        config,
        host_config,
        networking_config: NetworkingConfig::default(),
    })
}

type Expand<'a> = &'a dyn Fn(&str) -> Result<String, TaskError>;

/// The environment: values are expanded, names are not.
fn environment(
    task: &Task,
    spec: &ContainerSpec,
    expand: Expand<'_>,
) -> Result<Vec<String>, TaskError> {
    let mut env = spec
        .env
        .iter()
        .map(|entry| match entry.split_once('=') {
            Some((name, value)) => Ok(format!("{name}={}", expand(value)?)),
            None => Ok(entry.clone()),
        })
        .collect::<Result<Vec<_>, TaskError>>()?;
    env.extend(assigned_resources(&task.assigned_generic_resources));
    Ok(env)
}

fn assigned_resources(resources: &[GenericResource]) -> impl Iterator<Item = String> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in resources {
        match &resource.resource {
            Some(generic_resource::Resource::NamedResourceSpec(named)) => {
                values.entry(named.kind.clone()).or_default().push(named.value.clone());
            }
            Some(generic_resource::Resource::DiscreteResourceSpec(discrete)) => {
                values.entry(discrete.kind.clone()).or_default().push(discrete.value.to_string());
            }
            None => {}
        }
    }
    values.into_iter().map(|(kind, values)| {
        format!("{RESOURCE_PREFIX}{}={}", kind.to_ascii_uppercase(), values.join(","))
    })
}

fn mounts(spec: &ContainerSpec, expand: Expand<'_>) -> Result<Vec<Mount>, TaskError> {
    let expand_all = |map: &mut BTreeMap<String, String>| {
        map.values_mut().try_for_each(|value| {
            *value = expand(value)?;
            Ok::<_, TaskError>(())
        })
    };
    spec.mounts
        .iter()
        .map(|message| {
            let mut mount = convert::mount_json(message);
            mount.source = expand(&mount.source)?;
            mount.target = expand(&mount.target)?;
            if let Some(options) = &mut mount.volume_options {
                expand_all(&mut options.labels)?;
                if let Some(driver) = &mut options.driver_config {
                    expand_all(&mut driver.options)?;
                }
            }
            Ok(mount)
        })
        .collect()
}

/// Ports of the task that its node publishes.
///
/// COMPAT: as long as there is no routing mesh, this includes the cluster's published ports that
/// the manager left with this task.
fn port_bindings(task: &Task) -> PortMap {
    let mut map = PortMap::new();
    for port in task.endpoint.iter().flat_map(|endpoint| &endpoint.ports) {
        let protocol = match Protocol::try_from(port.protocol) {
            Ok(Protocol::Udp) => "udp",
            Ok(Protocol::Sctp) => "sctp",
            Ok(Protocol::Tcp) | Err(_) => "tcp",
        };
        let host_port =
            if port.published_port == 0 { String::new() } else { port.published_port.to_string() };
        map.entry(format!("{}/{protocol}", port.target_port))
            .or_default()
            .get_or_insert_default()
            .push(PortBinding { host_ip: String::new(), host_port });
    }
    map
}

/// The network that a task's container joins: one that every node has by itself.
fn network_mode(task: &Task) -> Result<String, TaskError> {
    let mut modes = task.networks.iter().map(|attachment| {
        let network = attachment.network.as_ref();
        let annotations = network
            .and_then(|network| network.spec.as_ref())
            .and_then(|spec| spec.annotations.as_ref());
        let name = annotations.map_or("", |annotations| annotations.name.as_str());
        let predefined = annotations
            .and_then(|annotations| annotations.labels.get(PREDEFINED_LABEL))
            .is_some_and(|value| value == "true");
        if predefined && matches!(name, "bridge" | "host" | "none") {
            return Ok(name.to_owned());
        }
        let driver = network.and_then(|network| network.driver_state.as_ref());
        Err(TaskError::fatal(format!(
            "network {name}: driver {:?} is not available on this node",
            driver.map_or("", |driver| driver.name.as_str())
        )))
    });
    let first = modes.next().unwrap_or_else(|| Ok("default".to_owned()))?;
    match modes.next() {
        None => Ok(first),
        Some(other) => {
            let other = other?;
            Err(TaskError::fatal(format!("networks {first} and {other} cannot be combined")))
        }
    }
}

/// Host entries come as `IP name [alias…]` and are wanted as `name:IP`.
fn extra_hosts(spec: &ContainerSpec) -> Vec<String> {
    spec.hosts
        .iter()
        .flat_map(|entry| {
            let mut fields = entry.split_whitespace();
            let address = fields.next().unwrap_or_default();
            fields.map(move |name| format!("{name}:{address}"))
        })
        .collect()
}

fn security_options(privileges: Option<&Privileges>) -> Result<Vec<String>, TaskError> {
    let Some(privileges) = privileges else {
        return Ok(Vec::new());
    };
    let mut options = Vec::new();
    if privileges.credential_spec.is_some() {
        return Err(TaskError::fatal("credential specs are for Windows containers only"));
    }
    if let Some(context) = &privileges.selinux_context {
        if context.disable {
            options.push("label=disable".to_owned());
        }
        for (key, value) in [
            ("user", &context.user),
            ("role", &context.role),
            ("type", &context.r#type),
            ("level", &context.level),
        ] {
            if !value.is_empty() {
                options.push(format!("label={key}:{value}"));
            }
        }
    }
    if let Some(seccomp) = &privileges.seccomp {
        match SeccompMode::try_from(seccomp.mode) {
            Ok(SeccompMode::Default) => {}
            Ok(SeccompMode::Unconfined) => options.push("seccomp=unconfined".to_owned()),
            Ok(SeccompMode::Custom) => {
                let profile = std::str::from_utf8(&seccomp.profile)
                    .map_err(|_| TaskError::fatal("the seccomp profile is not JSON"))?;
                options.push(format!("seccomp={profile}"));
            }
            Err(_) => return Err(TaskError::fatal("unknown seccomp mode")),
        }
    }
    if let Some(apparmor) = &privileges.apparmor {
        match AppArmorMode::try_from(apparmor.mode) {
            Ok(AppArmorMode::Default) => {}
            Ok(AppArmorMode::Disabled) => options.push("apparmor=unconfined".to_owned()),
            Err(_) => return Err(TaskError::fatal("unknown AppArmor mode")),
        }
    }
    if privileges.no_new_privileges {
        options.push("no-new-privileges=true".to_owned());
    }
    Ok(options)
}

#[cfg(test)]
mod tests;
