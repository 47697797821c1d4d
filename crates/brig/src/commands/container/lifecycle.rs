//! `start`, `stop`, `restart`, `kill`, `rm`, `pause`, `unpause`, `wait`, `rename`.

use brig_api::container::{ContainerInspect, WaitResponse};
use brig_api::version::ApiVersion;
use clap::Args;

use super::attach::attach_call;
use super::run::{finish, with_company};
use super::session::{self, Ended, Signals, Streams};
use crate::cli::leaf;
use crate::client::Call;
use crate::commands::{checked, each, forgive_missing};
use crate::context::Context;
use crate::error::{Error, Failures, Result, message};
use crate::terminal::{RawMode, stdin_is_terminal};

leaf!(
    START,
    "start",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    StartArgs,
    start
);
leaf!(
    STOP,
    "stop",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Stop one or more running containers",
    StopArgs,
    stop
);
leaf!(
    RESTART,
    "restart",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Restart one or more containers",
    StopArgs,
    restart
);
leaf!(
    KILL,
    "kill",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Kill one or more running containers",
    KillArgs,
    kill
);
leaf!(
    RM,
    "rm" | "remove",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Remove one or more containers",
    RmArgs,
    rm
);
leaf!(
    PAUSE,
    "pause",
    "CONTAINER [CONTAINER...]",
    "Pause all processes within one or more containers",
    Names,
    pause
);
leaf!(
    UNPAUSE,
    "unpause",
    "CONTAINER [CONTAINER...]",
    "Unpause all processes within one or more containers",
    Names,
    unpause
);
leaf!(
    WAIT,
    "wait",
    "CONTAINER [CONTAINER...]",
    "Block until one or more containers stop, then print their exit codes",
    Names,
    wait
);
leaf!(RENAME, "rename", "CONTAINER NEW_NAME", "Rename a container", RenameArgs, rename);

/// From this version on, stop and restart take a signal.
const STOP_SIGNAL_SINCE: ApiVersion = ApiVersion::new(1, 42);

#[derive(Args, Debug)]
struct Names {
    #[arg(required = true, hide = true)]
    containers: Vec<String>,
}

#[derive(Args, Debug)]
struct StartArgs {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(long, short = 'a')]
    attach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    /// Attach container's STDIN
    #[arg(long, short = 'i')]
    interactive: bool,
    #[arg(required = true, hide = true)]
    containers: Vec<String>,
}

async fn start(context: &Context, args: StartArgs) -> Result<()> {
    if !(args.attach || args.interactive) {
        return each(&args.containers, |name| async move {
            let name = checked("container", &name)?;
            context.client.none(Call::post(format!("/containers/{name}/start"))).await
        })
        .await;
    }
    let [name] = args.containers.as_slice() else {
        return Err(message("you cannot start and attach multiple containers at once"));
    };
    match start_attached(context, &args, checked("container", name)?).await {
        Ok(0) => Ok(()),
        Ok(status) => Err(Error::Status(status)),
        Err(error @ (Error::Status(_) | Error::BrokenPipe | Error::Endpoint(_))) => Err(error),
        Err(error) => Err(Error::Failed { status: error.run_status(), text: error.text() }),
    }
}

async fn start_attached(context: &Context, args: &StartArgs, name: &str) -> Result<u8> {
    let client = &context.client;
    let container: ContainerInspect =
        client.json(Call::get(format!("/containers/{name}/json"))).await?;
    let id = container.id.as_str();
    let streams = Streams {
        stdin: args.interactive && container.config.open_stdin,
        tty: container.config.tty,
        detach_keys: args.detach_keys.clone(),
    };
    let raw_input = streams.tty && streams.stdin;
    if raw_input && !stdin_is_terminal() {
        return Err(message("the input device is not a TTY"));
    }
    let mut signals = Some(if raw_input { Signals::watch_ending()? } else { Signals::watch()? });
    let hijacked = client.hijack(attach_call(id, &streams)).await?;
    let condition = if container.host_config.auto_remove { "removed" } else { "next-exit" };
    let wait = client
        .send(Call::post(format!("/containers/{id}/wait")).query("condition", condition))
        .await?;
    client.none(Call::post(format!("/containers/{id}/start"))).await?;
    let raw = if raw_input { Some(RawMode::enter()?) } else { None };
    let work = session::run(hijacked, &streams);
    let ended = with_company(context, id, streams.tty, streams.stdin, &mut signals, work).await?;
    drop(raw);
    if ended == Ended::Detached {
        crate::output::warn("read escape sequence");
        return Ok(0);
    }
    finish(context, id, wait, raw_input, &mut signals).await
}

#[derive(Args, Debug)]
struct StopArgs {
    /// Signal to send to the container
    #[arg(long, short = 's')]
    signal: Option<String>,
    /// Seconds to wait before killing the container
    #[arg(long, short = 't', alias = "time")]
    timeout: Option<i64>,
    #[arg(required = true, hide = true)]
    containers: Vec<String>,
}

async fn stop(context: &Context, args: StopArgs) -> Result<()> {
    stop_or_restart(context, &args, "stop").await
}

async fn restart(context: &Context, args: StopArgs) -> Result<()> {
    stop_or_restart(context, &args, "restart").await
}

async fn stop_or_restart(context: &Context, args: &StopArgs, action: &str) -> Result<()> {
    let version = context.client.version().await?;
    if args.signal.is_some() && version < STOP_SIGNAL_SINCE {
        return Err(message(format!(
            "\"--signal\" requires API version 1.42, but the daemon API version is {version}"
        )));
    }
    each(&args.containers, |name| async move {
        let name = checked("container", &name)?;
        let call = Call::post(format!("/containers/{name}/{action}"))
            .query_opt("signal", args.signal.as_deref())
            .query_opt("t", args.timeout.map(|t| t.to_string()));
        context.client.none(call).await
    })
    .await
}

#[derive(Args, Debug)]
struct KillArgs {
    /// Signal to send to the container
    #[arg(long, short = 's')]
    signal: Option<String>,
    #[arg(required = true, hide = true)]
    containers: Vec<String>,
}

async fn kill(context: &Context, args: KillArgs) -> Result<()> {
    each(&args.containers, |name| {
        let signal = args.signal.clone();
        async move {
            let name = checked("container", &name)?;
            context
                .client
                .none(Call::post(format!("/containers/{name}/kill")).query_opt("signal", signal))
                .await
        }
    })
    .await
}

#[derive(Args, Debug)]
struct RmArgs {
    /// Force the removal of a running container (uses SIGKILL)
    #[arg(long, short = 'f')]
    force: bool,
    /// Remove the specified link
    #[arg(long, short = 'l')]
    link: bool,
    /// Remove anonymous volumes associated with the container
    #[arg(long, short = 'v')]
    volumes: bool,
    #[arg(required = true, hide = true)]
    containers: Vec<String>,
}

async fn rm(context: &Context, args: RmArgs) -> Result<()> {
    let mut failures = Failures::default();
    for name in &args.containers {
        let name = name.trim_matches('/');
        let remove = async {
            let call = Call::delete(format!("/containers/{}", checked("container", name)?))
                .query_if("v", args.volumes)
                .query_if("link", args.link)
                .query_if("force", args.force);
            context.client.none(call).await
        };
        match remove.await {
            Err(error) if args.force && error.is_not_found() => forgive_missing(Err(error), true)?,
            result => {
                if failures.keep(result)?.is_some() {
                    crate::output::line(name)?;
                }
            }
        }
    }
    failures.finish()
}

async fn pause(context: &Context, args: Names) -> Result<()> {
    each(&args.containers, |name| async move {
        context
            .client
            .none(Call::post(format!("/containers/{}/pause", checked("container", &name)?)))
            .await
    })
    .await
}

async fn unpause(context: &Context, args: Names) -> Result<()> {
    each(&args.containers, |name| async move {
        context
            .client
            .none(Call::post(format!("/containers/{}/unpause", checked("container", &name)?)))
            .await
    })
    .await
}

async fn wait(context: &Context, args: Names) -> Result<()> {
    let mut failures = Failures::default();
    for name in &args.containers {
        let status = async {
            let call = Call::post(format!("/containers/{}/wait", checked("container", name)?));
            let response: WaitResponse = context.client.json(call).await?;
            match response.error.filter(|error| !error.message.is_empty()) {
                Some(error) => Err(message(error.message)),
                None => Ok(response.status_code),
            }
        };
        if let Some(status) = failures.keep(status.await)? {
            crate::output::line(&status.to_string())?;
        }
    }
    failures.finish()
}

#[derive(Args, Debug)]
struct RenameArgs {
    #[arg(hide = true)]
    container: String,
    #[arg(hide = true)]
    name: String,
}

async fn rename(context: &Context, args: RenameArgs) -> Result<()> {
    let (old, new) = (args.container.trim(), args.name.trim());
    if old.is_empty() || new.is_empty() {
        return Err(message("Error: Neither old nor new names may be empty"));
    }
    context.client.none(Call::post(format!("/containers/{old}/rename")).query("name", new)).await
}
