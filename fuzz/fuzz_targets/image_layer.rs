//! Layers: nothing may escape the folder they are unpacked into, and nothing may panic.
#![no_main]

use std::os::fd::AsFd;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let outer = tempfile::tempdir().expect("a folder");
    let root = outer.path().join("root");
    std::fs::create_dir(&root).expect("the layer's folder");
    let dir = std::fs::File::open(&root).expect("it opens");
    let limits = brig_image::Limits { layer_unpacked: 1 << 20, ..brig_image::Limits::default() };
    let expected = brig_image::unpack::Expected::default();
    let _ = brig_image::unpack::unpack_layer(data, dir.as_fd(), expected, &limits);
    let beside = std::fs::read_dir(outer.path()).expect("it can be listed").count();
    assert_eq!(beside, 1, "something escaped");
});
