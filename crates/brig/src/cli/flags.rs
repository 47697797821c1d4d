//! Docker's (Go's) way of reading flags, on top of `clap`.

use std::ffi::OsString;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, Command};

/// Makes flags behave as docker's: `--flag=false` for booleans, values that begin with a dash,
/// the last one of several wins, `--help` with `-h` only where `-h` is free.
pub(crate) fn go_style(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        if matches!(arg.get_action(), ArgAction::SetTrue) {
            boolean(arg, "false")
        } else if arg.is_positional() {
            arg
        } else {
            arg.allow_hyphen_values(true)
        }
    });
    let short_taken = command.get_arguments().any(|arg| arg.get_short() == Some('h'));
    let mut help = Arg::new("help").long("help").action(ArgAction::Help).help("Print usage");
    if !short_taken {
        help = help.short('h');
    }
    command.disable_help_flag(true).args_override_self(true).arg(help)
}

/// A boolean flag that takes `=true` and `=false`.
pub(crate) fn boolean(arg: Arg, default: &'static str) -> Arg {
    optional_boolean(arg).default_value(default)
}

/// A boolean flag that may be absent.
pub(crate) fn optional_boolean(arg: Arg) -> Arg {
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(ValueParser::new(crate::parse::boolean))
        .hide_possible_values(true)
        .hide_default_value(true)
        .value_name("bool")
}

/// Puts `--` before the first argument that is no flag, so that what follows is left alone.
pub(crate) fn end_at_first_argument(command: &Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let takes_value = |arg: &Arg| match arg.get_action() {
        ArgAction::Set | ArgAction::Append => !arg.is_require_equals_set(),
        _ => false,
    };
    let by_long = |name: &str| {
        command.get_arguments().find(|arg| {
            arg.get_long() == Some(name)
                || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
        })
    };
    let by_short = |name: char| command.get_arguments().find(|arg| arg.get_short() == Some(name));
    let mut at = 0;
    while let Some(argument) = arguments.get(at) {
        let text = argument.to_string_lossy();
        if text == "--" {
            return arguments;
        }
        if let Some(long) = text.strip_prefix("--") {
            let separate = !long.contains('=') && by_long(long).is_some_and(takes_value);
            at += if separate { 2 } else { 1 };
        } else if let Some(shorts) = text.strip_prefix('-').filter(|shorts| !shorts.is_empty()) {
            let mut chars = shorts.chars();
            // The first flag that takes a value takes the rest, or the next argument.
            let with_value = chars.by_ref().find(|c| by_short(*c).is_some_and(takes_value));
            let separate = with_value.is_some() && chars.as_str().is_empty();
            at += if separate { 2 } else { 1 };
        } else {
            break;
        }
    }
    let mut arguments = arguments;
    if at < arguments.len() {
        arguments.insert(at, "--".into());
    }
    arguments
}
