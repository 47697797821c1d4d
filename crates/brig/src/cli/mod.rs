//! The command line: global flags, the tree of commands, docker's way of reading flags.
//!
//! Only the command that is called is built, so that start-up does not pay for the others. Each
//! command is a [`Leaf`]: its flags as a derived `clap` struct, and the function that runs it.

pub(crate) mod completion;
pub(crate) mod flags;
pub(crate) mod globals;
mod help;
mod tree;
mod usage;

use std::ffi::OsString;

use clap::{ArgMatches, Command};
use futures_util::future::LocalBoxFuture;

use crate::context::Context;
use crate::error::{Error, Result};

pub(crate) use globals::Globals;
use tree::Group;
pub(crate) use tree::{Entry, entries};

/// Runs a command.
pub(crate) type Run = for<'a> fn(&'a Context, ArgMatches) -> LocalBoxFuture<'a, Result<()>>;

/// A command.
#[derive(Debug)]
pub(crate) struct Leaf {
    /// Its name.
    pub(crate) name: &'static str,
    /// Other names.
    pub(crate) aliases: &'static [&'static str],
    /// What follows the name in the usage line.
    pub(crate) usage: &'static str,
    /// What it does.
    pub(crate) about: &'static str,
    /// Whether everything from the first argument on belongs to somebody else (`run IMAGE …`).
    pub(crate) passes_on: bool,
    /// Adds its flags.
    pub(crate) args: fn(Command) -> Command,
    /// Runs it.
    pub(crate) run: Run,
}

/// Declares a [`Leaf`]: `leaf!(STOP, "stop" | "alias", "[OPTIONS] CONTAINER", "About", Args, run)`.
macro_rules! leaf {
    ($const:ident, $name:literal $(| $alias:literal)*, $usage:literal, $about:literal, $args:ty, $run:path) => {
        leaf!($const, $name $(| $alias)*, $usage, $about, $args, $run, false);
    };
    ($const:ident, $name:literal $(| $alias:literal)*, $usage:literal, $about:literal, $args:ty, $run:path, $passes_on:literal) => {
        #[doc = $about]
        pub(crate) const $const: $crate::cli::Leaf = {
            fn leaf_args(command: clap::Command) -> clap::Command {
                $crate::cli::flags::go_style(<$args as clap::Args>::augment_args(command))
            }
            fn leaf_run<'a>(
                context: &'a $crate::context::Context,
                matches: clap::ArgMatches,
            ) -> futures_util::future::LocalBoxFuture<'a, $crate::error::Result<()>> {
                Box::pin(async move {
                    let args = <$args as clap::FromArgMatches>::from_arg_matches(&matches)
                        .map_err(|e| $crate::error::message(e.to_string()))?;
                    $run(context, args).await
                })
            }
            $crate::cli::Leaf {
                name: $name,
                aliases: &[$($alias),*],
                usage: $usage,
                about: $about,
                passes_on: $passes_on,
                args: leaf_args,
                run: leaf_run,
            }
        };
    };
}
pub(crate) use leaf;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Request {
    /// Print this on stdout.
    Print(String),
    /// Run a command.
    Run {
        /// The global flags.
        globals: Box<Globals>,
        /// The command.
        leaf: &'static Leaf,
        /// Its flags.
        matches: ArgMatches,
        /// The words that chose it: `brig container ls`.
        path: String,
    },
}

/// Reads the command line, without the program's own path.
pub(crate) fn parse(program: &str, arguments: Vec<OsString>) -> Result<Request> {
    let root = globals::command(program);
    let matches = match root
        .try_get_matches_from(std::iter::once(OsString::from(program)).chain(arguments))
    {
        Ok(matches) => matches,
        Err(error) => return usage::root_error(program, &error),
    };
    let globals = Globals::read(&matches);
    if globals.version {
        return Ok(Request::Print(format!("{program} version {}\n", env!("CARGO_PKG_VERSION"))));
    }
    let Some((name, rest)) = matches.subcommand() else {
        return Ok(Request::Print(help::root(program)));
    };
    let mut rest: Vec<OsString> =
        rest.get_many::<OsString>("").map(|values| values.cloned().collect()).unwrap_or_default();
    if name == "help" {
        // `help run` is `run --help`.
        return match rest.first().and_then(|name| name.to_str()).map(str::to_owned) {
            None => Ok(Request::Print(help::root(program))),
            Some(_) => {
                rest.push("--help".into());
                parse(program, rest)
            }
        };
    }
    match tree::find(name) {
        Some(Entry::Leaf(leaf)) => command(globals, format!("{program} {}", leaf.name), leaf, rest),
        Some(Entry::Group(group)) => {
            in_group(globals, format!("{program} {}", group.name), group, rest)
        }
        None => Err(usage::unknown_command(program, name)),
    }
}

/// A word of a group: one of its commands, or a group within it.
fn in_group(
    globals: Globals,
    path: String,
    group: &'static Group,
    mut rest: Vec<OsString>,
) -> Result<Request> {
    let Some(first) = rest.first().and_then(|first| first.to_str()) else {
        return Ok(Request::Print(help::group(&path, group)));
    };
    if matches!(first, "--help" | "-h" | "help") {
        return Ok(Request::Print(help::group(&path, group)));
    }
    if let Some(inner) = group.groups.iter().find(|inner| inner.name == first) {
        rest.remove(0);
        return in_group(globals, format!("{path} {}", inner.name), inner, rest);
    }
    match group.leaves.iter().find(|leaf| leaf.answers_to(first)) {
        Some(leaf) => {
            rest.remove(0);
            command(globals, format!("{path} {}", leaf.name), leaf, rest)
        }
        None => Err(usage::unknown_command(&path, first)),
    }
}

fn command(
    globals: Globals,
    path: String,
    leaf: &'static Leaf,
    arguments: Vec<OsString>,
) -> Result<Request> {
    let command = leaf.command(&path);
    let arguments =
        if leaf.passes_on { flags::end_at_first_argument(&command, arguments) } else { arguments };
    match command.try_get_matches_from(std::iter::once(OsString::from(&path)).chain(arguments)) {
        Ok(matches) => Ok(Request::Run { globals: Box::new(globals), leaf, matches, path }),
        Err(error) => usage::leaf_error(&path, leaf, &error),
    }
}

impl Leaf {
    /// The command with its flags.
    pub(crate) fn command(&self, path: &str) -> Command {
        (self.args)(help::leaf_command(path, self))
    }

    /// Whether the name is this command's or one of its other names.
    pub(crate) fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

/// The command's path and the hint that docker puts under errors of `run` and its like.
pub(crate) fn with_hint(path: &str, error: &Error, status: u8) -> Error {
    let program = path.split(' ').next().unwrap_or(path);
    Error::Failed {
        text: format!("{program}: {}\n\nRun '{path} --help' for more information", error.text()),
        status,
    }
}

#[cfg(test)]
mod tests;
