//! RPM's databases: SQLite with and without its log, ndb, Berkeley DB, and a container's manifest. The
//! first byte says which.
#![no_main]

use brig_scan::parse::rpm;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&which, bytes)) = data.split_first() else { return };
    let path = "var/lib/rpm/rpmdb";
    let parsed = match which % 5 {
        0 => rpm::from_sqlite(bytes, None, path),
        1 => {
            // A length of the log, then the log, then the database.
            let Some((length, bytes)) = bytes.split_first_chunk::<2>() else { return };
            let at = usize::from(u16::from_be_bytes(*length)).min(bytes.len());
            let (log, file) = bytes.split_at(at);
            rpm::from_sqlite(file, Some(log), path)
        }
        2 => rpm::from_ndb(bytes, path),
        3 => rpm::from_bdb(bytes, path),
        _ => rpm::from_manifest(bytes, path),
    };
    if let Ok(parsed) = parsed {
        assert!(parsed.packages.iter().all(|package| !package.name.is_empty()));
    }
});
