//! `run`: create, attach, wait, start, resize, exit.

use brig_api::container::WaitResponse;
use clap::Args;

use super::create::{create_container, trusted_image};
use super::flags::{ContainerFlags, on_by_default};
use super::request;
use super::session::{self, Ended, Resizable, Signals, Streams};
use crate::cli::{leaf, with_hint};
use crate::client::{Answer, Call};
use crate::context::Context;
use crate::error::{Error, Result, STATUS_FAILED_TO_RUN, message};
use crate::terminal::{RawMode, stdin_is_terminal};

leaf!(
    RUN,
    "run",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    RunArgs,
    run,
    true
);

#[derive(Args, Debug)]
struct RunArgs {
    /// Run container in background and print container ID
    #[arg(long, short = 'd')]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    #[command(flatten)]
    container: ContainerFlags,
    #[command(flatten)]
    proxy: SigProxy,
}

/// `--sig-proxy`.
#[derive(Debug)]
pub(super) struct SigProxy(pub(super) bool);

impl clap::FromArgMatches for SigProxy {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(matches.get_one::<bool>("sig_proxy").copied().unwrap_or(true)))
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for SigProxy {
    fn augment_args(command: clap::Command) -> clap::Command {
        let arg = clap::Arg::new("sig_proxy").long("sig-proxy");
        command.arg(on_by_default(arg).help("Proxy received signals to the process (default true)"))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

async fn run(context: &Context, args: RunArgs) -> Result<()> {
    match run_container(context, args).await {
        Ok(0) | Err(Error::BrokenPipe) => Ok(()),
        Ok(status) => Err(Error::Status(status)),
        Err(error @ (Error::Status(_) | Error::Failed { .. } | Error::Endpoint(_))) => Err(error),
        Err(error) => Err(with_hint(&context.path, &error, error.run_status())),
    }
}

/// Runs the container and gives its exit status.
async fn run_container(context: &Context, args: RunArgs) -> Result<u8> {
    let flags = &args.container;
    let client = &context.client;
    if args.detach && !flags.attach.is_empty() {
        return Err(message("conflicting options: cannot specify both --attach and --detach"));
    }
    let mut body = request::create(flags, crate::terminal::size())?;
    let tty = body.config.tty;
    if args.detach {
        body.config.attach_stdin = false;
        body.config.attach_stdout = false;
        body.config.attach_stderr = false;
        body.config.stdin_once = false;
    } else if tty && flags.interactive && !stdin_is_terminal() {
        return Err(message("the input device is not a TTY"));
    }
    let streams =
        Streams { stdin: body.config.attach_stdin, tty, detach_keys: args.detach_keys.clone() };
    let attached =
        body.config.attach_stdin || body.config.attach_stdout || body.config.attach_stderr;

    // Signals are caught from here on: one that comes between create and start is not lost.
    let mut signals = match (args.detach, tty && streams.stdin, args.proxy.0) {
        (true, _, _) => None,
        (false, true, _) => Some(Signals::watch_ending()?),
        (false, false, true) => Some(Signals::watch()?),
        (false, false, false) => None,
    };
    let trusted = trusted_image(context, flags, &body.config.image).await?;
    let id = create_container(context, flags, &mut body, trusted).await?;

    if !attached {
        client.none(Call::post(format!("/containers/{id}/start"))).await?;
        crate::output::line(&id)?;
        return Ok(0);
    }

    let attach = Call::post(format!("/containers/{id}/attach"))
        .query_if("stream", true)
        .query_if("stdin", body.config.attach_stdin)
        .query_if("stdout", body.config.attach_stdout)
        .query_if("stderr", body.config.attach_stderr)
        .query_opt("detachKeys", args.detach_keys.as_deref());
    let hijacked = client.hijack(attach).await?;
    let condition = if flags.rm { "removed" } else { "next-exit" };
    let wait = client
        .send(Call::post(format!("/containers/{id}/wait")).query("condition", condition))
        .await?;
    let raw = if tty && streams.stdin { Some(RawMode::enter()?) } else { None };
    if let Err(error) = client.none(Call::post(format!("/containers/{id}/start"))).await {
        drop((raw, hijacked));
        if flags.rm {
            // What cannot start is removed by the daemon; that is waited for.
            let _ = wait.json::<WaitResponse>().await;
        }
        return Err(error);
    }

    let work = session::run(hijacked, &streams);
    let ended = with_company(context, &id, tty, streams.stdin, &mut signals, work).await?;
    drop(raw);
    if ended == Ended::Detached {
        crate::output::warn("read escape sequence");
        return Ok(0);
    }
    finish(context, &id, wait, tty && streams.stdin, &mut signals).await
}

/// Waits for the container's exit status; signals still reach it.
pub(super) async fn finish(
    context: &Context,
    id: &str,
    wait: Answer<'_>,
    raw: bool,
    signals: &mut Option<Signals>,
) -> Result<u8> {
    match signals {
        Some(signals) if raw => tokio::select! {
            status = exit_status(wait) => status,
            error = signals.end() => error.map(|()| STATUS_FAILED_TO_RUN),
        },
        Some(signals) => tokio::select! {
            status = exit_status(wait) => status,
            error = signals.forward(&context.client, id) => error.map(|()| STATUS_FAILED_TO_RUN),
        },
        None => exit_status(wait).await,
    }
}

/// Runs a session while signals are passed on and the terminal's size is followed.
pub(super) async fn with_company(
    context: &Context,
    id: &str,
    tty: bool,
    raw: bool,
    signals: &mut Option<Signals>,
    work: impl Future<Output = Result<Ended>>,
) -> Result<Ended> {
    let client = &context.client;
    let follows_size = tty && crate::terminal::stdout_is_terminal();
    let size = async {
        if follows_size {
            session::follow_size(client, Resizable::Container(id)).await
        } else {
            std::future::pending().await
        }
    };
    let signals = async {
        match signals {
            None => std::future::pending().await,
            Some(signals) if tty && raw => signals.end().await,
            Some(signals) => signals.forward(client, id).await,
        }
    };
    tokio::select! {
        ended = work => ended,
        error = size => error.map(|()| Ended::Output),
        error = signals => error.map(|()| Ended::Output),
    }
}

/// The container's exit status from the answer to wait.
async fn exit_status(wait: Answer<'_>) -> Result<u8> {
    let response: WaitResponse = wait.json().await?;
    if let Some(error) = response.error.filter(|error| !error.message.is_empty()) {
        crate::output::warn(&format!("Error waiting for container: {}", error.message));
        return Ok(STATUS_FAILED_TO_RUN);
    }
    Ok(status_byte(response.status_code))
}

/// An exit status as this process can have it.
pub(super) fn status_byte(status: i64) -> u8 {
    u8::try_from(status & 0xff).unwrap_or(STATUS_FAILED_TO_RUN)
}
