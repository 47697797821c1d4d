//! What a container asks for.

use std::collections::{BTreeMap, BTreeSet};

use brig_access::{Facts, Reference};
use brig_api::container::{ContainerConfig, HostConfig, Mount, NetworkingConfig};

use super::lend;
use crate::state::AppState;

/// Capabilities that every container has; adding one again adds nothing.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Paths that must stay masked, and that must stay read-only.
const MASKED: [&str; 4] = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"];
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// File systems that come from elsewhere than this host.
const REMOTE: [&str; 4] = ["cifs", "nfs", "nfs4", "tmpfs"];

/// Facts of a configuration. `host_volumes` are volumes that exist already and mount something
/// of the host.
#[must_use]
pub fn facts(
    config: &ContainerConfig,
    host: &HostConfig,
    networking: Option<&NetworkingConfig>,
    host_volumes: &BTreeMap<String, String>,
) -> Facts {
    let mut facts = Facts {
        makes: true,
        stack: config.labels.get(brig_access::facts::STACK_LABEL).cloned().unwrap_or_default(),
        image: config.image.clone(),
        labels: config.labels.clone(),
        ..Facts::default()
    };
    of_host(&mut facts, host);
    match &host.engine_access {
        Some(access) => lend::note(&mut facts, access),
        None => lend::note_label(&mut facts, &config.labels),
    }
    for volume in facts.volumes.iter().filter_map(|volume| host_volumes.get(&volume.name)) {
        facts.host_mounts.insert(volume.clone());
    }
    let endpoints =
        networking.into_iter().flat_map(|networking| networking.endpoints_config.keys());
    for network in endpoints {
        network_mode(&mut facts, network);
    }
    facts
}

/// Facts of a host configuration.
pub fn of_host(facts: &mut Facts, host: &HostConfig) {
    facts.privileged = host.privileged;
    for bind in &host.binds {
        match bind.split_once(':') {
            Some((source, _)) if source.starts_with('/') => {
                facts.host_mounts.insert(source.to_owned());
            }
            Some((source, _)) => facts.volumes.push(Reference::named(source)),
            None => {}
        }
    }
    mounts(facts, &host.mounts);
    for other in &host.volumes_from {
        facts.other_access.insert(format!("volumes of container {other}"));
    }
    facts.capabilities.extend(capabilities(&host.cap_add));
    for (name, mode) in [
        ("pid", &host.pid_mode),
        ("ipc", &host.ipc_mode),
        ("uts", &host.uts_mode),
        ("user", &host.userns_mode),
        ("cgroup", &host.cgroupns_mode),
    ] {
        if mode == "host" || mode.contains(':') {
            facts.host_namespaces.insert(format!("{name}={mode}"));
        }
    }
    network_mode(facts, &host.network_mode);
    let devices = host.devices.iter().map(|device| device.path_on_host.clone());
    facts.devices.extend(devices);
    facts.devices.extend(host.device_cgroup_rules.iter().cloned());
    facts.devices.extend(host.device_requests.iter().map(|request| {
        if request.driver.is_empty() { "request".to_owned() } else { request.driver.clone() }
    }));
    security(facts, host);
    for (key, allowed) in [
        ("runtime", matches!(host.runtime.as_str(), "" | "crun" | "runc")),
        ("cgroup parent", host.cgroup_parent.is_empty()),
        ("volume driver", matches!(host.volume_driver.as_str(), "" | "local")),
    ] {
        if !allowed {
            facts.other_access.insert(format!("another {key}"));
        }
    }
    for key in host.annotations.keys() {
        facts.other_access.insert(format!("annotation {key}"));
    }
    for (port, bindings) in &host.port_bindings {
        for binding in bindings.iter().flatten() {
            facts.ports.insert(format!("{}:{port}", binding.host_port));
        }
    }
}

/// Facts of a network mode.
pub fn network_mode(facts: &mut Facts, mode: &str) {
    match mode {
        "" | "default" | "bridge" | "none" => {}
        "host" => {
            facts.host_namespaces.insert("network=host".to_owned());
        }
        mode if mode.starts_with("container:") => {
            facts.host_namespaces.insert(format!("network={mode}"));
        }
        name => {
            let reference = Reference::named(name);
            if !facts.networks.contains(&reference) {
                facts.networks.push(reference);
            }
        }
    }
}

fn security(facts: &mut Facts, host: &HostConfig) {
    for option in &host.security_opt {
        let harmless = matches!(
            option.as_str(),
            "no-new-privileges"
                | "no-new-privileges:true"
                | "no-new-privileges=true"
                | "seccomp=builtin"
                | "seccomp:builtin"
        );
        if !harmless {
            // A profile may be as long as a book.
            facts.security_options.insert(option.chars().take(64).collect());
        }
    }
    for (what, list, needed) in [
        ("unmasked paths", &host.masked_paths, &MASKED[..]),
        ("writable system paths", &host.readonly_paths, &READ_ONLY[..]),
    ] {
        let weak = list
            .as_ref()
            .is_some_and(|list| needed.iter().any(|path| !list.iter().any(|item| item == path)));
        if weak {
            facts.security_options.insert(what.to_owned());
        }
    }
    sysctls(facts, host.sysctls.keys());
}

/// Settings of the kernel beyond those of a container's own namespaces.
pub fn sysctls<'a>(facts: &mut Facts, names: impl Iterator<Item = &'a String>) {
    const OWN: [&str; 5] = ["net.", "fs.mqueue.", "kernel.msg", "kernel.sem", "kernel.shm"];
    for name in names {
        // Slashes are another way to write the dots.
        let dotted = name.replace('/', ".");
        if !OWN.iter().any(|prefix| dotted.starts_with(prefix)) {
            facts.security_options.insert(format!("sysctl {name}"));
        }
    }
}

/// Added capabilities by their bare names, without those that everybody has.
#[must_use]
pub fn capabilities(added: &[String]) -> BTreeSet<String> {
    added
        .iter()
        .map(|name| name.to_ascii_uppercase())
        .map(|name| name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name))
        .filter(|name| !DEFAULT_CAPABILITIES.contains(&name.as_str()))
        .collect()
}

/// Facts of `--mount`s, which services have as well.
pub fn mounts(facts: &mut Facts, mounts: &[Mount]) {
    for mount in mounts {
        match mount.kind.as_str() {
            "bind" => {
                facts.host_mounts.insert(mount.source.clone());
            }
            "volume" | "" => {
                let driver =
                    mount.volume_options.as_ref().and_then(|volume| volume.driver_config.as_ref());
                if let Some(driver) = driver {
                    volume_options(facts, &driver.name, &driver.options);
                }
                if !mount.source.is_empty() {
                    facts.volumes.push(Reference::named(&mount.source));
                }
            }
            "tmpfs" | "image" => {}
            other => {
                facts.other_access.insert(format!("mount of type {other}"));
            }
        }
    }
}

/// Facts of a volume's options.
pub fn volume_options(facts: &mut Facts, driver: &str, options: &BTreeMap<String, String>) {
    if !matches!(driver, "" | "local") {
        facts.other_access.insert(format!("volume driver {driver}"));
    }
    facts.host_mounts.extend(of_host_by_options(options));
}

/// What of the host a volume with these options mounts.
///
/// SECURITY: only file systems that are known to come from elsewhere are taken for harmless.
#[must_use]
pub fn of_host_by_options(options: &BTreeMap<String, String>) -> Option<String> {
    let option = |name: &str| {
        let found = options.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value.as_str())
    };
    let (kind, device, flags) = (option("type"), option("device"), option("o"));
    if kind.is_empty() && device.is_empty() && flags.is_empty() {
        return None;
    }
    let remote = REMOTE.contains(&kind)
        && (!device.starts_with('/') || device.starts_with("//"))
        && !flags.split(',').any(|flag| matches!(flag.trim(), "bind" | "rbind" | "move"));
    if remote {
        return None;
    }
    Some(if device.is_empty() { format!("type={kind}") } else { device.to_owned() })
}

/// Which of the volumes that a configuration names exist and mount something of the host.
pub async fn host_volumes(state: &AppState, host: &HostConfig) -> BTreeMap<String, String> {
    let mut named = Facts::default();
    of_host(&mut named, host);
    volumes_of_host(state, &named.volumes).await
}

/// Which of these volumes exist on this node and mount something of the host.
pub async fn volumes_of_host(state: &AppState, volumes: &[Reference]) -> BTreeMap<String, String> {
    if volumes.is_empty() {
        return BTreeMap::new();
    }
    let names: BTreeSet<String> = volumes.iter().map(|volume| volume.name.clone()).collect();
    let engine = state.engine.clone();
    let look = move || {
        let found = names.into_iter().filter_map(|name| {
            let volume = engine.volumes().get(&name).ok()?;
            Some((name, of_host_by_options(&volume.options)?))
        });
        Ok::<_, crate::server::ApiError>(found.collect())
    };
    crate::api::blocking::blocking(look).await.unwrap_or_default()
}
