//! The last check before something is sent to an agent.
//!
//! Agents of Docker Engine dereference some fields unchecked: a malformed task crashes such a
//! daemon, and again on each of its starts, because it has written the task down. Whatever breaks
//! a rule here is withheld.

use std::collections::BTreeSet;

use brig_proto::swarm::{
    FileTarget, Network, NetworkAttachment, SessionMessage, Task, config_reference,
    secret_reference, task_spec,
};
use brig_types::reference::Reference;

/// Checks a task.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn task(task: &Task) -> Result<(), String> {
    for attachment in &task.networks {
        attached(attachment)?;
    }
    let spec = task.spec.as_ref().ok_or("the task has no spec")?;
    match spec.runtime.as_ref().ok_or("the task has no runtime")? {
        task_spec::Runtime::Attachment(_) => return Ok(()),
        task_spec::Runtime::Generic(generic) => {
            return if generic.payload.is_some() {
                Ok(())
            } else {
                Err("the generic runtime has no payload".to_owned())
            };
        }
        task_spec::Runtime::Container(container) => {
            if Reference::parse(&container.image).is_err() {
                return Err(format!("{:?} is not a valid image reference", container.image));
            }
            for secret in &container.secrets {
                let Some(secret_reference::Target::File(target)) = &secret.target else {
                    return Err(format!("secret {} has no target", secret.secret_name));
                };
                owner(target)?;
            }
            for config in &container.configs {
                match &config.target {
                    Some(config_reference::Target::File(target)) => owner(target)?,
                    Some(config_reference::Target::Runtime(_)) => {}
                    None => return Err(format!("config {} has no target", config.config_name)),
                }
            }
        }
    }
    let name = task.service_annotations.as_ref().map_or("", |a| a.name.as_str());
    if name.is_empty() {
        return Err("the service has no name".to_owned());
    }
    Ok(())
}

/// Checks a session message.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn session(message: &SessionMessage) -> Result<(), String> {
    if message.managers.is_empty() {
        return Err("no manager to reconnect to".to_owned());
    }
    if message.managers.iter().any(|manager| manager.peer.is_none()) {
        return Err("a manager without peer".to_owned());
    }
    for attachment in message.node.iter().flat_map(|node| &node.attachments) {
        attached(attachment)?;
        let network = attachment.network.as_ref();
        let ingress =
            network.and_then(|network| network.spec.as_ref()).is_some_and(|spec| spec.ingress);
        if ingress && network.is_some_and(|network| network.ipam.is_none()) {
            return Err("the ingress network has no IPAM".to_owned());
        }
    }
    let keys = &message.network_bootstrap_keys;
    let of = |subsystem: &str| keys.iter().filter(|key| key.subsystem == subsystem).count();
    if !keys.is_empty() && (of("networking:gossip"), of("networking:ipsec")) != (3, 3) {
        return Err("network keys come in threes".to_owned());
    }
    let times: BTreeSet<u64> = keys.iter().map(|key| key.lamport_time).collect();
    if times.len() != keys.len() {
        return Err("two network keys with one lamport time".to_owned());
    }
    Ok(())
}

fn attached(attachment: &NetworkAttachment) -> Result<(), String> {
    let network: &Network =
        attachment.network.as_ref().ok_or("a network attachment without network")?;
    if network.driver_state.is_none() {
        return Err(format!("network {} has no driver state", network.id));
    }
    match &network.ipam {
        Some(ipam) if ipam.driver.is_none() => {
            Err(format!("network {} has IPAM without driver", network.id))
        }
        Some(_) | None => Ok(()),
    }
}

fn owner(target: &FileTarget) -> Result<(), String> {
    let number = |text: &str| text.parse::<u32>().is_ok();
    if number(&target.uid) && number(&target.gid) {
        Ok(())
    } else {
        Err(format!("the owner of {} is not numeric", target.name))
    }
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::{
        Annotations, ConfigReference, ContainerSpec, Driver, EncryptionKey, GenericRuntimeSpec,
        IpamOptions, Node, Peer, SecretReference, TaskSpec, WeightedPeer,
    };

    use super::*;

    type Breakage<T> = (&'static str, fn(&mut T));

    fn good() -> Task {
        Task {
            service_annotations: Some(Annotations {
                name: "web".to_owned(),
                ..Annotations::default()
            }),
            spec: Some(TaskSpec {
                runtime: Some(task_spec::Runtime::Container(ContainerSpec {
                    image: "busybox:latest".to_owned(),
                    secrets: vec![SecretReference {
                        target: Some(secret_reference::Target::File(file())),
                        ..SecretReference::default()
                    }],
                    ..ContainerSpec::default()
                })),
                ..TaskSpec::default()
            }),
            networks: vec![NetworkAttachment {
                network: Some(network()),
                ..NetworkAttachment::default()
            }],
            ..Task::default()
        }
    }

    fn file() -> FileTarget {
        FileTarget { name: "s".to_owned(), uid: "0".to_owned(), gid: "0".to_owned(), mode: 0o444 }
    }

    fn network() -> Network {
        Network {
            driver_state: Some(Driver::default()),
            ipam: Some(IpamOptions { driver: Some(Driver::default()), ..IpamOptions::default() }),
            ..Network::default()
        }
    }

    fn container(task: &mut Task) -> &mut ContainerSpec {
        crate::task::container_mut(task.spec.as_mut().unwrap()).unwrap()
    }

    #[test]
    fn every_known_way_to_crash_an_agent_is_withheld() {
        task(&good()).unwrap();
        let breakages: [Breakage<Task>; 13] = [
            ("no network", |t| t.networks[0].network = None),
            ("no driver state", |t| {
                t.networks[0].network.as_mut().unwrap().driver_state = None;
            }),
            ("ipam without driver", |t| {
                let network = t.networks[0].network.as_mut().unwrap();
                network.ipam.as_mut().unwrap().driver = None;
            }),
            ("no spec", |t| t.spec = None),
            ("no runtime", |t| t.spec.as_mut().unwrap().runtime = None),
            ("generic without payload", |t| {
                t.spec.as_mut().unwrap().runtime =
                    Some(task_spec::Runtime::Generic(GenericRuntimeSpec::default()));
            }),
            ("empty image", |t| container(t).image.clear()),
            ("bad image", |t| container(t).image = "Not A Reference".to_owned()),
            ("secret without target", |t| container(t).secrets[0].target = None),
            ("uid", |t| {
                let uid = FileTarget { uid: String::new(), ..file() };
                container(t).secrets[0].target = Some(secret_reference::Target::File(uid));
            }),
            ("gid", |t| {
                let gid = FileTarget { gid: "x".to_owned(), ..file() };
                container(t).secrets[0].target = Some(secret_reference::Target::File(gid));
            }),
            ("config without target", |t| {
                container(t).configs.push(ConfigReference::default());
            }),
            ("no service name", |t| t.service_annotations = None),
        ];
        for (name, breakage) in breakages {
            let mut broken = good();
            breakage(&mut broken);
            assert!(task(&broken).is_err(), "{name}");
        }
    }

    #[test]
    fn session_messages_are_checked() {
        let good = || SessionMessage {
            managers: vec![WeightedPeer { peer: Some(Peer::default()), weight: 10 }],
            ..SessionMessage::default()
        };
        session(&good()).unwrap();
        let key = |subsystem: &str, lamport_time| EncryptionKey {
            subsystem: subsystem.to_owned(),
            lamport_time,
            ..EncryptionKey::default()
        };
        let mut all_keys = good();
        for time in 0..3 {
            all_keys.network_bootstrap_keys.push(key("networking:gossip", time));
            all_keys.network_bootstrap_keys.push(key("networking:ipsec", 10 + time));
        }
        session(&all_keys).unwrap();
        let breakages: [Breakage<SessionMessage>; 5] = [
            ("no managers", |m| m.managers.clear()),
            ("no peer", |m| m.managers[0].peer = None),
            ("missing ipsec keys", |m| {
                m.network_bootstrap_keys.retain(|key| key.subsystem == "networking:gossip");
            }),
            ("reused lamport time", |m| m.network_bootstrap_keys[0].lamport_time = 11),
            ("attachment without network", |m| {
                m.node = Some(Node {
                    attachments: vec![NetworkAttachment::default()],
                    ..Node::default()
                });
            }),
        ];
        for (name, breakage) in breakages {
            let mut broken = all_keys.clone();
            breakage(&mut broken);
            assert!(session(&broken).is_err(), "{name}");
        }
    }
}
