//! Publishing while a server is killed again and again: what was acknowledged is there, and nobody
//! ever reads files that do not belong together. The daemon's server is tested with it too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use brig_pki::random;
use brig_trust::cache::Cache;
use brig_trust::remote::{HttpRemote, Remote as _, RemoteError, RemoteFile};
use brig_trust::{Pinning, Reading, RootCheck, Stale, UpdateError, update};
use time::OffsetDateTime;

use super::owner::{Owner, signer_role};

const REPOSITORIES: usize = 2;
const SIGNERS: usize = 4;
/// Publications in all, unless the environment says otherwise.
const PUBLICATIONS: u64 = 80;
const VARIABLE: &str = "BRIG_TRUST_PUBLICATIONS";
/// Time between two kills, in milliseconds; longer where there is more to be done.
const KILLS: std::ops::Range<u64> = 40..400;
const FEWER_KILLS: std::ops::Range<u64> = 500..3000;

/// A trust server that can be killed.
pub(crate) trait Victim: Send + Sync + 'static {
    /// `kill -9`, and up again: afterwards it serves.
    fn kill_and_run(&mut self);
    /// A client of it.
    fn remote(&self) -> HttpRemote;
    /// Of how many versions of a file nothing may be missing.
    fn keeps(&self) -> u64;
}

struct World<V> {
    server: tokio::sync::RwLock<V>,
    owners: Vec<Owner>,
    kills: AtomicU64,
    reads: AtomicU64,
    done: AtomicBool,
}

/// Publishes until it is enough, and kills the server meanwhile.
pub(crate) fn acknowledged_publications_survive_kills(server: impl Victim) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(server));
}

async fn run(server: impl Victim) {
    let all = std::env::var(VARIABLE).ok().and_then(|all| all.parse().ok());
    let each = all.unwrap_or(PUBLICATIONS) / (REPOSITORIES * SIGNERS) as u64;
    let owners: Vec<_> = (0..REPOSITORIES)
        .map(|at| Owner::new(&format!("reg.example/team/app{at}"), SIGNERS))
        .collect();
    for owner in &owners {
        owner.publish(&server.remote()).await;
    }
    let world = Arc::new(World {
        server: tokio::sync::RwLock::new(server),
        owners,
        kills: AtomicU64::new(0),
        reads: AtomicU64::new(0),
        done: AtomicBool::new(false),
    });
    let (mut others, mut clients) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
    others.spawn(killer(Arc::clone(&world)));
    for at in 0..REPOSITORIES {
        others.spawn(reader(Arc::clone(&world), at));
    }
    for owner in 0..REPOSITORIES {
        for signer in 0..SIGNERS {
            clients.spawn(publisher(Arc::clone(&world), owner, signer, each));
        }
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    world.done.store(true, Ordering::Relaxed);
    while let Some(ended) = others.join_next().await {
        ended.unwrap();
    }
    assert!(world.kills.load(Ordering::Relaxed) > 0 && world.reads.load(Ordering::Relaxed) > 0);
    eprintln!(
        "{} publications, {} kills, {} whole reads meanwhile",
        each * (REPOSITORIES * SIGNERS) as u64,
        world.kills.load(Ordering::Relaxed),
        world.reads.load(Ordering::Relaxed)
    );
    // Every version of everybody that is kept, byte for byte.
    let (remote, keeps) = {
        let server = world.server.read().await;
        (server.remote(), server.keeps())
    };
    for owner in &world.owners {
        for signer in 0..SIGNERS {
            let role = signer_role(signer);
            for version in each.saturating_sub(keeps - 1).max(1)..=each {
                let file = RemoteFile::Version(role.clone(), version);
                let stored = remote.fetch(&owner.gun, &file, 1 << 20).await.unwrap();
                let read = brig_trust::Signed::<brig_trust::Targets>::parse(
                    &stored.unwrap_or_else(|| panic!("{} {version} is lost", role)),
                    &role,
                );
                let tag = format!("v{version}");
                assert!(read.unwrap().document.targets.contains_key(&tag));
            }
            let file = RemoteFile::Newest(role.clone());
            let newest = remote.fetch(&owner.gun, &file, 1 << 20).await.unwrap().unwrap();
            let file = RemoteFile::Version(role.clone(), each);
            assert_eq!(remote.fetch(&owner.gun, &file, 1 << 20).await.unwrap(), Some(newest));
        }
    }
}

/// Publishes version after version, each until it is known to be stored.
async fn publisher(world: Arc<World<impl Victim>>, owner: usize, signer: usize, each: u64) {
    let remote = world.server.read().await.remote();
    let owner = &world.owners[owner];
    for version in 1..=each {
        let files = [(signer_role(signer), owner.signers_file(signer, version))];
        let mut is_first = true;
        loop {
            match remote.publish(&owner.gun, &files).await {
                Ok(()) => break,
                // Stored by the attempt before, whose answer was lost.
                Err(RemoteError::Rejected { .. }) if !is_first => break,
                Err(error @ RemoteError::Rejected { .. }) => {
                    panic!("{error}: {:?}", error.detail())
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
            is_first = false;
        }
        // What was acknowledged is what is served from now on, also after the next kill.
        let newest = loop {
            match remote.fetch(&owner.gun, &RemoteFile::Newest(signer_role(signer)), 1 << 20).await
            {
                Ok(newest) => break newest,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        assert!(newest.as_ref() == Some(&files[0].1), "version {version} is not the newest");
    }
}

async fn killer(world: Arc<World<impl Victim>>) {
    let kills = if std::env::var_os(VARIABLE).is_some() { FEWER_KILLS } else { KILLS };
    while !world.done.load(Ordering::Relaxed) {
        let chance = u64::from_le_bytes(random::bytes().unwrap()) % (kills.end - kills.start);
        tokio::time::sleep(Duration::from_millis(kills.start + chance)).await;
        let mut server = world.server.write().await;
        tokio::task::block_in_place(|| server.kill_and_run());
        world.kills.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads a repository as a client that remembers what it saw: older files, or files of different
/// publications, are an error that is no broken connection.
async fn reader(world: Arc<World<impl Victim>>, at: usize) {
    let (folder, pinning) = (tempfile::tempdir().unwrap(), Pinning::default());
    let (cache, gun) = (Cache::new(folder.path()), &world.owners[at].gun);
    let remote = world.server.read().await.remote();
    while !world.done.load(Ordering::Relaxed) {
        let reading = Reading {
            pinning: &pinning,
            stale: Stale::Refuse,
            root: RootCheck::Always,
            now: OffsetDateTime::now_utc(),
        };
        match update(&remote, &cache, gun, &reading).await {
            Ok(_) => {
                world.reads.fetch_add(1, Ordering::Relaxed);
            }
            Err(UpdateError::Remote(
                RemoteError::Connect { .. } | RemoteError::Http { .. } | RemoteError::Status(503),
            )) => {}
            Err(error) => panic!("{}", brig_types::error::chain(&error)),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
