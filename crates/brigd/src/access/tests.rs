//! Facts: nothing that reaches the host goes unseen, however it is written.

use std::collections::BTreeMap;

use brig_access::Facts;
use brig_api::container::{ContainerCreateRequest, HostConfig};
use brig_api::swarm::ServiceSpec;

use super::{container, service};

fn of_container(json: &str) -> Facts {
    let request: ContainerCreateRequest = serde_json::from_str(json).unwrap();
    let networking = Some(&request.networking_config);
    container::facts(&request.config, &request.host_config, networking, &BTreeMap::new())
}

fn of_service(json: &str) -> Facts {
    service::facts(&serde_json::from_str::<ServiceSpec>(json).unwrap(), None)
}

#[test]
fn a_plain_container_reaches_nothing() {
    let facts = of_container(
        r#"{"Image":"a:1","Labels":{"com.docker.stack.namespace":"shop"},"HostConfig":{
            "Binds":["data:/data:ro"],"NetworkMode":"front","IpcMode":"private","CapDrop":["ALL"],
            "CapAdd":["net_bind_service"],"SecurityOpt":["no-new-privileges:true"],
            "PortBindings":{"80/tcp":[{"HostPort":"8080"}]},"Tmpfs":{"/tmp":""}}}"#,
    );
    assert_eq!(facts.host_access().len(), 0, "{facts:?}");
    assert_eq!((facts.image.as_str(), facts.stack.as_str()), ("a:1", "shop"));
    assert_eq!(facts.volumes[0].name, "data");
    assert_eq!(facts.networks[0].name, "front");
    assert!(facts.ports.contains("8080:80/tcp"));
}

#[test]
fn a_volume_is_of_the_host_unless_it_is_known_to_come_from_elsewhere() {
    let options = |pairs: &[(&str, &str)]| {
        let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        container::of_host_by_options(&map)
    };
    for harmless in [
        &[][..],
        &[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")],
        &[("type", "nfs"), ("device", ":/x"), ("o", "addr=10.0.0.1,rw")],
        &[("type", "cifs"), ("device", "//host/share"), ("o", "user=x")],
    ] {
        assert_eq!(options(harmless), None, "{harmless:?}");
    }
    for mighty in [
        &[("type", "none"), ("o", "bind"), ("device", "/etc")][..],
        &[("o", "bind"), ("device", "/etc")],
        &[("device", "/dev/sda1"), ("type", "ext4")],
        &[("type", "nfs"), ("o", "bind"), ("device", ":/etc")],
        &[("type", "nfs"), ("device", "/etc")],
        &[("type", "overlay"), ("device", "overlay"), ("o", "lowerdir=/etc")],
        &[("type", "proc"), ("device", "proc")],
        &[("TYPE", "none"), ("O", "rbind"), ("Device", "/")],
    ] {
        assert!(options(mighty).is_some(), "{mighty:?}");
    }
}

#[test]
fn what_a_service_asks_for_is_seen() {
    for (json, expected) in [
        (r#"{"Mounts":[{"Type":"bind","Source":"/etc","Target":"/x"}]}"#, "mount of /etc"),
        (r#"{"CapabilityAdd":["CAP_SYS_ADMIN"]}"#, "capability SYS_ADMIN"),
        (
            r#"{"Privileges":{"Seccomp":{"Mode":"unconfined"}}}"#,
            "security option seccomp=unconfined",
        ),
        (r#"{"Privileges":{"AppArmor":{"Mode":"disabled"}}}"#, "security option apparmor=disabled"),
        (r#"{"Privileges":{"SELinuxContext":{"Disable":true}}}"#, "security option selinux"),
        (r#"{"Sysctls":{"vm.swappiness":"1"}}"#, "security option sysctl vm.swappiness"),
        (r#"{"Mounts":[{"Type":"npipe","Source":"x","Target":"/x"}]}"#, "mount of type npipe"),
    ] {
        let spec = format!(r#"{{"Name":"w","TaskTemplate":{{"ContainerSpec":{json}}}}}"#);
        let access = of_service(&spec).host_access();
        assert!(access.contains(expected), "{json}: {access:?}");
    }
    for json in [
        r#"{"Name":"w","TaskTemplate":{"Networks":[{"Target":"host"}]}}"#,
        r#"{"Name":"w","Networks":[{"Target":"host"}]}"#,
        r#"{"Name":"w","TaskTemplate":{"Runtime":"plugin"}}"#,
        r#"{"Name":"w","TaskTemplate":{"NetworkAttachmentSpec":{"ContainerID":"x"}}}"#,
    ] {
        assert_eq!(of_service(json).host_access().len(), 1, "{json}");
    }
    let spec = r#"{"Name":"w","TaskTemplate":{"ContainerSpec":{"Image":"i","Secrets":[{"SecretID":"sid","SecretName":"harmless"}]}},
        "EndpointSpec":{"Ports":[{"TargetPort":80,"PublishedPort":8080}]}}"#;
    let facts = of_service(spec);
    assert_eq!(facts.secrets[0].name, "sid", "the id counts, not the client's word");
    assert!(facts.ports.contains("8080:80/tcp") && facts.host_access().is_empty());
}

proptest::proptest! {
    /// A bind of a path of the host is seen, whatever its path and its options.
    #[test]
    fn binds_are_seen(path in "/[a-z./]{0,12}", target in "/[a-z]{1,8}", mode in "(|:ro|:rw,z|:rslave)") {
        let host = HostConfig { binds: vec![[&path, &target, ":", &target, &mode].concat()], ..HostConfig::default() };
        let mut facts = Facts::default();
        container::of_host(&mut facts, &host);
        let source = format!("{path}{target}");
        proptest::prop_assert!(facts.host_mounts.contains(&source));
    }

    /// Whatever stands in a namespace mode, sharing with the host or a container is seen.
    #[test]
    fn namespaces_are_seen(which in 0_usize..6, other in "[a-z0-9]{1,8}", host in proptest::bool::ANY) {
        let mode = if host { "host".to_owned() } else { format!("container:{other}") };
        let mut config = HostConfig::default();
        *[&mut config.pid_mode, &mut config.ipc_mode, &mut config.uts_mode,
          &mut config.userns_mode, &mut config.cgroupns_mode, &mut config.network_mode][which] = mode;
        let mut facts = Facts::default();
        container::of_host(&mut facts, &config);
        proptest::prop_assert_eq!(facts.host_namespaces.len(), 1);
    }

    /// Capabilities by any spelling: all but the default ones count.
    #[test]
    fn capabilities_are_seen(name in "(CAP_|cap_|)(SYS_ADMIN|sys_ptrace|All|BPF)") {
        proptest::prop_assert_eq!(container::capabilities(&[name]).len(), 1);
    }
}
