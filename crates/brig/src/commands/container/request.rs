//! From flags to the create request. Nothing is sent here.

use std::collections::BTreeMap;

use brig_api::container::{
    ContainerConfig, ContainerCreateRequest, HealthConfig, HostConfig, LogConfig, NetworkingConfig,
    RestartPolicy,
};

use super::flags::ContainerFlags;
use crate::error::{Result, message};
use crate::parse::env::{labels, process_env, variables};
use crate::parse::mount::{VolumeFlag, tmpfs, volume_flag};
use crate::parse::network::{Attachment, is_user_defined};
use crate::parse::port::container_ports;
use crate::parse::security::{capabilities, options};
use crate::parse::{key_value, key_value_map};

/// Healthcheck flags, which services have too.
#[derive(Debug, Default)]
pub(crate) struct HealthFlags<'a> {
    pub(crate) command: Option<&'a str>,
    pub(crate) interval: Option<i64>,
    pub(crate) retries: Option<i64>,
    pub(crate) start_interval: Option<i64>,
    pub(crate) start_period: Option<i64>,
    pub(crate) timeout: Option<i64>,
    pub(crate) disabled: bool,
}

impl HealthFlags<'_> {
    const fn is_set(&self) -> bool {
        self.command.is_some()
            || self.interval.is_some()
            || self.retries.is_some()
            || self.start_interval.is_some()
            || self.start_period.is_some()
            || self.timeout.is_some()
    }

    /// The health check, if any flag asks for one.
    pub(crate) fn config(&self) -> Result<Option<HealthConfig>> {
        if self.disabled {
            if self.is_set() {
                return Err(message("--no-healthcheck conflicts with --health-* options"));
            }
            return Ok(Some(HealthConfig {
                test: vec!["NONE".to_owned()],
                ..HealthConfig::default()
            }));
        }
        if !self.is_set() {
            return Ok(None);
        }
        if self.retries.is_some_and(|retries| retries < 0) {
            return Err(message("--health-retries cannot be negative"));
        }
        let test = match self.command {
            Some(command) if !command.is_empty() => {
                vec!["CMD-SHELL".to_owned(), command.to_owned()]
            }
            _ => Vec::new(),
        };
        Ok(Some(HealthConfig {
            test,
            interval: self.interval.unwrap_or_default(),
            timeout: self.timeout.unwrap_or_default(),
            start_period: self.start_period.unwrap_or_default(),
            start_interval: self.start_interval.unwrap_or_default(),
            retries: self.retries.unwrap_or_default(),
        }))
    }
}

/// Builds the request. `console` is the terminal's height and width.
pub(super) fn create(flags: &ContainerFlags, console: [u32; 2]) -> Result<ContainerCreateRequest> {
    let mut command = flags.command.iter().cloned();
    let image = command.next().unwrap_or_default();
    let ports = container_ports(&flags.publish, &flags.expose)?;
    let restart_policy = restart_policy(&flags.restart)?;
    if flags.rm && !matches!(restart_policy.name.as_str(), "" | "no") {
        return Err(message("conflicting options: cannot specify both --restart and --rm"));
    }
    if flags.memory_swappiness != -1 && !(0..=100).contains(&flags.memory_swappiness) {
        return Err(message(format!(
            "invalid value: {}. Valid memory swappiness range is 0-100",
            flags.memory_swappiness
        )));
    }

    if flags.log_driver == "none" && !flags.log_opt.is_empty() {
        return Err(message("invalid logging opts for driver none"));
    }

    let (mut binds, mut volumes) = (Vec::new(), BTreeMap::new());
    for spec in &flags.volume {
        match volume_flag(spec)? {
            VolumeFlag::Bind(bind) => binds.push(bind),
            VolumeFlag::Anonymous(path) => {
                volumes.insert(path, brig_api::Empty {});
            }
        }
    }
    let security = options(&flags.security_opt)?;
    let (cap_add, cap_drop) = capabilities(&flags.cap_add, &flags.cap_drop);
    let (attach_stdin, attach_stdout, attach_stderr) = attached(flags)?;
    let (network_mode, networking_config) = networks(flags)?;

    let mut ulimits = flags.ulimit.clone();
    ulimits.sort_by(|a, b| a.name.cmp(&b.name));
    let config = ContainerConfig {
        hostname: flags.hostname.clone(),
        domainname: flags.domainname.clone(),
        user: flags.user.clone(),
        attach_stdin,
        attach_stdout,
        attach_stderr,
        exposed_ports: ports.exposed,
        tty: flags.tty,
        open_stdin: flags.interactive,
        stdin_once: flags.interactive && attach_stdin,
        env: variables(&flags.env_file, &flags.env, &process_env)?,
        cmd: command.collect(),
        healthcheck: health(flags).config()?,
        image,
        volumes,
        working_dir: flags.workdir.clone(),
        entrypoint: flags.entrypoint.iter().cloned().collect(),
        mac_address: flags.mac_address.clone(),
        labels: labels(&flags.label_file, &flags.label)?,
        stop_signal: flags.stop_signal.clone(),
        stop_timeout: flags.stop_timeout,
        ..ContainerConfig::default()
    };
    let host_config = HostConfig {
        binds,
        container_id_file: flags.cidfile.clone().unwrap_or_default(),
        log_config: LogConfig {
            kind: flags.log_driver.clone(),
            config: key_value_map(&flags.log_opt),
        },
        network_mode,
        port_bindings: ports.bindings,
        restart_policy,
        auto_remove: flags.rm,
        volume_driver: flags.volume_driver.clone(),
        volumes_from: flags.volumes_from.clone(),
        console_size: console,
        annotations: key_value_map(&flags.annotation),
        cap_add,
        cap_drop,
        cgroupns_mode: flags.cgroupns.clone(),
        dns: flags.dns.clone(),
        dns_options: flags.dns_option.clone(),
        dns_search: flags.dns_search.clone(),
        extra_hosts: flags.add_host.clone(),
        group_add: flags.group_add.clone(),
        ipc_mode: flags.ipc.clone(),
        links: flags.link.clone(),
        oom_score_adj: flags.oom_score_adj,
        pid_mode: flags.pid.clone(),
        privileged: flags.privileged,
        publish_all_ports: flags.publish_all,
        readonly_rootfs: flags.read_only,
        security_opt: security.options,
        storage_opt: key_value_map(&flags.storage_opt),
        tmpfs: flags.tmpfs.iter().map(|spec| tmpfs(spec)).collect(),
        uts_mode: flags.uts.clone(),
        userns_mode: flags.userns.clone(),
        shm_size: flags.shm_size.unwrap_or_default(),
        sysctls: flags.sysctl.iter().map(|spec| key_value(spec)).collect(),
        runtime: flags.runtime.clone(),
        isolation: flags.isolation.clone(),
        mounts: flags.mount.clone(),
        masked_paths: security.unconfined_paths.then(Vec::new),
        readonly_paths: security.unconfined_paths.then(Vec::new),
        init: flags.init.then_some(true),
        engine_access: flags.engine_access.clone(),
        ulimits,
        ..resources(flags)
    };
    Ok(ContainerCreateRequest { config, host_config, networking_config })
}

fn health(flags: &ContainerFlags) -> HealthFlags<'_> {
    HealthFlags {
        command: flags.health_cmd.as_deref(),
        interval: flags.health_interval,
        retries: flags.health_retries,
        start_interval: flags.health_start_interval,
        start_period: flags.health_start_period,
        timeout: flags.health_timeout,
        disabled: flags.no_healthcheck,
    }
}

fn resources(flags: &ContainerFlags) -> HostConfig {
    HostConfig {
        cpu_shares: flags.cpu_shares,
        memory: flags.memory.unwrap_or_default(),
        nano_cpus: flags.cpus.unwrap_or_default(),
        cgroup_parent: flags.cgroup_parent.clone(),
        blkio_weight: flags.blkio_weight,
        blkio_weight_device: flags.blkio_weight_device.clone(),
        blkio_device_read_bps: flags.device_read_bps.clone(),
        blkio_device_write_bps: flags.device_write_bps.clone(),
        blkio_device_read_iops: flags.device_read_iops.clone(),
        blkio_device_write_iops: flags.device_write_iops.clone(),
        cpu_period: flags.cpu_period,
        cpu_quota: flags.cpu_quota,
        cpu_realtime_period: flags.cpu_rt_period,
        cpu_realtime_runtime: flags.cpu_rt_runtime,
        cpuset_cpus: flags.cpuset_cpus.clone(),
        cpuset_mems: flags.cpuset_mems.clone(),
        devices: flags.device.clone(),
        device_cgroup_rules: flags.device_cgroup_rule.clone(),
        device_requests: flags.gpus.clone(),
        kernel_memory: flags.kernel_memory.unwrap_or_default(),
        memory_reservation: flags.memory_reservation.unwrap_or_default(),
        memory_swap: flags.memory_swap.unwrap_or_default(),
        memory_swappiness: Some(flags.memory_swappiness),
        oom_kill_disable: Some(flags.oom_kill_disable),
        pids_limit: Some(flags.pids_limit),
        cpu_count: flags.cpu_count,
        cpu_percent: flags.cpu_percent,
        io_maximum_iops: flags.io_maxiops,
        io_maximum_bandwidth: flags
            .io_maxbandwidth
            .and_then(|n| u64::try_from(n).ok())
            .unwrap_or_default(),
        ..HostConfig::default()
    }
}

/// Which streams are attached: those of `--attach`, else all, stdin only with `--interactive`.
fn attached(flags: &ContainerFlags) -> Result<(bool, bool, bool)> {
    if flags.attach.is_empty() {
        return Ok((flags.interactive, true, true));
    }
    let mut result = (false, false, false);
    for stream in &flags.attach {
        match stream.to_ascii_lowercase().as_str() {
            "stdin" => result.0 = true,
            "stdout" => result.1 = true,
            "stderr" => result.2 = true,
            _ => {
                return Err(message(format!(
                    "invalid argument {stream:?} for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR"
                )));
            }
        }
    }
    Ok(result)
}

/// Reads `--restart`.
pub(super) fn restart_policy(text: &str) -> Result<RestartPolicy> {
    let (name, count) = match text.split_once(':') {
        Some((_, count)) if count.contains(':') => {
            return Err(message("invalid restart policy format"));
        }
        Some(("", _)) => {
            return Err(message("invalid restart policy format: no policy provided before colon"));
        }
        Some((name, count)) => (name, Some(count)),
        None => (text, None),
    };
    let maximum_retry_count = match count {
        Some(count) => count.parse().map_err(|_| {
            message("invalid restart policy format: maximum retry count must be an integer")
        })?,
        None => 0,
    };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

/// The network mode, and what the container wants of its networks.
fn networks(flags: &ContainerFlags) -> Result<(String, NetworkingConfig)> {
    let own = |mut first: Attachment| -> Result<Attachment> {
        let taken = |what: &str| {
            Err(message(format!(
                "conflicting options: cannot specify both --{what} and per-network {what}"
            )))
        };
        if !flags.network_alias.is_empty() {
            if !first.aliases.is_empty() {
                return taken("network-alias");
            }
            first.aliases.clone_from(&flags.network_alias);
        }
        if !flags.link.is_empty() {
            first.links.clone_from(&flags.link);
        }
        for (flag, field, name) in [
            (&flags.ip, &mut first.ipv4, "ip"),
            (&flags.ip6, &mut first.ipv6, "ip6"),
            (&flags.mac_address, &mut first.mac, "mac-address"),
        ] {
            if !flag.is_empty() {
                if !field.is_empty() && field != flag {
                    return taken(name);
                }
                field.clone_from(flag);
            }
        }
        first.link_local.extend(flags.link_local_ip.iter().cloned());
        Ok(first)
    };
    let Some((first, others)) = flags.network.split_first() else {
        let endpoint = own(Attachment::default())?.endpoint();
        let endpoints_config = BTreeMap::from([("default".to_owned(), Some(endpoint))]);
        return Ok(("default".to_owned(), NetworkingConfig { endpoints_config }));
    };
    let user_defined = flags.network.iter().filter(|n| is_user_defined(&n.target)).count();
    if user_defined != 0 && user_defined != flags.network.len() {
        return Err(message(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ));
    }
    let mode = first.target.clone();
    let endpoint = own(first.clone())?.endpoint();
    let mut endpoints_config = BTreeMap::new();
    // A network without wishes is joined by its mode alone.
    if !others.is_empty() || endpoint != Default::default() {
        endpoints_config.insert(mode.clone(), Some(endpoint));
    }
    for other in others {
        if endpoints_config.insert(other.target.clone(), Some(other.endpoint())).is_some() {
            return Err(message(format!("network {:?} is specified multiple times", other.target)));
        }
    }
    Ok((mode, NetworkingConfig { endpoints_config }))
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};
    use serde_json::{Value, json};

    use super::*;

    fn request(line: &str) -> Result<Value> {
        let command =
            crate::cli::flags::go_style(ContainerFlags::augment_args(clap::Command::new("run")));
        let words = line.split_whitespace().map(std::ffi::OsString::from).collect();
        let words = crate::cli::flags::end_at_first_argument(&command, words);
        let matches =
            command.try_get_matches_from(std::iter::once("run".into()).chain(words)).unwrap();
        let flags = ContainerFlags::from_arg_matches(&matches).unwrap();
        Ok(serde_json::to_value(create(&flags, [0, 0])?).unwrap())
    }

    fn host(line: &str) -> Value {
        request(line).unwrap()["HostConfig"].clone()
    }

    #[test]
    fn the_captured_plain_run() {
        let body = request("--rm --network none busybox true").unwrap();
        for (field, value) in [
            ("AttachStdout", json!(true)),
            ("AttachStderr", json!(true)),
            ("AttachStdin", json!(false)),
            ("Cmd", json!(["true"])),
            ("Image", json!("busybox")),
            ("NetworkingConfig", json!({"EndpointsConfig": {}})),
        ] {
            assert_eq!(body[field], value, "{field}");
        }
        for (field, value) in [
            ("NetworkMode", json!("none")),
            ("RestartPolicy", json!({"Name": "no", "MaximumRetryCount": 0})),
            ("AutoRemove", json!(true)),
            ("MemorySwappiness", json!(-1)),
            ("ConsoleSize", json!([0, 0])),
            ("Memory", json!(0)),
        ] {
            assert_eq!(body["HostConfig"][field], value, "{field}");
        }
        assert!(body["HostConfig"].get("Init").is_none());
    }

    #[test]
    fn flags_become_the_documented_fields() {
        assert_eq!(host("-v a:/b:ro -v /c busybox")["Binds"], json!(["a:/b:ro"]));
        assert_eq!(request("-v /c busybox").unwrap()["Volumes"], json!({"/c": {}}));
        assert_eq!(host("--tmpfs /tt:size=1m busybox")["Tmpfs"], json!({"/tt": "size=1m"}));
        let published = request("-p 8080:80 -p 127.0.0.1:81:81/udp busybox").unwrap();
        assert_eq!(published["ExposedPorts"], json!({"80/tcp": {}, "81/udp": {}}));
        assert_eq!(
            published["HostConfig"]["PortBindings"]["80/tcp"],
            json!([{"HostIp": "", "HostPort": "8080"}])
        );
        let caps = host("--cap-drop ALL --cap-add net_admin busybox");
        assert_eq!(
            (&caps["CapDrop"], &caps["CapAdd"]),
            (&json!(["ALL"]), &json!(["CAP_NET_ADMIN"]))
        );
        let limits = host(
            "--memory 64m --memory-swap -1 --cpus 0.5 --pids-limit 50 --ulimit nofile=10:20 busybox",
        );
        assert_eq!(limits["Memory"], json!(67_108_864));
        assert_eq!(limits["MemorySwap"], json!(-1));
        assert_eq!(limits["NanoCpus"], json!(500_000_000));
        assert_eq!(limits["PidsLimit"], json!(50));
        assert_eq!(limits["Ulimits"], json!([{"Name": "nofile", "Hard": 20, "Soft": 10}]));
        assert_eq!(
            host("--restart on-failure:3 busybox")["RestartPolicy"],
            json!({"Name": "on-failure", "MaximumRetryCount": 3})
        );
        let health = request("--health-cmd x --health-interval 2s busybox").unwrap();
        assert_eq!(
            health["Healthcheck"],
            json!({"Test": ["CMD-SHELL", "x"], "Interval": 2_000_000_000_i64})
        );
        assert_eq!(
            request("--no-healthcheck busybox").unwrap()["Healthcheck"],
            json!({"Test": ["NONE"]})
        );
        assert_eq!(request("--entrypoint= busybox").unwrap()["Entrypoint"], json!([""]));
        let stdin = request("-i busybox").unwrap();
        assert_eq!(
            (&stdin["AttachStdin"], &stdin["StdinOnce"], &stdin["OpenStdin"]),
            (&json!(true), &json!(true), &json!(true))
        );
        let paths = host("--security-opt systempaths=unconfined busybox");
        assert_eq!(paths["MaskedPaths"], json!([]));
    }

    #[test]
    fn networks_have_endpoints_only_when_asked_for() {
        let mode = |line: &str| {
            let body = request(line).unwrap();
            (
                body["HostConfig"]["NetworkMode"].clone(),
                body["NetworkingConfig"]["EndpointsConfig"].clone(),
            )
        };
        let (name, endpoints) = mode("busybox");
        assert_eq!(name, json!("default"));
        assert!(endpoints["default"].is_object());
        assert_eq!(mode("--network nx busybox"), (json!("nx"), json!({})));
        let (_, endpoints) = mode("--network nx --network-alias a --ip 10.0.0.5 busybox");
        assert_eq!(endpoints["nx"]["Aliases"], json!(["a"]));
        assert_eq!(endpoints["nx"]["IPAMConfig"], json!({"IPv4Address": "10.0.0.5"}));
        let (name, endpoints) = mode("--network a --network name=b,alias=z busybox");
        assert_eq!(name, json!("a"));
        assert_eq!(endpoints["b"]["Aliases"], json!(["z"]));
        assert!(request("--network host --network b busybox").is_err());
        assert!(request("--network b --network b busybox").is_err());
    }

    #[test]
    fn conflicts_are_refused() {
        for line in [
            "--rm --restart always busybox",
            "--restart a:b:c busybox",
            "--restart :3 busybox",
            "--memory-swappiness 101 busybox",
            "--no-healthcheck --health-cmd x busybox",
            "-a nope busybox",
        ] {
            assert!(request(line).is_err(), "{line}");
        }
    }
}
