//! Which commands there are, and under which names.

use super::Leaf;
use crate::commands::{
    access, audit, cluster, config, container, context, image, network, node, prune, secret,
    service, swarm, system, trust_server, volume,
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
}

/// Groups, in the order of the help.
pub(crate) const GROUPS: [&Group; 17] = [
    &Group { name: "builder", about: "Manage builds", leaves: prune::BUILDER_COMMANDS },
    &Group { name: "container", about: "Manage containers", leaves: container::COMMANDS },
    &Group { name: "context", about: "Manage contexts", leaves: context::COMMANDS },
    &Group { name: "image", about: "Manage images", leaves: image::COMMANDS },
    &Group { name: "network", about: "Manage networks", leaves: network::COMMANDS },
    &Group { name: "system", about: "Manage brig", leaves: system::COMMANDS },
    &Group { name: "trust", about: "Manage trust on images", leaves: trust_server::COMMANDS },
    &Group { name: "volume", about: "Manage volumes", leaves: volume::COMMANDS },
    &Group { name: "access", about: "Manage who may do what", leaves: access::COMMANDS },
    &Group { name: "audit", about: "Look at what was done", leaves: audit::COMMANDS },
    &Group { name: "auth", about: "Explain decisions", leaves: access::AUTH_COMMANDS },
    &Group { name: "cluster", about: "Manage the cluster's store", leaves: cluster::COMMANDS },
    &Group { name: "config", about: "Manage Swarm configs", leaves: config::COMMANDS },
    &Group { name: "node", about: "Manage Swarm nodes", leaves: node::COMMANDS },
    &Group { name: "secret", about: "Manage Swarm secrets", leaves: secret::COMMANDS },
    &Group { name: "service", about: "Manage Swarm services", leaves: service::COMMANDS },
    &Group { name: "swarm", about: "Manage Swarm", leaves: swarm::COMMANDS },
];

/// Commands that stand on their own, in the order of the help.
pub(crate) const TOP: [&Leaf; 40] = [
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
