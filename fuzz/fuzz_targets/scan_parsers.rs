//! The texts that package managers keep, and purls. The first byte says which reader; all must end,
//! and without a panic.
#![no_main]

use brig_scan::package::Ecosystem;
use brig_scan::parse::{apk, dotnet, dpkg, lock, node, php, python, release, ruby};
use brig_scan::purl::Purl;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&which, bytes)) = data.split_first() else { return };
    let path = "a/b-1.0";
    match which % 21 {
        0 => drop(dpkg::status(bytes, path)),
        1 => drop(dpkg::status_d(bytes, path)),
        2 => drop(dpkg::owned_files(bytes, "x", which & 32 != 0)),
        3 => drop(apk::installed(bytes, path)),
        4 => drop(python::metadata(bytes, path)),
        5 => drop(node::manifest(bytes, path)),
        6 => drop(ruby::specification(bytes, path)),
        7 => drop(php::installed(bytes, path)),
        8 => drop(php::lock(bytes, path)),
        9 => drop(dotnet::dependencies(bytes, path)),
        10 => drop(release::distribution(release::SIGNS.iter().map(|sign| (*sign, bytes)))),
        11 => drop(lock::npm(bytes, path)),
        12 => drop(lock::gemfile(bytes, path)),
        13 => drop(lock::go_mod(bytes, path)),
        14 => drop(lock::requirements(bytes, path)),
        15 => drop(lock::tables(bytes, path, Ecosystem::PyPi)),
        16 => drop(lock::tables(bytes, path, Ecosystem::Cargo)),
        17 => drop(lock::pipfile(bytes, path)),
        18 => drop(lock::nuget(bytes, path)),
        _ => {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            if let Ok(purl) = Purl::parse(text) {
                let written = purl.to_string();
                let again = Purl::parse(&written).expect("what was written is read");
                assert_eq!(again.to_string(), written);
            }
        }
    }
});
