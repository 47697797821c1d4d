//! Images in: from a registry on this machine, and from an archive.

use std::time::{Duration, Instant};

use brig_e2e::http;
use brig_e2e::registry::Registry;
use serde_json::Value;

use super::image::{self, LAYERS};
use crate::engines::Engine;
use crate::measure::in_turns;

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("brig-bench-image-").tempdir_in("/var/tmp").unwrap()
}

/// Takes the image away again, and leaves nothing for the other's turn to write back.
fn forget(engine: &dyn Engine, name: &str) {
    let image = http::get(&engine.socket(), &format!("/v1.41/images/{name}/json"));
    let layers = image["RootFS"]["Layers"].as_array().map_or(0, Vec::len);
    assert_eq!(layers, LAYERS, "{} does not have {name}", engine.name());
    engine.cli(&["rmi", "-f", name]);
    rustix::fs::sync();
}

/// A pull over loopback, of gzip layers.
pub(super) fn pull(engines: [&dyn Engine; 2], rounds: usize) {
    let folder = folder();
    let archive = image::archive(folder.path(), "bench:latest");
    let registry = Registry::start(None);
    registry.push(&archive, "bench:latest", None);
    rustix::fs::sync();
    let name = format!("{}/bench:latest", registry.address);
    let path = format!("/v1.41/images/create?fromImage={name}");
    in_turns("pull of 300 MB in 10 gzip layers (API)", 2.0, rounds, engines, |engine, _| {
        let start = Instant::now();
        let said = http::post(&engine.socket(), &path, &Value::Null).unwrap();
        let took = start.elapsed();
        assert!(!said.contains("\"error\""), "{}: {said}", engine.name());
        forget(engine, &name);
        took
    });
}

/// The same as an archive that is not compressed.
pub(super) fn load(engines: [&dyn Engine; 2], rounds: usize) {
    let folder = folder();
    let archive = image::archive(folder.path(), "bench:latest").display().to_string();
    rustix::fs::sync();
    in_turns("load of 300 MB in 10 layers (CLI)", 2.0, rounds, engines, |engine, _| {
        let took: Duration = {
            let start = Instant::now();
            engine.cli(&["load", "-q", "-i", &archive]);
            start.elapsed()
        };
        forget(engine, "bench:latest");
        took
    });
}
