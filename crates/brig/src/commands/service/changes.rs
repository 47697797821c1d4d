//! Puts the flags that `create` and `update` share into a service's specification.

use brig_api::mount::Driver;
use brig_api::swarm::{
    ContainerSpec, ResourceRequirements, RestartPolicy, ServiceSpec, UpdateConfig,
};

use super::flags::ServiceFlags;
use crate::commands::container::HealthFlags;
use crate::error::{Result, message};
use crate::parse::{key_value_map, shell_words};

/// The container's part of a specification, made if it is not there.
pub(super) fn container(spec: &mut ServiceSpec) -> &mut ContainerSpec {
    spec.task_template.container_spec.get_or_insert_default()
}

/// Applies the flags.
pub(super) fn apply(flags: &ServiceFlags, spec: &mut ServiceSpec) -> Result<()> {
    apply_container(flags, container(spec))?;
    apply_resources(flags, spec);
    apply_restart(flags, spec);
    apply_rollouts(flags, spec);
    apply_mode(flags, spec)?;
    if let Some(mode) = &flags.endpoint_mode {
        spec.endpoint_spec.get_or_insert_default().mode.clone_from(mode);
    }
    if let Some(max) = flags.replicas_max_per_node {
        spec.task_template.placement.get_or_insert_default().max_replicas = max;
    }
    if flags.log_driver.is_some() || !flags.log_opt.is_empty() {
        spec.task_template.log_driver = Some(Driver {
            name: flags.log_driver.clone().unwrap_or_default(),
            options: key_value_map(&flags.log_opt),
        });
    }
    Ok(())
}

fn apply_container(flags: &ServiceFlags, container: &mut ContainerSpec) -> Result<()> {
    for (flag, field) in [
        (&flags.hostname, &mut container.hostname),
        (&flags.isolation, &mut container.isolation),
        (&flags.stop_signal, &mut container.stop_signal),
        (&flags.user, &mut container.user),
        (&flags.workdir, &mut container.dir),
    ] {
        if let Some(value) = flag {
            field.clone_from(value);
        }
    }
    if let Some(entrypoint) = &flags.entrypoint {
        container.command = shell_words(entrypoint)?;
    }
    if flags.switches.init.is_some() {
        container.init = flags.switches.init;
    }
    if let Some(read_only) = flags.switches.read_only {
        container.read_only = read_only;
    }
    if let Some(tty) = flags.switches.tty {
        container.tty = tty;
    }
    if flags.stop_grace_period.is_some() {
        container.stop_grace_period = flags.stop_grace_period;
    }
    if let Some(score) = flags.oom_score_adj {
        container.oom_score_adj = score;
    }
    let health = HealthFlags {
        command: flags.health_cmd.as_deref(),
        interval: flags.health_interval,
        retries: flags.health_retries,
        start_interval: flags.health_start_interval,
        start_period: flags.health_start_period,
        timeout: flags.health_timeout,
        disabled: flags.no_healthcheck,
    };
    if let Some(new) = health.config()? {
        let merged = match container.healthcheck.take() {
            // A test that was switched off says nothing about the new one.
            Some(old)
                if !flags.no_healthcheck
                    && old.test.first().map(String::as_str) != Some("NONE") =>
            {
                let keep = |new: i64, old: i64, given: bool| if given { new } else { old };
                brig_api::container::HealthConfig {
                    test: if flags.health_cmd.is_some() { new.test } else { old.test },
                    interval: keep(new.interval, old.interval, flags.health_interval.is_some()),
                    timeout: keep(new.timeout, old.timeout, flags.health_timeout.is_some()),
                    start_period: keep(
                        new.start_period,
                        old.start_period,
                        flags.health_start_period.is_some(),
                    ),
                    start_interval: keep(
                        new.start_interval,
                        old.start_interval,
                        flags.health_start_interval.is_some(),
                    ),
                    retries: keep(new.retries, old.retries, flags.health_retries.is_some()),
                }
            }
            _ => new,
        };
        container.healthcheck = Some(merged);
    }
    Ok(())
}

fn apply_resources(flags: &ServiceFlags, spec: &mut ServiceSpec) {
    let limits = (flags.limit_cpu, flags.limit_memory, flags.limit_pids);
    let reservations = (flags.reserve_cpu, flags.reserve_memory);
    if limits == (None, None, None) && reservations == (None, None) {
        return;
    }
    let resources: &mut ResourceRequirements = spec.task_template.resources.get_or_insert_default();
    if limits != (None, None, None) {
        let limit = resources.limits.get_or_insert_default();
        limit.nano_cpus = flags.limit_cpu.unwrap_or(limit.nano_cpus);
        limit.memory_bytes = flags.limit_memory.unwrap_or(limit.memory_bytes);
        limit.pids = flags.limit_pids.unwrap_or(limit.pids);
    }
    if reservations != (None, None) {
        let reserved = resources.reservations.get_or_insert_default();
        reserved.nano_cpus = flags.reserve_cpu.unwrap_or(reserved.nano_cpus);
        reserved.memory_bytes = flags.reserve_memory.unwrap_or(reserved.memory_bytes);
    }
}

fn apply_restart(flags: &ServiceFlags, spec: &mut ServiceSpec) {
    let given = flags.restart_condition.is_some()
        || flags.restart_delay.is_some()
        || flags.restart_max_attempts.is_some()
        || flags.restart_window.is_some();
    if !given {
        return;
    }
    // What is left out keeps its value, or docker's default for a new policy.
    let policy = spec.task_template.restart_policy.get_or_insert_with(|| RestartPolicy {
        condition: "any".to_owned(),
        delay: Some(5_000_000_000),
        ..RestartPolicy::default()
    });
    if let Some(condition) = &flags.restart_condition {
        policy.condition.clone_from(condition);
    }
    policy.delay = flags.restart_delay.or(policy.delay);
    policy.max_attempts = flags.restart_max_attempts.or(policy.max_attempts);
    policy.window = flags.restart_window.or(policy.window);
}

/// The flags of one of the two rollouts.
struct Rollout<'a> {
    delay: Option<i64>,
    action: Option<&'a String>,
    ratio: Option<f32>,
    monitor: Option<i64>,
    order: Option<&'a String>,
    parallelism: Option<u64>,
}

impl Rollout<'_> {
    fn apply(&self, config: &mut Option<UpdateConfig>) {
        let given = self.delay.is_some()
            || self.action.is_some()
            || self.ratio.is_some()
            || self.monitor.is_some()
            || self.order.is_some()
            || self.parallelism.is_some();
        if !given {
            return;
        }
        let config = config.get_or_insert_with(default_rollout);
        config.delay = self.delay.unwrap_or(config.delay);
        config.monitor = self.monitor.unwrap_or(config.monitor);
        config.parallelism = self.parallelism.unwrap_or(config.parallelism);
        config.max_failure_ratio = self.ratio.unwrap_or(config.max_failure_ratio);
        if let Some(action) = self.action {
            config.failure_action.clone_from(action);
        }
        if let Some(order) = self.order {
            config.order.clone_from(order);
        }
    }
}

/// Docker's defaults: one task at a time, watched for five seconds, stopped before started.
fn default_rollout() -> UpdateConfig {
    UpdateConfig {
        parallelism: 1,
        failure_action: "pause".to_owned(),
        monitor: 5_000_000_000,
        order: "stop-first".to_owned(),
        ..UpdateConfig::default()
    }
}

fn apply_rollouts(flags: &ServiceFlags, spec: &mut ServiceSpec) {
    Rollout {
        delay: flags.update_delay,
        action: flags.update_failure_action.as_ref(),
        ratio: flags.update_max_failure_ratio,
        monitor: flags.update_monitor,
        order: flags.update_order.as_ref(),
        parallelism: flags.update_parallelism,
    }
    .apply(&mut spec.update_config);
    Rollout {
        delay: flags.rollback_delay,
        action: flags.rollback_failure_action.as_ref(),
        ratio: flags.rollback_max_failure_ratio,
        monitor: flags.rollback_monitor,
        order: flags.rollback_order.as_ref(),
        parallelism: flags.rollback_parallelism,
    }
    .apply(&mut spec.rollback_config);
}

fn apply_mode(flags: &ServiceFlags, spec: &mut ServiceSpec) -> Result<()> {
    let mode = &mut spec.mode;
    if let Some(replicas) = flags.replicas {
        match (&mut mode.replicated, &mut mode.replicated_job) {
            (Some(replicated), _) => replicated.replicas = Some(replicas),
            (None, Some(job)) => {
                job.total_completions = Some(replicas);
                // A job runs all of its tasks at once unless it is told otherwise.
                if flags.max_concurrent.is_none() && job.max_concurrent.is_none() {
                    job.max_concurrent = Some(replicas);
                }
            }
            (None, None) => {
                return Err(message(
                    "replicas can only be used with replicated or replicated-job mode",
                ));
            }
        }
    }
    if flags.replicas_max_per_node.is_some()
        && mode.replicated.is_none()
        && mode.replicated_job.is_none()
    {
        return Err(message(
            "replicas-max-per-node can only be used with replicated or replicated-job mode",
        ));
    }
    if let Some(concurrent) = flags.max_concurrent {
        match &mut mode.replicated_job {
            Some(job) => job.max_concurrent = Some(concurrent),
            None => {
                return Err(message("max-concurrent can only be used with replicated-job mode"));
            }
        }
    }
    Ok(())
}
