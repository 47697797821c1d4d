//! What every handler can reach.

use std::sync::Arc;

use brig_engine::Engine;
use brig_swarm::Swarm;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Gate;
use crate::access::enrol::Authority;
use crate::access::enrol::newcomers::Newcomers;
use crate::access::enrol::ssh::Keys;
use crate::admission::Admission;
use crate::build::Builder;
use crate::config::Config;
use crate::host::HostFacts;
use crate::inventory::Inventories;
use crate::programs::Programs;
use crate::scan::Database;
use crate::server::open::OpenRequests;

/// The daemon, shared.
pub type AppState = Arc<State>;

/// The parts of the running daemon.
#[derive(Debug)]
pub struct State {
    /// The configuration.
    pub config: Config,
    /// Random name of this engine, kept in the data root.
    pub engine_id: String,
    /// Who may do what, and the record of it.
    pub gate: Gate,
    /// What may start here.
    pub admission: Arc<Admission>,
    /// Who reaches this engine from elsewhere.
    pub authority: Authority,
    /// Who would like to.
    pub newcomers: Newcomers,
    /// Keys of SSH that are worth a role.
    pub ssh: Keys,
    /// This host.
    pub host: HostFacts,
    /// Containers, images, networks and volumes of this node.
    pub engine: Engine,
    /// What is in the images of this node.
    pub inventories: Inventories,
    /// The runtime and what keeps it running.
    pub programs: Programs,
    /// Builds images.
    pub builder: Builder,
    /// This node's part in a cluster.
    pub swarm: Swarm,
    /// The vulnerability database.
    pub vulnerabilities: Arc<Database>,
    /// Requests under way.
    pub open: Arc<OpenRequests>,
    /// Everything that runs for a client; waited for at the end.
    pub tasks: TaskTracker,
    /// Cancelled when the daemon stops: no new connections, streams end.
    pub stop: CancellationToken,
}
