//! From a container's settings to the OCI runtime configuration that Docker would write for them.
//!
//! [`build`] is a pure function of [`ContainerSpecInput`] and [`HostFacts`]: it reads nothing, so
//! every flag's effect can be tested. What it had to weaken because this host does not allow more
//! comes back as warnings.

mod capabilities;
mod devices;
mod input;
mod mounts;
mod process;
mod resources;

use std::collections::HashMap;
use std::path::PathBuf;

use brig_sys::cgroup::CgroupMode;
use oci_spec::runtime::{
    Linux, LinuxBuilder, LinuxNamespace, LinuxNamespaceType, Process, Root, Spec, SpecBuilder,
};

use crate::facts::HostFacts;
use crate::seccomp;

pub use devices::{all_devices, device_nodes};
pub use input::{
    BlkioSpec, Capabilities, ConsoleSize, ContainerSpecInput, DEFAULT_PATH, DEFAULT_SHM_SIZE,
    DeviceNode, DeviceRule, DeviceType, MountKind, MountSpec, Namespace, Namespaces, ProcessSpec,
    Propagation, Resources, Rlimit, SeccompProfile, Shm, ThrottleDevice, UserSpec, WeightDevice,
};
pub use mounts::tmpfs_options;
pub use resources::resources_document;

/// The version of the OCI runtime specification that the configuration claims to follow.
const OCI_VERSION: &str = "1.0.2-dev";
/// Where the init binary is seen inside a container that asked for one.
const INIT_PATH: &str = "/sbin/docker-init";

/// `/proc` and `/sys` files that containers must not see.
pub const MASKED_PATHS: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// `/proc` files that containers must not write.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A container's configuration, and what it does not grant although it was asked for.
#[derive(Clone, Debug)]
pub struct Built<T> {
    /// The configuration.
    pub spec: T,
    /// One sentence for each thing that this host does not allow and that was lowered or left out.
    pub warnings: Vec<String>,
}

/// Settings that cannot become a configuration. The texts are what API clients see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A container without anything to run.
    #[error("no command specified")]
    NoCommand,
    /// A working directory that is not absolute.
    #[error("the working directory '{0}' is invalid, it needs to be an absolute path")]
    RelativeCwd(String),
    /// A name that is no capability.
    #[error("invalid capability: {0}")]
    UnknownCapability(String),
    /// A ulimit that does not exist.
    #[error("invalid ulimit type: {0}")]
    UnknownRlimit(String),
    /// A ulimit whose soft limit is above its hard limit.
    #[error("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")]
    RlimitOrder {
        /// The soft limit.
        soft: i64,
        /// The hard limit.
        hard: i64,
    },
    /// A tmpfs option that does not exist.
    #[error("invalid tmpfs option [{0:?}]")]
    TmpfsOption(String),
    /// Device permissions other than r, w and m.
    #[error("invalid device mode: {0}")]
    DeviceAccess(String),
    /// A seccomp profile that is not understood.
    #[error("Decoding seccomp profile failed: {0}")]
    Seccomp(String),
    /// An init process was asked for and there is none on this host.
    #[error("docker-init, tini-static or catatonit is needed for --init: install the package tini")]
    NoInit,
    /// A parent of control groups that would leave the hierarchy.
    #[error("invalid cgroup parent: {0}")]
    CgroupParent(String),
    /// A value that an OCI configuration cannot express.
    #[error("the configuration cannot be written: {0}")]
    Oci(String),
}

impl SpecError {
    fn oci(error: impl std::fmt::Display) -> Self {
        Self::Oci(error.to_string())
    }
}

impl brig_types::error::Categorized for SpecError {
    fn kind(&self) -> brig_types::error::ErrorKind {
        brig_types::error::ErrorKind::InvalidParameter
    }
}

/// The configuration of a container.
///
/// # Errors
/// [`SpecError`] for settings that cannot be satisfied by lowering them.
pub fn build(input: &ContainerSpecInput, host: &HostFacts) -> Result<Built<Spec>, SpecError> {
    let mut warnings = Vec::new();
    let mut process = process::build(&input.process, host, &mut warnings)?;
    let mut mounts = mounts::build(input, host)?;
    if input.init {
        let init = host.init.as_ref().ok_or(SpecError::NoInit)?;
        let mut args = vec![INIT_PATH.to_owned(), "--".to_owned()];
        args.extend(input.process.args.iter().cloned());
        process.set_args(Some(args));
        mounts.push(mounts::bind_mount(init, INIT_PATH.as_ref(), &["bind", "ro"]));
    }
    let mut root = Root::default();
    root.set_path(input.rootfs.clone()).set_readonly(input.readonly_rootfs.then_some(true));

    let linux = linux(input, host, &process)?;
    let mut spec = SpecBuilder::default().build().unwrap_or_default();
    spec.set_version(OCI_VERSION.to_owned())
        .set_process(Some(process))
        .set_root(Some(root))
        .set_hostname((input.namespaces.uts != Namespace::Host).then(|| input.hostname.clone()))
        .set_domainname(
            input.domainname.clone().filter(|_| input.namespaces.uts != Namespace::Host),
        )
        .set_mounts(Some(mounts))
        .set_annotations(
            (!input.annotations.is_empty())
                .then(|| input.annotations.clone().into_iter().collect()),
        )
        .set_linux(Some(linux));
    Ok(Built { spec, warnings })
}

/// The `process` object of one more process in a running container.
///
/// # Errors
/// [`SpecError`] for settings that cannot be satisfied by lowering them.
pub fn build_process(spec: &ProcessSpec, host: &HostFacts) -> Result<Built<Process>, SpecError> {
    let mut warnings = Vec::new();
    let process = process::build(spec, host, &mut warnings)?;
    Ok(Built { spec: process, warnings })
}

fn linux(
    input: &ContainerSpecInput,
    host: &HostFacts,
    process: &Process,
) -> Result<Linux, SpecError> {
    let privileged = input.process.capabilities.privileged;
    let paths = |chosen: &Option<Vec<String>>, default: &[&str]| match chosen {
        Some(paths) => paths.clone(),
        None if privileged => Vec::new(),
        None => default.iter().map(|path| (*path).to_owned()).collect(),
    };
    let masked = paths(&input.masked_paths, &MASKED_PATHS);
    let readonly = paths(&input.readonly_paths, &READONLY_PATHS);
    let devices = devices::nodes(&input.devices);

    let mut linux = LinuxBuilder::default().build().unwrap_or_default();
    linux
        .set_sysctl(Some(sysctls(input)).filter(|sysctls| !sysctls.is_empty()))
        .set_resources(Some(resources::build(input)?))
        .set_cgroups_path(Some(cgroups_path(input, host)?))
        .set_namespaces(Some(namespaces(input, host)))
        .set_devices((!devices.is_empty()).then_some(devices))
        .set_seccomp(seccomp::resolve(&input.seccomp, privileged, process, host)?)
        .set_rootfs_propagation(mounts::rootfs_propagation(input))
        .set_masked_paths((!masked.is_empty()).then_some(masked))
        .set_readonly_paths((!readonly.is_empty()).then_some(readonly));
    Ok(linux)
}

fn cgroups_path(input: &ContainerSpecInput, host: &HostFacts) -> Result<PathBuf, SpecError> {
    let parent = input.cgroup_parent.as_deref().unwrap_or(&host.cgroup_parent);
    let bad = || SpecError::CgroupParent(parent.chars().take(200).collect());
    if parent.contains(['\0', ':', '\n']) {
        return Err(bad());
    }
    brig_sys::cgroup::group_path("/".as_ref(), parent)
        .map(|path| path.join(input.id.as_str()))
        .map_err(|_| bad())
}

fn sysctls(input: &ContainerSpecInput) -> HashMap<String, String> {
    let mut sysctls = HashMap::new();
    // Nothing is privileged about low ports and ping inside a container's own network.
    if input.namespaces.net != Namespace::Host {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    sysctls.extend(input.sysctls.clone());
    sysctls
}

fn namespaces(input: &ContainerSpecInput, host: &HostFacts) -> Vec<LinuxNamespace> {
    use LinuxNamespaceType as Type;
    let chosen = &input.namespaces;
    // COMPAT: Docker gives a control group namespace on version 2 hosts only.
    let cgroup = match &chosen.cgroup {
        Some(mode) => mode.clone(),
        None if host.cgroup == CgroupMode::V2 => Namespace::Own,
        None => Namespace::Host,
    };
    [
        (Type::Mount, &Namespace::Own),
        (Type::Network, &chosen.net),
        (Type::Uts, &chosen.uts),
        (Type::Pid, &chosen.pid),
        (Type::Ipc, &chosen.ipc),
        (Type::Cgroup, &cgroup),
    ]
    .into_iter()
    .filter_map(|(kind, mode)| {
        let path = match mode {
            Namespace::Host => return None,
            Namespace::Own => None,
            Namespace::Path(path) => Some(path.clone()),
        };
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(kind).set_path(path);
        Some(namespace)
    })
    .collect()
}

#[cfg(test)]
pub(crate) mod tests;
