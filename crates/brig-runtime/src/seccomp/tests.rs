use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use crate::facts::HostFacts;
use crate::spec::{ContainerSpecInput, SeccompProfile, SpecError, build};

const REFERENCE: &str = include_str!("../../tests/docker-default.json");

fn host() -> HostFacts {
    crate::spec::tests::host()
}

fn filter(profile: SeccompProfile, add: &[&str], host: &HostFacts) -> Result<Value, SpecError> {
    let id = brig_types::id::ContainerId::generate();
    let mut input = ContainerSpecInput::new(id, "/r".into(), vec!["true".to_owned()]);
    input.seccomp = profile;
    input.process.capabilities.add = add.iter().map(|cap| (*cap).to_owned()).collect();
    let spec: Spec = build(&input, host)?.spec;
    Ok(serde_json::to_value(spec).unwrap()["linux"]["seccomp"].clone())
}

fn allows(filter: &Value, name: &str) -> bool {
    filter["syscalls"].as_array().unwrap().iter().any(|rule| {
        rule["action"] == "SCMP_ACT_ALLOW"
            && rule["args"].is_null()
            && rule["names"].as_array().unwrap().iter().any(|n| n == name)
    })
}

#[test]
fn the_default_is_what_docker_resolves() {
    let expected: Value = serde_json::from_str(REFERENCE).unwrap();
    let resolved = filter(SeccompProfile::Default, &[], &host()).unwrap();
    assert_eq!(resolved, expected["linux"]["seccomp"]);
}

#[test]
fn conditions_are_followed() {
    let plain = filter(SeccompProfile::Default, &[], &host()).unwrap();
    let admin = filter(SeccompProfile::Default, &["SYS_ADMIN"], &host()).unwrap();
    assert!(!allows(&plain, "mount") && allows(&admin, "mount"));
    assert!(allows(&plain, "ptrace"));
    // A capability that the host does not have opens nothing.
    let mut poor = host();
    poor.bounding.remove("CAP_SYS_ADMIN");
    assert!(!allows(&filter(SeccompProfile::Default, &["SYS_ADMIN"], &poor).unwrap(), "mount"));
    let mut old = host();
    old.kernel = (4, 4);
    assert!(!allows(&filter(SeccompProfile::Default, &[], &old).unwrap(), "ptrace"));
    let mut arm = host();
    arm.machine = "aarch64".to_owned();
    let arm = filter(SeccompProfile::Default, &[], &arm).unwrap();
    assert_eq!(arm["architectures"], json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]));
    assert!(allows(&arm, "cacheflush") && !allows(&arm, "arch_prctl"));
}

#[test]
fn custom_profiles() {
    let custom = |json: &str| filter(SeccompProfile::Custom(json.to_owned()), &[], &host());
    assert_eq!(filter(SeccompProfile::Unconfined, &[], &host()).unwrap(), Value::Null);
    assert_eq!(custom("{}").unwrap(), Value::Null);
    let one = custom(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO","errnoRet":38,
            "args":[{"index":1,"value":7,"valueTwo":0,"op":"SCMP_CMP_NE"}],"includes":null}]}"#,
    )
    .unwrap();
    assert_eq!(
        one,
        json!({"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":38,
            "args":[{"index":1,"value":7,"op":"SCMP_CMP_NE"}]}]})
    );
    for bad in [
        "",
        "[]",
        r#"{"syscalls":[{"name":"a","action":"SCMP_ACT_ALLOW"}]}"#,
        r#"{"defaultAction":"NOPE"}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],
            "archMap":[{"architecture":"SCMP_ARCH_X86"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","action":"SCMP_ACT_ALLOW",
            "includes":{"minKernel":"4"}}]}"#,
    ] {
        let error = custom(bad).unwrap_err();
        assert!(matches!(error, SpecError::Seccomp(_)), "{bad}: {error}");
    }
    assert!(custom(&" ".repeat(2 << 20)).is_err());
}
