//! Flags that `service create` and `service update` share.

use clap::Args;

use crate::cli::flags::optional_boolean;
use crate::parse::{BadValue, bad, duration, size};

fn restart_condition(text: &str) -> Result<String, BadValue> {
    match text {
        "none" | "on-failure" | "any" => Ok(text.to_owned()),
        _ => bad(format!(
            "invalid restart condition {text:?}: must be one of none, on-failure or any"
        )),
    }
}

fn order(text: &str) -> Result<String, BadValue> {
    match text {
        "start-first" | "stop-first" => Ok(text.to_owned()),
        _ => bad(format!("invalid order {text:?}: must be start-first or stop-first")),
    }
}

fn failure_action(text: &str) -> Result<String, BadValue> {
    match text {
        "pause" | "continue" | "rollback" => Ok(text.to_owned()),
        _ => bad(format!("invalid failure action {text:?}: must be pause, continue or rollback")),
    }
}

/// Settings of a service that are one value each. What is not given is not changed.
#[derive(Args, Debug, Default)]
pub(super) struct ServiceFlags {
    /// Exit immediately instead of waiting for the service to converge
    #[arg(long, short = 'd')]
    pub(super) detach: bool,
    /// Endpoint mode (vip or dnsrr)
    #[arg(long)]
    pub(super) endpoint_mode: Option<String>,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long)]
    pub(super) entrypoint: Option<String>,
    /// Command to run to check health
    #[arg(long)]
    pub(super) health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h)
    #[arg(long, value_parser = duration::positive)]
    pub(super) health_interval: Option<i64>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long)]
    pub(super) health_retries: Option<i64>,
    /// Time between running the check during the start period (ms|s|m|h)
    #[arg(long, value_parser = duration::positive)]
    pub(super) health_start_interval: Option<i64>,
    /// Start period for the container to initialize before counting retries towards unstable (ms|s|m|h)
    #[arg(long, value_parser = duration::positive)]
    pub(super) health_start_period: Option<i64>,
    /// Maximum time to allow one check to run (ms|s|m|h)
    #[arg(long, value_parser = duration::positive)]
    pub(super) health_timeout: Option<i64>,
    /// Container hostname
    #[arg(long)]
    pub(super) hostname: Option<String>,
    /// Service container isolation mode
    #[arg(long)]
    pub(super) isolation: Option<String>,
    /// Limit CPUs
    #[arg(long, value_parser = size::nano_cpus)]
    pub(super) limit_cpu: Option<i64>,
    /// Limit Memory
    #[arg(long, value_parser = size::bytes)]
    pub(super) limit_memory: Option<i64>,
    /// Limit maximum number of processes (default 0 = unlimited)
    #[arg(long)]
    pub(super) limit_pids: Option<i64>,
    /// Logging driver for service
    #[arg(long)]
    pub(super) log_driver: Option<String>,
    /// Logging driver options
    #[arg(long)]
    pub(super) log_opt: Vec<String>,
    /// Number of job tasks to run concurrently (default equal to --replicas)
    #[arg(long)]
    pub(super) max_concurrent: Option<u64>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    pub(super) no_healthcheck: bool,
    /// Do not query the registry to resolve image digest and supported platforms
    #[arg(long)]
    pub(super) no_resolve_image: bool,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long)]
    pub(super) oom_score_adj: Option<i64>,
    /// Suppress progress output
    #[arg(long, short = 'q')]
    pub(super) quiet: bool,
    /// Number of tasks
    #[arg(long)]
    pub(super) replicas: Option<u64>,
    /// Maximum number of tasks per node (default 0 = unlimited)
    #[arg(long)]
    pub(super) replicas_max_per_node: Option<u64>,
    /// Reserve CPUs
    #[arg(long, value_parser = size::nano_cpus)]
    pub(super) reserve_cpu: Option<i64>,
    /// Reserve Memory
    #[arg(long, value_parser = size::bytes)]
    pub(super) reserve_memory: Option<i64>,
    /// Restart when condition is met ("none", "on-failure", "any")
    #[arg(long, value_parser = restart_condition)]
    pub(super) restart_condition: Option<String>,
    /// Delay between restart attempts (ns|us|ms|s|m|h)
    #[arg(long, value_parser = duration::positive)]
    pub(super) restart_delay: Option<i64>,
    /// Maximum number of restarts before giving up
    #[arg(long)]
    pub(super) restart_max_attempts: Option<u64>,
    /// Window used to evaluate the restart policy (ns|us|ms|s|m|h)
    #[arg(long, value_parser = duration::positive)]
    pub(super) restart_window: Option<i64>,
    /// Delay between task rollbacks (ns|us|ms|s|m|h)
    #[arg(long, value_parser = duration::positive)]
    pub(super) rollback_delay: Option<i64>,
    /// Action on rollback failure ("pause", "continue")
    #[arg(long, value_parser = failure_action)]
    pub(super) rollback_failure_action: Option<String>,
    /// Failure rate to tolerate during a rollback
    #[arg(long)]
    pub(super) rollback_max_failure_ratio: Option<f32>,
    /// Duration after each task rollback to monitor for failure (ns|us|ms|s|m|h)
    #[arg(long, value_parser = duration::positive)]
    pub(super) rollback_monitor: Option<i64>,
    /// Rollback order ("start-first", "stop-first")
    #[arg(long, value_parser = order)]
    pub(super) rollback_order: Option<String>,
    /// Maximum number of tasks rolled back simultaneously (0 to roll back all at once)
    #[arg(long)]
    pub(super) rollback_parallelism: Option<u64>,
    /// Time to wait before force killing a container (ns|us|ms|s|m|h)
    #[arg(long, value_parser = duration::positive)]
    pub(super) stop_grace_period: Option<i64>,
    /// Signal to stop the container
    #[arg(long)]
    pub(super) stop_signal: Option<String>,
    /// Delay between updates (ns|us|ms|s|m|h)
    #[arg(long, value_parser = duration::positive)]
    pub(super) update_delay: Option<i64>,
    /// Action on update failure ("pause", "continue", "rollback")
    #[arg(long, value_parser = failure_action)]
    pub(super) update_failure_action: Option<String>,
    /// Failure rate to tolerate during an update
    #[arg(long)]
    pub(super) update_max_failure_ratio: Option<f32>,
    /// Duration after each task update to monitor for failure (ns|us|ms|s|m|h)
    #[arg(long, value_parser = duration::positive)]
    pub(super) update_monitor: Option<i64>,
    /// Update order ("start-first", "stop-first")
    #[arg(long, value_parser = order)]
    pub(super) update_order: Option<String>,
    /// Maximum number of tasks updated simultaneously (0 to update all at once)
    #[arg(long)]
    pub(super) update_parallelism: Option<u64>,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(long, short = 'u')]
    pub(super) user: Option<String>,
    /// Send registry authentication details to swarm agents
    #[arg(long)]
    pub(super) with_registry_auth: bool,
    /// Working directory inside the container
    #[arg(long, short = 'w')]
    pub(super) workdir: Option<String>,
    #[command(flatten)]
    pub(super) switches: Switches,
}

/// Booleans that `update` can also switch off.
#[derive(Debug, Default)]
pub(super) struct Switches {
    pub(super) init: Option<bool>,
    pub(super) read_only: Option<bool>,
    pub(super) tty: Option<bool>,
}

impl clap::FromArgMatches for Switches {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let flag = |name: &str| matches.get_one::<bool>(name).copied();
        Ok(Self { init: flag("init"), read_only: flag("read_only"), tty: flag("tty") })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Switches {
    fn augment_args(command: clap::Command) -> clap::Command {
        let arg = |name: &'static str, long: &'static str, help: &'static str| {
            optional_boolean(clap::Arg::new(name).long(long)).help(help)
        };
        command
            .arg(arg(
                "init",
                "init",
                "Use an init inside each service container to forward signals and reap processes",
            ))
            .arg(arg(
                "read_only",
                "read-only",
                "Mount the container's root filesystem as read only",
            ))
            .arg(arg("tty", "tty", "Allocate a pseudo-TTY").short('t'))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}
