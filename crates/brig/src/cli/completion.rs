//! `completion bash|zsh|fish`: scripts made from the same tree that the commands come from.

use clap::{Args, Command};
use clap_complete::Shell;

use super::tree::Group;
use super::{Entry, entries, globals, leaf};
use crate::context::Context;
use crate::error::{Error, Result};

leaf!(BASH, "bash", "", "Generate the autocompletion script for bash", NoArgs, bash);
leaf!(ZSH, "zsh", "", "Generate the autocompletion script for zsh", NoArgs, zsh);
leaf!(FISH, "fish", "", "Generate the autocompletion script for fish", NoArgs, fish);

/// `completion`.
pub(crate) const GROUP: Group = Group {
    name: "completion",
    about: "Generate the autocompletion script for the specified shell",
    leaves: &[&BASH, &FISH, &ZSH],
    groups: &[],
};

#[derive(Args, Debug)]
struct NoArgs {}

async fn bash(context: &Context, _: NoArgs) -> Result<()> {
    generate(context, Shell::Bash)
}

async fn zsh(context: &Context, _: NoArgs) -> Result<()> {
    generate(context, Shell::Zsh)
}

async fn fish(context: &Context, _: NoArgs) -> Result<()> {
    generate(context, Shell::Fish)
}

fn generate(context: &Context, shell: Shell) -> Result<()> {
    let mut root = whole(&context.program);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut root, context.program.clone(), &mut script);
    if script.is_empty() {
        return Err(Error::Message(format!("there is no completion for {shell}")));
    }
    crate::output::print_bytes(&script)
}

/// The whole tree as one `clap` command.
pub(crate) fn whole(program: &str) -> Command {
    let mut root = Command::new(program.to_owned())
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args(globals::arguments());
    for entry in entries().chain([Entry::Group(&GROUP)]) {
        root = root.subcommand(match entry {
            Entry::Leaf(l) => leaf(format!("{program} {}", l.name), l),
            Entry::Group(g) => group(&format!("{program} {}", g.name), g),
        });
    }
    root
}

fn leaf(path: String, leaf: &super::Leaf) -> Command {
    leaf.command(&path).name(leaf.name).about(leaf.about)
}

fn group(path: &str, of: &Group) -> Command {
    Command::new(of.name)
        .about(of.about)
        .disable_help_subcommand(true)
        .subcommands(of.groups.iter().map(|inner| group(&format!("{path} {}", inner.name), inner)))
        .subcommands(of.leaves.iter().map(|l| leaf(format!("{path} {}", l.name), l)))
}
