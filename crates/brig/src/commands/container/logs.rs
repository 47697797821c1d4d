//! `logs`.

use brig_api::container::ContainerInspect;
use clap::Args;

use super::session::copy_frames;
use crate::cli::leaf;
use crate::client::Call;
use crate::commands::checked;
use crate::context::Context;
use crate::error::Result;
use crate::parse::time::timestamp;

leaf!(LOGS, "logs", "[OPTIONS] CONTAINER", "Fetch the logs of a container", LogsArgs, logs);

/// Which part of a log, shared with `service logs`.
#[derive(Args, Debug)]
pub(crate) struct LogFlags {
    /// Show extra details provided to logs
    #[arg(long)]
    pub(crate) details: bool,
    /// Follow log output
    #[arg(long, short = 'f')]
    pub(crate) follow: bool,
    /// Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long)]
    pub(crate) since: Option<String>,
    /// Number of lines to show from the end of the logs
    #[arg(long, short = 'n', default_value = "all")]
    pub(crate) tail: String,
    /// Show timestamps
    #[arg(long, short = 't')]
    pub(crate) timestamps: bool,
}

impl LogFlags {
    /// Adds the flags to a call.
    pub(crate) fn query(&self, call: Call, until: Option<&str>, details: bool) -> Result<Call> {
        let now = brig_api::time::now();
        let time = |text: Option<&str>| text.map(|text| timestamp(text, now)).transpose();
        Ok(call
            .query_if("stdout", true)
            .query_if("stderr", true)
            .query_opt("since", time(self.since.as_deref())?)
            .query_opt("until", time(until)?)
            .query_if("timestamps", self.timestamps)
            .query_if("details", details)
            .query_if("follow", self.follow)
            .query("tail", &self.tail))
    }
}

#[derive(Args, Debug)]
struct LogsArgs {
    #[command(flatten)]
    flags: LogFlags,
    /// Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)
    #[arg(long)]
    until: Option<String>,
    #[arg(hide = true)]
    container: String,
}

async fn logs(context: &Context, args: LogsArgs) -> Result<()> {
    let name = checked("container", &args.container)?;
    let container: ContainerInspect =
        context.client.json(Call::get(format!("/containers/{name}/json"))).await?;
    let call = Call::get(format!("/containers/{}/logs", container.id));
    let call = args.flags.query(call, args.until.as_deref(), args.flags.details)?;
    copy_frames(context.client.send(call).await?, container.config.tty).await
}
