//! `brig`: the command line of the engine and swarm. Called as `docker`, it answers to that name.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod cli;
mod client;
mod commands;
mod compose;
mod config_file;
mod context;
mod contexts;
mod error;
mod output;
mod parse;
mod terminal;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use cli::Request;
use context::Context;
use error::{Error, Result};

fn main() -> ExitCode {
    // Foreign bytes are read by this program in a process of its own, which does nothing else.
    if brig_scan::sandbox::is_reader(std::env::args_os()) {
        return brig_scan::sandbox::reader();
    }
    let mut arguments = std::env::args_os();
    let program = program_name(arguments.next());
    match run(&program, arguments.collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_silent() {
                output::warn(&error.text());
            }
            ExitCode::from(error.exit_status())
        }
    }
}

/// One binary, two names.
fn program_name(first: Option<OsString>) -> String {
    let name = first.as_deref().map(Path::new).and_then(Path::file_name);
    if name.is_some_and(|name| name == "docker") { "docker".to_owned() } else { "brig".to_owned() }
}

fn run(program: &str, arguments: Vec<OsString>) -> Result<()> {
    let (globals, leaf, matches, path) = match cli::parse(program, arguments)? {
        Request::Print(text) => return output::print(&text),
        Request::Run { globals, leaf, matches, path } => (globals, leaf, matches, path),
    };
    let context = Context::new(program.to_owned(), path, *globals)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::io("starting the runtime", source))?;
    let result = runtime.block_on(async {
        contexts::if_due(&context).await;
        (leaf.run)(&context, matches).await
    });
    // A read that still blocks in the background must not hold up the end.
    runtime.shutdown_background();
    result
}
