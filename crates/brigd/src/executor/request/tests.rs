//! Tasks as a manager sends them, and the containers they become.

use brig_proto::swarm::{
    Annotations, Driver, Endpoint, HealthConfig, NamedGenericResource, Network, NetworkAttachment,
    NetworkSpec, PortConfig, ResourceRequirements, Resources, TaskSpec, container_spec, mount,
    privileges,
};

use super::super::template::NodeFacts;
use super::*;

fn task(spec: ContainerSpec) -> Task {
    Task {
        id: "tid".into(),
        slot: 1,
        service_annotations: Some(Annotations { name: "web".into(), ..Annotations::default() }),
        spec: Some(TaskSpec {
            runtime: Some(task_spec::Runtime::Container(spec)),
            ..TaskSpec::default()
        }),
        ..Task::default()
    }
}

fn spec() -> ContainerSpec {
    ContainerSpec { image: "busybox:latest".into(), ..ContainerSpec::default() }
}

fn request(task: &Task) -> Result<ContainerCreateRequest, TaskError> {
    let node = NodeFacts { hostname: "host".into(), ..NodeFacts::default() };
    let defaults = Defaults {
        containers: crate::config::ContainerDefaults::default(),
        network: crate::config::NetworkConfig::default(),
        socket_binds: Default::default(),
    };
    create(task, &Context::new(task, &node), &defaults)
}

#[test]
fn a_plain_task_is_a_plain_container() {
    let request = request(&task(spec())).unwrap();
    assert_eq!(request.config.image, "busybox:latest");
    assert_eq!(request.host_config.network_mode, "default");
    assert_eq!(request.host_config.restart_policy, Default::default());
    assert!(!request.host_config.auto_remove);
    assert!(request.config.cmd.is_empty() && request.config.entrypoint.is_empty());
    assert_eq!(request.config.stop_timeout, None);
    assert_eq!(request.host_config.pids_limit, None);
}

#[test]
fn everything_of_the_spec_arrives() {
    let mut task = task(ContainerSpec {
        command: vec!["/bin/sh".into()],
        args: vec!["-c".into(), "true".into()],
        env: vec!["A={{.Service.Name}}".into(), "{{B}}=x".into(), "BARE".into()],
        hostname: "{{.Node.Hostname}}-{{.Task.Slot}}".into(),
        user: "5".into(),
        groups: vec!["6".into()],
        hosts: vec!["1.2.3.4 a b".into()],
        stop_grace_period: Some(prost_types::Duration { seconds: 3, nanos: 999 }),
        dns_config: Some(container_spec::DnsConfig {
            nameservers: vec!["9.9.9.9".into()],
            ..container_spec::DnsConfig::default()
        }),
        healthcheck: Some(HealthConfig { test: vec!["NONE".into()], ..HealthConfig::default() }),
        mounts: vec![brig_proto::swarm::Mount {
            r#type: mount::Type::Volume.into(),
            source: "data-{{.Task.Slot}}".into(),
            target: "/v".into(),
            volume_options: Some(mount::VolumeOptions {
                driver_config: Some(Driver {
                    name: "local".into(),
                    options: [("o".to_owned(), "{{.Service.Name}}".to_owned())].into(),
                }),
                ..mount::VolumeOptions::default()
            }),
            ..brig_proto::swarm::Mount::default()
        }],
        privileges: Some(Privileges {
            seccomp: Some(privileges::SeccompOpts {
                mode: SeccompMode::Unconfined.into(),
                profile: Vec::new(),
            }),
            no_new_privileges: true,
            ..Privileges::default()
        }),
        pids_limit: 9,
        read_only: true,
        init: Some(false),
        ..spec()
    });
    task.log_driver = Some(Driver { name: "none".into(), ..Driver::default() });
    if let Some(spec) = &mut task.spec {
        spec.resources = Some(ResourceRequirements {
            limits: Some(Resources { nano_cpus: 5, memory_bytes: 7 << 20, generic: Vec::new() }),
            ..ResourceRequirements::default()
        });
    }
    task.assigned_generic_resources = ["u1", "u2"]
        .map(|value| GenericResource {
            resource: Some(generic_resource::Resource::NamedResourceSpec(NamedGenericResource {
                kind: "gpu".into(),
                value: value.into(),
            })),
        })
        .to_vec();
    let ContainerCreateRequest { config, host_config: host, .. } = request(&task).unwrap();
    assert_eq!(config.entrypoint, ["/bin/sh"]);
    assert_eq!(config.cmd, ["-c", "true"]);
    assert_eq!(config.env, ["A=web", "{{B}}=x", "BARE", "DOCKER_RESOURCE_GPU=u1,u2"]);
    assert_eq!(config.hostname, "host-1");
    assert_eq!(config.stop_timeout, Some(3));
    assert_eq!(config.healthcheck.unwrap().test, ["NONE"]);
    assert_eq!(host.mounts[0].source, "data-1");
    let volume = host.mounts[0].volume_options.as_ref().unwrap();
    assert_eq!(volume.driver_config.as_ref().unwrap().options["o"], "web");
    assert_eq!(host.extra_hosts, ["a:1.2.3.4", "b:1.2.3.4"]);
    assert_eq!(host.security_opt, ["seccomp=unconfined", "no-new-privileges=true"]);
    assert_eq!((host.memory, host.nano_cpus, host.pids_limit), (7 << 20, 5, Some(9)));
    assert_eq!((host.readonly_rootfs, host.init), (true, Some(false)));
    assert_eq!((host.dns, host.group_add), (vec!["9.9.9.9".into()], vec!["6".into()]));
    assert_eq!(host.log_config.kind, "none");
}

#[test]
fn ports_are_published_on_the_node() {
    let mut task = task(spec());
    task.endpoint = Some(Endpoint {
        ports: vec![
            PortConfig { target_port: 80, published_port: 8080, ..PortConfig::default() },
            PortConfig { target_port: 80, published_port: 8081, ..PortConfig::default() },
            PortConfig { target_port: 53, protocol: Protocol::Udp.into(), ..PortConfig::default() },
        ],
        ..Endpoint::default()
    });
    let request = request(&task).unwrap();
    let ports = &request.host_config.port_bindings;
    let host = |port: &str| -> Vec<&str> {
        ports[port].iter().flatten().map(|binding| binding.host_port.as_str()).collect()
    };
    assert_eq!(host("80/tcp"), ["8080", "8081"]);
    assert_eq!(host("53/udp"), [""]);
    assert_eq!(request.config.exposed_ports.len(), 2);
}

fn attachment(name: &str, driver: &str, predefined: bool) -> NetworkAttachment {
    let labels = predefined.then(|| (PREDEFINED_LABEL.to_owned(), "true".to_owned()));
    NetworkAttachment {
        network: Some(Network {
            spec: Some(NetworkSpec {
                annotations: Some(Annotations {
                    name: name.into(),
                    labels: labels.into_iter().collect(),
                    ..Annotations::default()
                }),
                ..NetworkSpec::default()
            }),
            driver_state: Some(Driver { name: driver.into(), ..Driver::default() }),
            ..Network::default()
        }),
        ..NetworkAttachment::default()
    }
}

#[test]
fn networks_of_the_node() {
    let mut task = task(spec());
    task.networks = vec![attachment("host", "host", true)];
    assert_eq!(request(&task).unwrap().host_config.network_mode, "host");
    task.networks = vec![attachment("ov", "overlay", false)];
    let error = request(&task).unwrap_err();
    assert_eq!(error.message, "network ov: driver \"overlay\" is not available on this node");
    task.networks = vec![attachment("host", "host", true), attachment("bridge", "bridge", true)];
    assert!(request(&task).is_err());
}

#[test]
fn tasks_that_cannot_run_are_refused() {
    assert!(request(&task(ContainerSpec::default())).is_err());
    assert!(request(&Task::default()).is_err());
    let error = request(&task(ContainerSpec { hostname: "{{.Nope}}".into(), ..spec() }));
    assert!(error.unwrap_err().message.starts_with("expanding template failed"));
}
