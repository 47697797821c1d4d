//! The server by itself, killed again and again.

use brig_trust::remote::HttpRemote;

use crate::kills::{self, Victim};
use crate::support::Server;

impl Victim for Server {
    fn kill_and_run(&mut self) {
        self.kill();
        self.run();
    }

    fn remote(&self) -> HttpRemote {
        Self::remote(self)
    }

    fn keeps(&self) -> u64 {
        u64::MAX
    }
}

#[test]
fn acknowledged_publications_survive_kills() {
    kills::acknowledged_publications_survive_kills(Server::start());
}
