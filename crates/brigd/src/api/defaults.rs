//! What the configuration says for containers that don't.

use brig_api::container::{HostConfig, Ulimit};

use crate::config::{ContainerDefaults, NetworkConfig};

/// Fills what a container's configuration left open.
pub fn fill(host: &mut HostConfig, containers: &ContainerDefaults, network: &NetworkConfig) {
    if host.init.is_none() && containers.init {
        host.init = Some(true);
    }
    if host.log_config.kind.is_empty()
        && let Some(driver) = &containers.log_driver
    {
        host.log_config.kind.clone_from(driver);
        if host.log_config.config.is_empty() {
            host.log_config.config.clone_from(&containers.log_opts);
        }
    }
    for default in &containers.ulimits {
        if !host.ulimits.iter().any(|limit| limit.name == default.name) {
            host.ulimits.push(Ulimit {
                name: default.name.clone(),
                soft: default.soft,
                hard: default.hard,
            });
        }
    }
    if host.dns_options.is_empty() {
        host.dns_options.clone_from(&network.dns_opts);
    }
    if host.dns_search.is_empty() {
        host.dns_search.clone_from(&network.dns_search);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UlimitDirective;

    #[test]
    fn only_what_is_open_is_filled() {
        let limit = |name: &str, soft| UlimitDirective { name: name.into(), soft, hard: soft };
        let containers = ContainerDefaults {
            ulimits: vec![limit("nofile", 10), limit("core", 0)],
            init: true,
            log_driver: Some("none".into()),
            ..ContainerDefaults::default()
        };
        let network =
            NetworkConfig { dns_search: vec!["example".into()], ..NetworkConfig::default() };
        let mut open = HostConfig::default();
        fill(&mut open, &containers, &network);
        assert_eq!(open.init, Some(true));
        assert_eq!(open.log_config.kind, "none");
        assert_eq!(open.ulimits.len(), 2);
        assert_eq!(open.dns_search, ["example"]);
        let mut said = HostConfig {
            init: Some(false),
            ulimits: vec![Ulimit { name: "nofile".into(), soft: 5, hard: 6 }],
            dns_search: vec![".".into()],
            ..HostConfig::default()
        };
        said.log_config.kind = "json-file".into();
        fill(&mut said, &containers, &network);
        assert_eq!(said.init, Some(false));
        assert_eq!(said.log_config.kind, "json-file");
        assert_eq!(said.ulimits.iter().find(|l| l.name == "nofile").unwrap().soft, 5);
        assert_eq!(said.dns_search, ["."]);
    }
}
