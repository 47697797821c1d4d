//! `make bench`: brigd beside a real dockerd in one run. Each pair is measured in turns, so that
//! the machine's mood hits both; medians and their ratio are printed. Nothing here judges: the
//! goals stand beside the figures.
//!
//! `brig-bench [SUITE]...` with the suites below; without any, all of them. `BENCH_ROUNDS` is how
//! often pairs are measured, `BENCH_SESSIONS` how many workers are simulated, `BENCH_JSON` a file
//! for all figures.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss
)]

mod engine;
mod engines;
mod identity;
mod load;
mod measure;
mod remote;
mod report;

const SUITES: [&str; 7] =
    ["engine", "join", "loss", "rotation", "certificates", "sessions", "remote"];

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|suite| !SUITES.contains(&suite.as_str())) {
        eprintln!("brig-bench: no suite {unknown}; there are: {}", SUITES.join(", "));
        std::process::exit(2);
    }
    for suite in
        SUITES.iter().filter(|suite| wanted.is_empty() || wanted.iter().any(|w| w == *suite))
    {
        match *suite {
            "engine" => engine::measure(setting("BENCH_ROUNDS", 15)),
            "join" => identity::join(setting("BENCH_ROUNDS", 7)),
            "loss" => identity::loss(setting("BENCH_ROUNDS", 3).min(3)),
            "rotation" => identity::rotation(setting("BENCH_ROUNDS", 3).min(3)),
            "remote" => remote::measure(),
            "certificates" => load::run(load::certificates::measure()),
            _ => load::run(load::sessions::measure(setting("BENCH_SESSIONS", 5000))),
        }
    }
    report::write();
}
