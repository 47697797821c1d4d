//! A service of the file as the API takes it. References to secrets and configs have names but no
//! ids yet; networks are referred to by name.

use std::collections::{BTreeMap, BTreeSet};

use brig_api::container::{HealthConfig, Ulimit};
use brig_api::mount::Driver;
use brig_api::swarm::{
    ConfigReference, ContainerSpec, DnsConfig, EndpointSpec, FileTarget, NetworkAttachmentConfig,
    PortConfig, SecretReference, ServiceSpec, TaskSpec,
};

use super::deploy::deploy;
use super::mounts::mounts;
use super::objects::{Content, Network, Volumes};
use super::section::{Section, must_be};
use super::value::Value;
use super::{LABEL_IMAGE, Notes, Surroundings};
use crate::error::{Result, message};
use crate::parse::port::service_ports;
use crate::parse::security::capabilities;

/// What services have on one host and not in a swarm: told about and left out, as docker does.
const IGNORED: [&str; 22] = [
    "build",
    "cgroup",
    "cgroup_parent",
    "cgroupns_mode",
    "credential_spec",
    "depends_on",
    "devices",
    "domainname",
    "external_links",
    "ipc",
    "links",
    "mac_address",
    "network_mode",
    "pid",
    "platform",
    "privileged",
    "profiles",
    "pull_policy",
    "security_opt",
    "shm_size",
    "userns_mode",
    "uts",
];
/// What would look as if it worked.
const FORBIDDEN: [(&str, &str); 7] = [
    ("extends", "Support for `extends` is not implemented yet."),
    (
        "volume_driver",
        "Instead of setting the volume driver on the service, define a volume using the top-level `volumes` option and specify the driver there.",
    ),
    (
        "volumes_from",
        "To share a volume between services, define it using the top-level `volumes` option and reference it from each service that shares it using the service-level `volumes` option.",
    ),
    ("cpu_quota", "Set resource limits using deploy.resources"),
    ("cpu_shares", "Set resource limits using deploy.resources"),
    ("cpuset", "Set resource limits using deploy.resources"),
    ("mem_limit", "Set resource limits using deploy.resources"),
];
/// Permission bits of a secret's or config's file that says nothing.
const FILE_MODE: u32 = 0o444;

/// What the services of a file may refer to.
pub(super) struct Defined {
    pub(super) networks: BTreeMap<String, Network>,
    pub(super) volumes: Volumes,
    pub(super) secrets: BTreeMap<String, Content>,
    pub(super) configs: BTreeMap<String, Content>,
}

/// A service, and the networks (by their names in the file) that it needs.
pub(super) struct Service {
    pub(super) spec: ServiceSpec,
    pub(super) networks: BTreeSet<String>,
}

/// Reads a service.
pub(super) fn service(
    name: &str,
    mut section: Section,
    defined: &Defined,
    surroundings: &Surroundings<'_>,
    notes: &mut Notes,
) -> Result<Service> {
    leave_out(&mut section, notes)?;
    let image = section.text("image")?.filter(|image| !image.is_empty()).ok_or_else(|| {
        message(format!("invalid image reference for service {name}: no image specified"))
    })?;
    let deploy = deploy(&mut section)?;
    let (networks, attachments) = attachments(name, &mut section, defined)?;
    let ports = ports(&mut section, notes)?;
    let container = container(&mut section, image.clone(), defined, surroundings)?;
    let logging = logging(section.section("logging")?)?;
    section.finish()?;
    let mut labels = surroundings.labels(&deploy.labels);
    labels.insert(LABEL_IMAGE.to_owned(), image);
    let spec = ServiceSpec {
        name: format!("{}_{name}", surroundings.stack),
        labels,
        task_template: TaskSpec {
            container_spec: Some(container),
            resources: Some(deploy.resources),
            restart_policy: deploy.restart,
            placement: Some(deploy.placement),
            networks: attachments,
            log_driver: logging,
            ..TaskSpec::default()
        },
        mode: deploy.mode,
        update_config: deploy.update,
        rollback_config: deploy.rollback,
        endpoint_spec: Some(EndpointSpec { mode: deploy.endpoint_mode, ports }),
        ..ServiceSpec::default()
    };
    Ok(Service { spec, networks })
}

fn leave_out(section: &mut Section, notes: &mut Notes) -> Result<()> {
    for (name, why) in FORBIDDEN {
        if section.remove(name) {
            return Err(message(format!("{}: {name} cannot be used here. {why}", section.path())));
        }
    }
    for name in IGNORED {
        if section.remove(name) {
            notes.ignored.insert(name.to_owned());
        }
    }
    if section.remove("container_name") {
        let why = "Setting the container name is not supported.";
        notes.deprecated.insert("container_name".to_owned(), why.to_owned());
    }
    if section.remove("expose") {
        let why = "Exposing ports is unnecessary - services on the same network can access each other's containers on any port.";
        notes.deprecated.insert("expose".to_owned(), why.to_owned());
    }
    Ok(())
}

fn container(
    section: &mut Section,
    image: String,
    defined: &Defined,
    surroundings: &Surroundings<'_>,
) -> Result<ContainerSpec> {
    let (cap_add, cap_drop) = capabilities(&section.texts("cap_add")?, &section.texts("cap_drop")?);
    let labels = section.labels("labels")?;
    let dns = DnsConfig {
        nameservers: section.texts("dns")?,
        search: section.texts("dns_search")?,
        options: section.texts("dns_opt")?,
    };
    Ok(ContainerSpec {
        image,
        labels: surroundings.labels(&labels),
        command: section.words("entrypoint")?,
        args: section.words("command")?,
        hostname: section.text_or_empty("hostname")?,
        env: environment(section, surroundings)?,
        dir: section.text_or_empty("working_dir")?,
        user: section.text_or_empty("user")?,
        groups: section.texts("group_add")?,
        init: section.flag("init")?,
        stop_signal: section.text_or_empty("stop_signal")?,
        tty: section.flag("tty")?.unwrap_or_default(),
        open_stdin: section.flag("stdin_open")?.unwrap_or_default(),
        read_only: section.flag("read_only")?.unwrap_or_default(),
        mounts: mounts(section, &defined.volumes, surroundings)?,
        stop_grace_period: section.duration("stop_grace_period")?,
        healthcheck: healthcheck(section.section("healthcheck")?)?,
        hosts: hosts(section)?,
        dns_config: (dns != DnsConfig::default()).then_some(dns),
        secrets: secrets(section, &defined.secrets)?,
        configs: configs(section, &defined.configs)?,
        isolation: section.text_or_empty("isolation")?,
        sysctls: section.labels("sysctls")?,
        capability_add: cap_add,
        capability_drop: cap_drop,
        ulimits: ulimits(section.section("ulimits")?)?,
        oom_score_adj: section.number("oom_score_adj")?.unwrap_or_default(),
        ..ContainerSpec::default()
    })
}

/// Variables of files, then the service's own; those without a value are the caller's.
fn environment(section: &mut Section, surroundings: &Surroundings<'_>) -> Result<Vec<String>> {
    let files: Vec<String> = section
        .texts("env_file")?
        .iter()
        .map(|file| surroundings.directory.join(file).to_string_lossy().into_owned())
        .collect();
    let mut variables: BTreeMap<String, Option<String>> =
        crate::parse::env::variables(&files, &[], surroundings.lookup)?
            .into_iter()
            .filter_map(|line| {
                let (name, value) = line.split_once('=')?;
                Some((name.to_owned(), Some(value.to_owned())))
            })
            .collect();
    for (name, value) in section.pairs("environment", '=')? {
        let value = value.or_else(|| (surroundings.lookup)(&name));
        variables.insert(name, value);
    }
    Ok(variables
        .into_iter()
        .map(|(name, value)| match value {
            Some(value) => format!("{name}={value}"),
            None => name,
        })
        .collect())
}

fn hosts(section: &mut Section) -> Result<Vec<String>> {
    let path = format!("{}.extra_hosts", section.path());
    section
        .pairs("extra_hosts", ':')?
        .into_iter()
        .map(|(name, address)| match (name.split_once('='), address) {
            (Some((name, start)), None) => Ok(format!("{start} {name}")),
            // An IPv6 address after `name=`.
            (Some((name, start)), Some(rest)) => Ok(format!("{start}:{rest} {name}")),
            (None, Some(address)) => Ok(format!("{address} {name}")),
            (None, None) => Err(must_be(&path, "a list of host:ip")),
        })
        .collect()
}

fn healthcheck(section: Option<Section>) -> Result<Option<HealthConfig>> {
    let Some(mut section) = section else { return Ok(None) };
    let path = section.path().to_owned();
    let disable = section.flag("disable")?.unwrap_or_default();
    let test = match section.take("test") {
        None => Vec::new(),
        Some(Value::Text(line)) => vec!["CMD-SHELL".to_owned(), line],
        Some(Value::List(list)) => list
            .iter()
            .map(|word| word.scalar().ok_or_else(|| must_be(&path, "a list of strings")))
            .collect::<Result<_>>()?,
        Some(_) => return Err(must_be(&format!("{path}.test"), "a string or a list")),
    };
    if disable && !test.is_empty() {
        return Err(message("test and disable can't be set at the same time"));
    }
    let health = HealthConfig {
        test: if disable { vec!["NONE".to_owned()] } else { test },
        interval: section.duration("interval")?.unwrap_or_default(),
        timeout: section.duration("timeout")?.unwrap_or_default(),
        start_period: section.duration("start_period")?.unwrap_or_default(),
        start_interval: section.duration("start_interval")?.unwrap_or_default(),
        retries: section.number("retries")?.unwrap_or_default(),
    };
    section.finish()?;
    Ok(Some(health))
}

fn ulimits(section: Option<Section>) -> Result<Vec<Ulimit>> {
    let Some(mut section) = section else { return Ok(Vec::new()) };
    let mut ulimits = Vec::new();
    for name in section.names() {
        let path = format!("{}.{name}", section.path());
        let number = |value: &Value| value.scalar().and_then(|text| text.parse::<i64>().ok());
        let (soft, hard) = match section.take(&name) {
            Some(Value::Map(map)) => {
                let mut pair = Section::new(path, Value::Map(map))?;
                let both = (
                    pair.number("soft")?.unwrap_or_default(),
                    pair.number("hard")?.unwrap_or_default(),
                );
                pair.finish()?;
                both
            }
            Some(value) => {
                let one = number(&value).ok_or_else(|| must_be(&path, "an integer"))?;
                (one, one)
            }
            None => continue,
        };
        ulimits.push(Ulimit { name, hard, soft });
    }
    Ok(ulimits)
}

fn logging(section: Option<Section>) -> Result<Option<Driver>> {
    let Some(mut section) = section else { return Ok(None) };
    let driver =
        Driver { name: section.text_or_empty("driver")?, options: section.labels("options")? };
    section.finish()?;
    Ok(Some(driver))
}

fn ports(section: &mut Section, notes: &mut Notes) -> Result<Vec<PortConfig>> {
    let mut ports = Vec::new();
    for (path, item) in section.items("ports")? {
        if let Value::Map(_) = item {
            let mut long = Section::new(path, item)?;
            let protocol = long.text("protocol")?.unwrap_or_else(|| "tcp".to_owned());
            let publish_mode = long.text("mode")?.unwrap_or_else(|| "ingress".to_owned());
            // For other engines: a name and a protocol of the application.
            long.remove("app_protocol");
            ports.push(PortConfig {
                name: long.text_or_empty("name")?,
                protocol,
                publish_mode,
                target_port: long.number("target")?.unwrap_or_default(),
                published_port: long.number("published")?.unwrap_or_default(),
            });
            long.finish()?;
            continue;
        }
        let text = item.scalar().ok_or_else(|| must_be(&path, "a port or a mapping"))?;
        let plain = match text.rsplitn(3, ':').collect::<Vec<_>>().as_slice() {
            [target, published, address] => {
                notes.warnings.insert(format!(
                    "ignoring IP-address ({address}:{published}:{target}) service will listen on '0.0.0.0'"
                ));
                format!("{published}:{target}")
            }
            _ => text.clone(),
        };
        ports.extend(service_ports(&plain).map_err(|e| message(format!("{path}: {e}")))?);
    }
    ports.sort_by_key(|port| port.published_port);
    Ok(ports)
}

fn attachments(
    service: &str,
    section: &mut Section,
    defined: &Defined,
) -> Result<(BTreeSet<String>, Vec<NetworkAttachmentConfig>)> {
    let path = format!("{}.networks", section.path());
    let mut wanted: Vec<(String, Section)> = match section.take("networks") {
        None => Vec::new(),
        Some(Value::List(list)) => list
            .iter()
            .map(|item| {
                let name = item.scalar().ok_or_else(|| must_be(&path, "a list of strings"))?;
                Ok((name, Section::new(path.clone(), Value::Null)?))
            })
            .collect::<Result<_>>()?,
        Some(value) => Section::new(path, value)?.sections()?,
    };
    if wanted.is_empty() {
        wanted.push(("default".to_owned(), Section::new("", Value::Null)?));
    }
    let mut used = BTreeSet::new();
    let mut attachments = Vec::new();
    for (name, mut section) in wanted {
        let network = defined
            .networks
            .get(&name)
            .ok_or_else(|| message(format!("undefined network {name:?}")))?;
        let mut aliases = section.texts("aliases")?;
        let driver_opts = section.labels("driver_opts")?;
        // A service has no fixed addresses in a swarm.
        let _ = (section.remove("ipv4_address"), section.remove("ipv6_address"));
        section.finish()?;
        if crate::parse::network::is_user_defined(&network.request.name) {
            aliases.push(service.to_owned());
        }
        attachments.push(NetworkAttachmentConfig {
            target: network.request.name.clone(),
            aliases,
            driver_opts,
        });
        used.insert(name);
    }
    attachments.sort_by(|a, b| a.target.cmp(&b.target));
    Ok((used, attachments))
}

/// What a service is granted: the name in the file, and the file in the container.
fn grants(
    kind: &str,
    section: &mut Section,
    contents: &BTreeMap<String, Content>,
) -> Result<Vec<(String, FileTarget)>> {
    let mut grants = Vec::new();
    for (path, item) in section.items(&format!("{kind}s"))? {
        let mut file = FileTarget {
            uid: "0".to_owned(),
            gid: "0".to_owned(),
            mode: FILE_MODE,
            ..FileTarget::default()
        };
        let source = match item {
            Value::Map(_) => {
                let mut long = Section::new(path.clone(), item)?;
                let source = long
                    .text("source")?
                    .ok_or_else(|| message(format!("{path} source is required")))?;
                file.name = long.text_or_empty("target")?;
                file.uid = long.text("uid")?.unwrap_or(file.uid);
                file.gid = long.text("gid")?.unwrap_or(file.gid);
                file.mode = long.mode("mode")?.unwrap_or(file.mode);
                long.finish()?;
                source
            }
            item => item.scalar().ok_or_else(|| must_be(&path, "a name or a mapping"))?,
        };
        let content =
            contents.get(&source).ok_or_else(|| message(format!("undefined {kind} {source:?}")))?;
        if file.name.is_empty() {
            file.name = if kind == "config" { format!("/{source}") } else { source };
        }
        grants.push((content.cluster_name.clone(), file));
    }
    grants.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(grants)
}

fn secrets(
    section: &mut Section,
    contents: &BTreeMap<String, Content>,
) -> Result<Vec<SecretReference>> {
    Ok(grants("secret", section, contents)?
        .into_iter()
        .map(|(secret_name, file)| SecretReference {
            file: Some(file),
            secret_name,
            ..SecretReference::default()
        })
        .collect())
}

fn configs(
    section: &mut Section,
    contents: &BTreeMap<String, Content>,
) -> Result<Vec<ConfigReference>> {
    Ok(grants("config", section, contents)?
        .into_iter()
        .map(|(config_name, file)| ConfigReference {
            file: Some(file),
            config_name,
            ..ConfigReference::default()
        })
        .collect())
}
