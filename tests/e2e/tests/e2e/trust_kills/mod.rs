//! A manager that keeps trust data in the cluster's store, killed again and again while eight clients
//! publish: what the trust server by itself is put through in its crate.

#[path = "../../../../../crates/brig-trust-server/tests/it/kills.rs"]
mod kills;
#[path = "../../../../../crates/brig-trust-server/tests/it/owner.rs"]
mod owner;

use std::time::Duration;

use brig_e2e::notary::Notary;
use brig_e2e::{Brigd, eventually};
use brig_pki::web::{WebConnector, WebTrust};
use brig_trust::remote::{Action, Credentials, HttpRemote, ServerAddress};

use self::kills::Victim;

const PATIENCE: Duration = Duration::from_secs(60);

struct Manager {
    daemon: Brigd,
    notary: Notary,
}

impl Manager {
    fn start() -> Self {
        let notary = Notary::reserved();
        let flags = notary.daemon_flags();
        let daemon = Brigd::start_with(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        daemon.init_swarm();
        let manager = Self { daemon, notary };
        let file = manager.daemon.data_root().join("trust-server/trust.redb");
        eventually("trust data is the swarm's", PATIENCE, || !file.exists());
        manager.wait();
        manager
    }

    /// Until it says that it serves.
    fn wait(&self) {
        eventually("the manager's trust server serves", PATIENCE, || self.notary.is_healthy());
    }
}

impl Victim for Manager {
    fn kill_and_run(&mut self) {
        self.daemon.kill();
        self.daemon.spawn();
        self.wait();
    }

    fn remote(&self) -> HttpRemote {
        let ca = std::fs::read(self.notary.certificate()).unwrap();
        let trust = WebTrust::Verified { extra_roots: vec![ca] };
        let address = ServerAddress::parse(&self.notary.url()).unwrap();
        let connector = WebConnector::new(&trust, None).unwrap();
        HttpRemote::new(address, connector, Credentials::default(), Action::All)
    }

    fn keeps(&self) -> u64 {
        // A cluster's store lets older ones go.
        16
    }
}

#[test]
fn publications_in_the_clusters_store_survive_kills() {
    kills::acknowledged_publications_survive_kills(Manager::start());
}
