//! `exec`.

use brig_api::exec::{ExecConfig, ExecInspect, ExecStartRequest, IdResponse};
use brig_api::version::ApiVersion;
use clap::Args;

use super::run::status_byte;
use super::session::{self, Ended, Resizable, Signals, Streams};
use crate::cli::leaf;
use crate::client::Call;
use crate::commands::checked;
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::parse::env::{process_env, variables};
use crate::terminal::{RawMode, stdin_is_terminal};

leaf!(
    EXEC,
    "exec",
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    ExecArgs,
    exec,
    true
);

/// From this version on, exec takes the console's size with its creation.
const CONSOLE_SIZE_SINCE: ApiVersion = ApiVersion::new(1, 42);

#[derive(Args, Debug)]
struct ExecArgs {
    /// Detached mode: run command in the background
    #[arg(long, short = 'd')]
    detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long)]
    detach_keys: Option<String>,
    /// Set environment variables
    #[arg(long, short = 'e')]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long)]
    env_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(long, short = 'i')]
    interactive: bool,
    /// Give extended privileges to the command
    #[arg(long)]
    privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(long, short = 't')]
    tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(long, short = 'u', default_value = "")]
    user: String,
    /// Working directory inside the container
    #[arg(long, short = 'w', default_value = "")]
    workdir: String,
    #[arg(required = true, num_args = 2.., hide = true)]
    command: Vec<String>,
}

impl ExecArgs {
    fn request(&self, console_size: Option<[u32; 2]>) -> Result<ExecConfig> {
        let attached = !self.detach;
        Ok(ExecConfig {
            user: self.user.clone(),
            privileged: self.privileged,
            tty: self.tty,
            console_size,
            attach_stdin: attached && self.interactive,
            attach_stderr: attached,
            attach_stdout: attached,
            detach: self.detach,
            detach_keys: self.detach_keys.clone().unwrap_or_default(),
            env: variables(&self.env_file, &self.env, &process_env)?,
            working_dir: self.workdir.clone(),
            cmd: self.command.iter().skip(1).cloned().collect(),
        })
    }
}

async fn exec(context: &Context, args: ExecArgs) -> Result<()> {
    let client = &context.client;
    let name = checked("container", args.command.first().map_or("", String::as_str))?;
    if args.command.len() < 2 {
        return Err(message(format!("'{}' requires at least 2 arguments", context.path)));
    }
    let stdin = args.interactive && !args.detach;
    if args.tty && stdin && !stdin_is_terminal() {
        return Err(message("the input device is not a TTY"));
    }
    let size = crate::terminal::size();
    let version = client.version().await?;
    let console_size =
        (args.tty && !args.detach && version >= CONSOLE_SIZE_SINCE && size != [0, 0])
            .then_some(size);
    let body = args.request(console_size)?;
    // Caught before anything runs, so that none is lost.
    let mut signals = if args.tty && stdin { Some(Signals::watch_ending()?) } else { None };
    let created: IdResponse =
        client.json(Call::post(format!("/containers/{name}/exec")).json(&body)?).await?;
    let id = created.id.as_str();
    if id.is_empty() {
        return Err(message("exec ID empty"));
    }
    let start = ExecStartRequest { detach: args.detach, tty: args.tty, console_size };
    let call = Call::post(format!("/exec/{id}/start")).json(&start)?;
    if args.detach {
        return client.none(call).await;
    }
    let streams = Streams { stdin, tty: args.tty, detach_keys: args.detach_keys.clone() };
    let hijacked = client.hijack(call).await?;
    let raw = if args.tty && stdin { Some(RawMode::enter()?) } else { None };
    let size = async {
        if args.tty && crate::terminal::stdout_is_terminal() {
            session::follow_size(client, Resizable::Exec(id)).await
        } else {
            std::future::pending().await
        }
    };
    let signal = async {
        match &mut signals {
            Some(signals) => signals.end().await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        ended = session::run(hijacked, &streams) => ended,
        error = size => error.map(|()| Ended::Output),
        error = signal => error.map(|()| Ended::Output),
    }?;
    drop(raw);
    if ended == Ended::Detached {
        crate::output::warn("read escape sequence");
        return Ok(());
    }
    let done: ExecInspect = client.json(Call::get(format!("/exec/{id}/json"))).await?;
    match status_byte(done.exit_code.unwrap_or_default()) {
        0 => Ok(()),
        status => Err(Error::Status(status)),
    }
}
