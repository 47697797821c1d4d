//! Where the store is, as this manager's files say.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::error::SwarmError;
use crate::node::files::Layout;

/// Where the store is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Place {
    /// In one file.
    Embedded,
    /// In an etcd that somebody else runs.
    External,
    /// In etcd, with a member here.
    Member(Member),
}

/// The member of this manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The node's id.
    pub(crate) name: String,
    /// Where others reach it.
    pub(crate) ip: IpAddr,
    pub(crate) client_port: u16,
    pub(crate) peer_port: u16,
    /// The members as they were when this one came.
    pub(crate) initial_cluster: String,
    /// Whether there were any.
    pub(crate) existing: bool,
    /// Where other members are, `host:port`.
    pub(crate) endpoints: Vec<String>,
}

impl Member {
    fn url(ip: IpAddr, port: u16) -> String {
        format!("https://{}", std::net::SocketAddr::new(ip, port))
    }

    /// Where other members reach it.
    pub(crate) fn peer_url(&self) -> String {
        Self::url(self.ip, self.peer_port)
    }

    /// Where other managers reach it.
    pub(crate) fn client_url(&self) -> String {
        Self::url(self.ip, self.client_port)
    }

    /// Where this manager reaches it.
    pub(crate) fn local(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }
}

/// Reads the record; without one the store is in its file.
pub(crate) fn read(layout: &Layout) -> Result<Place, SwarmError> {
    Ok(layout.read_store_place()?.unwrap_or(Place::Embedded))
}

pub(crate) fn write(layout: &Layout, place: &Place) -> Result<(), SwarmError> {
    layout.write_store_place(place)
}
