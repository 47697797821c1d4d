//! The cluster's settings as flags, and `swarm update`.

use brig_api::swarm::{ExternalCa, Swarm, SwarmSpec};
use clap::Args;

use crate::cli::flags::optional_boolean;
use crate::cli::leaf;
use crate::client::Call;
use crate::context::Context;
use crate::error::{Result, message};
use crate::parse::{duration, swarm::external_ca};

leaf!(UPDATE, "update", "[OPTIONS]", "Update the swarm", UpdateArgs, update);

/// Settings that `init` and `update` share.
#[derive(Args, Debug, Default)]
pub(super) struct SpecFlags {
    /// Validity period for node certificates (ns|us|ms|s|m|h) (default 2160h0m0s)
    #[arg(long, value_parser = duration::positive)]
    cert_expiry: Option<i64>,
    /// Dispatcher heartbeat period (ns|us|ms|s|m|h) (default 5s)
    #[arg(long, value_parser = duration::positive)]
    dispatcher_heartbeat: Option<i64>,
    /// Specifications of one or more certificate signing endpoints
    #[arg(long, value_parser = external_ca)]
    external_ca: Vec<ExternalCa>,
    /// Number of additional Raft snapshots to retain
    #[arg(long)]
    max_snapshots: Option<u64>,
    /// Number of log entries between Raft snapshots (default 10000)
    #[arg(long)]
    snapshot_interval: Option<u64>,
    /// Task history retention limit (default 5)
    #[arg(long)]
    task_history_limit: Option<i64>,
}

impl SpecFlags {
    /// Puts what was given into the settings.
    pub(super) fn apply(&self, spec: &mut SwarmSpec) {
        if let Some(expiry) = self.cert_expiry {
            spec.ca_config.node_cert_expiry = expiry;
        }
        if let Some(period) = self.dispatcher_heartbeat {
            spec.dispatcher.heartbeat_period = period;
        }
        if !self.external_ca.is_empty() {
            spec.ca_config.external_cas.clone_from(&self.external_ca);
        }
        if self.max_snapshots.is_some() {
            spec.raft.keep_old_snapshots = self.max_snapshots;
        }
        if let Some(interval) = self.snapshot_interval {
            spec.raft.snapshot_interval = interval;
        }
        if self.task_history_limit.is_some() {
            spec.orchestration.task_history_retention_limit = self.task_history_limit;
        }
    }

    fn is_empty(&self) -> bool {
        self.cert_expiry.is_none()
            && self.dispatcher_heartbeat.is_none()
            && self.external_ca.is_empty()
            && self.max_snapshots.is_none()
            && self.snapshot_interval.is_none()
            && self.task_history_limit.is_none()
    }
}

/// `--autolock`, which `update` can also switch off.
#[derive(Debug, Default)]
pub(super) struct Autolock(pub(super) Option<bool>);

impl clap::FromArgMatches for Autolock {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(matches.get_one::<bool>("autolock").copied()))
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Autolock {
    fn augment_args(command: clap::Command) -> clap::Command {
        let arg = optional_boolean(clap::Arg::new("autolock").long("autolock"));
        command.arg(arg.help("Change manager autolocking setting (true|false)"))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

#[derive(Args, Debug)]
struct UpdateArgs {
    #[command(flatten)]
    spec: SpecFlags,
    #[command(flatten)]
    autolock: Autolock,
}

async fn update(context: &Context, args: UpdateArgs) -> Result<()> {
    if args.spec.is_empty() && args.autolock.0.is_none() {
        return Err(message(format!("nothing to update: see '{} --help'", context.path)));
    }
    let swarm: Swarm = context.client.json(Call::get("/swarm")).await?;
    let was_locked = swarm.spec.encryption_config.auto_lock_managers;
    let mut spec = swarm.spec;
    args.spec.apply(&mut spec);
    if let Some(autolock) = args.autolock.0 {
        spec.encryption_config.auto_lock_managers = autolock;
    }
    send(context, swarm.version.index, &spec, Rotate::default()).await?;
    crate::output::line("Swarm updated.")?;
    if !was_locked && spec.encryption_config.auto_lock_managers {
        super::unlock::print_unlock_key(context).await?;
    }
    Ok(())
}

/// What an update renews besides.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rotate {
    pub(super) worker_token: bool,
    pub(super) manager_token: bool,
    pub(super) unlock_key: bool,
    /// How long the new tokens are valid, in nanoseconds.
    pub(super) lifetime: Option<i64>,
    /// How many nodes may join with a new token.
    pub(super) uses: Option<u32>,
}

/// Replaces the cluster's settings, if nobody else has meanwhile.
pub(super) async fn send(
    context: &Context,
    version: u64,
    spec: &SwarmSpec,
    rotate: Rotate,
) -> Result<()> {
    let key = &spec.ca_config.signing_ca_key;
    let call = Call::post("/swarm/update")
        .query("rotateManagerToken", rotate.manager_token.to_string())
        .query("rotateManagerUnlockKey", rotate.unlock_key.to_string())
        .query("rotateWorkerToken", rotate.worker_token.to_string())
        .query("version", version.to_string())
        .query_opt("joinTokenTTL", rotate.lifetime.map(|lifetime| lifetime.to_string()))
        .query_opt("joinTokenUses", rotate.uses.map(|uses| uses.to_string()));
    let call = if key.is_empty() {
        call.json(spec)?
    } else {
        call.secret_json(spec, key.expose_secret().len())?
    };
    context.client.none(call).await
}
