//! Writes with three managers that all take them: through the Engine API beside dockerd's raft, and
//! through the store itself beside bare etcd, whose members are the very ones that brigd started:
//! the same hosts, disks, certificates and durability. Each bare write is one put of what a
//! config's record weighs; the store's write has a name and the head to it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use brig_e2e::hosts::Kind;
use brig_proto::swarm::{Annotations, Config, ConfigSpec};
use brig_store::etcd::{EtcdBackend, EtcdClient, Limits};
use brig_store::{BlindName, Object, SealError, Sealer, Store, StoreError};
use brig_types::id::random_swarm_id;
use brig_types::secret::SecretBytes;

use super::load::{PAYLOAD, Reached, SPAN, drive, name};
use super::members::{MEMBER, Managers, Place, put};
use crate::report;

/// Clients of each manager.
const CLIENTS: [usize; 2] = [1, 16];
/// What sealing adds, and the version before it.
const AROUND: usize = 48;
/// What brigd starts its members with.
const LIMITS: Limits = Limits { operations: 4096, bytes: 8 << 20 };

/// Bytes of the right number instead of a cipher, whose time is a thousandth of a write's.
struct Padded;

impl Sealer for Padded {
    fn seal(&self, _: &str, _: &str, plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = vec![0; AROUND - 8];
        sealed.extend_from_slice(plain);
        Ok(sealed)
    }

    fn open(&self, _: &str, _: &str, sealed: &[u8]) -> Result<SecretBytes, SealError> {
        Ok(SecretBytes::new(sealed.get(AROUND - 8..).unwrap_or_default().to_vec()))
    }

    fn blind(&self, _: &str, name: &str) -> BlindName {
        let mut blind = [0; 32];
        blind.iter_mut().zip(name.bytes().rev()).for_each(|(to, from)| *to = from);
        blind
    }
}

fn config() -> Config {
    let annotations = Annotations { name: name(), ..Annotations::default() };
    let data = vec![0x78; PAYLOAD];
    let spec = ConfigSpec { annotations: Some(annotations), data, ..ConfigSpec::default() };
    Config { id: random_swarm_id(), spec: Some(spec), ..Config::default() }
}

pub(super) fn measure(rounds: usize) {
    println!("\nconfigs of {PAYLOAD} bytes, three managers on three hosts, all of them written to");
    println!("{:<44} {:>10} {:>8} {:>8}", "what", "writes", "p50 ms", "p99 ms");
    let docker = Managers::start(Kind::Dockerd);
    let brig = Managers::start(Kind::Brigd);
    let places: Vec<Place> = (0..brig.nodes.len()).map(|at| brig.place(at)).collect();
    let stores: Vec<Store> = places.iter().map(open).collect();
    for clients in CLIENTS {
        let mut reached = [const { Vec::new() }; 4];
        for _ in 0..rounds {
            reached[0].push(drive(&docker.sockets(), clients));
            reached[1].push(drive(&brig.sockets(), clients));
            reached[2].push(bare(&places, clients));
            reached[3].push(through_the_store(&places, &stores, clients));
        }
        let [theirs, ours, bare, store] = reached.map(Reached::median);
        let lines = [
            ("dockerd, Engine API", theirs),
            ("brigd, Engine API", ours),
            ("bare etcd", bare),
            ("the store", store),
        ];
        for (what, reached) in lines {
            println!("{:<44} {reached}", format!("{what}, 3 times {clients} clients"));
        }
        let share = |of: Reached| 100.0 * of.per_second / bare.per_second;
        println!(
            "{:<44} {:.0} % of bare etcd (goal: 70), with the API {:.0} %, {:.1}x dockerd",
            "",
            share(store),
            share(ours),
            ours.per_second / theirs.per_second
        );
        let what = |figure: &str| format!("store: three managers, 3 x {clients} clients, {figure}");
        report::pair(&what("writes"), "1/s", theirs.per_second, ours.per_second, "");
        report::pair(&what("p99"), "ms", theirs.p99, ours.p99, "");
        report::load(&what("bare etcd"), bare.per_second, "1/s", None);
        report::load(&what("the store"), store.per_second, "1/s", Some(bare.per_second * 0.7));
    }
    // Each one's connections end on its own runtime.
    for (place, store) in places.iter().zip(stores) {
        let closed = place.runtime.spawn_blocking(move || store.close());
        place.runtime.block_on(closed).unwrap();
    }
}

fn open(place: &Place) -> Store {
    let _inside = place.runtime.enter();
    let client = EtcdClient::new(&[MEMBER.to_owned()], place.tls.clone()).unwrap();
    let backend = EtcdBackend::new(client, "bench", LIMITS, place.runtime.handle().clone());
    let opened = place.runtime.spawn_blocking(move || Store::open(backend, Arc::new(Padded)));
    place.runtime.block_on(opened).unwrap().unwrap()
}

/// One write.
type Write = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

fn bare(places: &[Place], clients: usize) -> Reached {
    let record = AROUND + prost_size(&config());
    again_and_again(places, clients, |at| {
        let channel = places[at].channel();
        Arc::new(move || {
            let key = format!("/bench/{at}/{}", random_swarm_id()).into_bytes();
            Box::pin(put(channel.clone(), key, vec![0x5a; record]))
        })
    })
}

/// Bytes of the message, with version and times as the store sets them.
fn prost_size(config: &Config) -> usize {
    const META: usize = 40;
    Object::Config(Arc::new(config.clone())).encode().len() + META
}

fn through_the_store(places: &[Place], stores: &[Store], clients: usize) -> Reached {
    again_and_again(places, clients, |at| {
        let store = stores[at].clone();
        Arc::new(move || {
            let store = store.clone();
            Box::pin(async move {
                let config = config();
                let created: Result<_, StoreError> = store.update(|tx| tx.create(config)).await;
                created.unwrap();
            })
        })
    })
}

/// Has so many clients on each host write again and again for a while.
fn again_and_again(places: &[Place], clients: usize, write: impl Fn(usize) -> Write) -> Reached {
    let until = Instant::now() + SPAN;
    let mut lanes = Vec::new();
    for (at, place) in places.iter().enumerate() {
        let write = write(at);
        for _ in 0..clients {
            let write = Arc::clone(&write);
            lanes.push(place.runtime.spawn(async move {
                let mut times = Vec::new();
                while Instant::now() < until {
                    let began = Instant::now();
                    write().await;
                    times.push(began.elapsed());
                }
                times
            }));
        }
    }
    let times = places[0].runtime.block_on(async {
        let mut times: Vec<Duration> = Vec::new();
        for lane in lanes {
            times.extend(lane.await.unwrap());
        }
        times
    });
    Reached::of(times, SPAN)
}
