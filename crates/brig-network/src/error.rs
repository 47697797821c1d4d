//! What can go wrong with networks, in the words that docker's clients know.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use brig_types::error::{Categorized, ErrorKind};
use brig_types::id::{ContainerId, EndpointId, NetworkId};

use crate::mac::InvalidMac;
use crate::ports::PortError;
use crate::subnet::InvalidSubnet;

/// A failed network operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// No network has this name, id or prefix of an id.
    #[error("network {0} not found")]
    NotFound(String),
    /// The prefix of an id fits several networks.
    #[error("network {prefix} is ambiguous ({matches} matches found on ID prefix)")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// How many networks it fits.
        matches: usize,
    },
    /// The name is taken.
    #[error("network with name {0} already exists")]
    NameTaken(String),
    /// The name has foreign characters.
    #[error(
        "{0:?} includes invalid characters for a local network name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed"
    )]
    InvalidName(String),
    /// `bridge`, `host` and `none` cannot be created.
    #[error("operation is not permitted on predefined {0} network")]
    PredefinedCreate(String),
    /// `bridge`, `host` and `none` cannot be removed.
    #[error("{0} is a pre-defined network and cannot be removed")]
    PredefinedRemove(String),
    /// There is one network of this driver, and no more.
    #[error("only one instance of \"{0}\" network is allowed")]
    SingleInstanceDriver(String),
    /// Containers are still attached.
    #[error("error while removing network: network {name} id {id} has active endpoints")]
    ActiveEndpoints {
        /// The network's name.
        name: String,
        /// The network's id.
        id: NetworkId,
    },
    /// No such network driver.
    #[error("plugin {0:?} not found")]
    UnknownDriver(String),
    /// A feature that networks do not have.
    #[error("{0} is not implemented")]
    NotImplemented(String),
    /// A subnet, range or gateway that cannot be read.
    #[error("invalid network config")]
    Subnet(#[source] InvalidSubnet),
    /// A subnet, range, gateway or option that does not fit.
    #[error("invalid network config: {0}")]
    Config(String),
    /// The subnet is used by another network or an interface of the host.
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    Overlap,
    /// Every pool is used up.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"
    )]
    PoolsExhausted,
    /// An interface with the wanted bridge name exists.
    #[error("bridge name {0} is already used by an interface of the host")]
    BridgeNameTaken(String),
    /// A fixed address on a network whose subnet nobody chose.
    #[error(
        "user specified IP address is supported only when connecting to networks with user configured subnets"
    )]
    AddressNeedsSubnet,
    /// A fixed address on a predefined network.
    #[error("user specified IP address is supported on user defined networks only")]
    AddressOnPredefined,
    /// The fixed address is outside the subnet.
    #[error("no configured subnet contains IP address {0}")]
    AddressOutside(IpAddr),
    /// The fixed address is in use.
    #[error("Address already in use")]
    AddressInUse(IpAddr),
    /// A fixed IPv6 address on a network without IPv6.
    #[error("invalid IPv6 address {ip}: network {network} has no IPv6; create it with --ipv6")]
    NoIpv6 {
        /// The address.
        ip: Ipv6Addr,
        /// The network.
        network: String,
    },
    /// The subnet is used by something of the host.
    #[error(
        "invalid pool request: Pool overlaps with other one on this address space: {subnet} overlaps with {other}; {advice}"
    )]
    OverlapWith {
        /// The wanted subnet.
        subnet: String,
        /// What has it: a network, or an interface and its subnet.
        other: String,
        /// What to type.
        advice: String,
    },
    /// No address is left.
    #[error("no available IPv4 addresses on this network's address pools: {name} ({id})")]
    AddressesExhausted {
        /// The network's name.
        name: String,
        /// The network's id.
        id: NetworkId,
    },
    /// A wrong Ethernet address.
    #[error("{0}")]
    Mac(InvalidMac),
    /// The container is on this network already.
    #[error("endpoint with name {endpoint} already exists in network {network}")]
    EndpointExists {
        /// The container's name.
        endpoint: String,
        /// The network's name.
        network: String,
    },
    /// `host` and `none` exclude every other network.
    #[error(
        "container cannot be connected to multiple networks with one of the networks in private ({0}) mode"
    )]
    PrivateMode(String),
    /// The container has no endpoint on the network.
    #[error("container {container} is not connected to network {network}")]
    NotConnected {
        /// The container.
        container: ContainerId,
        /// The network, as the caller named it.
        network: String,
    },
    /// No container, and nothing of one that is gone, has this name on the network.
    #[error("endpoint {0} not found")]
    NoSuchEndpoint(String),
    /// An endpoint that was never reserved or is released already.
    #[error("endpoint {0} not found")]
    EndpointNotFound(EndpointId),
    /// The container was disconnected while it was being connected.
    #[error("container {0} was stopped while its network was set up")]
    SandboxGone(ContainerId),
    /// A port could not be published.
    #[error("driver failed programming external connectivity on endpoint {endpoint} ({id})")]
    Publish {
        /// The container's name.
        endpoint: String,
        /// The endpoint that would have taken the traffic.
        id: EndpointId,
        /// What is wrong with the port.
        #[source]
        source: PortError,
    },
    /// `NAME:IP` with something else in it.
    #[error("bad format for add-host: {0:?}")]
    ExtraHost(String),
    /// A name server that is no address.
    #[error("invalid DNS server address: {0:?}")]
    NameServer(String),
    /// A program of the host is missing.
    #[error("program {program} not found; install the package {package}")]
    MissingProgram {
        /// The program that was looked for in PATH.
        program: &'static str,
        /// The package that usually brings it.
        package: &'static str,
    },
    /// nft refused the table.
    #[error("nft refused the rules of table {table}: {message}")]
    Nft {
        /// The table.
        table: String,
        /// The first lines of what nft said.
        message: String,
    },
    /// The kernel refused a change to interfaces, addresses, routes or rules.
    #[error("{action}")]
    Kernel {
        /// What was tried.
        action: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A file of the network state could not be read or written.
    #[error("{action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file of the network state has other content than this program writes.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it cannot be read.
        #[source]
        source: serde_json::Error,
    },
    /// A piece of work was cancelled because the daemon stops.
    #[error("the network service is shutting down")]
    ShuttingDown,
}

impl NetworkError {
    pub(crate) fn kernel(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Kernel { action, source }
    }
}

impl Categorized for NetworkError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_)
            | Self::UnknownDriver(_)
            | Self::EndpointNotFound(_)
            | Self::NoSuchEndpoint(_)
            | Self::NotConnected { .. } => ErrorKind::NotFound,
            Self::NameTaken(_) | Self::SandboxGone(_) => ErrorKind::Conflict,
            Self::PredefinedCreate(_)
            | Self::PredefinedRemove(_)
            | Self::SingleInstanceDriver(_)
            | Self::ActiveEndpoints { .. }
            | Self::AddressInUse(_)
            | Self::Overlap
            | Self::OverlapWith { .. }
            | Self::BridgeNameTaken(_)
            | Self::PrivateMode(_)
            | Self::EndpointExists { .. } => ErrorKind::Forbidden,
            Self::Ambiguous { .. }
            | Self::InvalidName(_)
            | Self::Subnet(_)
            | Self::Config(_)
            | Self::AddressNeedsSubnet
            | Self::AddressOnPredefined
            | Self::AddressOutside(_)
            | Self::NoIpv6 { .. }
            | Self::Mac(_)
            | Self::ExtraHost(_)
            | Self::NameServer(_) => ErrorKind::InvalidParameter,
            Self::Publish { source, .. } => source.kind(),
            Self::NotImplemented(_) => ErrorKind::NotImplemented,
            Self::ShuttingDown => ErrorKind::Unavailable,
            Self::PoolsExhausted
            | Self::AddressesExhausted { .. }
            | Self::MissingProgram { .. }
            | Self::Nft { .. }
            | Self::Kernel { .. }
            | Self::File { .. }
            | Self::Damaged { .. } => ErrorKind::System,
        }
    }
}
