//! Measuring pairs in turns.

use std::time::Duration;

use crate::engines::Engine;
use crate::report;

/// One line of the result.
pub(crate) struct Comparison;

impl Comparison {
    pub(crate) fn header() -> String {
        format!(
            "{:<50}{:>20}{:>20}{:>8}{:>7}",
            "what", "dockerd med (min)", "brigd med (min)", "ratio", "goal"
        )
    }
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Measures both engines `rounds` times in turns and prints medians, minima and the ratio of the
/// medians.
pub(crate) fn in_turns(
    what: &str,
    goal: f64,
    rounds: usize,
    engines: [&dyn Engine; 2],
    mut run: impl FnMut(&dyn Engine, usize) -> Duration,
) {
    let mut taken = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for (engine, times) in engines.iter().zip(&mut taken) {
            times.push(millis(run(*engine, round)));
        }
    }
    print(what, taken, &format!("{goal:.1}x"));
}

/// Prints medians, minima and the ratio of the medians of times in milliseconds: dockerd's and
/// brigd's.
pub(crate) fn print(what: &str, taken: [Vec<f64>; 2], goal: &str) {
    let summary = taken.map(|mut times| {
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[0])
    });
    let [(docker, docker_min), (brig, brig_min)] = summary;
    println!(
        "{what:<50}{:>20}{:>20}{:>7.1}x{goal:>7}",
        format!("{docker:.1} ({docker_min:.1})"),
        format!("{brig:.1} ({brig_min:.1})"),
        docker / brig,
    );
    report::pair(what, "ms", docker, brig, goal);
}
