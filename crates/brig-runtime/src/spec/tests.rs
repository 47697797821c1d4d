use std::collections::BTreeMap;
use std::path::Path;

use brig_types::id::ContainerId;
use serde_json::{Value, json};

use super::*;

const REFERENCE: &str = include_str!("../../tests/docker-default.json");

/// A machine that allows everything.
pub(crate) fn host() -> HostFacts {
    HostFacts {
        machine: "x86_64".to_owned(),
        kernel: (6, 1),
        cgroup: CgroupMode::V1,
        bounding: brig_sys::caps::known().iter().map(|name| (*name).to_owned()).collect(),
        hard_limits: BTreeMap::from([("RLIMIT_NOFILE".to_owned(), 20_000)]),
        oom_score_floor: None,
        apparmor: crate::AppArmor::Off,
        init: Some("/usr/bin/tini-static".into()),
        cgroup_parent: "/<CGROUP_PARENT>".to_owned(),
    }
}

fn input() -> ContainerSpecInput {
    ContainerSpecInput::new(
        ContainerId::parse(&"ab".repeat(32)).unwrap(),
        "/rootfs".into(),
        vec!["true".to_owned()],
    )
}

fn build_json(input: &ContainerSpecInput) -> Value {
    serde_json::to_value(build(input, &host()).unwrap().spec).unwrap()
}

fn changed(change: impl FnOnce(&mut ContainerSpecInput)) -> Value {
    let mut input = input();
    change(&mut input);
    build_json(&input)
}

/// Capability sets have no order.
fn sort_capabilities(config: &mut Value) {
    if let Some(sets) = config["process"]["capabilities"].as_object_mut() {
        for set in sets.values_mut() {
            if let Some(list) = set.as_array_mut() {
                list.sort_by_key(|name| name.to_string());
            }
        }
    }
}

fn find<'a>(config: &'a Value, destination: &str) -> &'a Value {
    config["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|mount| mount["destination"] == destination)
        .unwrap_or(&Value::Null)
}

#[test]
fn defaults_are_dockers() {
    let id = "ab".repeat(32);
    let reference = REFERENCE
        .replace("<ID12>", &id[..12])
        .replace("<ID>", &id)
        .replace("<ROOTFS>", "/rootfs")
        .replace("<ARGV>", "true")
        .replace("<STATE>", "/state");
    let mut expected: Value = serde_json::from_str(&reference).unwrap();
    let mut built = changed(|input| {
        for name in ["resolv.conf", "hostname", "hosts"] {
            input.mounts.push(MountSpec::bind(
                format!("/state/{name}").into(),
                format!("/etc/{name}").into(),
                false,
            ));
        }
    });
    sort_capabilities(&mut expected);
    sort_capabilities(&mut built);
    for part in ["process", "mounts", "linux"] {
        if let (Value::Object(expected), Value::Object(built)) = (&expected[part], &built[part]) {
            for (key, value) in expected {
                assert_eq!(built.get(key), Some(value), "{part}.{key}");
            }
        }
    }
    assert_eq!(built, expected);
}

#[test]
fn process_flags() {
    let config = changed(|input| {
        input.process.tty = true;
        input.process.console_size = Some(ConsoleSize { height: 30, width: 100 });
        input.process.user = UserSpec { uid: 1000, gid: 1000, additional_gids: vec![1000] };
        input.process.no_new_privileges = true;
        input.process.oom_score_adj = Some(-500);
        input.init = true;
    });
    let process = &config["process"];
    assert_eq!(process["terminal"], true);
    assert_eq!(process["consoleSize"], json!({"height": 30, "width": 100}));
    assert_eq!(process["user"], json!({"uid": 1000, "gid": 1000, "additionalGids": [1000]}));
    assert_eq!(process["noNewPrivileges"], true);
    assert_eq!(process["oomScoreAdj"], -500);
    assert_eq!(process["args"], json!(["/sbin/docker-init", "--", "true"]));
    let sets = process["capabilities"].as_object().unwrap();
    assert_eq!(sets.keys().collect::<Vec<_>>(), ["bounding"]);
    assert_eq!(find(&config, "/sbin/docker-init")["options"], json!(["bind", "ro"]));

    let mut no_init = host();
    no_init.init = None;
    let mut wanted = input();
    wanted.init = true;
    assert_eq!(build(&wanted, &no_init).unwrap_err(), SpecError::NoInit);
    wanted.init = false;
    wanted.process.args.clear();
    assert_eq!(build(&wanted, &no_init).unwrap_err(), SpecError::NoCommand);
    wanted.process.args = vec!["a".to_owned()];
    wanted.process.cwd = "tmp".into();
    assert!(matches!(build(&wanted, &no_init), Err(SpecError::RelativeCwd(_))));
}

#[test]
fn capability_flags() {
    let bounding = |add: &[&str], drop: &[&str], privileged: bool| {
        let config = changed(|input| {
            input.process.capabilities = Capabilities {
                add: add.iter().map(|s| (*s).to_owned()).collect(),
                drop: drop.iter().map(|s| (*s).to_owned()).collect(),
                privileged,
            };
        });
        let mut list: Vec<String> =
            serde_json::from_value(config["process"]["capabilities"]["bounding"].clone()).unwrap();
        list.sort();
        list
    };
    assert_eq!(bounding(&[], &[], false).len(), 14);
    assert_eq!(bounding(&["net_admin"], &["ALL"], false), ["CAP_NET_ADMIN"]);
    assert_eq!(bounding(&[], &["all"], false), Vec::<String>::new());
    assert_eq!(bounding(&["SYS_ADMIN"], &["CAP_CHOWN"], false).len(), 14);
    let known = brig_sys::caps::known().len();
    assert_eq!(bounding(&["ALL"], &["SYS_ADMIN"], false).len(), known - 1);
    assert_eq!(bounding(&[], &[], true).len(), known);
    let mut wrong = input();
    wrong.process.capabilities.add = vec!["NOPE".to_owned()];
    assert_eq!(build(&wrong, &host()).unwrap_err().to_string(), "invalid capability: NOPE");
}

#[test]
fn what_the_host_does_not_allow_is_lowered_and_said() {
    let mut poor = host();
    poor.bounding.remove("CAP_SYS_RESOURCE");
    poor.bounding.remove("CAP_AUDIT_WRITE");
    poor.oom_score_floor = Some(0);
    let mut wanted = input();
    let quiet = build(&wanted, &poor).unwrap();
    assert_eq!(quiet.warnings, Vec::<String>::new());

    wanted.process.capabilities.add = vec!["SYS_RESOURCE".to_owned()];
    wanted.process.oom_score_adj = Some(-100);
    wanted.process.rlimits = vec![
        Rlimit { name: "nofile".to_owned(), soft: 1, hard: 2_000_000 },
        Rlimit { name: "nofile".to_owned(), soft: 1024, hard: -1 },
        Rlimit { name: "core".to_owned(), soft: -1, hard: -1 },
    ];
    let built = build(&wanted, &poor).unwrap();
    assert_eq!(built.warnings.len(), 4, "{:?}", built.warnings);
    let json = serde_json::to_value(built.spec).unwrap();
    assert_eq!(json["process"]["oomScoreAdj"], 0);
    assert_eq!(
        json["process"]["rlimits"],
        json!([
            {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 20_000},
            {"type": "RLIMIT_CORE", "soft": u64::MAX, "hard": u64::MAX},
        ])
    );
    // A host that may raise limits does.
    let rich = serde_json::to_value(build(&wanted, &host()).unwrap().spec).unwrap();
    assert_eq!(rich["process"]["rlimits"][0]["hard"], u64::MAX);

    wanted.process.rlimits = vec![Rlimit { name: "x".to_owned(), soft: 1, hard: 2 }];
    assert!(matches!(build(&wanted, &poor), Err(SpecError::UnknownRlimit(_))));
    wanted.process.rlimits = vec![Rlimit { name: "nproc".to_owned(), soft: -1, hard: 2 }];
    assert!(matches!(build(&wanted, &poor), Err(SpecError::RlimitOrder { .. })));
}

#[test]
fn mount_flags() {
    let config = changed(|input| {
        input.readonly_rootfs = true;
        input.mounts = vec![
            MountSpec::bind("/a".into(), "/x/y".into(), true),
            MountSpec::volume("/v".into(), "/x".into(), false),
            MountSpec::volume("/v".into(), "/v".into(), true),
            MountSpec::tmpfs("/t".into(), "size=1m,exec".to_owned()),
            MountSpec {
                target: "/s".into(),
                kind: MountKind::Bind {
                    source: "/s".into(),
                    read_only: false,
                    recursive: false,
                    propagation: Propagation::Rslave,
                },
            },
        ];
    });
    assert_eq!(config["root"], json!({"path": "/rootfs", "readonly": true}));
    assert_eq!(find(&config, "/x/y")["options"], json!(["rbind", "ro", "rprivate"]));
    assert_eq!(find(&config, "/x")["options"], json!(["rbind"]));
    assert_eq!(find(&config, "/v")["options"], json!(["rbind", "ro"]));
    assert_eq!(
        find(&config, "/t"),
        &json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "nodev", "rprivate", "size=1m", "exec"]})
    );
    assert_eq!(find(&config, "/s")["options"], json!(["bind", "rslave"]));
    assert_eq!(config["linux"]["rootfsPropagation"], "slave");
    let position = |path: &str| {
        config["mounts"].as_array().unwrap().iter().position(|m| m["destination"] == path)
    };
    assert!(position("/x") < position("/x/y"));

    for options in ["size", "size=", "bogus", "bind"] {
        assert!(tmpfs_options(options).is_err(), "{options}");
    }
    assert_eq!(
        tmpfs_options("rw,mode=1777,ro").unwrap(),
        ["noexec", "nosuid", "nodev", "rprivate", "mode=1777", "ro"]
    );
}

#[test]
fn system_mounts_can_be_replaced() {
    let shm = |shm| find(&changed(|input| input.shm = shm), "/dev/shm").clone();
    assert_eq!(shm(Shm::None), Value::Null);
    assert_eq!(shm(Shm::Bind("/dev/shm".into()))["type"], "bind");
    assert_eq!(shm(Shm::Private { size: 1 })["options"][4], "size=1");
    let config = changed(|input| {
        input.mounts = vec![MountSpec::bind("/dev".into(), "/dev".into(), false)];
    });
    assert_eq!(find(&config, "/dev")["type"], "bind");
    assert_eq!(find(&config, "/dev/shm"), &Value::Null);
}

#[test]
fn namespace_flags() {
    let kinds = |config: &Value| -> Vec<String> {
        config["linux"]["namespaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|namespace| namespace["type"].as_str().unwrap().to_owned())
            .collect()
    };
    let host_all = changed(|input| {
        input.namespaces = Namespaces {
            net: Namespace::Host,
            ipc: Namespace::Host,
            pid: Namespace::Host,
            uts: Namespace::Host,
            cgroup: None,
        };
    });
    assert_eq!(kinds(&host_all), ["mount"]);
    assert_eq!(host_all["hostname"], Value::Null);
    assert_eq!(host_all["linux"]["sysctl"], Value::Null);
    let joined = changed(|input| {
        input.namespaces.net = Namespace::Path("/proc/7/ns/net".into());
        input.namespaces.cgroup = Some(Namespace::Own);
        input.sysctls = BTreeMap::from([("net.core.somaxconn".to_owned(), "9".to_owned())]);
    });
    assert_eq!(kinds(&joined), ["mount", "network", "uts", "pid", "ipc", "cgroup"]);
    assert_eq!(joined["linux"]["namespaces"][1]["path"], "/proc/7/ns/net");
    assert_eq!(joined["linux"]["sysctl"]["net.core.somaxconn"], "9");
    let mut v2 = host();
    v2.cgroup = CgroupMode::V2;
    let spec = serde_json::to_value(build(&input(), &v2).unwrap().spec).unwrap();
    assert!(kinds(&spec).contains(&"cgroup".to_owned()));
}

#[test]
fn resource_flags() {
    let resources = |change: fn(&mut Resources)| {
        changed(|input| change(&mut input.resources))["linux"]["resources"].clone()
    };
    let cpus = resources(|r| r.nano_cpus = Some(1_500_000_000));
    assert_eq!(cpus["cpu"], json!({"period": 100_000, "quota": 150_000}));
    let memory = resources(|r| r.memory = Some(1 << 26));
    assert_eq!(memory["memory"], json!({"limit": 1 << 26, "swap": 1 << 27}));
    let swap = resources(|r| {
        r.memory = Some(1 << 26);
        r.memory_swap = Some(-1);
        r.memory_reservation = Some(1 << 20);
    });
    assert_eq!(swap["memory"], json!({"limit": 1 << 26, "swap": -1, "reservation": 1 << 20}));
    let pids = resources(|r| r.pids_limit = Some(50));
    assert_eq!(pids["pids"], json!({"limit": 50}));
    let shares = resources(|r| {
        r.cpu_shares = Some(512);
        r.cpuset_cpus = "0-1".to_owned();
    });
    assert_eq!(shares["cpu"], json!({"shares": 512, "cpus": "0-1"}));
    let blkio = resources(|r| {
        r.blkio.weight = 300;
        r.blkio.read_bps = vec![ThrottleDevice { major: 8, minor: 0, rate: 9 }];
    });
    assert_eq!(
        blkio["blockIO"],
        json!({"weight": 300, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]})
    );
    let nothing = resources(|r| {
        r.memory = Some(0);
        r.pids_limit = Some(0);
        r.cpu_shares = Some(0);
        r.memory_swappiness = Some(-1);
    });
    assert_eq!(nothing.as_object().unwrap().keys().collect::<Vec<_>>(), ["devices"]);
}

#[test]
fn devices_and_privileged() {
    let config = changed(|input| {
        input.devices = vec![DeviceNode {
            path: "/dev/fuse".into(),
            kind: DeviceType::Char,
            major: 10,
            minor: 229,
            mode: 0o666,
            uid: 0,
            gid: 0,
            access: "rw".to_owned(),
        }];
        input.device_rules = vec![DeviceRule {
            kind: DeviceType::Block,
            major: Some(8),
            minor: None,
            access: "r".to_owned(),
        }];
    });
    let linux = &config["linux"];
    assert_eq!(linux["devices"][0]["path"], "/dev/fuse");
    let rules = linux["resources"]["devices"].as_array().unwrap();
    assert_eq!(
        rules[8..],
        [
            json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}),
            json!({"allow": true, "type": "b", "major": 8, "access": "r"}),
        ]
    );
    let mut wrong = input();
    wrong.device_rules =
        vec![DeviceRule { kind: DeviceType::All, major: None, minor: None, access: "x".into() }];
    assert!(matches!(build(&wrong, &host()), Err(SpecError::DeviceAccess(_))));

    let config = changed(|input| input.process.capabilities.privileged = true);
    let linux = config["linux"].as_object().unwrap();
    for absent in ["seccomp", "maskedPaths", "readonlyPaths"] {
        assert!(!linux.contains_key(absent), "{absent}");
    }
    assert_eq!(linux["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
    assert_eq!(find(&config, "/sys")["options"], json!(["nosuid", "noexec", "nodev"]));

    let null = device_nodes(Path::new("/dev/null"), Path::new("/dev/n"), "r").unwrap();
    assert_eq!((null[0].major, null[0].minor, null[0].kind), (1, 3, DeviceType::Char));
    assert!(device_nodes(Path::new("/etc/passwd"), Path::new("/x"), "r").is_err());
    assert!(all_devices().unwrap().iter().any(|node| node.path == Path::new("/dev/null")));
}

#[test]
fn cgroup_parents() {
    let path = |parent: &str| {
        let mut input = input();
        input.cgroup_parent = Some(parent.to_owned());
        build(&input, &host())
            .map(|built| built.spec.linux().as_ref().unwrap().cgroups_path().clone().unwrap())
    };
    let id = "ab".repeat(32);
    assert_eq!(path("a/b").unwrap(), Path::new(&format!("/a/b/{id}")));
    assert!(path("/a/../..").is_err());
    assert!(path("system.slice:x:y").is_err());
}

proptest::proptest! {
    #[test]
    fn tmpfs_options_are_known_or_refused(text in "[a-z=0-9,%_ ]{0,60}") {
        if let Ok(options) = tmpfs_options(&text) {
            // Putting them in again changes nothing.
            proptest::prop_assert_eq!(&tmpfs_options(&options.join(",")).unwrap(), &options);
        }
    }
}
