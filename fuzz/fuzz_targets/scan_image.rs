//! A whole file as `brig scan --input` takes it: an archive of any kind, packed or not, or a bill of
//! materials.
#![no_main]

use std::io::Write as _;

use brig_scan::inventory::{Limits, Options, Verify, read_fd};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &[u8])| {
    let (verify, data) = input;
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(data).expect("room");
    let limits = Limits {
        entries: 10_000,
        layer_bytes: 64 << 20,
        ratio_floor: 16 << 20,
        held_file: 16 << 20,
        ..Limits::default()
    };
    let verify = if verify { Verify::DiffIds } else { Verify::AlreadyDone };
    let platform = Some("linux/amd64".to_owned());
    let _ = read_fd(file.into(), &Options { verify, limits, platform, ..Options::default() });
});
