//! What a create request may ask for, with docker's texts for what it may not.

use std::path::Path;

use brig_api::container::{ContainerConfig, HostConfig, NetworkingConfig};
use brig_types::signal::Signal;

use super::cpuset;
use super::restart_policy::Policy;
use crate::error::EngineError;

const MIN_MEMORY: i64 = 6 << 20;
const MIN_HEALTH_DURATION: i64 = 1_000_000;
const MIN_CFS_PERIOD: i64 = 1_000;
const MAX_CFS_PERIOD: i64 = 1_000_000;
/// Bounds what one request can make the engine keep.
const MAX_ENV_LINES: usize = 10_000;

fn invalid<T>(text: impl Into<String>) -> Result<T, EngineError> {
    Err(EngineError::Invalid(text.into()))
}

/// Checks a request after the image was merged in, and gives the warnings.
pub(crate) fn request(
    config: &ContainerConfig,
    host: &HostConfig,
    networking: &NetworkingConfig,
    cpus: usize,
) -> Result<Vec<String>, EngineError> {
    let mut warnings = Vec::new();
    process(config)?;
    health(config)?;
    host_settings(config, host)?;
    network_mode(config, host, networking)?;
    if host.network_mode == "host" && !host.port_bindings.is_empty() {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    resources(host, cpus, &mut warnings)?;
    Ok(warnings)
}

fn capabilities(field: &str, names: &[String]) -> Result<(), EngineError> {
    for name in names {
        let upper = name.trim().to_ascii_uppercase();
        let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        if full != "CAP_ALL" && !brig_sys::caps::known().contains(&full.as_str()) {
            let shown: String = full.chars().take(80).collect();
            return invalid(format!("invalid {field}: unknown capability: {shown:?}"));
        }
    }
    Ok(())
}

fn process(config: &ContainerConfig) -> Result<(), EngineError> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        ));
    }
    if config.env.len() > MAX_ENV_LINES {
        return invalid("too many environment variables");
    }
    if let Some(line) = config.env.iter().find(|line| line.is_empty() || line.starts_with('=')) {
        return invalid(format!("invalid environment variable: {line}"));
    }
    let words = config.entrypoint.iter().chain(&config.cmd).chain(&config.env);
    if words.into_iter().any(|word| word.contains('\0')) {
        return invalid("a command or environment variable has a zero byte in it");
    }
    if !config.stop_signal.is_empty() {
        Signal::parse(&config.stop_signal).map_err(|e| EngineError::Invalid(e.to_string()))?;
    }
    let hostname_ok = |name: &str| {
        name.len() <= 253
            && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
    };
    if !hostname_ok(&config.hostname) || !hostname_ok(&config.domainname) {
        return invalid(format!("invalid hostname format: {}", config.hostname.escape_debug()));
    }
    Ok(())
}

fn health(config: &ContainerConfig) -> Result<(), EngineError> {
    let Some(health) = &config.healthcheck else { return Ok(()) };
    for (name, value) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if value != 0 && value < MIN_HEALTH_DURATION {
            return invalid(format!("{name} in Healthcheck cannot be less than 1ms"));
        }
    }
    if health.retries < 0 {
        return invalid("Retries in Healthcheck cannot be negative");
    }
    Ok(())
}

fn host_settings(config: &ContainerConfig, host: &HostConfig) -> Result<(), EngineError> {
    let policy = Policy::parse(&host.restart_policy)?;
    if host.auto_remove && policy != Policy::No {
        return invalid("can't create 'AutoRemove' container with restart policy");
    }
    if host.shm_size < 0 {
        return invalid("SHM size can not be less than 0");
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        ));
    }
    if let Some(entry) = host.extra_hosts.iter().find(|entry| !entry.contains(':')) {
        return invalid(format!("bad format for add-host: {entry:?}"));
    }
    capabilities("CapAdd", &host.cap_add)?;
    capabilities("CapDrop", &host.cap_drop)?;
    if let Some(name) = host.sysctls.keys().find(|name| name.is_empty()) {
        return invalid(format!("invalid sysctl {name:?}"));
    }
    for (mode, what) in [(&host.pid_mode, "PID"), (&host.ipc_mode, "IPC")] {
        let known = matches!(mode.as_str(), "" | "host" | "private" | "shareable" | "none")
            || mode.strip_prefix("container:").is_some_and(|id| !id.is_empty());
        if !known {
            return invalid(format!("invalid {what} mode: {mode}"));
        }
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return invalid(format!("invalid UTS mode: {}", host.uts_mode));
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return invalid("conflicting options: hostname and the UTS mode");
    }
    if !matches!(host.cgroupns_mode.as_str(), "" | "host" | "private") {
        return invalid(format!("invalid cgroup namespace mode: {}", host.cgroupns_mode));
    }
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return invalid(format!("invalid user namespace mode: {}", host.userns_mode));
    }
    if !matches!(host.log_config.kind.as_str(), "" | "json-file" | "local" | "none" | "k8s-file") {
        return invalid(format!(
            "error looking up logging plugin {kind}: plugin \"{kind}\" not found",
            kind = host.log_config.kind
        ));
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return invalid(format!(
            "invalid isolation '{}' on linux: only 'default' is supported",
            host.isolation
        ));
    }
    if let Some(option) = host.storage_opt.keys().next() {
        return invalid(match option.as_str() {
            "size" => {
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option: \
                 brig cannot limit the size of a container's layer"
                    .to_owned()
            }
            option => format!("unknown option {option}"),
        });
    }
    if host.mounts.iter().any(|mount| mount.kind == "npipe" || mount.kind == "cluster") {
        return invalid("mount type is not supported on this platform");
    }
    if !host.device_requests.is_empty() {
        return invalid("could not select device driver \"\" with capabilities: [[gpu]]");
    }
    if !host.runtime.is_empty() && !matches!(host.runtime.as_str(), "runc" | "crun") {
        return invalid(format!("unknown or invalid runtime name: {}", host.runtime));
    }
    Ok(())
}

fn network_mode(
    config: &ContainerConfig,
    host: &HostConfig,
    networking: &NetworkingConfig,
) -> Result<(), EngineError> {
    let mode = host.network_mode.as_str();
    if let Some(peer) = mode.strip_prefix("container:") {
        if peer.is_empty() {
            return invalid("Invalid network mode: invalid container format container:<name|id>");
        }
        if !config.hostname.is_empty() {
            return invalid("conflicting options: hostname and the network mode");
        }
        if !host.links.is_empty() {
            return invalid(
                "conflicting options: container type network can't be used with links. This would result in undefined behavior",
            );
        }
        if !host.dns.is_empty() {
            return invalid("conflicting options: dns and the network mode");
        }
        if !host.extra_hosts.is_empty() {
            return invalid("conflicting options: custom host-to-IP mapping and the network mode");
        }
        if !host.port_bindings.is_empty() || host.publish_all_ports {
            return invalid(
                "conflicting options: port publishing and the container type network mode",
            );
        }
        if !config.exposed_ports.is_empty() {
            return invalid(
                "conflicting options: port exposing and the container type network mode",
            );
        }
    }
    if mode == "host" && !host.links.is_empty() {
        return invalid(
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
        );
    }
    let user_defined = |name: &str| {
        !matches!(name, "" | "default" | "bridge" | "host" | "none") && !name.contains(':')
    };
    if !user_defined(mode) && networking.endpoints_config.keys().any(|name| user_defined(name)) {
        // The mode may be left at its default when the endpoint names the network.
        if !matches!(mode, "" | "default") {
            return invalid(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
            );
        }
    }
    Ok(())
}

/// Checks limits by themselves.
pub(crate) fn resources(
    host: &HostConfig,
    cpus: usize,
    warnings: &mut Vec<String>,
) -> Result<(), EngineError> {
    if host.memory != 0 && host.memory < MIN_MEMORY {
        return invalid("Minimum memory limit allowed is 6MB");
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory == 0 && host.memory_swap > 0 {
        return invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if let Some(value) = host.memory_swappiness
        && !(-1..=100).contains(&value)
    {
        return invalid(format!("Invalid value: {value}, valid memory swappiness range is 0-100"));
    }
    if host.memory_reservation != 0 && host.memory_reservation < MIN_MEMORY {
        return invalid("Minimum memory reservation allowed is 6MB");
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    if host.oom_kill_disable == Some(true) && host.memory == 0 {
        warnings.push("OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.".to_owned());
    }
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set.");
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set.");
    }
    let most = i64::try_from(cpus).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    if host.nano_cpus < 0 || host.nano_cpus > most {
        return invalid(format!(
            "Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        ));
    }
    if host.blkio_weight > 0 && !(10..=1000).contains(&host.blkio_weight) {
        return invalid("Range of blkio weight is from 10 to 1000");
    }
    let online = Path::new("/sys/devices/system");
    cpuset::check(cpuset::Kind::Cpus, &host.cpuset_cpus, &online.join("cpu/online"))?;
    cpuset::check(cpuset::Kind::Memory, &host.cpuset_mems, &online.join("node/online"))?;
    if host.cpu_shares < 0 {
        return invalid("The cpu-shares value must not be negative");
    }
    if host.cpu_period != 0 && !(MIN_CFS_PERIOD..=MAX_CFS_PERIOD).contains(&host.cpu_period) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if host.cpu_quota > 0 && host.cpu_quota < MIN_CFS_PERIOD {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use brig_api::container::{HealthConfig, RestartPolicy};

    use super::*;

    fn check(config: ContainerConfig, host: HostConfig) -> Result<Vec<String>, String> {
        request(&config, &host, &NetworkingConfig::default(), 2).map_err(|e| e.to_string())
    }

    fn host() -> HostConfig {
        // As the CLI sends it: not set.
        HostConfig { memory_swappiness: Some(-1), pids_limit: Some(0), ..HostConfig::default() }
    }

    #[test]
    fn defaults_pass() {
        assert_eq!(check(ContainerConfig::default(), host()), Ok(Vec::new()));
    }

    #[test]
    fn dockers_texts() {
        let cases: [(HostConfig, &str); 6] = [
            (HostConfig { memory: 1 << 20, ..host() }, "Minimum memory limit allowed is 6MB"),
            (
                HostConfig { nano_cpus: 3_000_000_000, ..host() },
                "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
            ),
            (
                HostConfig {
                    auto_remove: true,
                    restart_policy: RestartPolicy { name: "always".into(), maximum_retry_count: 0 },
                    ..host()
                },
                "can't create 'AutoRemove' container with restart policy",
            ),
            (HostConfig { ipc_mode: "x".into(), ..host() }, "invalid IPC mode: x"),
            (
                HostConfig { memory_swap: 1 << 30, ..host() },
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            ),
            (
                HostConfig { network_mode: "container:".into(), ..host() },
                "Invalid network mode: invalid container format container:<name|id>",
            ),
        ];
        for (settings, text) in cases {
            assert_eq!(check(ContainerConfig::default(), settings), Err(text.to_owned()));
        }
        let config = ContainerConfig { working_dir: "a".into(), ..ContainerConfig::default() };
        assert_eq!(
            check(config, host()).unwrap_err(),
            "the working directory 'a' is invalid, it needs to be an absolute path"
        );
        let config = ContainerConfig { stop_signal: "FOO".into(), ..ContainerConfig::default() };
        assert_eq!(check(config, host()).unwrap_err(), "Invalid signal: FOO");
        let health = HealthConfig { interval: 5, ..HealthConfig::default() };
        let config = ContainerConfig { healthcheck: Some(health), ..ContainerConfig::default() };
        assert_eq!(
            check(config, host()).unwrap_err(),
            "Interval in Healthcheck cannot be less than 1ms"
        );
    }
}
