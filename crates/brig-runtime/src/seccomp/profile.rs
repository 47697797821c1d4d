//! Docker's seccomp profile format: OCI rules with conditions on capabilities, architectures and
//! kernel versions, resolved for one container.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompFilterFlag, LinuxSyscall, LinuxSyscallBuilder, Process,
};
use serde::{Deserialize, Deserializer};

use crate::facts::HostFacts;
use crate::spec::SpecError;

/// The Moby project's default profile (see `profiles/README.md`).
pub(super) const DEFAULT: &str = include_str!("../../profiles/default.json");

/// A profile larger than this is refused.
const MAX_BYTES: usize = 1 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    #[serde(default)]
    default_action: Option<LinuxSeccompAction>,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    architectures: Vec<Arch>,
    #[serde(default, deserialize_with = "nullable")]
    arch_map: Vec<ArchMap>,
    #[serde(default, deserialize_with = "nullable")]
    flags: Vec<LinuxSeccompFilterFlag>,
    #[serde(default, deserialize_with = "nullable")]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    #[serde(default, deserialize_with = "nullable")]
    sub_architectures: Vec<Arch>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: String,
    #[serde(default, deserialize_with = "nullable")]
    names: Vec<String>,
    action: LinuxSeccompAction,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    args: Vec<LinuxSeccompArg>,
    #[serde(default, deserialize_with = "nullable")]
    includes: Condition,
    #[serde(default, deserialize_with = "nullable")]
    excludes: Condition,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(default, deserialize_with = "nullable")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    arches: Vec<String>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// `null` where a list or an object could be.
fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The rules that apply; `None` when the profile filters nothing.
pub(super) fn resolve(
    json: &str,
    process: &Process,
    host: &HostFacts,
) -> Result<Option<LinuxSeccomp>, SpecError> {
    let bad = |text: &str| SpecError::Seccomp(text.to_owned());
    if json.len() > MAX_BYTES {
        return Err(bad("the profile is too large"));
    }
    // Deserialising would take an empty list for a profile without rules.
    if !json.trim_start().starts_with('{') {
        return Err(bad("the profile is not a JSON object"));
    }
    let profile: Profile = serde_json::from_str(json).map_err(|error| bad(&error.to_string()))?;
    let Some(default_action) = profile.default_action else {
        return if profile.syscalls.is_empty() {
            Ok(None)
        } else {
            Err(bad("the profile has no defaultAction"))
        };
    };
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(bad("use either 'architectures' or 'archMap'"));
    }
    let native = Native::of(&host.machine);
    let mut architectures = profile.architectures;
    if let Some(map) = native
        .and_then(|native| profile.arch_map.iter().find(|map| map.architecture == native.seccomp))
    {
        architectures.push(map.architecture);
        architectures.extend(map.sub_architectures.iter().copied());
    }
    let mut syscalls = Vec::new();
    for rule in profile.syscalls {
        if applies(&rule, native, process, host)? {
            syscalls.push(syscall(rule)?);
        }
    }
    let mut filter = LinuxSeccompBuilder::default().build().unwrap_or_default();
    filter
        .set_default_action(default_action)
        .set_default_errno_ret(profile.default_errno_ret)
        .set_architectures((!architectures.is_empty()).then_some(architectures))
        .set_flags((!profile.flags.is_empty()).then_some(profile.flags))
        .set_syscalls((!syscalls.is_empty()).then_some(syscalls));
    Ok(Some(filter))
}

fn applies(
    rule: &Rule,
    native: Option<Native>,
    process: &Process,
    host: &HostFacts,
) -> Result<bool, SpecError> {
    let has = |name: &String| {
        name.strip_prefix("CAP_").and_then(|name| name.parse().ok()).is_some_and(|capability| {
            process
                .capabilities()
                .as_ref()
                .and_then(|caps| caps.bounding().as_ref())
                .is_some_and(|set| set.contains(&capability))
        })
    };
    let here =
        |arches: &[String]| native.is_some_and(|native| arches.iter().any(|a| a == native.docker));
    let reached = |version: &Option<String>| match version.as_deref() {
        None | Some("") => Ok(None),
        Some(version) => kernel_version(version).map(|minimum| Some(host.kernel >= minimum)),
    };
    let excludes = &rule.excludes;
    let excluded = (!excludes.arches.is_empty() && here(&excludes.arches))
        || excludes.caps.iter().any(has)
        || reached(&excludes.min_kernel)? == Some(true);
    let includes = &rule.includes;
    let included = (includes.arches.is_empty() || here(&includes.arches))
        && includes.caps.iter().all(has)
        && reached(&includes.min_kernel)? != Some(false);
    Ok(included && !excluded)
}

/// `4.8`, nothing before or behind.
fn kernel_version(text: &str) -> Result<(u32, u32), SpecError> {
    text.split_once('.')
        .and_then(|(kernel, major)| Some((kernel.parse().ok()?, major.parse().ok()?)))
        .filter(|version| *version != (0, 0))
        .ok_or_else(|| {
            let text: String = text.chars().take(40).collect();
            SpecError::Seccomp(format!("invalid kernel version: {text:?}"))
        })
}

fn syscall(rule: Rule) -> Result<LinuxSyscall, SpecError> {
    let names = match (rule.name.is_empty(), rule.names.is_empty()) {
        (false, false) => {
            return Err(SpecError::Seccomp("use either 'name' or 'names'".to_owned()));
        }
        (false, true) => vec![rule.name],
        (true, _) => rule.names,
    };
    let args: Vec<LinuxSeccompArg> = rule.args.iter().map(normal).collect::<Result<_, _>>()?;
    let mut syscall = LinuxSyscallBuilder::default().build().unwrap_or_default();
    syscall
        .set_names(names)
        .set_action(rule.action)
        .set_errno_ret(rule.errno_ret)
        .set_args((!args.is_empty()).then_some(args));
    Ok(syscall)
}

/// The second value is only used by one operator; nought is the same as none.
fn normal(arg: &LinuxSeccompArg) -> Result<LinuxSeccompArg, SpecError> {
    if arg.value_two() != Some(0) {
        return Ok(*arg);
    }
    LinuxSeccompArgBuilder::default()
        .index(arg.index())
        .value(arg.value())
        .op(arg.op())
        .build()
        .map_err(|error| SpecError::Seccomp(error.to_string()))
}

/// This machine's architecture, in the two vocabularies of a profile.
#[derive(Clone, Copy, Debug)]
struct Native {
    docker: &'static str,
    seccomp: Arch,
}

impl Native {
    fn of(machine: &str) -> Option<Self> {
        let (docker, seccomp) = match machine {
            "x86_64" => ("amd64", Arch::ScmpArchX86_64),
            "x86" => ("x86", Arch::ScmpArchX86),
            "aarch64" => ("arm64", Arch::ScmpArchAarch64),
            "arm" => ("arm", Arch::ScmpArchArm),
            "riscv64" => ("riscv64", Arch::ScmpArchRiscv64),
            "s390x" => ("s390x", Arch::ScmpArchS390x),
            "powerpc64" => ("ppc64le", Arch::ScmpArchPpc64le),
            _ => return None,
        };
        Some(Self { docker, seccomp })
    }
}
