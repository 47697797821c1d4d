//! Writes with one manager, through the Engine API: brigd's file beside dockerd's raft of one.

use crate::engines::{Brig, Docker, Engine};
use crate::report;

use super::load::{PAYLOAD, Reached, drive};

/// Clients that write at the same time.
const CLIENTS: [usize; 2] = [1, 16];

pub(super) fn measure(rounds: usize) {
    println!("\nconfigs of {PAYLOAD} bytes created through the Engine API, one manager");
    println!("{:<44} {:>10} {:>8} {:>8}", "what", "writes", "p50 ms", "p99 ms");
    let (docker, brig) = (Docker::start(), Brig::start());
    let engines: [&dyn Engine; 2] = [&docker, &brig];
    engines.iter().for_each(|engine| engine.swarm_init());
    for clients in CLIENTS {
        let mut reached = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (engine, rounds) in engines.iter().zip(&mut reached) {
                rounds.push(drive(&[engine.socket()], clients));
            }
        }
        let [theirs, ours] = reached.map(Reached::median);
        for (engine, reached) in engines.iter().zip([theirs, ours]) {
            println!("{:<44} {reached}", format!("{}, {clients} clients", engine.name()));
        }
        let times = ours.per_second / theirs.per_second;
        println!("{:<44} {times:>9.2}x (goal: 2x)", "");
        let what = |figure: &str| format!("store: one manager, {clients} clients, {figure}");
        report::pair(&what("writes"), "1/s", theirs.per_second, ours.per_second, "2x");
        report::pair(&what("p99"), "ms", theirs.p99, ours.p99, "");
    }
}
