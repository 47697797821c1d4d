//! Archives of `cp`: nothing may escape the folder they are extracted into, and what was extracted
//! can be packed.
#![no_main]

use std::path::Path;

use brig_archive::{ExtractOptions, Links, Owner, Wanted, extract, pack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let outer = tempfile::tempdir().expect("a folder");
    let dir = outer.path().join("root");
    std::fs::create_dir(&dir).expect("the destination");
    let root = std::fs::File::open(&dir).expect("it opens");
    let (first, data) = data.split_first().unwrap_or((&0, data));
    let options = ExtractOptions {
        links: if first & 1 == 0 { Links::InRoot } else { Links::Beneath },
        owner: Owner::Caller,
        keep_kinds: first & 2 == 0,
        rename: (first & 4 == 0).then(|| (b"a".to_vec(), b"b".to_vec())),
    };
    // The archive's size bounds what is written, but not what a sparse entry claims.
    let _ = extract(data, &root, Path::new("/"), &options);
    let beside = std::fs::read_dir(outer.path()).expect("it can be listed").count();
    assert_eq!(beside, 1, "something escaped");
    let wanted = Wanted::parse("/");
    if let Ok(top) = wanted.open(&root) {
        let _ = pack(top, wanted.name(), Limited(1 << 20), &|_| false);
    }
});

/// Takes so many bytes.
struct Limited(usize);

impl std::io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
