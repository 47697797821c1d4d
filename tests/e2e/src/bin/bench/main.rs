//! `make bench`: brigd beside a real dockerd in one run. Each pair is measured in turns, so that
//! the machine's mood hits both; medians and their ratio are printed. Nothing here judges: the
//! goals stand beside the figures.
//!
//! `brig-bench [SUITE]...` with the suites below; without any, all of them. `engine:PART` is one part
//! of the engine suite, `store:PART` of the store's. `BENCH_OBJECTS` is how many objects a manager starts with.
//! `BENCH_ROUNDS` is how often pairs are measured, `BENCH_SESSIONS` how many workers are simulated, `BENCH_JSON` a file
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
mod store;
mod trust;

const SUITES: [&str; 9] =
    ["engine", "join", "loss", "rotation", "certificates", "sessions", "remote", "store", "trust"];

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let part = |wanted: &str| wanted.strip_prefix("engine:").and_then(engine::Part::named);
    let of_store = |wanted: &str| wanted.strip_prefix("store:").and_then(store::Part::named);
    let known = |wanted: &String| {
        SUITES.contains(&wanted.as_str()) || part(wanted).is_some() || of_store(wanted).is_some()
    };
    if let Some(unknown) = wanted.iter().find(|wanted| !known(wanted)) {
        let parts: Vec<String> = engine::Part::ALL
            .iter()
            .map(|part| format!("engine:{}", part.name()))
            .chain(store::Part::ALL.iter().map(|part| format!("store:{}", part.name())))
            .collect();
        eprintln!(
            "brig-bench: no suite {unknown}; there are: {}, {}",
            SUITES.join(", "),
            parts.join(", ")
        );
        std::process::exit(2);
    }
    let parts: Vec<engine::Part> = wanted.iter().filter_map(|wanted| part(wanted)).collect();
    let store_parts: Vec<store::Part> =
        wanted.iter().filter_map(|wanted| of_store(wanted)).collect();
    for suite in SUITES.iter().filter(|suite| {
        let named = wanted.iter().any(|wanted| wanted == *suite);
        wanted.is_empty()
            || named
            || (**suite == "engine" && !parts.is_empty())
            || (**suite == "store" && !store_parts.is_empty())
    }) {
        match *suite {
            "engine" => {
                let whole = wanted.is_empty() || wanted.iter().any(|wanted| wanted == "engine");
                let parts = if whole { &engine::Part::ALL[..] } else { &parts };
                engine::measure(parts, setting("BENCH_ROUNDS", 15));
            }
            "join" => identity::join(setting("BENCH_ROUNDS", 7)),
            "loss" => identity::loss(setting("BENCH_ROUNDS", 3).min(3)),
            "rotation" => identity::rotation(setting("BENCH_ROUNDS", 3).min(3)),
            "remote" => remote::measure(),
            "trust" => trust::measure(setting("BENCH_ROUNDS", 15)),
            "store" => {
                let whole = wanted.is_empty() || wanted.iter().any(|wanted| wanted == "store");
                let parts = if whole { &store::Part::ALL[..] } else { &store_parts };
                store::measure(parts);
            }
            "certificates" => load::run(load::certificates::measure()),
            _ => load::run(load::sessions::measure(setting("BENCH_SESSIONS", 5000))),
        }
    }
    report::write();
}
