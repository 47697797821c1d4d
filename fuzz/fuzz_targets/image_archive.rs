//! Archives of `load`, docker's and OCI's, and the contexts of builds.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a folder");
    brig_image::fuzz_archive(data, dir.path());
    let left = std::fs::read_dir(dir.path()).expect("it can be listed").count();
    assert_eq!(left, 0, "something stays");
});
