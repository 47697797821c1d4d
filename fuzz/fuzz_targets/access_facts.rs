//! What containers and services ask for, as the rules see it: whatever an operator or a deployer
//! is allowed has nothing of the host, and a body means the same however it is written.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use brig_access::{Action, Facts, Object, Principal, Request, Rules, Scope};
use brig_api::container::{ContainerCreateRequest, HostConfig, Mount, UpdateRequest};
use brig_api::swarm::ServiceSpec;
use brigd::access::{container, service};
use libfuzzer_sys::fuzz_target;

static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::dockers().expect("built in"));

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = serde_json::from_slice::<ContainerCreateRequest>(data) {
        let found = of_container(&request);
        let host = &request.host_config;
        judged(Action::ContainerCreate, &found, has_host(host));
        let again = serde_json::to_vec(&request).expect("what was read can be written");
        let again = serde_json::from_slice(&again).expect("what was written can be read");
        assert_eq!(of_container(&again), found);
        // The order in which things are asked for says nothing.
        let mut turned = request;
        turned.host_config.cap_add.reverse();
        turned.host_config.devices.reverse();
        turned.host_config.security_opt.reverse();
        assert_eq!(of_container(&turned), found);
        turned.host_config.privileged = true;
        judged(Action::ContainerCreate, &of_container(&turned), true);
    }
    if let Ok(request) = serde_json::from_slice::<UpdateRequest>(data) {
        let mut facts = Facts::default();
        container::of_host(&mut facts, &request.0);
        judged(Action::ContainerUpdate, &facts, has_host(&request.0));
    }
    if let Ok(mut spec) = serde_json::from_slice::<ServiceSpec>(data) {
        let found = service::facts(&spec, None);
        let asked = spec.task_template.container_spec.as_ref();
        let host = asked.is_some_and(|asked| {
            asked.mounts.iter().any(binds) || asked.capability_add.iter().any(|name| strong(name))
        });
        judged(Action::ServiceCreate, &found, host);
        assert!(found.secrets.len() >= asked.map_or(0, |asked| asked.secrets.len()));
        let again = serde_json::to_vec(&spec).expect("what was read can be written");
        let again: ServiceSpec = serde_json::from_slice(&again).expect("and read again");
        assert_eq!(service::facts(&again, None), found);
        if let Some(asked) = &mut spec.task_template.container_spec {
            asked.capability_add.push("Cap_Sys_Admin".to_owned());
            judged(Action::ServiceCreate, &service::facts(&spec, None), true);
        }
    }
});

fn of_container(request: &ContainerCreateRequest) -> Facts {
    let networking = Some(&request.networking_config);
    container::facts(&request.config, &request.host_config, networking, &BTreeMap::new())
}

/// Lets the roles that get nothing of the host decide. `host` is what a plain look at the body
/// says, made apart from the facts.
fn judged(action: Action, facts: &Facts, host: bool) {
    if host {
        assert!(!facts.host_access().is_empty(), "{facts:?}");
    }
    let object = Object::named("x", "");
    for role in ["operator", "deployer"] {
        let principal = Principal::Lent {
            role: role.to_owned(),
            scope: Scope::default(),
            container: "c".to_owned(),
        };
        let decision =
            RULES.decide(&Request { principal: &principal, action, object: &object, facts });
        assert!(!decision.rule.is_empty());
        if decision.allowed {
            assert!(facts.host_access().is_empty(), "{decision:?} {facts:?}");
            assert!(facts.secrets.is_empty(), "{decision:?} {facts:?}");
        }
    }
}

fn has_host(host: &HostConfig) -> bool {
    host.privileged
        || host.binds.iter().any(|bind| bind.starts_with('/') && bind.contains(':'))
        || host.mounts.iter().any(binds)
        || host.cap_add.iter().any(|name| strong(name))
        || !host.devices.is_empty()
        || !host.device_cgroup_rules.is_empty()
        || !host.volumes_from.is_empty()
        || [&host.pid_mode, &host.ipc_mode, &host.uts_mode, &host.network_mode]
            .iter()
            .any(|mode| *mode == "host")
}

fn binds(mount: &Mount) -> bool {
    mount.kind == "bind"
}

fn strong(capability: &str) -> bool {
    let name = capability.to_ascii_lowercase();
    ["sys_admin", "cap_sys_admin", "all", "cap_sys_ptrace"].contains(&name.as_str())
}
