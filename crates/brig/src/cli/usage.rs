//! Mistakes on the command line, in docker's words and with its exit statuses.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Leaf, Request, help};
use crate::error::{Error, Result, STATUS_FAILED_TO_RUN};

/// Docker's commands that this version does not have yet.
const LATER: [&str; 5] = ["buildx", "checkpoint", "compose", "manifest", "plugin"];

/// A word that is no command.
pub(super) fn unknown_command(path: &str, word: &str) -> Error {
    let program = path.split(' ').next().unwrap_or(path);
    let what = if path == program && LATER.contains(&word) {
        format!("'{word}' is not available in this version of brig")
    } else {
        format!("unknown command: {path} {word}")
    };
    Error::Usage {
        text: format!("{program}: {what}\n\nRun '{path} --help' for more information"),
        status: 1,
    }
}

/// A mistake in the global flags.
pub(super) fn root_error(program: &str, error: &clap::Error) -> Result<Request> {
    if error.kind() == ErrorKind::DisplayHelp {
        return Ok(Request::Print(help::root(program)));
    }
    Err(Error::Usage {
        text: format!(
            "{}\n\nUsage:  {program} [OPTIONS] COMMAND [ARG...]\n\nRun '{program} --help' for more information",
            reason(program, None, error).0
        ),
        status: STATUS_FAILED_TO_RUN,
    })
}

/// A mistake in a command's flags or arguments.
pub(super) fn leaf_error(path: &str, leaf: &Leaf, error: &clap::Error) -> Result<Request> {
    if error.kind() == ErrorKind::DisplayHelp {
        return Ok(Request::Print(error.render().to_string()));
    }
    let (reason, status) = reason(path, Some(leaf), error);
    Err(Error::Usage {
        text: format!(
            "{reason}\n\nUsage:  {}\n\nRun '{path} --help' for more information",
            help::usage(path, leaf)
        ),
        status,
    })
}

fn reason(path: &str, leaf: Option<&Leaf>, error: &clap::Error) -> (String, u8) {
    let text = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    let missing = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(names))) => {
            missing_flags(names)
        }
        _ => None,
    };
    if let Some(text) = missing {
        return (text, 1);
    }
    let flag = text(ContextKind::InvalidArg);
    // `--memory <MEMORY>` without its value's name.
    let flag_name = flag.split([' ', '=', '[']).next().unwrap_or(&flag).to_owned();
    match error.kind() {
        ErrorKind::UnknownArgument if flag.starts_with("--") => {
            (format!("unknown flag: {flag_name}"), STATUS_FAILED_TO_RUN)
        }
        ErrorKind::UnknownArgument if flag.starts_with('-') && flag.len() > 1 => {
            let letter = flag.chars().nth(1).unwrap_or('-');
            (format!("unknown shorthand flag: '{letter}' in {flag}"), STATUS_FAILED_TO_RUN)
        }
        ErrorKind::MissingRequiredArgument | ErrorKind::TooFewValues if flag.starts_with('-') => {
            (format!("flag needs an argument: {flag_name}"), STATUS_FAILED_TO_RUN)
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = text(ContextKind::InvalidValue);
            if value.is_empty() {
                return (format!("flag needs an argument: {flag_name}"), STATUS_FAILED_TO_RUN);
            }
            let cause =
                std::error::Error::source(error).map(|e| format!(": {e}")).unwrap_or_default();
            let place = match flag_name.starts_with('-') {
                true => format!(" for {flag_name:?} flag"),
                false => String::new(),
            };
            (format!("invalid argument {value:?}{place}{cause}"), STATUS_FAILED_TO_RUN)
        }
        ErrorKind::UnknownArgument
        | ErrorKind::MissingRequiredArgument
        | ErrorKind::TooManyValues => {
            let program = path.split(' ').next().unwrap_or(path);
            (format!("{program}: {}", expected_arguments(path, leaf)), 1)
        }
        _ => (
            error.render().to_string().trim().trim_start_matches("error: ").to_owned(),
            STATUS_FAILED_TO_RUN,
        ),
    }
}

/// What is said of flags that have to be there, unless an argument is missing as well.
fn missing_flags(names: &[String]) -> Option<String> {
    let flags: Vec<String> = names
        .iter()
        .map(|name| Some(format!("{:?}", name.strip_prefix("--")?.split(' ').next()?)))
        .collect::<Option<_>>()?;
    (!flags.is_empty()).then(|| format!("required flag(s) {} not set", flags.join(", ")))
}

/// `'brig stop' requires at least 1 argument`, from the usage line.
fn expected_arguments(path: &str, leaf: Option<&Leaf>) -> String {
    // What follows a `|` is another way to call it.
    let words: Vec<&str> = leaf
        .and_then(|leaf| leaf.usage.split('|').next())
        .map(|usage| usage.split(' ').filter(|w| !w.is_empty() && *w != "[OPTIONS]").collect())
        .unwrap_or_default();
    let required = words.iter().filter(|w| !w.starts_with('[')).count();
    let optional = words.len() - required;
    let open = words.iter().any(|w| w.ends_with("...]") || w.ends_with("..."));
    let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
    match (required, optional, open) {
        (0, 0, _) => format!("'{path}' accepts no arguments"),
        (0, n, false) => format!("'{path}' requires at most {n} {}", plural(n)),
        (n, 0, false) => format!("'{path}' requires {n} {}", plural(n)),
        (n, _, true) => format!("'{path}' requires at least {n} {}", plural(n)),
        (n, m, false) => {
            format!("'{path}' requires at least {n} and at most {} {}", n + m, plural(n + m))
        }
    }
}
