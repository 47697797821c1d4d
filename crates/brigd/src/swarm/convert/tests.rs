//! What goes in comes out again, and docker's defaults are where docker has them.

use serde_json::{Value, json};

use super::*;

/// A spec with every flag of `docker service create`, as the CLI sends it.
fn full_spec() -> Value {
    json!({
        "Name": "s2", "Labels": {"l": "1"},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "busybox:latest", "Labels": {"cl": "2"}, "Command": ["sleep"],
                "Args": ["1000"], "Hostname": "{{.Node.Hostname}}", "Env": ["A=b"], "Dir": "/x",
                "User": "root", "Groups": ["5"], "Init": true, "StopSignal": "SIGTERM",
                "TTY": true, "ReadOnly": true,
                "Privileges": {"CredentialSpec": null,
                    "SELinuxContext": {"Disable": false, "User": "u", "Role": "r", "Type": "t", "Level": "l"},
                    "Seccomp": {"Mode": "custom", "Profile": "e30="},
                    "AppArmor": {"Mode": "disabled"}, "NoNewPrivileges": true},
                "Mounts": [
                    {"Type": "volume", "Source": "sv", "Target": "/v",
                     "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"}, "Subpath": "p",
                        "DriverConfig": {"Name": "local", "Options": {"o": "x"}}}},
                    {"Type": "tmpfs", "Target": "/t",
                     "TmpfsOptions": {"SizeBytes": 1000, "Mode": 448, "Options": [["noexec"]]}},
                    {"Type": "bind", "Source": "/b", "Target": "/b", "ReadOnly": true,
                     "Consistency": "cached",
                     "BindOptions": {"Propagation": "rslave", "NonRecursive": true}}],
                "StopGracePeriod": 2_500_000_000_i64,
                "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000_i64, "Retries": 3},
                "Hosts": ["1.2.3.4 h"],
                "DNSConfig": {"Nameservers": ["8.8.8.8"], "Search": ["s"], "Options": ["o"]},
                "Secrets": [{"File": {"Name": "sec1", "UID": "0", "GID": "0", "Mode": 292},
                    "SecretID": "sid", "SecretName": "sec1"}],
                "Configs": [{"File": {"Name": "conf1", "UID": "0", "GID": "0", "Mode": 292},
                    "ConfigID": "cid", "ConfigName": "conf1"},
                    {"Runtime": {}, "ConfigID": "cid2", "ConfigName": "conf2"}],
                "Isolation": "default",
                "Sysctls": {"net.core.somaxconn": "10"},
                "CapabilityAdd": ["CAP_CHOWN"], "CapabilityDrop": ["ALL"],
                "Ulimits": [{"Name": "nofile", "Hard": 20, "Soft": 10}],
                "OomScoreAdj": 5},
            "Resources": {
                "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864, "Pids": 50},
                "Reservations": {"MemoryBytes": 8_388_608, "GenericResources": [
                    {"NamedResourceSpec": {"Kind": "gpu", "Value": "U1"}},
                    {"DiscreteResourceSpec": {"Kind": "ssd", "Value": 3}}]}},
            "RestartPolicy": {"Condition": "on-failure", "Delay": 1_000_000_000, "MaxAttempts": 3,
                "Window": 10_000_000_000_i64},
            "Placement": {"Constraints": ["node.role==manager"],
                "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}],
                "MaxReplicas": 5, "Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
            "Networks": [{"Target": "nid", "Aliases": ["al"], "DriverOpts": {"k": "v"}}],
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}},
            "ForceUpdate": 7, "Runtime": "container"},
        "Mode": {"Replicated": {"Replicas": 2}},
        "UpdateConfig": {"Parallelism": 2, "Delay": 1_000_000_000, "FailureAction": "rollback",
            "Monitor": 2_000_000_000, "MaxFailureRatio": 0.5, "Order": "start-first"},
        "RollbackConfig": {"Parallelism": 1, "FailureAction": "continue", "Monitor": 3_000_000_000_i64,
            "MaxFailureRatio": 0.0, "Order": "stop-first"},
        "EndpointSpec": {"Mode": "dnsrr", "Ports": [
            {"Name": "web", "Protocol": "udp", "TargetPort": 80, "PublishedPort": 18090, "PublishMode": "host"}]}
    })
}

fn spec_of(value: Value) -> api::ServiceSpec {
    serde_json::from_value(value).unwrap()
}

fn with(path: &str, value: Value) -> api::ServiceSpec {
    let mut spec = full_spec();
    *spec.pointer_mut(path).unwrap() = value;
    spec_of(spec)
}

#[test]
fn a_full_service_comes_back_as_it_was_sent() {
    let sent = spec_of(full_spec());
    let stored = service::spec(&sent).unwrap();
    // What is stored is the message's bytes.
    let bytes = prost::Message::encode_to_vec(&stored);
    let stored: proto::ServiceSpec = prost::Message::decode(bytes.as_slice()).unwrap();
    assert_eq!(service::spec_json(&stored), sent);
    assert_eq!(serde_json::to_value(service::spec_json(&stored)).unwrap(), full_spec());
}

#[test]
fn a_minimal_service_gets_dockers_defaults() {
    let sent = spec_of(json!({"TaskTemplate": {"ContainerSpec": {"Image": "a"}}}));
    let stored = service::spec(&sent).unwrap();
    let mut shown = service::spec_json(&stored);
    let value = serde_json::to_value(&shown).unwrap();
    assert_eq!(
        value,
        json!({
            "Labels": {},
            "TaskTemplate": {"ContainerSpec": {"Image": "a", "Isolation": "default"},
                "ForceUpdate": 0, "Runtime": "container"},
            "Mode": {"Replicated": {"Replicas": 1}}
        })
    );
    service::insert_defaults(&mut shown);
    let value = serde_json::to_value(&shown).unwrap();
    assert_eq!(value["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"], 10_000_000_000_i64);
    assert_eq!(value["TaskTemplate"]["RestartPolicy"]["Condition"], "any");
    assert_eq!(value["TaskTemplate"]["RestartPolicy"]["Delay"], 5_000_000_000_i64);
    assert_eq!(value["UpdateConfig"]["FailureAction"], "pause");
    assert_eq!(value["RollbackConfig"]["Monitor"], 5_000_000_000_i64);
    assert_eq!(value["EndpointSpec"]["Mode"], "vip");
}

#[test]
fn modes() {
    for (sent, shown) in [
        (json!({"Global": {}}), json!({"Global": {}})),
        (json!({"Replicated": {}}), json!({"Replicated": {"Replicas": 1}})),
        (json!({"Replicated": {"Replicas": 0}}), json!({"Replicated": {"Replicas": 0}})),
        (json!({"GlobalJob": {}}), json!({"GlobalJob": {}})),
        (
            json!({"ReplicatedJob": {"MaxConcurrent": 2}}),
            json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 2}}),
        ),
    ] {
        let stored = service::spec(&with("/Mode", sent)).unwrap();
        let value = serde_json::to_value(service::spec_json(&stored).mode).unwrap();
        assert_eq!(value, shown);
    }
    let both = with("/Mode", json!({"Global": {}, "Replicated": {"Replicas": 1}}));
    assert_eq!(service::spec(&both).unwrap_err().to_string(), "must specify only one service mode");
}

#[test]
fn wrong_words_are_named() {
    for (path, value, message) in [
        ("/TaskTemplate/ContainerSpec", Value::Null, "mismatched Runtime and *Spec fields"),
        ("/TaskTemplate/Runtime", json!("wasm"), "unsupported runtime"),
        (
            "/TaskTemplate/RestartPolicy/Condition",
            json!("always"),
            "invalid RestartCondition: \"always\"",
        ),
        ("/TaskTemplate/ContainerSpec/Mounts/0/Type", json!("nfs"), "invalid MountType: \"nfs\""),
        (
            "/TaskTemplate/ContainerSpec/Mounts/2/BindOptions/Propagation",
            json!("x"),
            "invalid MountPropagation: \"x\"",
        ),
        (
            "/UpdateConfig/FailureAction",
            json!("explode"),
            "unrecognized update failure action explode",
        ),
        ("/UpdateConfig/Order", json!("x"), "unrecognized update order x"),
        ("/EndpointSpec/Ports/0/Protocol", json!("icmp"), "invalid Protocol: \"icmp\""),
    ] {
        let error = service::spec(&with(path, value)).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn secrets_never_show_their_content() {
    let sent: api::SecretSpec = serde_json::from_value(json!({
        "Name": "db", "Labels": {"a": "b"}, "Data": "aHVudGVyMg==",
        "Templating": {"Name": "golang"}
    }))
    .unwrap();
    let spec = secret::spec(&sent);
    assert_eq!(spec.data, b"hunter2");
    let mut object = proto::Secret { id: "x".into(), ..proto::Secret::default() };
    object.spec = Some(spec);
    let shown = serde_json::to_value(secret::json(&object)).unwrap();
    assert_eq!(
        shown["Spec"],
        json!({"Name": "db", "Labels": {"a": "b"}, "Templating": {"Name": "golang"}})
    );
    assert_eq!(shown["CreatedAt"], "0001-01-01T00:00:00Z");
}

#[test]
fn configs_do() {
    let sent: api::ConfigSpec =
        serde_json::from_value(json!({"Name": "c", "Labels": {}, "Data": "aGk="})).unwrap();
    let object = proto::Config {
        id: "x".into(),
        meta: Some(proto::Meta {
            version: Some(proto::Version { index: 7 }),
            created_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 5 }),
            updated_at: None,
        }),
        spec: Some(config::spec(&sent)),
    };
    let shown = serde_json::to_value(config::json(&object)).unwrap();
    assert_eq!(
        shown,
        json!({"ID": "x", "Version": {"Index": 7}, "CreatedAt": "2023-11-14T22:13:20.000000005Z",
            "UpdatedAt": "0001-01-01T00:00:00Z",
            "Spec": {"Name": "c", "Labels": {}, "Data": "aGk="}})
    );
}

#[test]
fn node_specs_keep_their_membership() {
    let sent: api::NodeSpec = serde_json::from_value(
        json!({"Labels": {"z": "1"}, "Role": "manager", "Availability": "drain"}),
    )
    .unwrap();
    let current = proto::NodeSpec {
        membership: proto::node_spec::Membership::Pending.into(),
        ..proto::NodeSpec::default()
    };
    let stored = node::spec(&sent, Some(&current)).unwrap();
    assert_eq!(stored.membership, current.membership);
    let object = proto::Node { id: "n".into(), spec: Some(stored), ..proto::Node::default() };
    assert_eq!(node::json(&object).spec, sent);
    for (role, availability) in [("", "drain"), ("king", "drain"), ("worker", ""), ("worker", "x")]
    {
        let spec = api::NodeSpec {
            role: role.into(),
            availability: availability.into(),
            ..api::NodeSpec::default()
        };
        assert!(node::spec(&spec, None).is_err(), "{role} {availability}");
    }
}

#[test]
fn cluster_updates_keep_what_they_do_not_name() {
    let root = brig_pki::ca::RootCa::generate().unwrap();
    let mut spec = proto::ClusterSpec::default();
    let first: api::SwarmSpec = serde_json::from_value(json!({
        "Name": "default", "Labels": {"a": "b"},
        "Orchestration": {"TaskHistoryRetentionLimit": 5},
        "Raft": {"SnapshotInterval": 10000, "KeepOldSnapshots": 0,
            "LogEntriesForSlowFollowers": 500, "ElectionTick": 10, "HeartbeatTick": 1},
        "Dispatcher": {"HeartbeatPeriod": 5_000_000_000_i64},
        "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000_i64},
        "TaskDefaults": {}, "EncryptionConfig": {"AutoLockManagers": false}
    }))
    .unwrap();
    cluster::merge(&mut spec, &first).unwrap();
    assert_eq!(cluster::spec_json(&spec), first);
    let little: api::SwarmSpec =
        serde_json::from_value(json!({"CAConfig": {"ForceRotate": 1}, "Labels": null})).unwrap();
    cluster::merge(&mut spec, &little).unwrap();
    let mut expected = first.clone();
    expected.ca_config.force_rotate = 1;
    assert_eq!(cluster::spec_json(&spec), expected);

    let object = proto::Cluster {
        id: "c".into(),
        spec: Some(spec),
        root_ca: Some(proto::RootCa {
            ca_cert: root.cert_pem().to_vec(),
            ca_key: b"never shown".to_vec(),
            join_tokens: Some(proto::JoinTokens {
                worker: "w".into(),
                manager: "m".into(),
                manager_limit: Some(proto::JoinTokenLimit {
                    expires_at: Some(prost_types::Timestamp { seconds: 86_400, nanos: 0 }),
                    uses_left: Some(0),
                }),
                ..proto::JoinTokens::default()
            }),
            ..proto::RootCa::default()
        }),
        ..proto::Cluster::default()
    };
    let shown = serde_json::to_value(cluster::json(&object, &[])).unwrap();
    assert_eq!(
        shown["JoinTokens"],
        json!({"Worker": "w", "Manager": "m",
            "ManagerLimit": {"ExpiresAt": "1970-01-02T00:00:00Z", "UsesLeft": 0}})
    );
    assert_eq!(shown["TLSInfo"]["TrustRoot"].as_str().unwrap().as_bytes(), root.cert_pem());
    assert!(!shown["TLSInfo"]["CertIssuerSubject"].as_str().unwrap().is_empty());
    let info = serde_json::to_string(&cluster::info(&object)).unwrap();
    assert!(!info.contains("JoinTokens") && !info.contains("never shown"), "{info}");
}

#[test]
fn external_authorities_come_back_as_they_were_given() {
    let given = json!({"CAConfig": {"ExternalCAs": [
        {"Protocol": "cfssl", "URL": "https://a/sign", "CACert": "PEM", "Options": {"x": "y"}},
        {"Protocol": "CFSSL", "URL": "https://b/sign", "CACert": ""},
    ]}, "Labels": null});
    let given: api::SwarmSpec = serde_json::from_value(given).unwrap();
    let mut spec = proto::ClusterSpec::default();
    cluster::merge(&mut spec, &given).unwrap();
    let stored = &spec.ca_config.as_ref().unwrap().external_cas;
    assert_eq!((stored.len(), stored[0].ca_cert.as_slice()), (2, b"PEM".as_slice()));
    let shown = serde_json::to_value(cluster::spec_json(&spec)).unwrap();
    assert_eq!(
        shown["CAConfig"]["ExternalCAs"],
        json!([
            {"Protocol": "cfssl", "URL": "https://a/sign", "CACert": "PEM", "Options": {"x": "y"}},
            {"Protocol": "cfssl", "URL": "https://b/sign", "CACert": ""},
        ])
    );
    for protocol in ["acme", ""] {
        let other =
            json!({"CAConfig": {"ExternalCAs": [{"Protocol": protocol, "URL": "https://a/"}]}});
        let other: api::SwarmSpec = serde_json::from_value(other).unwrap();
        let refused = cluster::merge(&mut spec, &other).unwrap_err().to_string();
        assert!(refused.contains("protocol"), "{refused}");
    }
}

#[test]
fn nodes_without_certificate_say_why() {
    let node = |state: proto::issuance_status::State, err: &str| {
        let status = proto::IssuanceStatus { state: state.into(), err: err.to_owned() };
        let certificate = proto::Certificate { status: Some(status), ..Default::default() };
        let node = proto::Node { certificate: Some(certificate), ..Default::default() };
        node::json(&node).status.message
    };
    use proto::issuance_status::State;
    assert_eq!(node(State::Failed, "no"), "certificate request failed: no");
    assert_eq!(node(State::Pending, "down"), "waiting for its certificate to be signed: down");
    assert_eq!(node(State::Issued, ""), "");
}

#[test]
fn tasks_show_their_state() {
    let task = proto::Task {
        id: "t".into(),
        slot: 2,
        status: Some(proto::TaskStatus {
            state: proto::TaskState::Rejected.into(),
            err: "No such image: x".into(),
            runtime_status: Some(proto::task_status::RuntimeStatus::Container(
                proto::ContainerStatus { container_id: "c".into(), pid: 5, exit_code: -1 },
            )),
            ..proto::TaskStatus::default()
        }),
        desired_state: proto::TaskState::Shutdown.into(),
        ..proto::Task::default()
    };
    let shown = serde_json::to_value(task::json(&task)).unwrap();
    assert_eq!(shown["Status"]["State"], "rejected");
    assert_eq!(shown["DesiredState"], "shutdown");
    assert_eq!(shown["Slot"], 2);
    assert_eq!(shown["Status"]["ContainerStatus"]["ExitCode"], -1);
    assert_eq!(task::parse_state("Running"), Some(proto::TaskState::Running));
    assert_eq!(task::parse_state("jogging"), None);
}

#[test]
fn networks_come_back_as_they_were_sent() {
    let sent: brig_api::network::NetworkCreateRequest = serde_json::from_value(json!({
        "Name": "ov", "Driver": "overlay", "EnableIPv6": true, "Internal": true, "Attachable": true,
        "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.9.0.0/24", "Gateway": "10.9.0.1",
            "IPRange": "10.9.0.0/25", "AuxiliaryAddresses": {"r": "10.9.0.9"}}]},
        "Options": {"encrypted": ""}, "Labels": {"a": "b"}
    }))
    .unwrap();
    let object = proto::Network {
        id: "n".into(),
        spec: Some(network::spec(&sent)),
        ..proto::Network::default()
    };
    let shown = network::inspect(&object);
    assert_eq!(
        (shown.name, shown.driver, shown.scope),
        ("ov".into(), "overlay".into(), "swarm".into())
    );
    assert_eq!(shown.ipam.config, sent.ipam.unwrap().config);
    assert_eq!((shown.options, shown.labels), (sent.options, sent.labels));
    assert!(shown.enable_ipv6 && shown.internal && shown.attachable && !shown.ingress);
    assert_eq!(network::json(&object).spec.driver_configuration.unwrap().name, "overlay");
}

proptest::proptest! {
    #[test]
    fn durations_round_trip(n in proptest::num::i64::ANY) {
        proptest::prop_assert_eq!(nanos(&duration(n)), n);
    }
}
