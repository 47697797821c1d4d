//! Changing a container's resources and restart policy, while it runs too.

use std::sync::Arc;

use brig_api::container::{HostConfig, UpdateRequest, UpdateResponse};

use super::record::Record;
use super::restart_policy::Policy;
use super::state::Status;
use super::{Container, spec, validate};
use crate::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// Changes what is set in `request`; zeroes and empty texts change nothing.
    ///
    /// # Errors
    /// Unknown container, values that cannot be, in docker's words; runtime; disk.
    pub async fn update(
        &self,
        key: &str,
        request: UpdateRequest,
    ) -> Result<UpdateResponse, EngineError> {
        let container = self.registry().find(key)?;
        let engine = self.clone();
        self.detached(async move {
            let _op = container.op.lock().await;
            engine.update_locked(&container, &request.0).await
        })
        .await
    }

    async fn update_locked(
        &self,
        container: &Arc<Container>,
        change: &HostConfig,
    ) -> Result<UpdateResponse, EngineError> {
        let cannot = |error: EngineError| EngineError::Update {
            id: container.id.clone(),
            source: Box::new(error),
        };
        let record = container.record();
        let mut host = record.host_config.clone();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let warnings = check(change, cpus)?;
        if matches!(record.state.status, Status::Removing | Status::Dead) {
            return Err(cannot(EngineError::Conflict(
                "container is marked for removal and cannot be \"update\"".to_owned(),
            )));
        }
        apply(&mut host, change).map_err(cannot)?;
        let updated = Record { host_config: host, ..record };
        if updated.state.status.has_process() && has_resources(change) {
            let only = HostConfig { ..effective(change, &updated.host_config) };
            let resources = spec::resources(&only)?;
            let document = brig_runtime::spec::resources_document(&resources)
                .map_err(|error| cannot(EngineError::Invalid(error.to_string())))?;
            let bundle = container.paths.bundle.clone();
            self.runtime()
                .update(&container.id, &bundle, document)
                .await
                .map_err(|error| cannot(error.into()))?;
        }
        let dir = container.paths.dir.clone();
        let saved = updated.clone();
        self.blocking(move || {
            saved
                .save(&dir, saved.durability())
                .map_err(|source| EngineError::disk("write", &dir, source))
        })
        .await?;
        container.cell().record.host_config = updated.host_config;
        // An exit meanwhile wrote its own state; say it once more with the new settings.
        container.save();
        self.container_event(container, "update", &[]);
        Ok(UpdateResponse { warnings })
    }
}

/// What may be wrong with the request by itself.
fn check(change: &HostConfig, cpus: usize) -> Result<Vec<String>, EngineError> {
    let mut warnings = Vec::new();
    if !change.restart_policy.name.is_empty() {
        Policy::parse(&change.restart_policy)?;
    }
    // Swap alone is compared with the memory that is set already.
    let alone = change.memory == 0 && change.memory_swap > 0;
    let checked =
        HostConfig { memory_swap: if alone { 0 } else { change.memory_swap }, ..change.clone() };
    validate::resources(&checked, cpus, &mut warnings)?;
    Ok(warnings)
}

fn conflict<T>(text: &str) -> Result<T, EngineError> {
    Err(EngineError::Invalid(text.to_owned()))
}

/// Puts what is set in `change` into `host`.
fn apply(host: &mut HostConfig, change: &HostConfig) -> Result<(), EngineError> {
    if change.nano_cpus > 0 && host.cpu_period > 0 {
        return conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set",
        );
    }
    if change.nano_cpus > 0 && host.cpu_quota > 0 {
        return conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
        );
    }
    if change.cpu_period > 0 && host.nano_cpus > 0 {
        return conflict(
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        );
    }
    if change.cpu_quota > 0 && host.nano_cpus > 0 {
        return conflict(
            "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set",
        );
    }
    if change.memory != 0
        && change.memory_swap == 0
        && host.memory_swap != -1
        && change.memory > host.memory_swap
    {
        return conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        );
    }
    if change.memory == 0 && change.memory_swap > 0 {
        if host.memory == 0 {
            return conflict(
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            );
        }
        if change.memory_swap < host.memory {
            return conflict(
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            );
        }
    }
    if !change.restart_policy.name.is_empty() {
        if host.auto_remove && Policy::parse(&change.restart_policy)? != Policy::No {
            return conflict(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            );
        }
        host.restart_policy.clone_from(&change.restart_policy);
    }
    let numbers = [
        (&mut host.cpu_shares, change.cpu_shares),
        (&mut host.nano_cpus, change.nano_cpus),
        (&mut host.cpu_period, change.cpu_period),
        (&mut host.cpu_quota, change.cpu_quota),
        (&mut host.cpu_realtime_period, change.cpu_realtime_period),
        (&mut host.cpu_realtime_runtime, change.cpu_realtime_runtime),
        (&mut host.memory, change.memory),
        (&mut host.memory_swap, change.memory_swap),
        (&mut host.memory_reservation, change.memory_reservation),
    ];
    for (place, value) in numbers {
        if value != 0 {
            *place = value;
        }
    }
    if change.blkio_weight != 0 {
        host.blkio_weight = change.blkio_weight;
    }
    for (place, value) in
        [(&mut host.cpuset_cpus, &change.cpuset_cpus), (&mut host.cpuset_mems, &change.cpuset_mems)]
    {
        if !value.is_empty() {
            place.clone_from(value);
        }
    }
    let lists = [
        (&mut host.blkio_device_read_bps, &change.blkio_device_read_bps),
        (&mut host.blkio_device_write_bps, &change.blkio_device_write_bps),
        (&mut host.blkio_device_read_iops, &change.blkio_device_read_iops),
        (&mut host.blkio_device_write_iops, &change.blkio_device_write_iops),
    ];
    for (place, value) in lists {
        if !value.is_empty() {
            place.clone_from(value);
        }
    }
    if !change.blkio_weight_device.is_empty() {
        host.blkio_weight_device.clone_from(&change.blkio_weight_device);
    }
    if change.pids_limit.is_some() {
        host.pids_limit = change.pids_limit.filter(|limit| *limit > 0);
    }
    Ok(())
}

/// What the runtime is told: what changes, and what it is weighed against.
fn effective(change: &HostConfig, host: &HostConfig) -> HostConfig {
    let mut only = HostConfig {
        cpu_shares: change.cpu_shares,
        nano_cpus: change.nano_cpus,
        cpu_period: change.cpu_period,
        cpu_quota: change.cpu_quota,
        cpu_realtime_period: change.cpu_realtime_period,
        cpu_realtime_runtime: change.cpu_realtime_runtime,
        cpuset_cpus: change.cpuset_cpus.clone(),
        cpuset_mems: change.cpuset_mems.clone(),
        blkio_weight: change.blkio_weight,
        blkio_weight_device: change.blkio_weight_device.clone(),
        blkio_device_read_bps: change.blkio_device_read_bps.clone(),
        blkio_device_write_bps: change.blkio_device_write_bps.clone(),
        blkio_device_read_iops: change.blkio_device_read_iops.clone(),
        blkio_device_write_iops: change.blkio_device_write_iops.clone(),
        memory_reservation: change.memory_reservation,
        pids_limit: change.pids_limit.map(|limit| if limit > 0 { limit } else { -1 }),
        ..HostConfig::default()
    };
    // The kernel has both limits in one; a runtime writes them in the right order only together.
    if change.memory != 0 || change.memory_swap != 0 {
        only.memory = host.memory;
        only.memory_swap = host.memory_swap;
    }
    only
}

fn has_resources(change: &HostConfig) -> bool {
    effective(change, change) != HostConfig::default()
}

#[cfg(test)]
mod tests {
    use brig_api::container::RestartPolicy;

    use super::*;

    fn refused(host: HostConfig, change: HostConfig) -> String {
        let mut host = host;
        apply(&mut host, &change).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_set_stays() {
        let mut host = HostConfig {
            memory: 64 << 20,
            memory_swap: 128 << 20,
            pids_limit: Some(5),
            cpuset_cpus: "0".into(),
            ..HostConfig::default()
        };
        let before = host.clone();
        apply(&mut host, &HostConfig::default()).unwrap();
        assert_eq!(host, before);
        let change = HostConfig {
            memory: 100 << 20,
            pids_limit: Some(-1),
            restart_policy: RestartPolicy { name: "always".into(), maximum_retry_count: 0 },
            ..HostConfig::default()
        };
        apply(&mut host, &change).unwrap();
        assert_eq!((host.memory, host.memory_swap, host.pids_limit), (100 << 20, 128 << 20, None));
        assert_eq!(host.restart_policy.name, "always");
        let told = effective(&change, &host);
        assert_eq!((told.memory_swap, told.pids_limit), (128 << 20, Some(-1)));
        assert!(!has_resources(&HostConfig {
            restart_policy: change.restart_policy.clone(),
            ..HostConfig::default()
        }));
    }

    #[test]
    fn dockers_texts() {
        let limited =
            HostConfig { memory: 64 << 20, memory_swap: 128 << 20, ..HostConfig::default() };
        let more = HostConfig { memory: 200 << 20, ..HostConfig::default() };
        assert_eq!(
            refused(limited.clone(), more),
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        );
        let quota = HostConfig { cpu_quota: 1000, ..HostConfig::default() };
        let nano = HostConfig { nano_cpus: 1, ..HostConfig::default() };
        assert!(
            refused(quota.clone(), nano.clone())
                .starts_with("Conflicting options: Nano CPUs cannot")
        );
        assert!(refused(nano, quota).starts_with("Conflicting options: CPU Quota cannot"));
        let policy = RestartPolicy { name: "always".into(), maximum_retry_count: 0 };
        assert!(
            refused(
                HostConfig { auto_remove: true, ..HostConfig::default() },
                HostConfig { restart_policy: policy, ..HostConfig::default() }
            )
            .contains("AutoRemove is enabled")
        );
        assert!(check(&HostConfig { memory: 1, ..HostConfig::default() }, 2).is_err());
        assert!(check(&HostConfig { memory_swap: 1 << 30, ..HostConfig::default() }, 2).is_ok());
    }
}
