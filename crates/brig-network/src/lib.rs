//! The networks of one node: Linux bridges, addresses, published ports and names.
//!
//! [`Networks`] is the whole of it. A container's way is `reserve` (an address), `connect_sandbox`
//! (interfaces, rules, name server; between the runtime's create and start) and `disconnect`.
//! Interfaces are made by rtnetlink, rules are one nftables table per instance, names are served at
//! 127.0.0.11 inside each container. Nothing here knows the API's JSON or starts a process when a
//! container starts.
//!
//! Several daemons may share a network namespace: bridges, table and subnets of each are its own.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod attach;
mod bridge;
mod dns;
mod endpoint;
mod error;
mod files;
mod firewall;
mod ipam;
mod mac;
mod names;
mod netlink;
mod networks;
mod plan;
mod ports;
mod process;
mod purge;
mod recovery;
mod sandbox;
mod spec;
mod state;
mod store;
mod subnet;
mod wire;

pub use bridge::{AddressPool, default_pools};
pub use dns::SERVER_ADDRESS as EMBEDDED_DNS_ADDRESS;
#[cfg(feature = "fuzzing")]
pub use dns::fuzz_packet;
pub use endpoint::{Address6, Endpoint, EndpointRequest, Interface};
pub use error::NetworkError;
pub use files::{
    DnsOptions, ExtraHost, ResolvMode, extra_host, hostname, hosts, hosts_of_host, resolv_conf,
};
pub use mac::{InvalidMac, MacAddr};
pub use networks::{NetworkConfig, NetworkInfo, Networks};
pub use ports::{BindError, HostPort, PortBound, PortError, PortRequest, Protocol};
pub use sandbox::SandboxRequest;
pub use spec::{
    BRIDGE, BridgeSettings, DEFAULT, Driver, HOST, Ipam, Ipam6, NONE, NetworkRecord, NetworkSpec,
    SubnetSpec, is_predefined,
};
pub use subnet::{InvalidSubnet, Ipv4Net, Ipv6Net};
