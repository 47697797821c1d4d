//! Help texts in docker's layout.

use clap::Command;

use super::tree::{COMMON, GROUPS, Group, TOP, commands_below};
use super::{Leaf, globals};

const ROOT_TEMPLATE: &str = "{options}";

/// The start of a command's `clap` form.
pub(super) fn leaf_command(path: &str, leaf: &Leaf) -> Command {
    let usage = usage(path, leaf);
    let mut aliases = String::new();
    if !leaf.aliases.is_empty() {
        let parent = path.rsplit_once(' ').map_or(path, |(parent, _)| parent);
        let names: Vec<String> = std::iter::once(&leaf.name)
            .chain(leaf.aliases)
            .map(|name| format!("{parent} {name}"))
            .collect();
        aliases = format!("\n\nAliases:\n  {}", names.join(", "));
    }
    let below: Vec<_> = commands_below(path).collect();
    let below = match below.as_slice() {
        [] => String::new(),
        some => format!(
            "\nCommands:\n{}\nRun '{path} COMMAND --help' for more information on a command.\n",
            list(some.iter().copied())
        ),
    };
    let template =
        format!("Usage:  {usage}\n\n{}{aliases}\n\nOptions:\n{{options}}\n{below}", leaf.about);
    Command::new(path.to_owned())
        .no_binary_name(false)
        .help_template(template)
        .override_usage(usage)
}

/// A command's usage line.
pub(super) fn usage(path: &str, leaf: &Leaf) -> String {
    format!("{path} {}", leaf.usage).trim_end().to_owned()
}

fn list(items: impl Iterator<Item = (&'static str, &'static str)>) -> String {
    let items: Vec<_> = items.collect();
    let width = items.iter().map(|(name, _)| name.len()).max().unwrap_or_default().max(9) + 3;
    items.iter().map(|(name, about)| format!("  {name:width$}{about}\n")).collect()
}

/// The help of the program itself.
pub(super) fn root(program: &str) -> String {
    let mut options = Command::new(program.to_owned())
        .disable_help_flag(true)
        .args(globals::arguments())
        .help_template(ROOT_TEMPLATE);
    let options = options.render_help().to_string();
    let describe = |leaf: &&'static Leaf| (leaf.name, leaf.about);
    let group = |group: &&'static Group| (group.name, group.about);
    let is_swarm = |group: &&&'static Group| group.about.contains("Swarm");
    format!(
        "Usage:  {program} [OPTIONS] COMMAND\n\nA container engine and swarm, locked by default\n\n\
         Common Commands:\n{}\nManagement Commands:\n{}\nSwarm Commands:\n{}\nCommands:\n{}\n\
         Global Options:\n{}\n\nRun '{program} COMMAND --help' for more information on a command.\n",
        list(TOP.iter().take(COMMON).map(describe)),
        list(GROUPS.iter().filter(|g| !is_swarm(g)).map(group)),
        list(GROUPS.iter().filter(is_swarm).map(group)),
        list(TOP.iter().skip(COMMON).map(describe)),
        options.trim_end(),
    )
}

/// The help of a group.
pub(super) fn group(path: &str, group: &Group) -> String {
    let inner = match group.groups {
        [] => String::new(),
        groups => {
            format!("Management Commands:\n{}\n", list(groups.iter().map(|g| (g.name, g.about))))
        }
    };
    format!(
        "Usage:  {path} COMMAND\n\n{}\n\n{inner}Commands:\n{}\nRun '{path} COMMAND --help' for more information on a command.\n",
        group.about,
        list(group.leaves.iter().map(|leaf| (leaf.name, leaf.about))),
    )
}
