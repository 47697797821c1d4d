//! `stack …`: what a Compose file says, as services of the cluster.

mod config;
mod deploy;
mod ls;
mod rm;

use brig_api::filters::Filters;
use clap::{Arg, ArgMatches, Command};

use crate::cli::Leaf;
use crate::cli::flags::optional_boolean;
use crate::compose::LABEL_NAMESPACE;
use crate::error::{Result, message};

/// `stack …`.
pub(crate) const COMMANDS: &[&Leaf] =
    &[&config::CONFIG, &deploy::DEPLOY, &ls::LS, &ls::PS, &rm::RM, &ls::SERVICES];

/// Refuses names that are no names, as docker does.
fn checked(stack: &str) -> Result<()> {
    let quote_or_blank = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
    if stack.trim_matches(quote_or_blank).is_empty() {
        return Err(message(format!("invalid stack name: {stack:?}")));
    }
    Ok(())
}

/// Selects what belongs to a stack.
fn of_stack(stack: &str) -> Filters {
    Filters::new().with("label", format!("{LABEL_NAMESPACE}={stack}"))
}

/// `--detach`: nothing if it was not given.
#[derive(Clone, Copy, Debug)]
struct Detach(Option<bool>);

impl clap::FromArgMatches for Detach {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(matches.get_one::<bool>("detach").copied()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Detach {
    fn augment_args(command: Command) -> Command {
        let arg = optional_boolean(Arg::new("detach").long("detach").short('d'));
        command.arg(arg.help(
            "Exit immediately instead of waiting for the services to converge (default true)",
        ))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
