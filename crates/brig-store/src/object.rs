//! The kinds of objects and what the store needs to know of each.

use std::fmt;
use std::sync::Arc;

use brig_proto::brig::{Access, Policy, ScanDatabase, Trust, TrustMetadata};
use brig_proto::swarm::{
    Annotations, Cluster, Config, Meta, Network, Node, Secret, Service, Task, TaskSpec, task_spec,
};

use crate::error::StoreError;
use crate::state::{State, Table};
use crate::tx::Tx;

/// Kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A node.
    Node,
    /// A service.
    Service,
    /// A task.
    Task,
    /// A secret.
    Secret,
    /// A config.
    Config,
    /// A network.
    Network,
    /// The cluster itself.
    Cluster,
    /// Who may reach it from elsewhere.
    Access,
    /// What the trust server keeps.
    Trust,
    /// What may start.
    Policy,
    /// Verified metadata of a repository.
    TrustMetadata,
    /// The vulnerability database that its managers share.
    ScanDatabase,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::Node,
        Self::Service,
        Self::Task,
        Self::Secret,
        Self::Config,
        Self::Network,
        Self::Cluster,
        Self::Access,
        Self::Trust,
        Self::Policy,
        Self::TrustMetadata,
        Self::ScanDatabase,
    ];

    /// The kind's word in paths and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Service => "service",
            Self::Task => "task",
            Self::Secret => "secret",
            Self::Config => "config",
            Self::Network => "network",
            Self::Cluster => "cluster",
            Self::Access => "access",
            Self::Trust => "trust",
            Self::Policy => "policy",
            Self::TrustMetadata => "trust-metadata",
            Self::ScanDatabase => "scan-database",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An object of any kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A node.
    Node(Arc<Node>),
    /// A service.
    Service(Arc<Service>),
    /// A task.
    Task(Arc<Task>),
    /// A secret.
    Secret(Arc<Secret>),
    /// A config.
    Config(Arc<Config>),
    /// A network.
    Network(Arc<Network>),
    /// The cluster.
    Cluster(Arc<Cluster>),
    /// Who may reach it from elsewhere.
    Access(Arc<Access>),
    /// What the trust server keeps.
    Trust(Arc<Trust>),
    /// What may start.
    Policy(Arc<Policy>),
    /// Verified metadata of a repository.
    TrustMetadata(Arc<TrustMetadata>),
    /// The vulnerability database that its managers share.
    ScanDatabase(Arc<ScanDatabase>),
}

/// What an object can be found by, besides id and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Index {
    /// Tasks of a service.
    Service,
    /// Tasks on a node.
    Node,
    /// Tasks and services that use a secret.
    Secret,
    /// Tasks and services that use a config.
    Config,
    /// Tasks and services that are attached to a network.
    Network,
    /// Nodes that are managers, all under the empty key.
    Manager,
    /// What the trust server keeps together.
    Group,
}

pub(crate) mod sealed {
    use super::{Arc, State, Table};

    /// Where the store keeps objects of a type. Not for other crates to implement.
    pub trait Stored: Sized {
        fn table(state: &State) -> &Table<Self>;
        fn table_mut(state: &mut State) -> &mut Table<Self>;
        fn indexed(&self) -> Vec<(super::Index, &str)>;
        fn wrap(object: Arc<Self>) -> super::Object;
    }
}

/// A protobuf message that the store keeps.
pub trait StoreObject:
    sealed::Stored + prost::Message + Clone + Default + Send + Sync + 'static
{
    /// The message's kind.
    const KIND: Kind;

    /// The object's id.
    fn id(&self) -> &str;

    /// The name that must be unique among objects of this kind; empty if there is none.
    fn unique_name(&self) -> &str;

    /// Version and times.
    fn meta(&self) -> Option<&Meta>;

    /// Version and times, to be set by the store.
    fn meta_mut(&mut self) -> &mut Meta;

    /// The object, if it is of this type.
    fn from_object(object: &Object) -> Option<&Arc<Self>>;

    /// Revision of the transaction that wrote it; 0 if it was never stored.
    fn version(&self) -> u64 {
        self.meta().and_then(|meta| meta.version.as_ref()).map_or(0, |version| version.index)
    }
}

fn name_of(annotations: Option<&Annotations>) -> &str {
    annotations.map_or("", |annotations| annotations.name.as_str())
}

macro_rules! objects {
    ($( $type:ident, $table:ident, $name:expr, $indexed:expr; )+) => {
        $(
            impl sealed::Stored for $type {
                fn table(state: &State) -> &Table<Self> {
                    &state.$table
                }

                fn table_mut(state: &mut State) -> &mut Table<Self> {
                    Arc::make_mut(&mut state.$table)
                }

                fn indexed(&self) -> Vec<(Index, &str)> {
                    let indexed: fn(&Self) -> Vec<(Index, &str)> = $indexed;
                    indexed(self)
                }

                fn wrap(object: Arc<Self>) -> Object {
                    Object::$type(object)
                }
            }

            impl StoreObject for $type {
                const KIND: Kind = Kind::$type;

                fn id(&self) -> &str {
                    &self.id
                }

                fn unique_name(&self) -> &str {
                    let name: fn(&Self) -> &str = $name;
                    name(self)
                }

                fn meta(&self) -> Option<&Meta> {
                    self.meta.as_ref()
                }

                fn meta_mut(&mut self) -> &mut Meta {
                    self.meta.get_or_insert_default()
                }

                fn from_object(object: &Object) -> Option<&Arc<Self>> {
                    match object {
                        Object::$type(object) => Some(object),
                        _ => None,
                    }
                }
            }
        )+

        impl Object {
            /// The object's kind.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self {
                    $( Self::$type(_) => Kind::$type, )+
                }
            }

            /// The object's id.
            #[must_use]
            pub fn id(&self) -> &str {
                match self {
                    $( Self::$type(object) => &object.id, )+
                }
            }

            /// Revision of the transaction that wrote it.
            #[must_use]
            pub fn version(&self) -> u64 {
                match self {
                    $( Self::$type(object) => object.version(), )+
                }
            }

            /// The name that must be unique among objects of this kind; empty if there is none.
            #[must_use]
            pub fn unique_name(&self) -> &str {
                match self {
                    $( Self::$type(object) => object.unique_name(), )+
                }
            }

            /// The message's bytes. They may be secrets.
            #[must_use]
            pub fn encode(&self) -> Vec<u8> {
                match self {
                    $( Self::$type(object) => prost::Message::encode_to_vec(object.as_ref()), )+
                }
            }

            /// Reads a message of this kind.
            ///
            /// # Errors
            /// When it is none.
            pub fn decode(kind: Kind, bytes: &[u8]) -> Result<Self, prost::DecodeError> {
                match kind {
                    $( Kind::$type => {
                        <$type as prost::Message>::decode(bytes).map(|o| Self::$type(Arc::new(o)))
                    } )+
                }
            }

            /// The same object with another version.
            #[must_use]
            pub fn with_version(mut self, revision: u64) -> Self {
                self.set_version(revision);
                self
            }

            pub(crate) fn set_version(&mut self, revision: u64) {
                match self {
                    $( Self::$type(object) => {
                        let meta = Arc::make_mut(object).meta_mut();
                        meta.version.get_or_insert_default().index = revision;
                    } )+
                }
            }

            pub(crate) fn restore_in(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
                match self {
                    $( Self::$type(object) => tx.restore_object(Arc::unwrap_or_clone(object)), )+
                }
            }

            pub(crate) fn all_in(state: &State) -> impl Iterator<Item = Self> {
                std::iter::empty()
                    $( .chain(state.all::<$type>().cloned().map(Self::$type)) )+
            }

            pub(crate) fn find(state: &State, kind: Kind, id: &str) -> Option<Self> {
                match kind {
                    $( Kind::$type => {
                        let table = <$type as sealed::Stored>::table(state);
                        table.get(id).map(|object| Self::$type(Arc::clone(object)))
                    } )+
                }
            }

            pub(crate) fn all(state: &State, kind: Kind) -> Vec<Self> {
                match kind {
                    $( Kind::$type => {
                        state.all::<$type>().map(|object| Self::$type(Arc::clone(object))).collect()
                    } )+
                }
            }

            pub(crate) fn insert_into(&self, state: &mut State) {
                match self {
                    $( Self::$type(object) => {
                        <$type as sealed::Stored>::table_mut(state).insert(Arc::clone(object));
                    } )+
                }
            }

            pub(crate) fn remove_from(&self, state: &mut State) {
                match self {
                    $( Self::$type(object) => {
                        <$type as sealed::Stored>::table_mut(state).remove(&object.id);
                    } )+
                }
            }

            pub(crate) fn indexed(&self) -> Vec<(Index, &str)> {
                match self {
                    $( Self::$type(object) => sealed::Stored::indexed(object.as_ref()), )+
                }
            }

            pub(crate) fn holder_in<'a>(
                state: &'a State,
                kind: Kind,
                name: &str,
            ) -> Option<&'a str> {
                match kind {
                    $( Kind::$type => {
                        let table = <$type as sealed::Stored>::table(state);
                        table.by_name(name).map(|object| object.id.as_str())
                    } )+
                }
            }

            pub(crate) fn conflicts_in(&self, state: &State) -> bool {
                match self {
                    $( Self::$type(object) => {
                        let table = <$type as sealed::Stored>::table(state);
                        table.get(&object.id).is_some()
                            || table.by_name(object.unique_name()).is_some()
                    } )+
                }
            }
        }
    };
}

objects! {
    // Nodes are found by host name too, but that one need not be unique.
    Node, nodes, |_| "",
        |o| o.manager_status.iter().map(|_| (Index::Manager, "")).collect();
    Service, services, |o| name_of(o.spec.as_ref().and_then(|s| s.annotations.as_ref())),
        service_indexes;
    Task, tasks, |_| "", task_indexes;
    Secret, secrets, |o| name_of(o.spec.as_ref().and_then(|s| s.annotations.as_ref())),
        |_| Vec::new();
    Config, configs, |o| name_of(o.spec.as_ref().and_then(|s| s.annotations.as_ref())),
        |_| Vec::new();
    Network, networks, |o| name_of(o.spec.as_ref().and_then(|s| s.annotations.as_ref())),
        |_| Vec::new();
    Cluster, clusters, |o| name_of(o.spec.as_ref().and_then(|s| s.annotations.as_ref())),
        |_| Vec::new();
    // There is one.
    Access, access, |_| "access", |_| Vec::new();
    Trust, trust, |o| &o.name, |o| vec![(Index::Group, o.group.as_str())];
    Policy, policies, |o| o.name.as_str(), |_| Vec::new();
    TrustMetadata, trust_metadata, |o| o.name.as_str(), |_| Vec::new();
    // There is one.
    ScanDatabase, scan_databases, |_| "scan-database", |_| Vec::new();
}

fn service_indexes(service: &Service) -> Vec<(Index, &str)> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let mut keys = spec_indexes(spec.task.as_ref());
    keys.extend(spec.networks.iter().map(|network| (Index::Network, network.target.as_str())));
    keys
}

fn task_indexes(task: &Task) -> Vec<(Index, &str)> {
    let mut keys = spec_indexes(task.spec.as_ref());
    keys.push((Index::Service, task.service_id.as_str()));
    keys.push((Index::Node, task.node_id.as_str()));
    let attached = task.networks.iter().filter_map(|attachment| attachment.network.as_ref());
    keys.extend(attached.map(|network| (Index::Network, network.id.as_str())));
    keys
}

fn spec_indexes(spec: Option<&TaskSpec>) -> Vec<(Index, &str)> {
    let Some(spec) = spec else {
        return Vec::new();
    };
    let mut keys: Vec<_> =
        spec.networks.iter().map(|network| (Index::Network, network.target.as_str())).collect();
    if let Some(task_spec::Runtime::Container(container)) = &spec.runtime {
        keys.extend(container.secrets.iter().map(|r| (Index::Secret, r.secret_id.as_str())));
        keys.extend(container.configs.iter().map(|r| (Index::Config, r.config_id.as_str())));
    }
    keys
}
