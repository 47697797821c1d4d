//! Network objects that every cluster has, and the attachments of tasks.
//!
//! `host` and `bridge` stand for the networks of that name that every node has by itself. Networks
//! that span nodes are not offered yet; specs that ask for one are refused when they arrive.

use brig_proto::swarm::{
    Annotations, Driver, IpamOptions, Network, NetworkAttachment, NetworkAttachmentConfig,
    NetworkSpec, Service, Task,
};
use brig_store::State;

/// Marks a network that every node has by itself.
pub(crate) const PREDEFINED_LABEL: &str = "com.docker.swarm.predefined";

/// The networks that a new cluster starts with.
pub(crate) fn predefined() -> Vec<Network> {
    ["bridge", "host"]
        .into_iter()
        .map(|name| {
            let driver = Driver { name: name.to_owned(), ..Driver::default() };
            Network {
                id: brig_types::id::random_swarm_id(),
                spec: Some(NetworkSpec {
                    annotations: Some(Annotations {
                        name: name.to_owned(),
                        labels: [(PREDEFINED_LABEL.to_owned(), "true".to_owned())].into(),
                        ..Annotations::default()
                    }),
                    driver_config: Some(driver.clone()),
                    ..NetworkSpec::default()
                }),
                driver_state: Some(driver),
                ipam: Some(IpamOptions {
                    driver: Some(Driver::default()),
                    ..IpamOptions::default()
                }),
                ..Network::default()
            }
        })
        .collect()
}

/// Whether a network is one of [`predefined`].
pub(crate) fn is_predefined(network: &Network) -> bool {
    network
        .spec
        .as_ref()
        .and_then(|spec| spec.annotations.as_ref())
        .is_some_and(|annotations| annotations.labels.contains_key(PREDEFINED_LABEL))
}

/// The networks that a service asks for, from the template or the deprecated place.
pub(crate) fn requested(service: &Service) -> &[NetworkAttachmentConfig] {
    let Some(spec) = &service.spec else {
        return &[];
    };
    match &spec.task {
        Some(task) if !task.networks.is_empty() => &task.networks,
        Some(_) | None => &spec.networks,
    }
}

/// The attachments of a task; `None` while a network is missing.
pub(crate) fn resolve(
    state: &State,
    task: &Task,
    service: &Service,
) -> Option<Vec<NetworkAttachment>> {
    let own = task.spec.as_ref().map_or(&[][..], |spec| spec.networks.as_slice());
    let wanted = if own.is_empty() { requested(service) } else { own };
    wanted
        .iter()
        .map(|config| {
            let network = state.get::<Network>(&config.target)?;
            Some(NetworkAttachment {
                network: Some((*network).clone()),
                addresses: Vec::new(),
                aliases: config.aliases.clone(),
                driver_attachment_opts: config.driver_attachment_opts.clone(),
            })
        })
        .collect()
}
