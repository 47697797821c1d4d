//! Every reader of package databases, programs, archives and bills of materials. The first byte says
//! which one; all must end, and without a panic.
#![no_main]

use brig_scan::package::Ecosystem;
use brig_scan::parse::{
    apk, binary, cargo, dotnet, dpkg, go, java, lock, node, php, python, release, rpm, ruby,
};
use brig_scan::{purl::Purl, sbom};
use libfuzzer_sys::fuzz_target;

/// So that a slice can be handed over as something with a size.
struct Bytes<'a>(&'a [u8]);

impl brig_scan::parse::ReadAt for Bytes<'_> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.0.read_at(buf, offset)
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&which, bytes)) = data.split_first() else { return };
    let path = "a/b-1.0";
    match which % 22 {
        0 => drop(dpkg::status(bytes, path)),
        1 => drop(dpkg::owned_files(bytes, "x", which & 32 != 0)),
        2 => drop(apk::installed(bytes, path)),
        3 => {
            let (file, log) = bytes.split_at(bytes.len() / 2);
            drop(rpm::from_sqlite(bytes, None, path));
            drop(rpm::from_sqlite(file, Some(log), path));
        }
        4 => drop(rpm::from_ndb(bytes, path)),
        5 => drop(rpm::from_bdb(bytes, path)),
        6 => drop(rpm::from_manifest(bytes, path)),
        7 => drop(python::metadata(bytes, path)),
        8 => drop(node::manifest(bytes, path)),
        9 => {
            if let Ok(Some(program)) = binary::program(bytes) {
                drop(go::program(bytes, &program, path));
                drop(cargo::program(bytes, &program, path));
            }
        }
        10 => drop(cargo::audit(bytes, path)),
        11 => drop(java::archive(&Bytes(bytes), "a/b-1.0.jar")),
        12 => drop(java::member(&Bytes(bytes), "EGG-INFO/PKG-INFO")),
        13 => drop(ruby::specification(bytes, path)),
        14 => drop(php::installed(bytes, path)),
        15 => drop(dotnet::dependencies(bytes, path)),
        16 => drop(release::distribution(release::SIGNS.iter().map(|sign| (*sign, bytes)))),
        17 => drop((lock::npm(bytes, path), lock::gemfile(bytes, path), lock::go_mod(bytes, path))),
        18 => drop((lock::requirements(bytes, path), lock::tables(bytes, path, Ecosystem::PyPi))),
        19 => drop(sbom::cyclonedx::read(bytes)),
        20 => drop(sbom::spdx::read(bytes)),
        _ => drop(std::str::from_utf8(bytes).map(Purl::parse)),
    }
});
