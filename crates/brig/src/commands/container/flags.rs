//! The flags that `run` and `create` share.

use brig_api::container::{
    DeviceMapping, DeviceRequest, Mount, ThrottleDevice, Ulimit, WeightDevice,
};
use brig_api::engine_access::EngineAccess;
use clap::Args;

use crate::cli::flags::optional_boolean;
use crate::parse::network::Attachment;
use crate::parse::{duration, mount, network, resources, security, size};

/// What a container is made from.
#[derive(Args, Debug)]
pub(crate) struct ContainerFlags {
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long, value_parser = crate::parse::swarm::extra_host)]
    pub(crate) add_host: Vec<String>,
    /// Add an annotation to the container (passed through to the OCI runtime)
    #[arg(long)]
    pub(crate) annotation: Vec<String>,
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(long, short = 'a')]
    pub(crate) attach: Vec<String>,
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long, default_value_t = 0)]
    pub(crate) blkio_weight: u16,
    /// Block IO weight (relative device weight)
    #[arg(long, value_parser = resources::weight_device)]
    pub(crate) blkio_weight_device: Vec<WeightDevice>,
    /// Add Linux capabilities
    #[arg(long)]
    pub(crate) cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long)]
    pub(crate) cap_drop: Vec<String>,
    /// Optional parent cgroup for the container
    #[arg(long, default_value = "")]
    pub(crate) cgroup_parent: String,
    /// Cgroup namespace to use (host|private)
    #[arg(long, default_value = "")]
    pub(crate) cgroupns: String,
    /// Write the container ID to the file
    #[arg(long)]
    pub(crate) cidfile: Option<String>,
    /// CPU count (Windows only)
    #[arg(long, default_value_t = 0)]
    pub(crate) cpu_count: i64,
    /// CPU percent (Windows only)
    #[arg(long, default_value_t = 0)]
    pub(crate) cpu_percent: i64,
    /// Limit CPU CFS (Completely Fair Scheduler) period
    #[arg(long, default_value_t = 0)]
    pub(crate) cpu_period: i64,
    /// Limit CPU CFS (Completely Fair Scheduler) quota
    #[arg(long, default_value_t = 0)]
    pub(crate) cpu_quota: i64,
    /// Limit CPU real-time period in microseconds
    #[arg(long, default_value_t = 0)]
    pub(crate) cpu_rt_period: i64,
    /// Limit CPU real-time runtime in microseconds
    #[arg(long, default_value_t = 0)]
    pub(crate) cpu_rt_runtime: i64,
    /// CPU shares (relative weight)
    #[arg(long, short = 'c', default_value_t = 0)]
    pub(crate) cpu_shares: i64,
    /// Number of CPUs
    #[arg(long, value_parser = size::nano_cpus)]
    pub(crate) cpus: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, default_value = "")]
    pub(crate) cpuset_cpus: String,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, default_value = "")]
    pub(crate) cpuset_mems: String,
    /// Add a host device to the container
    #[arg(long, value_parser = resources::device)]
    pub(crate) device: Vec<DeviceMapping>,
    /// Add a rule to the cgroup allowed devices list
    #[arg(long)]
    pub(crate) device_cgroup_rule: Vec<String>,
    /// Limit read rate (bytes per second) from a device
    #[arg(long, value_parser = resources::bytes_rate)]
    pub(crate) device_read_bps: Vec<ThrottleDevice>,
    /// Limit read rate (IO per second) from a device
    #[arg(long, value_parser = resources::operations_rate)]
    pub(crate) device_read_iops: Vec<ThrottleDevice>,
    /// Limit write rate (bytes per second) to a device
    #[arg(long, value_parser = resources::bytes_rate)]
    pub(crate) device_write_bps: Vec<ThrottleDevice>,
    /// Limit write rate (IO per second) to a device
    #[arg(long, value_parser = resources::operations_rate)]
    pub(crate) device_write_iops: Vec<ThrottleDevice>,
    #[command(flatten)]
    pub(crate) trust: crate::commands::trust::ContentTrust,
    /// Set custom DNS servers
    #[arg(long)]
    pub(crate) dns: Vec<String>,
    /// Set DNS options
    #[arg(long, alias = "dns-opt")]
    pub(crate) dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long)]
    pub(crate) dns_search: Vec<String>,
    /// Container NIS domain name
    #[arg(long, default_value = "")]
    pub(crate) domainname: String,
    /// Lend the container a socket of the engine: ROLE[:service=NAME,stack=NAME,...]
    #[arg(long, value_parser = security::engine_access)]
    pub(crate) engine_access: Option<EngineAccess>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long)]
    pub(crate) entrypoint: Option<String>,
    /// Set environment variables
    #[arg(long, short = 'e')]
    pub(crate) env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long)]
    pub(crate) env_file: Vec<String>,
    /// Expose a port or a range of ports
    #[arg(long)]
    pub(crate) expose: Vec<String>,
    /// GPU devices to add to the container ('all' to pass all GPUs)
    #[arg(long, value_parser = resources::gpus)]
    pub(crate) gpus: Vec<DeviceRequest>,
    /// Add additional groups to join
    #[arg(long)]
    pub(crate) group_add: Vec<String>,
    /// Command to run to check health
    #[arg(long)]
    pub(crate) health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h)
    #[arg(long, value_parser = duration::positive)]
    pub(crate) health_interval: Option<i64>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long)]
    pub(crate) health_retries: Option<i64>,
    /// Time between running the check during the start period (ms|s|m|h)
    #[arg(long, value_parser = duration::positive)]
    pub(crate) health_start_interval: Option<i64>,
    /// Start period for the container to initialize before starting health-retries countdown (ms|s|m|h)
    #[arg(long, value_parser = duration::positive)]
    pub(crate) health_start_period: Option<i64>,
    /// Maximum time to allow one check to run (ms|s|m|h)
    #[arg(long, value_parser = duration::positive)]
    pub(crate) health_timeout: Option<i64>,
    /// Container host name
    #[arg(long, short = 'h', default_value = "")]
    pub(crate) hostname: String,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long)]
    pub(crate) init: bool,
    /// Keep STDIN open even if not attached
    #[arg(long, short = 'i')]
    pub(crate) interactive: bool,
    /// Maximum IO bandwidth limit for the system drive (Windows only)
    #[arg(long, value_parser = size::bytes)]
    pub(crate) io_maxbandwidth: Option<i64>,
    /// Maximum IOps limit for the system drive (Windows only)
    #[arg(long, default_value_t = 0)]
    pub(crate) io_maxiops: u64,
    /// IPv4 address (e.g., 172.30.100.104)
    #[arg(long, default_value = "")]
    pub(crate) ip: String,
    /// IPv6 address (e.g., 2001:db8::33)
    #[arg(long, default_value = "")]
    pub(crate) ip6: String,
    /// IPC mode to use
    #[arg(long, default_value = "")]
    pub(crate) ipc: String,
    /// Container isolation technology
    #[arg(long, default_value = "")]
    pub(crate) isolation: String,
    /// Kernel memory limit
    #[arg(long, value_parser = size::bytes, hide = true)]
    pub(crate) kernel_memory: Option<i64>,
    /// Set meta data on a container
    #[arg(long, short = 'l')]
    pub(crate) label: Vec<String>,
    /// Read in a line delimited file of labels
    #[arg(long)]
    pub(crate) label_file: Vec<String>,
    /// Add link to another container
    #[arg(long)]
    pub(crate) link: Vec<String>,
    /// Container IPv4/IPv6 link-local addresses
    #[arg(long)]
    pub(crate) link_local_ip: Vec<String>,
    /// Logging driver for the container
    #[arg(long, default_value = "")]
    pub(crate) log_driver: String,
    /// Log driver options
    #[arg(long)]
    pub(crate) log_opt: Vec<String>,
    /// Container MAC address (e.g., 92:d0:c6:0a:29:33)
    #[arg(long, default_value = "")]
    pub(crate) mac_address: String,
    /// Memory limit
    #[arg(long, short = 'm', value_parser = size::bytes)]
    pub(crate) memory: Option<i64>,
    /// Memory soft limit
    #[arg(long, value_parser = size::bytes)]
    pub(crate) memory_reservation: Option<i64>,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long, value_parser = size::bytes_or_unlimited)]
    pub(crate) memory_swap: Option<i64>,
    /// Tune container memory swappiness (0 to 100)
    #[arg(long, default_value_t = -1)]
    pub(crate) memory_swappiness: i64,
    /// Attach a filesystem mount to the container
    #[arg(long, value_parser = mount::mount)]
    pub(crate) mount: Vec<Mount>,
    /// Assign a name to the container
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Connect a container to a network
    #[arg(long, alias = "net", value_parser = network::attachment)]
    pub(crate) network: Vec<Attachment>,
    /// Add network-scoped alias for the container
    #[arg(long, alias = "net-alias")]
    pub(crate) network_alias: Vec<String>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    pub(crate) no_healthcheck: bool,
    /// Disable OOM Killer
    #[arg(long)]
    pub(crate) oom_kill_disable: bool,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long, default_value_t = 0)]
    pub(crate) oom_score_adj: i64,
    /// PID namespace to use
    #[arg(long, default_value = "")]
    pub(crate) pid: String,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, default_value_t = 0)]
    pub(crate) pids_limit: i64,
    /// Set platform if server is multi-platform capable
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// Give extended privileges to this container
    #[arg(long)]
    pub(crate) privileged: bool,
    /// Publish a container's port(s) to the host
    #[arg(long, short = 'p')]
    pub(crate) publish: Vec<String>,
    /// Publish all exposed ports to random ports
    #[arg(long, short = 'P')]
    pub(crate) publish_all: bool,
    /// Pull image before running ("always", "missing", "never")
    #[arg(long, default_value = "missing")]
    pub(crate) pull: String,
    /// Suppress the pull output
    #[arg(long, short = 'q')]
    pub(crate) quiet: bool,
    /// Mount the container's root filesystem as read only
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Restart policy to apply when a container exits
    #[arg(long, default_value = "no")]
    pub(crate) restart: String,
    /// Automatically remove the container and its associated anonymous volumes when it exits
    #[arg(long)]
    pub(crate) rm: bool,
    /// Runtime to use for this container
    #[arg(long, default_value = "")]
    pub(crate) runtime: String,
    /// Security Options
    #[arg(long)]
    pub(crate) security_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_parser = size::bytes)]
    pub(crate) shm_size: Option<i64>,
    /// Signal to stop the container
    #[arg(long, default_value = "")]
    pub(crate) stop_signal: String,
    /// Timeout (in seconds) to stop a container
    #[arg(long)]
    pub(crate) stop_timeout: Option<i64>,
    /// Storage driver options for the container
    #[arg(long)]
    pub(crate) storage_opt: Vec<String>,
    /// Sysctl options
    #[arg(long)]
    pub(crate) sysctl: Vec<String>,
    /// Mount a tmpfs directory
    #[arg(long)]
    pub(crate) tmpfs: Vec<String>,
    /// Allocate a pseudo-TTY
    #[arg(long, short = 't')]
    pub(crate) tty: bool,
    /// Ulimit options
    #[arg(long, value_parser = resources::ulimit)]
    pub(crate) ulimit: Vec<Ulimit>,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(long, short = 'u', default_value = "")]
    pub(crate) user: String,
    /// User namespace to use
    #[arg(long, default_value = "")]
    pub(crate) userns: String,
    /// UTS namespace to use
    #[arg(long, default_value = "")]
    pub(crate) uts: String,
    /// Bind mount a volume
    #[arg(long, short = 'v')]
    pub(crate) volume: Vec<String>,
    /// Optional volume driver for the container
    #[arg(long, default_value = "")]
    pub(crate) volume_driver: String,
    /// Mount volumes from the specified container(s)
    #[arg(long)]
    pub(crate) volumes_from: Vec<String>,
    /// Working directory inside the container
    #[arg(long, short = 'w', default_value = "")]
    pub(crate) workdir: String,
    /// The image, and what to run in it
    #[arg(required = true, hide = true)]
    pub(crate) command: Vec<String>,
}

/// Booleans that are on unless switched off.
pub(super) fn on_by_default(arg: clap::Arg) -> clap::Arg {
    optional_boolean(arg).default_value("true")
}
