//! Services: the spec around the task template, and what the cluster made of it.

use brig_api::Empty;
use brig_api::swarm as api;
use brig_proto::swarm as proto;
use brig_proto::swarm::endpoint_spec::ResolutionMode;
use brig_proto::swarm::port_config::{Protocol, PublishMode};
use brig_proto::swarm::service_spec::Mode;
use brig_proto::swarm::update_config::{FailureAction, UpdateOrder};
use brig_proto::swarm::update_status::UpdateState;

use super::{
    InvalidSpec, annotations, dashed, duration, meta, moment, name_and_labels, nanos, parse_word,
    template, time, version, word,
};

/// A service's spec.
///
/// # Errors
/// Words and combinations that docker refuses, in its texts.
pub fn spec(spec: &api::ServiceSpec) -> Result<proto::ServiceSpec, InvalidSpec> {
    Ok(proto::ServiceSpec {
        annotations: Some(annotations(&spec.name, &spec.labels)),
        task: Some(template::spec(&spec.task_template)?),
        mode: Some(mode(&spec.mode)?),
        update: spec.update_config.as_ref().map(update).transpose()?,
        networks: spec.networks.iter().map(template::attachment).collect(),
        endpoint: spec.endpoint_spec.as_ref().map(endpoint_spec).transpose()?,
        rollback: spec.rollback_config.as_ref().map(update).transpose()?,
    })
}

fn mode(mode: &api::ServiceMode) -> Result<Mode, InvalidSpec> {
    let given = [
        mode.replicated.is_some(),
        mode.global.is_some(),
        mode.replicated_job.is_some(),
        mode.global_job.is_some(),
    ];
    if given.iter().filter(|given| **given).count() > 1 {
        return Err(InvalidSpec("must specify only one service mode".to_owned()));
    }
    if mode.global.is_some() {
        return Ok(Mode::Global(proto::GlobalService {}));
    }
    if mode.global_job.is_some() {
        return Ok(Mode::GlobalJob(proto::GlobalJob {}));
    }
    if let Some(job) = &mode.replicated_job {
        let max_concurrent = job.max_concurrent.unwrap_or(1);
        let total_completions = job.total_completions.unwrap_or(max_concurrent);
        return Ok(Mode::ReplicatedJob(proto::ReplicatedJob { max_concurrent, total_completions }));
    }
    let replicas = mode.replicated.as_ref().and_then(|replicated| replicated.replicas).unwrap_or(1);
    Ok(Mode::Replicated(proto::ReplicatedService { replicas }))
}

fn update(config: &api::UpdateConfig) -> Result<proto::UpdateConfig, InvalidSpec> {
    let action = match config.failure_action.as_str() {
        "" | "pause" => FailureAction::Pause,
        "continue" => FailureAction::Continue,
        "rollback" => FailureAction::Rollback,
        other => {
            return Err(InvalidSpec(format!("unrecognized update failure action {other}")));
        }
    };
    let order = match config.order.as_str() {
        "" | "stop-first" => UpdateOrder::StopFirst,
        "start-first" => UpdateOrder::StartFirst,
        other => return Err(InvalidSpec(format!("unrecognized update order {other}"))),
    };
    Ok(proto::UpdateConfig {
        parallelism: config.parallelism,
        delay: Some(duration(config.delay)),
        failure_action: action.into(),
        monitor: (config.monitor != 0).then(|| duration(config.monitor)),
        max_failure_ratio: config.max_failure_ratio,
        order: order.into(),
    })
}

fn endpoint_spec(spec: &api::EndpointSpec) -> Result<proto::EndpointSpec, InvalidSpec> {
    let mode = parse_word(&spec.mode, "Mode", ResolutionMode::from_str_name)?;
    Ok(proto::EndpointSpec {
        mode: mode.unwrap_or(ResolutionMode::Vip).into(),
        ports: spec.ports.iter().map(port).collect::<Result<_, _>>()?,
    })
}

fn port(port: &api::PortConfig) -> Result<proto::PortConfig, InvalidSpec> {
    let protocol = parse_word(&port.protocol, "Protocol", Protocol::from_str_name)?;
    let publish = parse_word(&port.publish_mode, "PublishMode", PublishMode::from_str_name)?;
    Ok(proto::PortConfig {
        name: port.name.clone(),
        protocol: protocol.unwrap_or(Protocol::Tcp).into(),
        target_port: port.target_port,
        published_port: port.published_port,
        publish_mode: publish.unwrap_or(PublishMode::Ingress).into(),
    })
}

/// A service's spec as it is shown.
#[must_use]
pub fn spec_json(spec: &proto::ServiceSpec) -> api::ServiceSpec {
    let (name, labels) = name_and_labels(spec.annotations.as_ref());
    let mut task_template = spec.task.as_ref().map(template::json).unwrap_or_default();
    task_template.runtime = template::runtime_word(spec.task.as_ref()).to_owned();
    api::ServiceSpec {
        name,
        labels,
        task_template,
        mode: spec.mode.as_ref().map(mode_json).unwrap_or_default(),
        update_config: spec.update.as_ref().map(update_json),
        rollback_config: spec.rollback.as_ref().map(update_json),
        networks: spec.networks.iter().map(template::attachment_json).collect(),
        endpoint_spec: spec.endpoint.as_ref().map(endpoint_spec_json),
    }
}

fn mode_json(mode: &Mode) -> api::ServiceMode {
    let mut json = api::ServiceMode::default();
    match mode {
        Mode::Replicated(replicated) => {
            json.replicated = Some(api::ReplicatedService { replicas: Some(replicated.replicas) });
        }
        Mode::Global(_) => json.global = Some(Empty {}),
        Mode::ReplicatedJob(job) => {
            json.replicated_job = Some(api::ReplicatedJob {
                max_concurrent: Some(job.max_concurrent),
                total_completions: Some(job.total_completions),
            });
        }
        Mode::GlobalJob(_) => json.global_job = Some(Empty {}),
    }
    json
}

fn update_json(config: &proto::UpdateConfig) -> api::UpdateConfig {
    api::UpdateConfig {
        parallelism: config.parallelism,
        delay: config.delay.as_ref().map_or(0, nanos),
        failure_action: word(config.failure_action, FailureAction::as_str_name),
        monitor: config.monitor.as_ref().map_or(0, nanos),
        max_failure_ratio: config.max_failure_ratio,
        order: dashed(config.order, UpdateOrder::as_str_name),
    }
}

fn endpoint_spec_json(spec: &proto::EndpointSpec) -> api::EndpointSpec {
    api::EndpointSpec {
        mode: word(spec.mode, ResolutionMode::as_str_name),
        ports: spec.ports.iter().map(port_json).collect(),
    }
}

/// A port as it is shown.
#[must_use]
pub fn port_json(port: &proto::PortConfig) -> api::PortConfig {
    api::PortConfig {
        name: port.name.clone(),
        protocol: word(port.protocol, Protocol::as_str_name),
        target_port: port.target_port,
        published_port: port.published_port,
        publish_mode: word(port.publish_mode, PublishMode::as_str_name),
    }
}

/// A service.
#[must_use]
pub fn json(service: &proto::Service) -> api::Service {
    let meta = meta(service.meta.as_ref());
    api::Service {
        id: service.id.clone(),
        version: meta.version,
        created_at: meta.created_at,
        updated_at: meta.updated_at,
        spec: service.spec.as_ref().map(spec_json).unwrap_or_default(),
        previous_spec: service.previous_spec.as_ref().map(spec_json),
        endpoint: service.endpoint.as_ref().map(endpoint_json).unwrap_or_default(),
        update_status: service.update_status.as_ref().map(update_status_json),
        service_status: None,
        job_status: service.job_status.as_ref().map(|job| api::JobStatus {
            job_iteration: version(job.job_iteration.as_ref()),
            last_execution: time(job.last_execution.as_ref()),
        }),
    }
}

fn endpoint_json(endpoint: &proto::Endpoint) -> api::Endpoint {
    api::Endpoint {
        spec: endpoint.spec.as_ref().map(endpoint_spec_json).unwrap_or_default(),
        ports: endpoint.ports.iter().map(port_json).collect(),
        virtual_ips: endpoint
            .virtual_ips
            .iter()
            .map(|vip| api::EndpointVirtualIp {
                network_id: vip.network_id.clone(),
                addr: vip.addr.clone(),
            })
            .collect(),
    }
}

fn update_status_json(status: &proto::UpdateStatus) -> api::UpdateStatus {
    let state = match UpdateState::try_from(status.state) {
        Ok(UpdateState::Unknown) | Err(_) => String::new(),
        Ok(state) => state.as_str_name().to_ascii_lowercase(),
    };
    let set = |at: Option<&prost_types::Timestamp>| {
        moment(at).filter(|at| at.unix_timestamp() != 0).map(brig_api::time::rfc3339nano)
    };
    api::UpdateStatus {
        state,
        started_at: set(status.started_at.as_ref()),
        completed_at: set(status.completed_at.as_ref()),
        message: status.message.clone(),
    }
}

/// What `insertDefaults=true` shows: the values that the cluster uses where the spec has none.
pub fn insert_defaults(spec: &mut api::ServiceSpec) {
    const SECOND: i64 = 1_000_000_000;
    const GRACE_PERIOD: i64 = 10 * SECOND;
    const RESTART_DELAY: i64 = 5 * SECOND;
    const MONITOR: i64 = 5 * SECOND;
    if let Some(container) = &mut spec.task_template.container_spec {
        container.stop_grace_period.get_or_insert(GRACE_PERIOD);
        container.dns_config.get_or_insert_default();
    }
    spec.task_template.resources.get_or_insert_with(|| api::ResourceRequirements {
        limits: Some(api::Limit::default()),
        reservations: Some(api::Resources::default()),
    });
    let restart = spec.task_template.restart_policy.get_or_insert_default();
    if restart.condition.is_empty() {
        "any".clone_into(&mut restart.condition);
    }
    restart.delay.get_or_insert(RESTART_DELAY);
    restart.max_attempts.get_or_insert(0);
    spec.task_template.placement.get_or_insert_default();
    let update = || api::UpdateConfig {
        parallelism: 1,
        delay: 0,
        failure_action: "pause".to_owned(),
        monitor: MONITOR,
        max_failure_ratio: 0.0,
        order: "stop-first".to_owned(),
    };
    if spec.mode.replicated_job.is_none() && spec.mode.global_job.is_none() {
        for config in [&mut spec.update_config, &mut spec.rollback_config] {
            let config = config.get_or_insert_with(update);
            if config.monitor == 0 {
                config.monitor = MONITOR;
            }
        }
    }
    let endpoint = spec.endpoint_spec.get_or_insert_default();
    if endpoint.mode.is_empty() {
        "vip".clone_into(&mut endpoint.mode);
    }
}
