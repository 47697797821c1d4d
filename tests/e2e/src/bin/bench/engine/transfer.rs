//! Images in: from a registry on this machine, and from an archive. Each twice: until the daemon
//! says that it is done, and until the image would outlive a power cut, which brigd waits for before
//! it says so and dockerd does not.

use std::time::Instant;

use brig_e2e::http;
use brig_e2e::registry::Registry;
use serde_json::Value;

use super::image::{self, LAYERS};
use crate::engines::Engine;
use crate::measure::{self, millis};

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("brig-bench-image-").tempdir_in("/var/tmp").unwrap()
}

/// Lets each engine bring `name` in and takes it away again, in turns.
fn measure(
    what: &str,
    name: &str,
    engines: [&dyn Engine; 2],
    rounds: usize,
    mut bring: impl FnMut(&dyn Engine),
) {
    let (mut said, mut durable) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..rounds {
        for (at, engine) in engines.into_iter().enumerate() {
            // What the other's turn left is not written back at this one's cost.
            rustix::fs::sync();
            let start = Instant::now();
            bring(engine);
            said[at].push(millis(start.elapsed()));
            rustix::fs::sync();
            durable[at].push(millis(start.elapsed()));
            let image = http::get(&engine.socket(), &format!("/v1.41/images/{name}/json"));
            let layers = image["RootFS"]["Layers"].as_array().map_or(0, Vec::len);
            assert_eq!(layers, LAYERS, "{} does not have {name}", engine.name());
            engine.cli(&["rmi", "-f", name]);
        }
    }
    measure::print(what, said, "2.0x");
    measure::print(&format!("{what}, on disk"), durable, "2.0x");
}

/// A pull over loopback, of gzip layers.
pub(super) fn pull(engines: [&dyn Engine; 2], rounds: usize) {
    let folder = folder();
    let archive = image::archive(folder.path(), "bench:latest");
    let registry = Registry::start(None);
    registry.push(&archive, "bench:latest", None);
    let name = format!("{}/bench:latest", registry.address);
    let path = format!("/v1.41/images/create?fromImage={name}");
    measure("pull (API): 300 MB, 10 gzip layers", &name, engines, rounds, |engine| {
        let said = http::post(&engine.socket(), &path, &Value::Null).unwrap();
        assert!(!said.contains("\"error\""), "{}: {said}", engine.name());
    });
}

/// The same as an archive that is not compressed.
pub(super) fn load(engines: [&dyn Engine; 2], rounds: usize) {
    let folder = folder();
    let archive = image::archive(folder.path(), "bench:latest").display().to_string();
    measure("load (CLI): 300 MB, 10 layers", "bench:latest", engines, rounds, |engine| {
        engine.cli(&["load", "-q", "-i", &archive]);
    });
}
