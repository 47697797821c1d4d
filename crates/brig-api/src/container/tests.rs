use serde_json::json;

use super::*;

/// What the docker CLI sends for a plain `run`, empty values in all their forms.
fn captured_create() -> serde_json::Value {
    serde_json::from_str(
        r#"{
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": true,
        "AttachStderr": true, "ExposedPorts": {"80/tcp": {}}, "Tty": false, "OpenStdin": false,
        "StdinOnce": false, "Env": null, "Cmd": ["true"], "Image": "busybox", "Volumes": {},
        "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": {},
        "HostConfig": {
            "Binds": null, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}},
            "NetworkMode": "none", "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
            "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": true,
            "VolumeDriver": "", "VolumesFrom": null, "ConsoleSize": [0, 0], "CapAdd": null,
            "CapDrop": ["ALL"], "CgroupnsMode": "", "Dns": [], "DnsOptions": [], "DnsSearch": [],
            "ExtraHosts": null, "GroupAdd": null, "IpcMode": "", "Cgroup": "", "Links": null,
            "OomScoreAdj": 0, "PidMode": "", "Privileged": false, "PublishAllPorts": false,
            "ReadonlyRootfs": false, "SecurityOpt": null, "Tmpfs": {"/tt": "size=1m"},
            "UTSMode": "", "UsernsMode": "", "ShmSize": 0, "Isolation": "", "CpuShares": 0,
            "Memory": 67108864, "NanoCpus": 500000000, "CgroupParent": "", "BlkioWeight": 0,
            "BlkioWeightDevice": [], "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [],
            "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0,
            "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "",
            "Devices": [], "DeviceCgroupRules": null, "DeviceRequests": null,
            "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": -1,
            "OomKillDisable": false, "PidsLimit": 0,
            "Ulimits": [{"Name": "nofile", "Hard": 20, "Soft": 10}], "CpuCount": 0,
            "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0,
            "Mounts": [{"Type": "volume", "Source": "v", "Target": "/v",
                        "VolumeOptions": {"NoCopy": true, "DriverConfig": {"Name": "local"}}}],
            "MaskedPaths": null, "ReadonlyPaths": [], "Init": true
        },
        "NetworkingConfig": {"EndpointsConfig": {"default": {
            "IPAMConfig": {}, "Links": null, "Aliases": ["a"], "MacAddress": "",
            "DriverOpts": null, "NetworkID": "", "EndpointID": "", "Gateway": "",
            "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0}}}
    }"#,
    )
    .unwrap()
}

#[test]
fn a_create_request_round_trips() {
    let request: ContainerCreateRequest = serde_json::from_value(captured_create()).unwrap();
    assert_eq!(request.config.cmd, ["true"]);
    assert!(request.config.exposed_ports.contains_key("80/tcp"));
    assert_eq!(request.host_config.memory_swappiness, Some(-1));
    assert_eq!(request.host_config.masked_paths, None);
    assert_eq!(request.host_config.readonly_paths, Some(Vec::new()));
    assert!(request.host_config.mounts[0].volume_options.as_ref().unwrap().no_copy);
    let written = serde_json::to_value(&request).unwrap();
    let mut expected = captured_create();
    // An empty set is written as docker writes one that was never made.
    expected["Volumes"] = serde_json::Value::Null;
    assert_eq!(written, expected);
}

#[test]
fn missing_null_and_string_forms_are_read() {
    let request: ContainerCreateRequest = serde_json::from_value(json!({
        "Image": null, "Cmd": "echo hi", "Entrypoint": ["a", "b"], "HostConfig": null,
        "NetworkingConfig": {"EndpointsConfig": null}, "Unknown": {"x": 1},
    }))
    .unwrap();
    assert_eq!(request.config.cmd, ["echo hi"]);
    assert_eq!(request.host_config, HostConfig::default());
    let nothing: ContainerCreateRequest = serde_json::from_str("{}").unwrap();
    assert_eq!(nothing, ContainerCreateRequest::default());
}

#[test]
fn answers_always_have_their_fields() {
    let inspect = serde_json::to_value(ContainerInspect::default()).unwrap();
    for field in ["Id", "Config", "HostConfig", "NetworkSettings", "Mounts", "State", "ExecIDs"] {
        assert!(inspect.get(field).is_some(), "{field}");
    }
    assert!(inspect.get("SizeRw").is_none());
    assert_eq!(
        serde_json::to_value(WaitResponse::default()).unwrap(),
        json!({"StatusCode": 0, "Error": null})
    );
    let port = PortSummary { private_port: 80, kind: "tcp".into(), ..Default::default() };
    assert_eq!(serde_json::to_value(port).unwrap(), json!({"PrivatePort": 80, "Type": "tcp"}));
    let summary = serde_json::to_value(ContainerSummary::default()).unwrap();
    assert_eq!(summary["NetworkSettings"], json!({"Networks": {}}));
}

#[test]
fn a_service_spec_round_trips() {
    let spec = json!({
        "Name": "s2", "Labels": {"l": "1"},
        "TaskTemplate": {
            "ContainerSpec": {"Image": "busybox:latest", "Labels": {"cl": "2"}, "Command": ["sleep"],
                "Args": ["1000"], "Hostname": "{{.Node.Hostname}}", "Env": ["A=b"], "Dir": "/x",
                "User": "root", "Groups": ["5"], "Init": true, "StopSignal": "SIGTERM", "TTY": true,
                "ReadOnly": true,
                "Mounts": [{"Type": "volume", "Source": "sv", "Target": "/v"},
                    {"Type": "tmpfs", "Target": "/t"},
                    {"Type": "bind", "Source": "/b", "Target": "/b", "ReadOnly": true}],
                "StopGracePeriod": 2_000_000_000_i64,
                "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000_i64},
                "Hosts": ["1.2.3.4 h"], "DNSConfig": {"Nameservers": ["8.8.8.8"]},
                "Secrets": [{"File": {"Name": "sec1", "UID": "0", "GID": "0", "Mode": 292},
                    "SecretID": "id", "SecretName": "sec1"}],
                "Configs": [{"File": {"Name": "conf1", "UID": "0", "GID": "0", "Mode": 292},
                    "ConfigID": "id", "ConfigName": "conf1"}],
                "CapabilityAdd": ["CAP_CHOWN"], "CapabilityDrop": ["ALL"],
                "Ulimits": [{"Name": "nofile", "Hard": 20, "Soft": 10}]},
            "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 67_108_864, "Pids": 50},
                "Reservations": {"MemoryBytes": 8_388_608}},
            "RestartPolicy": {"Condition": "on-failure", "Delay": 1_000_000_000, "MaxAttempts": 3,
                "Window": 10_000_000_000_i64},
            "Placement": {"Constraints": ["node.role==manager"],
                "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}], "MaxReplicas": 5},
            "Networks": [{"Target": "n1"}],
            "LogDriver": {"Name": "json-file", "Options": {"max-size": "1m"}}, "ForceUpdate": 0},
        "Mode": {"Replicated": {"Replicas": 2}},
        "UpdateConfig": {"Parallelism": 2, "Delay": 1_000_000_000, "FailureAction": "rollback",
            "Monitor": 2_000_000_000_i64, "MaxFailureRatio": 0.5, "Order": "start-first"},
        "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80,
            "PublishedPort": 18090, "PublishMode": "ingress"}]}
    });
    let read: crate::swarm::ServiceSpec = serde_json::from_value(spec.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), spec);
    for mode in [
        json!({"Global": {}}),
        json!({"Replicated": {}}),
        json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}}),
        json!({"GlobalJob": {}}),
    ] {
        let read: crate::swarm::ServiceMode = serde_json::from_value(mode.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), mode);
    }
    let ratio: f32 = serde_json::from_str("0.1").unwrap();
    assert_eq!(serde_json::to_string(&ratio).unwrap(), "0.1");
}

#[test]
fn swarm_init_is_what_the_cli_sends() {
    let text = r#"{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"","DataPathAddr":"","DataPathPort":0,"ForceNewCluster":false,"Spec":{"Labels":null,"Orchestration":{},"Raft":{"ElectionTick":0,"HeartbeatTick":0},"Dispatcher":{},"CAConfig":{},"TaskDefaults":{},"EncryptionConfig":{"AutoLockManagers":false}},"AutoLockManagers":false,"Availability":"","DefaultAddrPool":null,"SubnetSize":24}"#;
    let request: crate::swarm::SwarmInitRequest = serde_json::from_str(text).unwrap();
    assert_eq!(request.subnet_size, 24);
    assert_eq!(serde_json::to_string(&request).unwrap(), text);
}

#[test]
fn an_event_is_the_captured_line() {
    let text = r#"{"status":"die","id":"x","from":"busybox","Type":"container","Action":"die","Actor":{"ID":"x","Attributes":{"exitCode":"0","image":"busybox","name":"evc"}},"scope":"local","time":1795291215,"timeNano":1795291215929695507}"#;
    let event: crate::event::Event = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&event).unwrap(), text);
}

#[test]
fn a_secret_never_shows_and_join_tokens_neither() {
    let spec: crate::swarm::SecretSpec =
        serde_json::from_str(r#"{"Name":"s","Labels":{},"Data":"aHVudGVyMg=="}"#).unwrap();
    assert_eq!(spec.data.expose_secret(), b"hunter2");
    assert!(!format!("{spec:?}").contains("hunter2"));
    let without = crate::swarm::SecretSpec { data: Default::default(), ..spec };
    assert_eq!(serde_json::to_string(&without).unwrap(), r#"{"Name":"s","Labels":{}}"#);
    let tokens =
        crate::swarm::JoinTokens { worker: "SWMTKN-1-x".to_owned().into(), ..Default::default() };
    assert!(!format!("{tokens:?}").contains("SWMTKN"));
}
