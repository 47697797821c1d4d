//! What the CLI reads: archives of contexts, Compose files, and the small languages of its flags.
//! The CLI is a program without a library, so its modules are this target's.
#![no_main]
#![allow(dead_code, unused_imports)]

#[path = "../../crates/brig/src/cli/mod.rs"]
mod cli;
#[path = "../../crates/brig/src/client/mod.rs"]
mod client;
#[path = "../../crates/brig/src/commands/mod.rs"]
mod commands;
#[path = "../../crates/brig/src/compose/mod.rs"]
mod compose;
#[path = "../../crates/brig/src/config_file.rs"]
mod config_file;
#[path = "../../crates/brig/src/context.rs"]
mod context;
#[path = "../../crates/brig/src/contexts/mod.rs"]
mod contexts;
#[path = "../../crates/brig/src/error.rs"]
mod error;
#[path = "../../crates/brig/src/output/mod.rs"]
mod output;
#[path = "../../crates/brig/src/parse/mod.rs"]
mod parse;
#[path = "../../crates/brig/src/terminal/mod.rs"]
mod terminal;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(archive) = contexts::archive::Archive::read(data) {
        // What was imported can be exported.
        let tar = archive.to_tar().expect("it can be written");
        contexts::archive::Archive::read(tar.expose_secret()).expect("and read again");
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    compose_file(text);
    let _ = parse::csv::pairs(text);
    let _ = parse::mount::mount(text);
    let _ = parse::mount::volume_flag(text);
    let _ = parse::port::service_ports(text);
    let _ = parse::port::container_ports(&[text.to_owned()], &[]);
    let _ = parse::duration::with_days(text);
    let _ = parse::size::bytes(text);
    let _ = parse::size::nano_cpus(text);
    let _ = parse::network::attachment(text);
    let _ = parse::resources::device(text);
    let _ = parse::resources::gpus(text);
    let _ = parse::swarm::external_ca(text);
    let _ = parse::shell_words(text);
    let _ = parse::time::timestamp(text, time::OffsetDateTime::UNIX_EPOCH);
});

fn compose_file(text: &str) {
    let file = std::env::temp_dir().join(format!("compose-{}.yml", std::process::id()));
    std::fs::write(&file, text).expect("there is room");
    let lookup = |name: &str| name.len().is_multiple_of(2).then(|| name.to_lowercase());
    let Ok((tree, directory)) = compose::read(&[file.display().to_string()], Some(&lookup)) else {
        return;
    };
    let surroundings =
        compose::Surroundings { stack: "stack", directory: &directory, lookup: &lookup };
    let _ = compose::stack(tree, &surroundings);
}
