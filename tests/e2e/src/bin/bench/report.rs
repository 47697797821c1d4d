//! Every figure once more, as JSON for whoever keeps a history: `BENCH_JSON=FILE`.

use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

static ROWS: Mutex<Vec<Value>> = Mutex::new(Vec::new());

fn add(row: Value) {
    ROWS.lock().unwrap_or_else(PoisonError::into_inner).push(row);
}

/// Medians of both engines in the same run.
pub(crate) fn pair(what: &str, unit: &str, dockerd: f64, brigd: f64, goal: &str) {
    let row = json!({
        "what": what, "unit": unit, "dockerd": dockerd, "brigd": brigd,
        "ratio": dockerd / brigd, "goal": goal,
    });
    add(row);
}

/// A pair where more is better.
pub(crate) fn rates(what: &str, unit: &str, theirs: f64, ours: f64, goal: &str) {
    let row = json!({
        "what": what, "unit": unit, "dockerd": theirs, "brigd": ours,
        "ratio": ours / theirs, "goal": goal,
    });
    add(row);
}

/// A figure of brigd alone.
pub(crate) fn load(what: &str, value: f64, unit: &str, goal: Option<f64>) {
    add(json!({ "what": what, "unit": unit, "brigd": value, "goal": goal }));
}

/// Writes what was measured, if somebody asked for it.
pub(crate) fn write() {
    if let Some(path) = std::env::var_os("BENCH_JSON") {
        let rows = Value::Array(ROWS.lock().unwrap_or_else(PoisonError::into_inner).clone());
        std::fs::write(path, format!("{rows:#}\n")).unwrap();
    }
}
