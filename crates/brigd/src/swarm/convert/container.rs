//! The container of a task.

use brig_api::Empty;
use brig_api::container::{BindOptions, HealthConfig, Mount, TmpfsOptions, Ulimit, VolumeOptions};
use brig_api::data::Base64;
use brig_api::swarm as api;
use brig_proto::swarm as proto;
use brig_proto::swarm::mount::bind_options::Propagation;
use brig_proto::swarm::mount::{Consistency, Type};
use brig_proto::swarm::privileges::app_armor_opts::AppArmorMode;
use brig_proto::swarm::privileges::credential_spec::Source;
use brig_proto::swarm::privileges::seccomp_opts::SeccompMode;
use brig_proto::swarm::{config_reference, container_spec, mount, privileges, secret_reference};

use super::{InvalidSpec, driver, driver_json, duration, nanos, parse_word, word};

/// A container's spec.
///
/// # Errors
/// Words and combinations that docker refuses, in its texts.
pub fn spec(spec: &api::ContainerSpec) -> Result<proto::ContainerSpec, InvalidSpec> {
    if !matches!(spec.isolation.as_str(), "" | "default") {
        return Err(InvalidSpec::value("isolation", &spec.isolation));
    }
    Ok(proto::ContainerSpec {
        image: spec.image.clone(),
        labels: spec.labels.clone(),
        command: spec.command.clone(),
        args: spec.args.clone(),
        env: spec.env.clone(),
        dir: spec.dir.clone(),
        user: spec.user.clone(),
        mounts: spec.mounts.iter().map(mount_message).collect::<Result<_, _>>()?,
        stop_grace_period: spec.stop_grace_period.map(duration),
        pull_options: None,
        groups: spec.groups.clone(),
        secrets: spec.secrets.iter().map(secret).collect(),
        tty: spec.tty,
        hostname: spec.hostname.clone(),
        dns_config: spec.dns_config.as_ref().map(|dns| container_spec::DnsConfig {
            nameservers: dns.nameservers.clone(),
            search: dns.search.clone(),
            options: dns.options.clone(),
        }),
        healthcheck: spec.healthcheck.as_ref().map(health).transpose()?,
        hosts: spec.hosts.clone(),
        open_stdin: spec.open_stdin,
        read_only: spec.read_only,
        stop_signal: spec.stop_signal.clone(),
        configs: spec.configs.iter().map(config).collect::<Result<_, _>>()?,
        privileges: spec.privileges.as_ref().map(privileges_message).transpose()?,
        init: spec.init,
        isolation: 0,
        pids_limit: 0,
        sysctls: spec.sysctls.clone(),
        capability_add: spec.capability_add.clone(),
        capability_drop: spec.capability_drop.clone(),
        ulimits: spec
            .ulimits
            .iter()
            .map(|limit| container_spec::Ulimit {
                name: limit.name.clone(),
                soft: limit.soft,
                hard: limit.hard,
            })
            .collect(),
        oom_score_adj: spec.oom_score_adj,
    })
}

/// A container's spec as it is shown: without credentials for pulling.
#[must_use]
pub fn json(spec: &proto::ContainerSpec) -> api::ContainerSpec {
    api::ContainerSpec {
        image: spec.image.clone(),
        labels: spec.labels.clone(),
        command: spec.command.clone(),
        args: spec.args.clone(),
        hostname: spec.hostname.clone(),
        env: spec.env.clone(),
        dir: spec.dir.clone(),
        user: spec.user.clone(),
        groups: spec.groups.clone(),
        privileges: spec.privileges.as_ref().map(privileges_json),
        init: spec.init,
        stop_signal: spec.stop_signal.clone(),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        read_only: spec.read_only,
        mounts: spec.mounts.iter().map(mount_json).collect(),
        stop_grace_period: spec.stop_grace_period.as_ref().map(nanos),
        healthcheck: spec.healthcheck.as_ref().map(health_json),
        hosts: spec.hosts.clone(),
        dns_config: spec.dns_config.as_ref().map(|dns| api::DnsConfig {
            nameservers: dns.nameservers.clone(),
            search: dns.search.clone(),
            options: dns.options.clone(),
        }),
        secrets: spec.secrets.iter().map(secret_json).collect(),
        configs: spec.configs.iter().map(config_json).collect(),
        isolation: "default".to_owned(),
        sysctls: spec.sysctls.clone(),
        capability_add: spec.capability_add.clone(),
        capability_drop: spec.capability_drop.clone(),
        ulimits: spec
            .ulimits
            .iter()
            .map(|limit| Ulimit { name: limit.name.clone(), hard: limit.hard, soft: limit.soft })
            .collect(),
        oom_score_adj: spec.oom_score_adj,
    }
}

/// A health check.
///
/// # Errors
/// A number of retries that is out of range.
pub fn health(config: &HealthConfig) -> Result<proto::HealthConfig, InvalidSpec> {
    let set = |nanos: i64| (nanos != 0).then(|| duration(nanos));
    Ok(proto::HealthConfig {
        test: config.test.clone(),
        interval: set(config.interval),
        timeout: set(config.timeout),
        retries: i32::try_from(config.retries)
            .map_err(|_| InvalidSpec("invalid number of health check retries".to_owned()))?,
        start_period: set(config.start_period),
        start_interval: set(config.start_interval),
    })
}

/// A health check in the API's form.
#[must_use]
pub fn health_json(config: &proto::HealthConfig) -> HealthConfig {
    HealthConfig {
        test: config.test.clone(),
        interval: config.interval.as_ref().map_or(0, nanos),
        timeout: config.timeout.as_ref().map_or(0, nanos),
        start_period: config.start_period.as_ref().map_or(0, nanos),
        start_interval: config.start_interval.as_ref().map_or(0, nanos),
        retries: i64::from(config.retries),
    }
}

fn file(target: &api::FileTarget) -> proto::FileTarget {
    proto::FileTarget {
        name: target.name.clone(),
        uid: target.uid.clone(),
        gid: target.gid.clone(),
        mode: target.mode,
    }
}

fn file_json(target: &proto::FileTarget) -> api::FileTarget {
    api::FileTarget {
        name: target.name.clone(),
        uid: target.uid.clone(),
        gid: target.gid.clone(),
        mode: target.mode,
    }
}

fn secret(reference: &api::SecretReference) -> proto::SecretReference {
    proto::SecretReference {
        secret_id: reference.secret_id.clone(),
        secret_name: reference.secret_name.clone(),
        target: reference.file.as_ref().map(file).map(secret_reference::Target::File),
    }
}

fn secret_json(reference: &proto::SecretReference) -> api::SecretReference {
    let target = reference.target.as_ref();
    api::SecretReference {
        file: target.map(|secret_reference::Target::File(target)| file_json(target)),
        secret_id: reference.secret_id.clone(),
        secret_name: reference.secret_name.clone(),
    }
}

fn config(reference: &api::ConfigReference) -> Result<proto::ConfigReference, InvalidSpec> {
    let target = match (&reference.file, &reference.runtime) {
        (Some(_), Some(_)) => {
            return Err(InvalidSpec(
                "invalid config reference: cannot specify both File and Runtime".to_owned(),
            ));
        }
        (Some(target), None) => Some(config_reference::Target::File(file(target))),
        (None, Some(_)) => Some(config_reference::Target::Runtime(proto::RuntimeTarget {})),
        (None, None) => {
            return Err(InvalidSpec(
                "invalid config reference: either File or Runtime should be set".to_owned(),
            ));
        }
    };
    Ok(proto::ConfigReference {
        config_id: reference.config_id.clone(),
        config_name: reference.config_name.clone(),
        target,
    })
}

fn config_json(reference: &proto::ConfigReference) -> api::ConfigReference {
    let (file, runtime) = match &reference.target {
        Some(config_reference::Target::File(target)) => (Some(file_json(target)), None),
        Some(config_reference::Target::Runtime(_)) => (None, Some(Empty {})),
        None => (None, None),
    };
    api::ConfigReference {
        file,
        runtime,
        config_id: reference.config_id.clone(),
        config_name: reference.config_name.clone(),
    }
}

fn mount_message(given: &Mount) -> Result<proto::Mount, InvalidSpec> {
    let kind = parse_word(&given.kind, "MountType", Type::from_str_name)?;
    let consistency = parse_word(&given.consistency, "Consistency", Consistency::from_str_name)?;
    Ok(proto::Mount {
        r#type: kind.unwrap_or(Type::Bind).into(),
        source: given.source.clone(),
        target: given.target.clone(),
        readonly: given.read_only,
        bind_options: given.bind_options.as_ref().map(bind).transpose()?,
        volume_options: given.volume_options.as_ref().map(|options| mount::VolumeOptions {
            nocopy: options.no_copy,
            labels: options.labels.clone(),
            driver_config: options.driver_config.as_ref().map(driver),
            subpath: options.subpath.clone(),
        }),
        tmpfs_options: given.tmpfs_options.as_ref().map(tmpfs).transpose()?,
        consistency: consistency.unwrap_or(Consistency::Default).into(),
    })
}

fn bind(options: &BindOptions) -> Result<mount::BindOptions, InvalidSpec> {
    let propagation =
        parse_word(&options.propagation, "MountPropagation", Propagation::from_str_name)?;
    Ok(mount::BindOptions {
        propagation: propagation.unwrap_or(Propagation::Rprivate).into(),
        nonrecursive: options.non_recursive,
        createmountpoint: options.create_mountpoint,
        readonlynonrecursive: options.read_only_non_recursive,
        readonlyforcerecursive: options.read_only_force_recursive,
    })
}

fn tmpfs(options: &TmpfsOptions) -> Result<mount::TmpfsOptions, InvalidSpec> {
    let text = match options.options.as_slice() {
        [] => String::new(),
        list => serde_json::to_string(list)
            .map_err(|error| InvalidSpec(format!("invalid tmpfs options: {error}")))?,
    };
    Ok(mount::TmpfsOptions { size_bytes: options.size_bytes, mode: options.mode, options: text })
}

/// A mount in the API's form.
#[must_use]
pub fn mount_json(message: &proto::Mount) -> Mount {
    let consistency = match Consistency::try_from(message.consistency) {
        Ok(Consistency::Default) | Err(_) => String::new(),
        Ok(consistency) => consistency.as_str_name().to_ascii_lowercase(),
    };
    Mount {
        kind: word(message.r#type, Type::as_str_name),
        source: message.source.clone(),
        target: message.target.clone(),
        read_only: message.readonly,
        consistency,
        bind_options: message.bind_options.as_ref().map(|options| BindOptions {
            propagation: word(options.propagation, Propagation::as_str_name),
            non_recursive: options.nonrecursive,
            create_mountpoint: options.createmountpoint,
            read_only_non_recursive: options.readonlynonrecursive,
            read_only_force_recursive: options.readonlyforcerecursive,
        }),
        volume_options: message.volume_options.as_ref().map(|options| VolumeOptions {
            no_copy: options.nocopy,
            labels: options.labels.clone(),
            subpath: options.subpath.clone(),
            driver_config: options.driver_config.as_ref().map(driver_json),
        }),
        tmpfs_options: message.tmpfs_options.as_ref().map(|options| TmpfsOptions {
            size_bytes: options.size_bytes,
            mode: options.mode,
            // Written by another implementation it may be anything; then it is left out.
            options: serde_json::from_str(&options.options).unwrap_or_default(),
        }),
        ..Mount::default()
    }
}

fn privileges_message(given: &api::Privileges) -> Result<proto::Privileges, InvalidSpec> {
    let credential_spec = match &given.credential_spec {
        None => None,
        Some(spec) => {
            let sources: Vec<Source> = [
                (!spec.config.is_empty()).then(|| Source::Config(spec.config.clone())),
                (!spec.file.is_empty()).then(|| Source::File(spec.file.clone())),
                (!spec.registry.is_empty()).then(|| Source::Registry(spec.registry.clone())),
            ]
            .into_iter()
            .flatten()
            .collect();
            let [source] = <[Source; 1]>::try_from(sources).map_err(|given| {
                InvalidSpec(if given.is_empty() {
                    "invalid CredentialSpec: must either provide \"file\", \"registry\", or \"config\" for credential spec".to_owned()
                } else {
                    "invalid CredentialSpec: cannot specify more than one credential spec".to_owned()
                })
            })?;
            Some(privileges::CredentialSpec { source: Some(source) })
        }
    };
    let seccomp = given.seccomp.as_ref().map(|seccomp| {
        let mode = parse_word(&seccomp.mode, "seccomp mode", SeccompMode::from_str_name)?;
        Ok(privileges::SeccompOpts {
            mode: mode.unwrap_or(SeccompMode::Default).into(),
            profile: seccomp.profile.0.clone(),
        })
    });
    let apparmor = given.app_armor.as_ref().map(|apparmor| {
        let mode = parse_word(&apparmor.mode, "AppArmor mode", AppArmorMode::from_str_name)?;
        Ok(privileges::AppArmorOpts { mode: mode.unwrap_or(AppArmorMode::Default).into() })
    });
    Ok(proto::Privileges {
        credential_spec,
        selinux_context: given.selinux_context.as_ref().map(|context| privileges::SeLinuxContext {
            disable: context.disable,
            user: context.user.clone(),
            role: context.role.clone(),
            r#type: context.kind.clone(),
            level: context.level.clone(),
        }),
        seccomp: seccomp.transpose()?,
        apparmor: apparmor.transpose()?,
        no_new_privileges: given.no_new_privileges,
    })
}

fn privileges_json(message: &proto::Privileges) -> api::Privileges {
    let credential_spec = message.credential_spec.as_ref().map(|spec| {
        let mut json = api::CredentialSpec::default();
        match &spec.source {
            Some(Source::Config(id)) => json.config.clone_from(id),
            Some(Source::File(file)) => json.file.clone_from(file),
            Some(Source::Registry(value)) => json.registry.clone_from(value),
            None => {}
        }
        json
    });
    api::Privileges {
        credential_spec,
        selinux_context: message.selinux_context.as_ref().map(|context| api::SelinuxContext {
            disable: context.disable,
            user: context.user.clone(),
            role: context.role.clone(),
            kind: context.r#type.clone(),
            level: context.level.clone(),
        }),
        seccomp: message.seccomp.as_ref().map(|seccomp| api::SeccompOpts {
            mode: word(seccomp.mode, SeccompMode::as_str_name),
            profile: Base64(seccomp.profile.clone()),
        }),
        app_armor: message.apparmor.as_ref().map(|apparmor| api::AppArmorOpts {
            mode: word(apparmor.mode, AppArmorMode::as_str_name),
        }),
        no_new_privileges: message.no_new_privileges,
    }
}
