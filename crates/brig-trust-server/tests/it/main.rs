//! The trust server as its clients see it: real notary beside our own client, the wire beside
//! Debian's notary-server, and what is left after it was killed.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod crash;
mod import;
mod kills;
mod notary;
mod owner;
mod support;
mod wire;

use brig_pki::engine::EngineFiles;
use brig_trust_server::auth::{Authentication, Passwords};
use brig_trust_server::{CacheAges, Config, TrustServer};
use tokio_util::sync::CancellationToken;

/// Not a test of its own: the process that the tests start and kill.
#[test]
fn server_process() {
    let Some(folder) = std::env::var_os(support::FOLDER) else { return };
    let folder = std::path::PathBuf::from(folder);
    let address = std::env::var(support::ADDRESS).unwrap();
    let users = folder.join("users");
    let authentication = match users.exists() {
        true => Authentication::Passwords {
            passwords: Passwords::load(&users, "trust").unwrap(),
            anonymous_pull: true,
        },
        false => Authentication::Open,
    };
    let tls = EngineFiles {
        ca: None,
        cert: folder.join("server.pem"),
        key: folder.join("server.key"),
        revoked: None,
    };
    let server = TrustServer::new(Config {
        tls,
        authentication,
        gun_prefixes: std::env::var(support::PREFIX).into_iter().collect(),
        cache: CacheAges::default(),
    })
    .unwrap();
    server.place().folder(&folder.join("data"), None).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TrustServer::listen(&address).await.unwrap();
        server.serve(listener, CancellationToken::new()).await;
    });
}
