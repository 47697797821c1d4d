//! From a container's record to what the runtime is asked for.

use std::path::{Path, PathBuf};

use brig_api::container::{ContainerConfig, HostConfig, ThrottleDevice as ApiThrottle};
use brig_runtime::AppArmor;
use brig_runtime::spec::{
    BlkioSpec, Capabilities, ConsoleSize, ContainerSpecInput, DeviceNode, DeviceRule, DeviceType,
    MountSpec, Namespace, Namespaces, ProcessSpec, Resources, Rlimit, SeccompProfile, Shm,
    ThrottleDevice, UserSpec, WeightDevice,
};

use super::image_defaults;
use super::record::Record;
use crate::error::EngineError;
use crate::users::ResolvedUser;

/// What `--security-opt` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Security {
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: SeccompProfile,
    pub(crate) apparmor: Option<String>,
}

impl Security {
    /// Reads the options.
    pub(crate) fn parse(options: &[String]) -> Result<Self, EngineError> {
        let mut security = Self::default();
        for option in options {
            let invalid = || EngineError::Invalid(format!("invalid --security-opt 2: {option:?}"));
            let (key, value) = match option.split_once(['=', ':']) {
                Some((key, value)) => (key, Some(value)),
                None => (option.as_str(), None),
            };
            match (key, value) {
                ("no-new-privileges", None | Some("true")) => security.no_new_privileges = true,
                ("no-new-privileges", Some("false")) => security.no_new_privileges = false,
                ("seccomp", Some("unconfined")) => security.seccomp = SeccompProfile::Unconfined,
                ("seccomp", Some("builtin")) => security.seccomp = SeccompProfile::Default,
                ("seccomp", Some(profile)) => {
                    security.seccomp = SeccompProfile::Custom(profile.to_owned());
                }
                ("apparmor", Some(profile)) => security.apparmor = Some(profile.to_owned()),
                // Labels of SELinux: only used where SELinux is.
                ("label", _) => {}
                _ => return Err(invalid()),
            }
        }
        Ok(security)
    }
}

/// What a start found out and made, for the runtime to use.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) rootfs: PathBuf,
    pub(crate) user: ResolvedUser,
    pub(crate) mounts: Vec<MountSpec>,
    /// What is not to be seen in them, by its path in the container.
    pub(crate) masked: Vec<String>,
    pub(crate) devices: Vec<DeviceNode>,
    pub(crate) namespaces: Namespaces,
    pub(crate) shm: Shm,
}

/// The whole container.
pub(crate) fn container(
    record: &Record,
    prepared: Prepared,
    apparmor: AppArmor,
) -> Result<ContainerSpecInput, EngineError> {
    let (config, host) = (&record.config, &record.host_config);
    let security = Security::parse(&host.security_opt)?;
    let hostname = config.hostname.clone();
    let mut input = ContainerSpecInput::new(record.id.clone(), prepared.rootfs, record.command());
    input.process = process(record, &security, &prepared.user, apparmor);
    input.readonly_rootfs = host.readonly_rootfs;
    // Where the processes are another's there is nobody to be the first of: docker leaves it out.
    let own_processes = !(host.pid_mode == "host" || host.pid_mode.starts_with("container:"));
    input.init = host.init == Some(true) && own_processes;
    input.hostname = hostname;
    input.domainname = Some(config.domainname.clone()).filter(|name| !name.is_empty());
    input.namespaces = prepared.namespaces;
    input.seccomp = security.seccomp;
    input.mounts = prepared.mounts;
    input.shm = prepared.shm;
    input.devices = prepared.devices;
    input.device_rules = device_rules(&host.device_cgroup_rules)?;
    input.resources = resources(host)?;
    input.sysctls.clone_from(&host.sysctls);
    input.masked_paths.clone_from(&host.masked_paths);
    if !prepared.masked.is_empty() {
        // Privileged containers, for which nothing is masked, included.
        input.masked_paths.get_or_insert_default().extend(prepared.masked);
    }
    input.readonly_paths.clone_from(&host.readonly_paths);
    input.cgroup_parent = Some(host.cgroup_parent.clone()).filter(|parent| !parent.is_empty());
    input.annotations.clone_from(&host.annotations);
    Ok(input)
}

fn process(
    record: &Record,
    security: &Security,
    user: &ResolvedUser,
    apparmor: AppArmor,
) -> ProcessSpec {
    let (config, host) = (&record.config, &record.host_config);
    let mut process = ProcessSpec::new(record.command());
    process.env = with_home(image_defaults::environment(config, &config.hostname), user);
    process.cwd = cwd(config);
    process.user = user_spec(user);
    process.tty = config.tty;
    process.console_size = console_size(host.console_size);
    process.capabilities = capabilities(host);
    process.no_new_privileges = security.no_new_privileges;
    process.rlimits = rlimits(host);
    process.oom_score_adj = i32::try_from(host.oom_score_adj).ok();
    process.apparmor = apparmor.profile_for(security.apparmor.as_deref(), host.privileged);
    process
}

/// A further process of a running container: like the first one, but for what exec says.
pub(crate) fn exec_process(
    record: &Record,
    exec: &brig_api::exec::ExecConfig,
    user: &ResolvedUser,
    apparmor: AppArmor,
) -> Result<ProcessSpec, EngineError> {
    let security = Security::parse(&record.host_config.security_opt)?;
    let mut spec = process(record, &security, user, apparmor);
    spec.args.clone_from(&exec.cmd);
    let mut base = spec.env;
    base.retain(|line| exec.tty || !line.starts_with("TERM=") || record.config.env.contains(line));
    if exec.tty && !base.iter().any(|line| line.starts_with("TERM=")) {
        base.push("TERM=xterm".to_owned());
    }
    spec.env = with_home(image_defaults::overlay_env(base, &exec.env), user);
    spec.tty = exec.tty;
    spec.console_size = exec.console_size.and_then(console_size);
    if !exec.working_dir.is_empty() {
        spec.cwd = PathBuf::from(&exec.working_dir);
    }
    if exec.privileged {
        spec.capabilities = Capabilities { privileged: true, ..Capabilities::default() };
    }
    Ok(spec)
}

/// Adds the user's home, as docker's runtime does, unless there is one.
///
/// SECURITY: what the runtime is not told it looks up itself, in the image's passwd file: if that is
/// a pipe, until somebody writes to it.
fn with_home(mut env: Vec<String>, user: &ResolvedUser) -> Vec<String> {
    if !env.iter().any(|line| line.strip_prefix("HOME=").is_some_and(|home| !home.is_empty())) {
        env.retain(|line| !line.starts_with("HOME="));
        let home = if user.home.is_empty() { "/" } else { &user.home };
        env.push(format!("HOME={home}"));
    }
    env
}

fn cwd(config: &ContainerConfig) -> PathBuf {
    let dir = if config.working_dir.is_empty() { "/" } else { &config.working_dir };
    PathBuf::from(dir)
}

fn user_spec(user: &ResolvedUser) -> UserSpec {
    UserSpec { uid: user.uid, gid: user.gid, additional_gids: user.additional_gids.clone() }
}

fn console_size([height, width]: [u32; 2]) -> Option<ConsoleSize> {
    let size = ConsoleSize { height: height.try_into().ok()?, width: width.try_into().ok()? };
    (size.height > 0 && size.width > 0).then_some(size)
}

fn capabilities(host: &HostConfig) -> Capabilities {
    Capabilities {
        add: host.cap_add.clone(),
        drop: host.cap_drop.clone(),
        privileged: host.privileged,
    }
}

fn rlimits(host: &HostConfig) -> Vec<Rlimit> {
    host.ulimits
        .iter()
        .map(|limit| Rlimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard })
        .collect()
}

fn set(value: i64) -> Option<i64> {
    (value != 0).then_some(value)
}

/// The limits of a container.
pub(crate) fn resources(host: &HostConfig) -> Result<Resources, EngineError> {
    let throttle = |devices: &[ApiThrottle]| -> Result<Vec<ThrottleDevice>, EngineError> {
        devices
            .iter()
            .map(|device| {
                let (major, minor) = device_number(&device.path)?;
                Ok(ThrottleDevice { major, minor, rate: device.rate })
            })
            .collect()
    };
    let weights = host.blkio_weight_device.iter().map(|device| {
        let (major, minor) = device_number(&device.path)?;
        Ok(WeightDevice { major, minor, weight: device.weight })
    });
    Ok(Resources {
        memory: set(host.memory),
        memory_swap: set(host.memory_swap),
        memory_reservation: set(host.memory_reservation),
        memory_swappiness: host.memory_swappiness,
        oom_kill_disable: host.oom_kill_disable == Some(true),
        cpu_shares: set(host.cpu_shares),
        cpu_period: set(host.cpu_period),
        cpu_quota: set(host.cpu_quota),
        nano_cpus: set(host.nano_cpus),
        cpu_realtime_period: set(host.cpu_realtime_period),
        cpu_realtime_runtime: set(host.cpu_realtime_runtime),
        cpuset_cpus: host.cpuset_cpus.clone(),
        cpuset_mems: host.cpuset_mems.clone(),
        pids_limit: host.pids_limit,
        blkio: BlkioSpec {
            weight: host.blkio_weight,
            weight_devices: weights.collect::<Result<_, EngineError>>()?,
            read_bps: throttle(&host.blkio_device_read_bps)?,
            write_bps: throttle(&host.blkio_device_write_bps)?,
            read_iops: throttle(&host.blkio_device_read_iops)?,
            write_iops: throttle(&host.blkio_device_write_iops)?,
        },
    })
}

fn device_number(path: &str) -> Result<(i64, i64), EngineError> {
    let stat = rustix::fs::stat(Path::new(path)).map_err(|source| EngineError::Disk {
        action: "find the device",
        path: PathBuf::from(path),
        source: source.into(),
    })?;
    Ok((i64::from(rustix::fs::major(stat.st_rdev)), i64::from(rustix::fs::minor(stat.st_rdev))))
}

/// Reads rules like `c 1:3 rwm` or `b 8:* r`.
fn device_rules(rules: &[String]) -> Result<Vec<DeviceRule>, EngineError> {
    let parse = |rule: &str| -> Option<DeviceRule> {
        let mut words = rule.split_ascii_whitespace();
        let kind = match words.next()? {
            "a" => DeviceType::All,
            "c" => DeviceType::Char,
            "b" => DeviceType::Block,
            _ => return None,
        };
        let (major, minor) = words.next()?.split_once(':')?;
        let number = |text: &str| match text {
            "*" => Some(None),
            text => text.parse().ok().map(Some),
        };
        let access = words.next()?;
        let fine = !access.is_empty() && access.chars().all(|c| "rwm".contains(c));
        (fine && words.next().is_none()).then_some(DeviceRule {
            kind,
            major: number(major)?,
            minor: number(minor)?,
            access: access.to_owned(),
        })
    };
    rules
        .iter()
        .map(|rule| {
            parse(rule).ok_or_else(|| {
                EngineError::Invalid(format!("invalid device cgroup rule format: '{rule}'"))
            })
        })
        .collect()
}

/// The namespaces that are shared with the host or another container. `pid_of` gives the process
/// of a running container.
pub(crate) fn namespaces(
    host: &HostConfig,
    pid_of: impl Fn(&str) -> Result<i32, EngineError>,
) -> Result<Namespaces, EngineError> {
    let of = |mode: &str, file: &str| -> Result<Namespace, EngineError> {
        match mode {
            "host" => Ok(Namespace::Host),
            mode => match mode.strip_prefix("container:") {
                Some(key) => {
                    Ok(Namespace::Path(PathBuf::from(format!("/proc/{}/ns/{file}", pid_of(key)?))))
                }
                None => Ok(Namespace::Own),
            },
        }
    };
    Ok(Namespaces {
        net: of(&host.network_mode, "net")?,
        ipc: of(&host.ipc_mode, "ipc")?,
        pid: of(&host.pid_mode, "pid")?,
        uts: of(&host.uts_mode, "uts")?,
        cgroup: match host.cgroupns_mode.as_str() {
            "host" => Some(Namespace::Host),
            "private" => Some(Namespace::Own),
            _ => None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::tests::sample;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn security_options() {
        let got = Security::parse(&words(&[
            "no-new-privileges",
            "seccomp:unconfined",
            "apparmor=x",
            "label=disable",
        ]))
        .unwrap();
        assert_eq!(
            got,
            Security {
                no_new_privileges: true,
                seccomp: SeccompProfile::Unconfined,
                apparmor: Some("x".to_owned()),
            }
        );
        assert_eq!(
            Security::parse(&words(&["bogus"])).unwrap_err().to_string(),
            "invalid --security-opt 2: \"bogus\""
        );
    }

    #[test]
    fn rules() {
        let got = device_rules(&words(&["c 1:3 rwm", "b 8:* r"])).unwrap();
        assert_eq!((got[0].major, got[0].minor), (Some(1), Some(3)));
        assert_eq!((got[1].kind, got[1].minor), (DeviceType::Block, None));
        for bad in ["", "c", "x 1:3 r", "c 1:3 q", "c 1 r", "c 1:3 r w"] {
            assert!(device_rules(&words(&[bad])).is_err(), "{bad}");
        }
    }

    #[test]
    fn shared_namespaces() {
        let host = HostConfig {
            network_mode: "container:a".into(),
            pid_mode: "host".into(),
            ..HostConfig::default()
        };
        let got = namespaces(&host, |_| Ok(7)).unwrap();
        assert_eq!(got.net, Namespace::Path("/proc/7/ns/net".into()));
        assert_eq!((got.pid, got.ipc), (Namespace::Host, Namespace::Own));
    }

    #[test]
    fn an_exec_is_like_the_container_but_for_its_own_settings() {
        let mut record = sample();
        record.config.env = words(&["A=1"]);
        record.config.tty = true;
        record.config.working_dir = "/w".into();
        record.host_config.cap_drop = words(&["ALL"]);
        let exec = brig_api::exec::ExecConfig {
            cmd: words(&["id"]),
            env: words(&["A=2"]),
            ..Default::default()
        };
        let user = ResolvedUser { home: "/home/me".into(), ..ResolvedUser::default() };
        let spec = exec_process(&record, &exec, &user, AppArmor::Ready).unwrap();
        assert_eq!(spec.apparmor.as_deref(), Some("docker-default"));
        assert_eq!(spec.args, ["id"]);
        assert!(spec.env.contains(&"A=2".to_owned()));
        assert!(spec.env.contains(&"HOME=/home/me".to_owned()));
        assert!(!spec.env.iter().any(|line| line.starts_with("TERM=")) && !spec.tty);
        assert_eq!(spec.cwd, Path::new("/w"));
        assert_eq!(spec.capabilities.drop, ["ALL"]);
        let env = words(&["HOME=/own", "HOME2=x"]);
        let exec = brig_api::exec::ExecConfig { privileged: true, tty: true, env, ..exec };
        let spec = exec_process(&record, &exec, &user, AppArmor::Off).unwrap();
        assert_eq!(spec.apparmor, None);
        assert!(spec.capabilities.privileged && spec.capabilities.drop.is_empty());
        assert!(spec.env.contains(&"TERM=xterm".to_owned()));
        assert!(spec.env.contains(&"HOME=/own".to_owned()));
        assert!(!spec.env.contains(&"HOME=/home/me".to_owned()));
    }
}
