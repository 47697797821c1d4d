//! What the caller says about a container.

use std::collections::BTreeMap;
use std::path::PathBuf;

use brig_types::id::ContainerId;

/// The path variable of a container whose image sets none.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Size of /dev/shm where nothing else was asked for, in bytes.
pub const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// Everything that decides a container's configuration. [`ContainerSpecInput::new`] gives Docker's
/// defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerSpecInput {
    /// The container.
    pub id: ContainerId,
    /// Its root file system, mounted on the host; absolute.
    pub rootfs: PathBuf,
    /// `--read-only`.
    pub readonly_rootfs: bool,
    /// Its first process.
    pub process: ProcessSpec,
    /// `--init`: run an init as process 1.
    pub init: bool,
    /// Host name; not used when it shares the host's.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// Which namespaces are its own.
    pub namespaces: Namespaces,
    /// Which system calls it may make.
    pub seccomp: SeccompProfile,
    /// Binds, volumes and memory file systems, in the order they were asked for.
    pub mounts: Vec<MountSpec>,
    /// What /dev/shm is.
    pub shm: Shm,
    /// Device nodes, with the right to use them. A privileged container gets
    /// [`super::all_devices`].
    pub devices: Vec<DeviceNode>,
    /// Rights on devices without nodes (`--device-cgroup-rule`).
    pub device_rules: Vec<DeviceRule>,
    /// Limits.
    pub resources: Resources,
    /// `--sysctl`.
    pub sysctls: BTreeMap<String, String>,
    /// Paths to hide; `None` for Docker's, an empty list for none.
    pub masked_paths: Option<Vec<String>>,
    /// Paths to make read-only; `None` for Docker's, an empty list for none.
    pub readonly_paths: Option<Vec<String>>,
    /// Control group to put its own one below; `None` for the daemon's.
    pub cgroup_parent: Option<String>,
    /// Annotations of the configuration.
    pub annotations: BTreeMap<String, String>,
}

impl ContainerSpecInput {
    /// What `docker run` without flags means.
    #[must_use]
    pub fn new(id: ContainerId, rootfs: PathBuf, args: Vec<String>) -> Self {
        let hostname = id.short().to_owned();
        let mut process = ProcessSpec::new(args);
        process.env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
        Self {
            id,
            rootfs,
            readonly_rootfs: false,
            process,
            init: false,
            hostname,
            domainname: None,
            namespaces: Namespaces::default(),
            seccomp: SeccompProfile::Default,
            mounts: Vec::new(),
            shm: Shm::Private { size: DEFAULT_SHM_SIZE },
            devices: Vec::new(),
            device_rules: Vec::new(),
            resources: Resources::default(),
            sysctls: BTreeMap::new(),
            masked_paths: None,
            readonly_paths: None,
            cgroup_parent: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// A process in a container: the first one, or one that exec starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSpec {
    /// Command line; must not be empty.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory; absolute.
    pub cwd: PathBuf,
    /// Numeric user.
    pub user: UserSpec,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// First size of that terminal.
    pub console_size: Option<ConsoleSize>,
    /// Which capabilities it has.
    pub capabilities: Capabilities,
    /// `--security-opt no-new-privileges`.
    pub no_new_privileges: bool,
    /// `--ulimit`.
    pub rlimits: Vec<Rlimit>,
    /// `--oom-score-adj`; `None` leaves it as it is (exec).
    pub oom_score_adj: Option<i32>,
    /// AppArmor profile that is loaded on this host.
    pub apparmor: Option<String>,
}

impl ProcessSpec {
    /// Root in `/` with Docker's capabilities and nothing in its environment.
    #[must_use]
    pub fn new(args: Vec<String>) -> Self {
        Self {
            args,
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            user: UserSpec { uid: 0, gid: 0, additional_gids: vec![0] },
            tty: false,
            console_size: None,
            capabilities: Capabilities::default(),
            no_new_privileges: false,
            rlimits: Vec::new(),
            oom_score_adj: Some(0),
            apparmor: None,
        }
    }
}

/// Ids as the kernel knows them; names are resolved before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserSpec {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// All groups, the first one included.
    pub additional_gids: Vec<u32>,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// `--cap-add`, `--cap-drop`, `--privileged`. Names in any case, with or without `CAP_`, or `ALL`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// What to have beyond the default.
    pub add: Vec<String>,
    /// What not to have of the default.
    pub drop: Vec<String>,
    /// Everything. For a container this also lifts the seccomp filter, the hidden paths and the
    /// device rules.
    pub privileged: bool,
}

/// A resource limit, numbers as Docker's API has them: -1 is unlimited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// `nofile`, `core`, ...
    pub name: String,
    /// Soft limit.
    pub soft: i64,
    /// Hard limit.
    pub hard: i64,
}

/// Whose namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Namespace {
    /// A new one.
    #[default]
    Own,
    /// The daemon's.
    Host,
    /// The one that this file refers to (`/proc/PID/ns/net`).
    Path(PathBuf),
}

/// The container's namespaces; its mounts are always its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Network.
    pub net: Namespace,
    /// Shared memory and message queues.
    pub ipc: Namespace,
    /// Process ids.
    pub pid: Namespace,
    /// Host name.
    pub uts: Namespace,
    /// Control groups; `None` for Docker's default, which depends on the host.
    pub cgroup: Option<Namespace>,
}

/// Which system calls are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SeccompProfile {
    /// Docker's default profile.
    #[default]
    Default,
    /// All.
    Unconfined,
    /// A profile in Docker's JSON format.
    Custom(String),
}

/// What /dev/shm is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shm {
    /// A memory file system of the container's own, of this many bytes.
    Private {
        /// Size in bytes.
        size: u64,
    },
    /// A directory of the host: its own /dev/shm, or one that several containers share.
    Bind(PathBuf),
    /// Nothing.
    None,
}

/// How mounts travel between the host and the container through a bind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all, mounts below included.
    #[default]
    Rprivate,
    /// Not at all.
    Private,
    /// Both ways, mounts below included.
    Rshared,
    /// Both ways.
    Shared,
    /// Into the container, mounts below included.
    Rslave,
    /// Into the container.
    Slave,
}

impl Propagation {
    /// The name in mount options.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rprivate => "rprivate",
            Self::Private => "private",
            Self::Rshared => "rshared",
            Self::Shared => "shared",
            Self::Rslave => "rslave",
            Self::Slave => "slave",
        }
    }

    /// Reads such a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Rprivate, Self::Private, Self::Rshared, Self::Shared, Self::Rslave, Self::Slave]
            .into_iter()
            .find(|mode| mode.as_str() == text)
    }
}

/// Something mounted into the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSpec {
    /// Where, inside; absolute.
    pub target: PathBuf,
    /// What.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// On the host; absolute.
        source: PathBuf,
        /// Refuse writing.
        read_only: bool,
        /// Take the mounts below it along.
        recursive: bool,
        /// How later mounts travel.
        propagation: Propagation,
    },
    /// A volume's directory.
    Volume {
        /// On the host; absolute.
        source: PathBuf,
        /// Refuse writing.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// Mount options, comma-separated, as `--tmpfs` takes them; may be empty.
        options: String,
    },
}

impl MountSpec {
    /// A recursive private bind, Docker's default.
    #[must_use]
    pub const fn bind(source: PathBuf, target: PathBuf, read_only: bool) -> Self {
        Self {
            target,
            kind: MountKind::Bind {
                source,
                read_only,
                recursive: true,
                propagation: Propagation::Rprivate,
            },
        }
    }

    /// A volume.
    #[must_use]
    pub const fn volume(source: PathBuf, target: PathBuf, read_only: bool) -> Self {
        Self { target, kind: MountKind::Volume { source, read_only } }
    }

    /// Memory.
    #[must_use]
    pub const fn tmpfs(target: PathBuf, options: String) -> Self {
        Self { target, kind: MountKind::Tmpfs { options } }
    }
}

/// What kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceType {
    /// All kinds; only in a rule.
    All,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe; no rule needed.
    Fifo,
}

/// A device node in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// Inside the container.
    pub path: PathBuf,
    /// Kind.
    pub kind: DeviceType,
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `r`, `w`, `m` in any combination.
    pub access: String,
}

/// A right to use devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Kind.
    pub kind: DeviceType,
    /// Major number; `None` for all.
    pub major: Option<i64>,
    /// Minor number; `None` for all.
    pub minor: Option<i64>,
    /// `r`, `w`, `m` in any combination.
    pub access: String,
}

/// Limits, in the units of Docker's API. `None` and, where the API means "not set" by it, 0 set
/// nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together, -1 for unlimited swap; not set: twice the memory.
    pub memory_swap: Option<i64>,
    /// Bytes to get down to under pressure.
    pub memory_reservation: Option<i64>,
    /// 0 to 100; -1 sets nothing.
    pub memory_swappiness: Option<i64>,
    /// Do not kill for lack of memory.
    pub oom_kill_disable: bool,
    /// Relative weight.
    pub cpu_shares: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<i64>,
    /// Microseconds per period.
    pub cpu_quota: Option<i64>,
    /// Billionths of a processor (`--cpus`); instead of period and quota.
    pub nano_cpus: Option<i64>,
    /// Microseconds.
    pub cpu_realtime_period: Option<i64>,
    /// Microseconds.
    pub cpu_realtime_runtime: Option<i64>,
    /// `0-2,7`.
    pub cpuset_cpus: String,
    /// `0-1`.
    pub cpuset_mems: String,
    /// Number of processes and threads; 0 sets nothing, -1 is unlimited.
    pub pids_limit: Option<i64>,
    /// Block devices.
    pub blkio: BlkioSpec,
}

/// Limits on block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlkioSpec {
    /// 10 to 1000; 0 sets nothing.
    pub weight: u16,
    /// Weights of single devices.
    pub weight_devices: Vec<WeightDevice>,
    /// Bytes a second.
    pub read_bps: Vec<ThrottleDevice>,
    /// Bytes a second.
    pub write_bps: Vec<ThrottleDevice>,
    /// Operations a second.
    pub read_iops: Vec<ThrottleDevice>,
    /// Operations a second.
    pub write_iops: Vec<ThrottleDevice>,
}

/// A device's weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightDevice {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// 10 to 1000.
    pub weight: u16,
}

/// A device's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleDevice {
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Per second.
    pub rate: u64,
}
