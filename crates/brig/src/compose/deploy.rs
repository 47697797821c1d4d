//! `deploy`: how many tasks, where, with what, and how they are replaced.

use std::collections::BTreeMap;

use brig_api::Empty;
use brig_api::swarm::{
    DiscreteGenericResource, GenericResource, Limit, Placement, PlacementPreference, ReplicatedJob,
    ReplicatedService, ResourceRequirements, Resources, RestartPolicy, ServiceMode, SpreadOver,
    UpdateConfig,
};

use super::section::Section;
use crate::error::{Result, message};

/// `deploy` as the API has it.
#[derive(Debug, Default)]
pub(super) struct Deploy {
    pub(super) mode: ServiceMode,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) update: Option<UpdateConfig>,
    pub(super) rollback: Option<UpdateConfig>,
    pub(super) resources: ResourceRequirements,
    pub(super) restart: Option<RestartPolicy>,
    pub(super) placement: Placement,
    pub(super) endpoint_mode: String,
}

/// Reads `deploy` and `restart`, which counts where `deploy` says nothing.
pub(super) fn deploy(service: &mut Section) -> Result<Deploy> {
    let restart = service.text("restart")?;
    let Some(mut section) = service.section("deploy")? else {
        return Ok(Deploy {
            mode: mode("", None)?,
            restart: restart.as_deref().map(from_restart).transpose()?.flatten(),
            ..Deploy::default()
        });
    };
    let mode_name = section.text_or_empty("mode")?;
    let replicas = section.number("replicas")?;
    let deploy = Deploy {
        mode: mode(&mode_name, replicas)?,
        labels: section.labels("labels")?,
        update: update(section.section("update_config")?)?,
        rollback: update(section.section("rollback_config")?)?,
        resources: resources(section.section("resources")?)?,
        restart: match section.section("restart_policy")? {
            Some(policy) => Some(restart_policy(policy)?),
            None => restart.as_deref().map(from_restart).transpose()?.flatten(),
        },
        placement: placement(section.section("placement")?)?,
        endpoint_mode: section.text_or_empty("endpoint_mode")?.to_ascii_lowercase(),
    };
    section.finish()?;
    Ok(deploy)
}

fn mode(name: &str, replicas: Option<u64>) -> Result<ServiceMode> {
    let none = ServiceMode::default();
    let global = |mode: ServiceMode| match replicas {
        Some(_) => Err(message("replicas can only be used with replicated or replicated-job mode")),
        None => Ok(mode),
    };
    match name {
        "" | "replicated" => {
            Ok(ServiceMode { replicated: Some(ReplicatedService { replicas }), ..none })
        }
        "replicated-job" => {
            let job = ReplicatedJob { max_concurrent: replicas, total_completions: replicas };
            Ok(ServiceMode { replicated_job: Some(job), ..none })
        }
        "global" => global(ServiceMode { global: Some(Empty {}), ..none }),
        "global-job" => global(ServiceMode { global_job: Some(Empty {}), ..none }),
        other => Err(message(format!("Unknown mode: {other}"))),
    }
}

fn update(section: Option<Section>) -> Result<Option<UpdateConfig>> {
    let Some(mut section) = section else { return Ok(None) };
    let config = UpdateConfig {
        parallelism: section.number("parallelism")?.unwrap_or(1),
        delay: section.duration("delay")?.unwrap_or_default(),
        failure_action: section.text_or_empty("failure_action")?,
        monitor: section.duration("monitor")?.unwrap_or_default(),
        max_failure_ratio: section.number("max_failure_ratio")?.unwrap_or_default(),
        order: section.text_or_empty("order")?,
    };
    section.finish()?;
    Ok(Some(config))
}

fn resources(section: Option<Section>) -> Result<ResourceRequirements> {
    let Some(mut section) = section else { return Ok(ResourceRequirements::default()) };
    let mut resources = ResourceRequirements::default();
    if let Some(mut limits) = section.section("limits")? {
        resources.limits = Some(Limit {
            nano_cpus: limits.cpus("cpus")?.unwrap_or_default(),
            memory_bytes: limits.bytes("memory")?.unwrap_or_default(),
            pids: limits.number("pids")?.unwrap_or_default(),
        });
        limits.finish()?;
    }
    if let Some(mut kept) = section.section("reservations")? {
        resources.reservations = Some(Resources {
            nano_cpus: kept.cpus("cpus")?.unwrap_or_default(),
            memory_bytes: kept.bytes("memory")?.unwrap_or_default(),
            generic_resources: generic(&mut kept)?,
        });
        kept.finish()?;
    }
    section.finish()?;
    Ok(resources)
}

fn generic(kept: &mut Section) -> Result<Vec<GenericResource>> {
    let mut resources = Vec::new();
    for (path, item) in kept.items("generic_resources")? {
        let mut item = Section::new(path, item)?;
        if let Some(mut spec) = item.section("discrete_resource_spec")? {
            resources.push(GenericResource {
                discrete_resource_spec: Some(DiscreteGenericResource {
                    kind: spec.text_or_empty("kind")?,
                    value: spec.number("value")?.unwrap_or_default(),
                }),
                ..GenericResource::default()
            });
            spec.finish()?;
        }
        item.finish()?;
    }
    Ok(resources)
}

fn restart_policy(mut section: Section) -> Result<RestartPolicy> {
    let policy = RestartPolicy {
        condition: section.text_or_empty("condition")?,
        delay: section.duration("delay")?,
        max_attempts: section.number("max_attempts")?,
        window: section.duration("window")?,
    };
    section.finish()?;
    Ok(policy)
}

/// `restart: on-failure:3`, as containers have it.
fn from_restart(text: &str) -> Result<Option<RestartPolicy>> {
    let policy = |condition: &str, max_attempts| {
        Some(RestartPolicy {
            condition: condition.to_owned(),
            max_attempts,
            ..RestartPolicy::default()
        })
    };
    match text.split_once(':') {
        None if matches!(text, "" | "no") => Ok(None),
        None if matches!(text, "always" | "unless-stopped") => Ok(policy("any", None)),
        None if text == "on-failure" => Ok(policy("on-failure", None)),
        Some(("on-failure", attempts)) => match attempts.parse() {
            Ok(attempts) => Ok(policy("on-failure", Some(attempts))),
            Err(_) => Err(message(
                "invalid restart policy format: maximum retry count must be an integer",
            )),
        },
        _ => Err(message(format!("unknown restart policy: {text}"))),
    }
}

fn placement(section: Option<Section>) -> Result<Placement> {
    let Some(mut section) = section else { return Ok(Placement::default()) };
    let mut placement = Placement {
        constraints: section.texts("constraints")?,
        max_replicas: section.number("max_replicas_per_node")?.unwrap_or_default(),
        ..Placement::default()
    };
    for (path, item) in section.items("preferences")? {
        let mut item = Section::new(path, item)?;
        placement.preferences.push(PlacementPreference {
            spread: item.text("spread")?.map(|spread_descriptor| SpreadOver { spread_descriptor }),
        });
        item.finish()?;
    }
    section.finish()?;
    Ok(placement)
}
