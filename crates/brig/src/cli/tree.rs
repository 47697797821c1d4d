//! Which commands there are, and under which names.

use std::ffi::OsString;

use super::Leaf;
use crate::commands::{
    access, audit, cluster, config, container, context, image, network, node, prune, scan, secret,
    service, stack, swarm, system, trust, volume,
};

/// A word of the command line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entry {
    /// A command.
    Leaf(&'static Leaf),
    /// A group of commands.
    Group(&'static Group),
}

/// Commands about one kind of object.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) leaves: &'static [&'static Leaf],
    /// Groups within this one.
    pub(crate) groups: &'static [&'static Group],
}

impl Group {
    const fn new(
        name: &'static str,
        about: &'static str,
        leaves: &'static [&'static Leaf],
    ) -> Self {
        Self { name, about, leaves, groups: &[] }
    }
}

/// Groups, in the order of the help.
pub(crate) const GROUPS: [&Group; 18] = [
    &Group::new("builder", "Manage builds", prune::BUILDER_COMMANDS),
    &Group::new("container", "Manage containers", container::COMMANDS),
    &Group::new("context", "Manage contexts", context::COMMANDS),
    &Group::new("image", "Manage images", image::COMMANDS),
    &Group::new("network", "Manage networks", network::COMMANDS),
    &Group::new("system", "Manage brig", system::COMMANDS),
    &Group {
        name: "trust",
        about: "Manage trust on images",
        leaves: trust::COMMANDS,
        groups: &[
            &Group::new(
                "cosign",
                "Manage key pairs for cosign's signatures",
                trust::COSIGN_COMMANDS,
            ),
            &Group::new("key", "Manage keys for signing images", trust::KEY_COMMANDS),
            &Group::new("policy", "Manage which signatures are demanded", trust::POLICY_COMMANDS),
            &Group::new("signer", "Manage entities who can sign images", trust::SIGNER_COMMANDS),
        ],
    },
    &Group::new("volume", "Manage volumes", volume::COMMANDS),
    &Group::new("access", "Manage who may do what", access::COMMANDS),
    &Group::new("audit", "Look at what was done", audit::COMMANDS),
    &Group::new("auth", "Explain decisions", access::AUTH_COMMANDS),
    &Group::new("cluster", "Manage the cluster's store", cluster::COMMANDS),
    &Group::new("config", "Manage Swarm configs", config::COMMANDS),
    &Group::new("node", "Manage Swarm nodes", node::COMMANDS),
    &Group::new("secret", "Manage Swarm secrets", secret::COMMANDS),
    &Group::new("service", "Manage Swarm services", service::COMMANDS),
    &Group::new("stack", "Manage Swarm stacks", stack::COMMANDS),
    &Group::new("swarm", "Manage Swarm", swarm::COMMANDS),
];

/// Commands that stand on their own, in the order of the help.
pub(crate) const TOP: [&Leaf; 41] = [
    &container::RUN,
    &container::EXEC,
    &container::PS,
    &image::BUILD,
    &image::PULL,
    &image::PUSH,
    &image::IMAGES,
    &system::LOGIN,
    &system::LOGOUT,
    &image::SEARCH,
    &system::VERSION,
    &system::INFO,
    &container::ATTACH,
    &container::COMMIT,
    &container::CP,
    &container::CREATE,
    &container::DIFF,
    &system::EVENTS,
    &container::EXPORT,
    &image::HISTORY,
    &image::IMPORT,
    &system::INSPECT,
    &container::KILL,
    &image::LOAD,
    &container::LOGS,
    &container::PAUSE,
    &container::PORT,
    &container::RENAME,
    &container::RESTART,
    &container::RM,
    &image::RMI,
    &image::SAVE,
    &scan::SCAN,
    &container::START,
    &container::STATS,
    &container::STOP,
    &image::TAG,
    &container::TOP,
    &container::UNPAUSE,
    &container::UPDATE,
    &container::WAIT,
];

/// How many of [`TOP`] the help lists as common.
pub(crate) const COMMON: usize = 12;

/// The command that further words choose below a command that also stands alone (`scan IMAGE` and
/// `scan db update`), and how many words that took.
pub(crate) fn below(leaf: &Leaf, words: &[OsString]) -> Option<(&'static Leaf, usize)> {
    if leaf.name != scan::SCAN.name {
        return None;
    }
    scan::BELOW
        .iter()
        .filter(|(path, _)| {
            path.len() <= words.len() && path.iter().zip(words).all(|(name, word)| word == name)
        })
        .max_by_key(|(path, _)| path.len())
        .map(|(path, leaf)| (*leaf, path.len()))
}

/// The words that [`below`] knows after those of a command, without the program's, and what they are
/// for.
pub(crate) fn commands_below(path: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let words: Vec<&str> = path.split(' ').skip(1).collect();
    let within = match words.split_first() {
        Some((first, within)) if *first == scan::SCAN.name => Some(within.to_vec()),
        _ => None,
    };
    scan::BELOW.iter().filter_map(move |(path, leaf)| {
        let (last, before) = path.split_last()?;
        if within.as_deref()? != before {
            return None;
        }
        let group = scan::BELOW_ABOUT.iter().find(|(name, _)| path.len() == 1 && name == last);
        Some((*last, group.map_or(leaf.about, |(_, about)| about)))
    })
}

/// All words.
pub(crate) fn entries() -> impl Iterator<Item = Entry> {
    GROUPS.into_iter().map(Entry::Group).chain(TOP.into_iter().map(Entry::Leaf))
}

/// Finds a word.
pub(crate) fn find(name: &str) -> Option<Entry> {
    if name == "completion" {
        return Some(Entry::Group(&super::completion::GROUP));
    }
    TOP.into_iter()
        .find(|leaf| leaf.name == name)
        .map(Entry::Leaf)
        .or_else(|| GROUPS.into_iter().find(|group| group.name == name).map(Entry::Group))
}
