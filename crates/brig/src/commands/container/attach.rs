//! `attach`, and the attaching part of `start`.

use brig_api::container::ContainerInspect;
use clap::Args;

use super::run::{SigProxy, finish, with_company};
use super::session::{self, Ended, Resizable, Signals, Streams};
use crate::cli::leaf;
use crate::client::Call;
use crate::commands::checked;
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::terminal::{RawMode, stdin_is_terminal};

leaf!(
    ATTACH,
    "attach",
    "[OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    AttachArgs,
    attach
);

#[derive(Args, Debug)]
struct AttachArgs {
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    /// Do not attach STDIN
    #[arg(long)]
    no_stdin: bool,
    #[command(flatten)]
    proxy: SigProxy,
    #[arg(hide = true)]
    container: String,
}

async fn attach(context: &Context, args: AttachArgs) -> Result<()> {
    let name = checked("container", &args.container)?;
    let client = &context.client;
    let container: ContainerInspect =
        client.json(Call::get(format!("/containers/{name}/json"))).await?;
    if !container.state.running {
        return Err(message("cannot attach to a stopped container, start it first"));
    }
    if container.state.paused {
        return Err(message("cannot attach to a paused container, unpause it first"));
    }
    if container.state.restarting {
        return Err(message("cannot attach to a restarting container, wait until it is running"));
    }
    let stdin = !args.no_stdin && container.config.open_stdin;
    let streams = Streams { stdin, tty: container.config.tty, detach_keys: args.detach_keys };
    if streams.tty && stdin && !stdin_is_terminal() {
        return Err(message("the input device is not a TTY"));
    }
    let id = container.id.as_str();
    let wait = client.send(Call::post(format!("/containers/{id}/wait"))).await?;
    let mut signals = match (streams.tty && stdin, args.proxy.0) {
        (true, _) => Some(Signals::watch_ending()?),
        (false, true) => Some(Signals::watch()?),
        (false, false) => None,
    };
    let hijacked = client.hijack(attach_call(id, &streams)).await?;
    let raw = if streams.tty && stdin { Some(RawMode::enter()?) } else { None };
    if streams.tty && crate::terminal::stdout_is_terminal() {
        // A size that differs makes whatever runs there draw itself again.
        let [height, width] = crate::terminal::size();
        let _ = session::resize(client, Resizable::Container(id), [height + 1, width + 1]).await;
    }
    let work = session::run(hijacked, &streams);
    let ended = with_company(context, id, streams.tty, stdin, &mut signals, work).await?;
    drop(raw);
    if ended == Ended::Detached {
        crate::output::warn("read escape sequence");
        return Ok(());
    }
    match finish(context, id, wait, streams.tty && stdin, &mut signals).await? {
        0 => Ok(()),
        status => Err(Error::Status(status)),
    }
}

/// The call that attaches.
pub(super) fn attach_call(id: &str, streams: &Streams) -> Call {
    Call::post(format!("/containers/{id}/attach"))
        .query_if("stream", true)
        .query_if("stdin", streams.stdin)
        .query_if("stdout", true)
        .query_if("stderr", true)
        .query_opt("detachKeys", streams.detach_keys.as_deref())
}
