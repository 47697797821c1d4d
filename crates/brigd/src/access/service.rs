//! What a service asks for.

use std::collections::BTreeMap;

use brig_access::{Facts, Reference};
use brig_api::swarm::{ContainerSpec, Privileges, ServiceSpec};
use brig_proto::swarm::TaskSpec;
use brig_proto::swarm::task_spec::Runtime;
use brig_swarm::Control;

use super::{container, lend};
use crate::swarm::convert;

/// Facts of a specification. With the cluster at hand, ids become names and stacks.
#[must_use]
pub fn facts(spec: &ServiceSpec, control: Option<&Control>) -> Facts {
    let mut facts = Facts {
        makes: true,
        name: spec.name.clone(),
        stack: spec.labels.get(brig_access::facts::STACK_LABEL).cloned().unwrap_or_default(),
        labels: spec.labels.clone(),
        ..Facts::default()
    };
    let task = &spec.task_template;
    if task.plugin_spec.is_some() || task.runtime == "plugin" {
        facts.other_access.insert("a plugin".to_owned());
    }
    if task.network_attachment_spec.is_some() || task.runtime == "attachment" {
        facts.other_access.insert("an attachment of a container".to_owned());
    }
    for network in spec.networks.iter().chain(&task.networks) {
        let reference = control
            .and_then(|control| control.network(&network.target).ok())
            .map(|network| {
                let spec = network.spec.as_ref();
                reference(spec.and_then(|spec| spec.annotations.as_ref()))
            })
            .unwrap_or_else(|| Reference::named(&network.target));
        if reference.name == "host" {
            facts.host_namespaces.insert("network=host".to_owned());
        } else {
            facts.networks.push(reference);
        }
    }
    for port in spec.endpoint_spec.iter().flat_map(|endpoint| &endpoint.ports) {
        let protocol = if port.protocol.is_empty() { "tcp" } else { &port.protocol };
        facts.ports.insert(format!("{}:{}/{protocol}", port.published_port, port.target_port));
    }
    if let Some(container) = &task.container_spec {
        of_container(&mut facts, container, control);
    }
    facts
}

fn of_container(facts: &mut Facts, spec: &ContainerSpec, control: Option<&Control>) {
    facts.image.clone_from(&spec.image);
    container::mounts(facts, &spec.mounts);
    lend::note_label(facts, &spec.labels);
    facts.capabilities.extend(container::capabilities(&spec.capability_add));
    container::sysctls(facts, spec.sysctls.keys());
    if let Some(privileges) = &spec.privileges {
        confinement(facts, privileges);
    }
    facts.secrets.extend(spec.secrets.iter().map(|held| secret(&held.secret_id, control)));
    for config in &spec.configs {
        let known = control.and_then(|control| control.config(&config.config_id).ok());
        facts.configs.push(match known {
            Some(config) => {
                let spec = config.spec.as_ref();
                reference(spec.and_then(|spec| spec.annotations.as_ref()))
            }
            None => Reference::named(&config.config_id),
        });
    }
}

fn confinement(facts: &mut Facts, privileges: &Privileges) {
    let mut weak = |what: &str| {
        facts.security_options.insert(what.to_owned());
    };
    if privileges.credential_spec.is_some() {
        weak("credential spec");
    }
    if privileges.selinux_context.as_ref().is_some_and(|selinux| {
        selinux.disable
            || [&selinux.user, &selinux.role, &selinux.kind, &selinux.level]
                .iter()
                .any(|part| !part.is_empty())
    }) {
        weak("selinux");
    }
    let modes = [
        ("seccomp", privileges.seccomp.as_ref().map(|seccomp| seccomp.mode.as_str())),
        ("apparmor", privileges.app_armor.as_ref().map(|armor| armor.mode.as_str())),
    ];
    for (name, mode) in modes {
        if let Some(mode) = mode.filter(|mode| !matches!(*mode, "" | "default")) {
            weak(&format!("{name}={mode}"));
        }
    }
}

fn reference(annotations: Option<&brig_proto::swarm::Annotations>) -> Reference {
    let (name, labels) = convert::name_and_labels(annotations);
    let labels: BTreeMap<String, String> = labels;
    let stack = labels.get(brig_access::facts::STACK_LABEL).cloned().unwrap_or_default();
    Reference { name, stack }
}

/// SECURITY: the id decides which secret it is; the name beside it is the client's word.
fn secret(id: &str, control: Option<&Control>) -> Reference {
    match control.and_then(|control| control.secret(id).ok()) {
        Some(secret) => {
            let spec = secret.spec.as_ref();
            reference(spec.and_then(|spec| spec.annotations.as_ref()))
        }
        None => Reference::named(id),
    }
}

/// Secrets that a task of this specification holds.
#[must_use]
pub fn secrets_held(spec: &TaskSpec, control: &Control) -> Vec<Reference> {
    match &spec.runtime {
        Some(Runtime::Container(container)) => {
            container.secrets.iter().map(|held| secret(&held.secret_id, Some(control))).collect()
        }
        _ => Vec::new(),
    }
}
