//! `update`.

use brig_api::container::{HostConfig, UpdateRequest, UpdateResponse};
use clap::Args;

use super::request::restart_policy;
use crate::cli::leaf;
use crate::client::Call;
use crate::commands::checked;
use crate::context::Context;
use crate::error::{Failures, Result, message};
use crate::output::line;
use crate::parse::size;

leaf!(
    UPDATE,
    "update",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    UpdateArgs,
    update
);

#[derive(Args, Debug)]
struct UpdateArgs {
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long)]
    blkio_weight: Option<u16>,
    /// Limit CPU CFS (Completely Fair Scheduler) period
    #[arg(long)]
    cpu_period: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) quota
    #[arg(long)]
    cpu_quota: Option<i64>,
    /// Limit the CPU real-time period in microseconds
    #[arg(long)]
    cpu_rt_period: Option<i64>,
    /// Limit the CPU real-time runtime in microseconds
    #[arg(long)]
    cpu_rt_runtime: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(long, short = 'c')]
    cpu_shares: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_parser = size::nano_cpus)]
    cpus: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Kernel memory limit
    #[arg(long, value_parser = size::bytes, hide = true)]
    kernel_memory: Option<i64>,
    /// Memory limit
    #[arg(long, short = 'm', value_parser = size::bytes)]
    memory: Option<i64>,
    /// Memory soft limit
    #[arg(long, value_parser = size::bytes)]
    memory_reservation: Option<i64>,
    /// Swap limit equal to memory plus swap: -1 to enable unlimited swap
    #[arg(long, value_parser = size::bytes_or_unlimited)]
    memory_swap: Option<i64>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long)]
    pids_limit: Option<i64>,
    /// Restart policy to apply when a container exits
    #[arg(long)]
    restart: Option<String>,
    #[arg(required = true, hide = true)]
    containers: Vec<String>,
}

impl UpdateArgs {
    fn request(&self) -> Result<UpdateRequest> {
        let host = HostConfig {
            blkio_weight: self.blkio_weight.unwrap_or_default(),
            cpu_period: self.cpu_period.unwrap_or_default(),
            cpu_quota: self.cpu_quota.unwrap_or_default(),
            cpu_realtime_period: self.cpu_rt_period.unwrap_or_default(),
            cpu_realtime_runtime: self.cpu_rt_runtime.unwrap_or_default(),
            cpu_shares: self.cpu_shares.unwrap_or_default(),
            nano_cpus: self.cpus.unwrap_or_default(),
            cpuset_cpus: self.cpuset_cpus.clone().unwrap_or_default(),
            cpuset_mems: self.cpuset_mems.clone().unwrap_or_default(),
            kernel_memory: self.kernel_memory.unwrap_or_default(),
            memory: self.memory.unwrap_or_default(),
            memory_reservation: self.memory_reservation.unwrap_or_default(),
            memory_swap: self.memory_swap.unwrap_or_default(),
            pids_limit: self.pids_limit,
            restart_policy: match &self.restart {
                Some(text) => restart_policy(text)?,
                None => Default::default(),
            },
            ..HostConfig::default()
        };
        let any = self.blkio_weight.is_some()
            || self.cpuset_cpus.is_some()
            || self.cpuset_mems.is_some()
            || self.restart.is_some()
            || [
                self.cpu_period,
                self.cpu_quota,
                self.cpu_rt_period,
                self.cpu_rt_runtime,
                self.cpu_shares,
                self.cpus,
                self.kernel_memory,
                self.memory,
                self.memory_reservation,
                self.memory_swap,
                self.pids_limit,
            ]
            .iter()
            .any(Option::is_some);
        if !any {
            return Err(message("you must provide one or more flags when using this command"));
        }
        Ok(UpdateRequest(host))
    }
}

async fn update(context: &Context, args: UpdateArgs) -> Result<()> {
    let request = args.request()?;
    let (mut warnings, mut failures) = (Vec::new(), Failures::default());
    for name in &args.containers {
        let updated = async {
            let name = checked("container", name)?;
            let call = Call::post(format!("/containers/{name}/update")).json(&request)?;
            context.client.json::<UpdateResponse>(call).await
        };
        if let Some(response) = failures.keep(updated.await)? {
            line(name)?;
            warnings.extend(response.warnings);
        }
    }
    for warning in &warnings {
        line(warning)?;
    }
    failures.finish()
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn request(line: &str) -> Result<UpdateRequest> {
        let command =
            crate::cli::flags::go_style(UpdateArgs::augment_args(clap::Command::new("update")));
        let words = std::iter::once("update").chain(line.split_whitespace());
        UpdateArgs::from_arg_matches(&command.try_get_matches_from(words).unwrap())
            .unwrap()
            .request()
    }

    #[test]
    fn only_what_is_said_is_sent() {
        let UpdateRequest(host) = request("-m 100m --memory-swap -1 --pids-limit -1 c1").unwrap();
        assert_eq!((host.memory, host.memory_swap, host.pids_limit), (100 << 20, -1, Some(-1)));
        let UpdateRequest(host) = request("--restart on-failure:3 c1").unwrap();
        assert_eq!((host.restart_policy.maximum_retry_count, host.pids_limit), (3, None));
        assert_eq!(
            request("c1").unwrap_err().text(),
            "you must provide one or more flags when using this command"
        );
    }
}
