//! The task template of a service.

use brig_api::swarm as api;
use brig_proto::swarm as proto;
use brig_proto::swarm::generic_resource::Resource;
use brig_proto::swarm::placement_preference::Preference;
use brig_proto::swarm::restart_policy::RestartCondition;
use brig_proto::swarm::task_spec::Runtime;

use super::{InvalidSpec, container, dashed, driver, driver_json, duration, nanos};

/// A task's spec.
///
/// # Errors
/// Words and combinations that docker refuses, in its texts.
pub fn spec(spec: &api::TaskSpec) -> Result<proto::TaskSpec, InvalidSpec> {
    let resources = spec.resources.as_ref();
    Ok(proto::TaskSpec {
        runtime: Some(runtime(spec)?),
        resources: resources.map(resources_message),
        restart: spec.restart_policy.as_ref().map(restart).transpose()?,
        placement: spec.placement.as_ref().map(placement),
        log_driver: spec.log_driver.as_ref().map(driver),
        networks: spec.networks.iter().map(attachment).collect(),
        force_update: spec.force_update,
        resource_references: Vec::new(),
    })
}

fn runtime(spec: &api::TaskSpec) -> Result<Runtime, InvalidSpec> {
    match spec.runtime.as_str() {
        "" | "container" => {
            let given = spec
                .container_spec
                .as_ref()
                .ok_or_else(|| InvalidSpec("mismatched Runtime and *Spec fields".to_owned()))?;
            let mut message = container::spec(given)?;
            let limits = spec.resources.as_ref().and_then(|resources| resources.limits.as_ref());
            message.pids_limit = limits.map_or(0, |limits| limits.pids);
            Ok(Runtime::Container(message))
        }
        // Plugins and attachments are accepted by docker in one form or another, never here.
        "plugin" | "attachment" => Err(InvalidSpec(format!(
            "services of runtime {:?} are not supported: only containers",
            spec.runtime
        ))),
        _ => Err(InvalidSpec("unsupported runtime".to_owned())),
    }
}

/// The word for what a task runs.
#[must_use]
pub fn runtime_word(spec: Option<&proto::TaskSpec>) -> &'static str {
    match spec.and_then(|spec| spec.runtime.as_ref()) {
        Some(Runtime::Container(_)) => "container",
        Some(Runtime::Attachment(_)) => "attachment",
        Some(Runtime::Generic(_)) => "plugin",
        None => "",
    }
}

/// A task's spec as it is shown.
#[must_use]
pub fn json(spec: &proto::TaskSpec) -> api::TaskSpec {
    let mut json = api::TaskSpec {
        resources: spec.resources.as_ref().map(requirements_json),
        restart_policy: spec.restart.as_ref().map(restart_json),
        placement: spec.placement.as_ref().map(placement_json),
        networks: spec.networks.iter().map(attachment_json).collect(),
        log_driver: spec.log_driver.as_ref().map(driver_json),
        force_update: spec.force_update,
        ..api::TaskSpec::default()
    };
    match &spec.runtime {
        Some(Runtime::Container(message)) => {
            json.container_spec = Some(container::json(message));
            if message.pids_limit != 0 {
                let resources = json.resources.get_or_insert_default();
                resources.limits.get_or_insert_default().pids = message.pids_limit;
            }
        }
        Some(Runtime::Attachment(attachment)) => {
            json.network_attachment_spec =
                Some(api::NetworkAttachmentSpec { container_id: attachment.container_id.clone() });
        }
        Some(Runtime::Generic(_)) | None => {}
    }
    json
}

/// A network that tasks join.
#[must_use]
pub fn attachment(config: &api::NetworkAttachmentConfig) -> proto::NetworkAttachmentConfig {
    proto::NetworkAttachmentConfig {
        target: config.target.clone(),
        aliases: config.aliases.clone(),
        addresses: Vec::new(),
        driver_attachment_opts: config.driver_opts.clone(),
    }
}

/// A network that tasks join, as it is shown.
#[must_use]
pub fn attachment_json(config: &proto::NetworkAttachmentConfig) -> api::NetworkAttachmentConfig {
    api::NetworkAttachmentConfig {
        target: config.target.clone(),
        aliases: config.aliases.clone(),
        driver_opts: config.driver_attachment_opts.clone(),
    }
}

fn resources_message(requirements: &api::ResourceRequirements) -> proto::ResourceRequirements {
    proto::ResourceRequirements {
        limits: requirements.limits.as_ref().map(|limits| proto::Resources {
            nano_cpus: limits.nano_cpus,
            memory_bytes: limits.memory_bytes,
            generic: Vec::new(),
        }),
        reservations: requirements.reservations.as_ref().map(|reserved| proto::Resources {
            nano_cpus: reserved.nano_cpus,
            memory_bytes: reserved.memory_bytes,
            generic: reserved.generic_resources.iter().filter_map(generic).collect(),
        }),
        swap_bytes: None,
        memory_swappiness: None,
    }
}

fn requirements_json(requirements: &proto::ResourceRequirements) -> api::ResourceRequirements {
    api::ResourceRequirements {
        limits: requirements.limits.as_ref().map(|limits| api::Limit {
            nano_cpus: limits.nano_cpus,
            memory_bytes: limits.memory_bytes,
            pids: 0,
        }),
        reservations: requirements.reservations.as_ref().map(resources_json),
    }
}

/// Resources as they are shown.
#[must_use]
pub fn resources_json(resources: &proto::Resources) -> api::Resources {
    api::Resources {
        nano_cpus: resources.nano_cpus,
        memory_bytes: resources.memory_bytes,
        generic_resources: resources.generic.iter().filter_map(generic_json).collect(),
    }
}

fn generic(resource: &api::GenericResource) -> Option<proto::GenericResource> {
    let resource = match (&resource.named_resource_spec, &resource.discrete_resource_spec) {
        (Some(named), _) => Resource::NamedResourceSpec(proto::NamedGenericResource {
            kind: named.kind.clone(),
            value: named.value.clone(),
        }),
        (None, Some(discrete)) => Resource::DiscreteResourceSpec(proto::DiscreteGenericResource {
            kind: discrete.kind.clone(),
            value: discrete.value,
        }),
        (None, None) => return None,
    };
    Some(proto::GenericResource { resource: Some(resource) })
}

/// A resource that the operator named, as it is shown.
#[must_use]
pub fn generic_json(resource: &proto::GenericResource) -> Option<api::GenericResource> {
    let mut json = api::GenericResource::default();
    match resource.resource.as_ref()? {
        Resource::NamedResourceSpec(named) => {
            json.named_resource_spec = Some(api::NamedGenericResource {
                kind: named.kind.clone(),
                value: named.value.clone(),
            });
        }
        Resource::DiscreteResourceSpec(discrete) => {
            json.discrete_resource_spec = Some(api::DiscreteGenericResource {
                kind: discrete.kind.clone(),
                value: discrete.value,
            });
        }
    }
    Some(json)
}

fn restart(policy: &api::RestartPolicy) -> Result<proto::RestartPolicy, InvalidSpec> {
    let condition = match policy.condition.as_str() {
        "" | "any" => RestartCondition::Any,
        "none" => RestartCondition::None,
        "on-failure" => RestartCondition::OnFailure,
        other => return Err(InvalidSpec::value("RestartCondition", other)),
    };
    Ok(proto::RestartPolicy {
        condition: condition.into(),
        delay: policy.delay.map(duration),
        max_attempts: policy.max_attempts.unwrap_or(0),
        window: policy.window.map(duration),
    })
}

fn restart_json(policy: &proto::RestartPolicy) -> api::RestartPolicy {
    api::RestartPolicy {
        condition: dashed(policy.condition, RestartCondition::as_str_name),
        delay: policy.delay.as_ref().map(nanos),
        max_attempts: Some(policy.max_attempts),
        window: policy.window.as_ref().map(nanos),
    }
}

fn placement(placement: &api::Placement) -> proto::Placement {
    let spread = |preference: &api::PlacementPreference| {
        let spread = preference.spread.as_ref()?;
        let spread_descriptor = spread.spread_descriptor.clone();
        Some(proto::PlacementPreference {
            preference: Some(Preference::Spread(proto::SpreadOver { spread_descriptor })),
        })
    };
    proto::Placement {
        constraints: placement.constraints.clone(),
        preferences: placement.preferences.iter().filter_map(spread).collect(),
        platforms: placement
            .platforms
            .iter()
            .map(|platform| proto::Platform {
                architecture: platform.architecture.clone(),
                os: platform.os.clone(),
            })
            .collect(),
        max_replicas: placement.max_replicas,
    }
}

fn placement_json(placement: &proto::Placement) -> api::Placement {
    let spread = |preference: &proto::PlacementPreference| {
        let Preference::Spread(spread) = preference.preference.as_ref()?;
        let spread_descriptor = spread.spread_descriptor.clone();
        Some(api::PlacementPreference { spread: Some(api::SpreadOver { spread_descriptor }) })
    };
    api::Placement {
        constraints: placement.constraints.clone(),
        preferences: placement.preferences.iter().filter_map(spread).collect(),
        max_replicas: placement.max_replicas,
        platforms: placement.platforms.iter().map(platform_json).collect(),
    }
}

/// A platform as it is shown.
#[must_use]
pub fn platform_json(platform: &proto::Platform) -> api::Platform {
    api::Platform { architecture: platform.architecture.clone(), os: platform.os.clone() }
}
