//! Service specs as users send them, checked with SwarmKit's rules and texts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use brig_proto::swarm::{
    ContainerSpec, EndpointSpec, HealthConfig, Mount, Placement, ResourceRequirements, Resources,
    RestartPolicy, ServiceSpec, TaskSpec, UpdateConfig, config_reference,
    endpoint_spec::ResolutionMode, mount, placement_preference, port_config::PublishMode,
    secret_reference, service_spec, task_spec,
};
use brig_types::name;
use brig_types::reference::Reference;

use crate::error::ControlError;
use crate::manager::scheduler::constraint::Constraint;

/// Least CPU that can be asked for, in billionths.
const MIN_NANO_CPUS: i64 = 1_000_000;
/// Least memory that can be asked for.
const MIN_MEMORY: i64 = 4 << 20;
/// Highest port number.
const MAX_PORT: u32 = 65_535;
/// Least time between two health checks.
const MIN_HEALTH_TIME: Duration = Duration::from_millis(1);
/// Most replicas of one service.
const MAX_REPLICAS: u64 = 100_000;

/// Checks a spec on its own; whether what it refers to exists is checked where it is stored.
///
/// # Errors
/// [`ControlError::InvalidArgument`], or [`ControlError::NotImplemented`] for what brig does not
/// offer yet.
pub(crate) fn spec(spec: &ServiceSpec) -> Result<(), ControlError> {
    let service_name = spec.annotations.as_ref().map_or("", |a| a.name.as_str());
    name::service_name(service_name).map_err(|error| invalid(error.to_string()))?;
    let task = spec.task.as_ref().ok_or_else(|| invalid("TaskSpec: missing in service spec"))?;
    task_spec(task)?;
    for (config, which) in [(&spec.update, "update"), (&spec.rollback, "rollback")] {
        if let Some(config) = config {
            update_config(config, which)?;
        }
    }
    if let Some(endpoint) = &spec.endpoint {
        endpoint_spec(endpoint)?;
    }
    match &spec.mode {
        Some(service_spec::Mode::Replicated(mode)) if mode.replicas > MAX_REPLICAS => {
            Err(invalid(format!("Number of replicas must not be larger than {MAX_REPLICAS}")))
        }
        Some(service_spec::Mode::Replicated(_) | service_spec::Mode::Global(_)) => Ok(()),
        Some(service_spec::Mode::ReplicatedJob(_) | service_spec::Mode::GlobalJob(_)) => Err(
            ControlError::NotImplemented("services in a job mode are not supported yet".to_owned()),
        ),
        None => Err(invalid("Mode: missing in service spec")),
    }
}

fn task_spec(spec: &TaskSpec) -> Result<(), ControlError> {
    if let Some(resources) = &spec.resources {
        requirements(resources)?;
    }
    if let Some(restart) = &spec.restart {
        restart_policy(restart)?;
    }
    if let Some(placement) = &spec.placement {
        placement_rules(placement)?;
    }
    match &spec.runtime {
        Some(task_spec::Runtime::Container(container)) => container_spec(container),
        Some(task_spec::Runtime::Generic(_)) => {
            Err(ControlError::NotImplemented("services of plugins are not supported".to_owned()))
        }
        Some(task_spec::Runtime::Attachment(_)) => Err(ControlError::Unsupported(
            "RuntimeUnsupported: unimplemented runtime in service spec".to_owned(),
        )),
        None => Err(invalid("TaskSpec: missing runtime")),
    }
}

fn container_spec(container: &ContainerSpec) -> Result<(), ControlError> {
    if container.image.is_empty() {
        return Err(invalid("ContainerSpec: image reference must be provided"));
    }
    if Reference::parse(&container.image).is_err() {
        return Err(invalid(format!(
            "ContainerSpec: \"{}\" is not a valid repository/tag",
            container.image
        )));
    }
    mounts(&container.mounts)?;
    if let Some(health) = &container.healthcheck {
        healthcheck(health)?;
    }
    secrets(container)?;
    configs(container)
}

fn mounts(mounts: &[Mount]) -> Result<(), ControlError> {
    let mut targets = BTreeSet::new();
    for mount in mounts {
        if !mount.target.starts_with('/') && !mount.target.contains("{{") {
            return Err(invalid(format!(
                "invalid mount target, must be an absolute path: {}",
                mount.target
            )));
        }
        if !targets.insert(mount.target.as_str()) {
            return Err(invalid(format!("ContainerSpec: duplicate mount point: {}", mount.target)));
        }
        match mount.r#type() {
            mount::Type::Bind if !mount.source.starts_with('/') && !mount.source.contains("{{") => {
                return Err(invalid(format!(
                    "invalid bind mount source, must be an absolute path: {}",
                    mount.source
                )));
            }
            mount::Type::Volume if mount.source.starts_with('/') => {
                return Err(invalid(format!(
                    "invalid volume mount source, must not be an absolute path: {}",
                    mount.source
                )));
            }
            mount::Type::Tmpfs if !mount.source.is_empty() => {
                return Err(invalid("invalid tmpfs source, source must be empty"));
            }
            mount::Type::Npipe | mount::Type::Cluster => {
                return Err(ControlError::NotImplemented(
                    "mounts of this type are not supported".to_owned(),
                ));
            }
            mount::Type::Bind | mount::Type::Volume | mount::Type::Tmpfs => {}
        }
    }
    Ok(())
}

fn healthcheck(health: &HealthConfig) -> Result<(), ControlError> {
    let times = [
        ("Interval", &health.interval),
        ("Timeout", &health.timeout),
        ("StartPeriod", &health.start_period),
        ("StartInterval", &health.start_interval),
    ];
    for (field, value) in times {
        let Some(value) = value else { continue };
        let duration = non_negative(value).ok_or_else(|| {
            invalid(format!("ContainerSpec: {field} in HealthConfig cannot be negative"))
        })?;
        if !duration.is_zero() && duration < MIN_HEALTH_TIME {
            return Err(invalid(format!(
                "ContainerSpec: {field} in HealthConfig cannot be less than 1ms"
            )));
        }
    }
    if health.retries < 0 {
        return Err(invalid("ContainerSpec: Retries in HealthConfig cannot be negative"));
    }
    Ok(())
}

fn secrets(container: &ContainerSpec) -> Result<(), ControlError> {
    let mut targets: BTreeMap<&str, &str> = BTreeMap::new();
    for secret in &container.secrets {
        if secret.secret_id.is_empty() || secret.secret_name.is_empty() {
            return Err(invalid("malformed secret reference"));
        }
        let Some(secret_reference::Target::File(target)) = &secret.target else {
            return Err(invalid("malformed secret reference, no target provided"));
        };
        if target.name.is_empty() {
            return Err(invalid(
                "malformed file secret reference, invalid target file name provided",
            ));
        }
        if let Some(other) = targets.insert(&target.name, &secret.secret_name) {
            return Err(invalid(format!(
                "secret references '{other}' and '{}' have a conflicting target: '{}'",
                secret.secret_name, target.name
            )));
        }
        owner(&target.uid, &target.gid)?;
    }
    Ok(())
}

fn configs(container: &ContainerSpec) -> Result<(), ControlError> {
    let mut targets: BTreeMap<&str, &str> = BTreeMap::new();
    for config in &container.configs {
        if config.config_id.is_empty() || config.config_name.is_empty() {
            return Err(invalid("malformed config reference"));
        }
        let target = match &config.target {
            Some(config_reference::Target::File(target)) => target,
            Some(config_reference::Target::Runtime(_)) => continue,
            None => return Err(invalid("malformed config reference, no target provided")),
        };
        if target.name.is_empty() {
            return Err(invalid(
                "malformed file config reference, invalid target file name provided",
            ));
        }
        if let Some(other) = targets.insert(&target.name, &config.config_name) {
            return Err(invalid(format!(
                "config references '{other}' and '{}' have a conflicting target: '{}'",
                config.config_name, target.name
            )));
        }
        owner(&target.uid, &target.gid)?;
    }
    Ok(())
}

fn owner(uid: &str, gid: &str) -> Result<(), ControlError> {
    for id in [uid, gid] {
        if id.parse::<u32>().is_err() {
            return Err(invalid(format!(
                "invalid file target: user and group must be numeric, not \"{id}\""
            )));
        }
    }
    Ok(())
}

fn requirements(requirements: &ResourceRequirements) -> Result<(), ControlError> {
    let parts = [&requirements.limits, &requirements.reservations];
    for Resources { nano_cpus, memory_bytes, .. } in parts.into_iter().flatten() {
        if *nano_cpus != 0 && *nano_cpus < MIN_NANO_CPUS {
            #[allow(clippy::cast_precision_loss)]
            let (asked, least) = (*nano_cpus as f64 / 1e9, MIN_NANO_CPUS as f64 / 1e9);
            return Err(invalid(format!("invalid cpu value {asked}: Must be at least {least}")));
        }
        if *memory_bytes != 0 && *memory_bytes < MIN_MEMORY {
            return Err(invalid(format!(
                "invalid memory value {memory_bytes}: Must be at least 4MiB"
            )));
        }
    }
    Ok(())
}

fn restart_policy(policy: &RestartPolicy) -> Result<(), ControlError> {
    for (value, what) in [(&policy.delay, "delay"), (&policy.window, "window")] {
        if value.as_ref().is_some_and(|value| non_negative(value).is_none()) {
            return Err(invalid(format!("TaskSpec: restart-{what} cannot be negative")));
        }
    }
    Ok(())
}

fn placement_rules(placement: &Placement) -> Result<(), ControlError> {
    for constraint in &placement.constraints {
        Constraint::parse(constraint).map_err(invalid)?;
    }
    let known = placement.preferences.iter().all(|preference| {
        matches!(preference.preference, Some(placement_preference::Preference::Spread(_)))
    });
    if known { Ok(()) } else { Err(invalid("unknown placement preference")) }
}

fn update_config(config: &UpdateConfig, which: &str) -> Result<(), ControlError> {
    for (value, what) in [(&config.delay, "delay"), (&config.monitor, "monitor")] {
        if value.as_ref().is_some_and(|value| non_negative(value).is_none()) {
            return Err(invalid(format!("TaskSpec: {which}-{what} cannot be negative")));
        }
    }
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        return Err(invalid(format!(
            "TaskSpec: {which}-maxfailureratio cannot be less than 0 or bigger than 1"
        )));
    }
    Ok(())
}

fn endpoint_spec(endpoint: &EndpointSpec) -> Result<(), ControlError> {
    let mut published = BTreeSet::new();
    for port in &endpoint.ports {
        if port.target_port == 0 || port.target_port > MAX_PORT || port.published_port > MAX_PORT {
            return Err(invalid("EndpointSpec: invalid port: must be between 1 and 65535"));
        }
        let ingress = port.publish_mode == PublishMode::Ingress as i32;
        if ingress && endpoint.mode() == ResolutionMode::Dnsrr {
            return Err(invalid(
                "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
            ));
        }
        if port.published_port != 0
            && !published.insert((port.protocol, port.published_port, port.publish_mode))
        {
            return Err(invalid("EndpointSpec: duplicate published ports provided"));
        }
    }
    Ok(())
}

fn non_negative(value: &prost_types::Duration) -> Option<Duration> {
    Duration::try_from(*value).ok()
}

pub(crate) fn invalid(text: impl Into<String>) -> ControlError {
    ControlError::InvalidArgument(text.into())
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::{
        Annotations, FileTarget, PortConfig, ReplicatedJob, ReplicatedService, SecretReference,
    };

    use super::*;

    fn good() -> ServiceSpec {
        ServiceSpec {
            annotations: Some(Annotations { name: "web".to_owned(), ..Annotations::default() }),
            task: Some(TaskSpec {
                runtime: Some(task_spec::Runtime::Container(ContainerSpec {
                    image: "busybox".to_owned(),
                    ..ContainerSpec::default()
                })),
                ..TaskSpec::default()
            }),
            mode: Some(service_spec::Mode::Replicated(ReplicatedService { replicas: 1 })),
            ..ServiceSpec::default()
        }
    }

    fn container(spec: &mut ServiceSpec) -> &mut ContainerSpec {
        crate::task::container_mut(spec.task.as_mut().unwrap()).unwrap()
    }

    fn secret(id: &str, file: &str) -> SecretReference {
        SecretReference {
            secret_id: id.to_owned(),
            secret_name: id.to_owned(),
            target: Some(secret_reference::Target::File(FileTarget {
                name: file.to_owned(),
                uid: "0".to_owned(),
                gid: "0".to_owned(),
                mode: 0o444,
            })),
        }
    }

    #[test]
    fn texts_are_swarmkits() {
        spec(&good()).unwrap();
        type Case = (fn(&mut ServiceSpec), &'static str);
        let cases: [Case; 9] = [
            (|s| s.annotations = None, "name must be provided"),
            (
                |s| s.annotations.as_mut().unwrap().name = "a b".to_owned(),
                "name must be valid as a DNS name component",
            ),
            (|s| container(s).image.clear(), "ContainerSpec: image reference must be provided"),
            (
                |s| container(s).image = "A B".to_owned(),
                "ContainerSpec: \"A B\" is not a valid repository/tag",
            ),
            (
                |s| container(s).secrets = vec![secret("a", "f"), secret("b", "f")],
                "secret references 'a' and 'b' have a conflicting target: 'f'",
            ),
            (
                |s| {
                    s.task.as_mut().unwrap().placement = Some(Placement {
                        constraints: vec!["node.id=x".to_owned()],
                        ..Placement::default()
                    });
                },
                "constraint expected one operator from ==, !=",
            ),
            (
                |s| {
                    s.task.as_mut().unwrap().resources = Some(ResourceRequirements {
                        limits: Some(Resources { memory_bytes: 1, ..Resources::default() }),
                        ..ResourceRequirements::default()
                    });
                },
                "invalid memory value 1: Must be at least 4MiB",
            ),
            (
                |s| {
                    let port =
                        PortConfig { target_port: 80, published_port: 80, ..PortConfig::default() };
                    s.endpoint = Some(EndpointSpec {
                        ports: vec![port.clone(), port],
                        ..EndpointSpec::default()
                    });
                },
                "EndpointSpec: duplicate published ports provided",
            ),
            (
                |s| {
                    s.update =
                        Some(UpdateConfig { max_failure_ratio: 2.0, ..UpdateConfig::default() });
                },
                "TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1",
            ),
        ];
        for (breakage, text) in cases {
            let mut broken = good();
            breakage(&mut broken);
            let error = spec(&broken).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("rpc error: code = InvalidArgument desc = {text}")
            );
        }
    }

    #[test]
    fn jobs_are_refused_clearly() {
        let mut job = good();
        job.mode = Some(service_spec::Mode::ReplicatedJob(ReplicatedJob::default()));
        assert!(matches!(spec(&job), Err(ControlError::NotImplemented(_))));
    }
}
