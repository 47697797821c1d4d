//! Programs: what Go's linker and cargo-auditable leave in ELF, PE and Mach-O files.
#![no_main]

use brig_scan::parse::{binary, cargo, go};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = "usr/bin/x";
    let _ = cargo::audit(data, path);
    let Ok(Some(program)) = binary::program(data) else { return };
    let _ = go::program(data, &program, path);
    let _ = cargo::program(data, &program, path);
});
