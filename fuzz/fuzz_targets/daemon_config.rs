//! The daemon's configuration file.
#![no_main]

use brigd::cli::Flags;
use brigd::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), data).expect("it is written");
    let mut flags = Flags::default();
    flags.config_file = Some(file.path().to_owned());
    if let Ok(config) = Config::load(&flags) {
        // What is the same when it is read again needs no restart.
        let again = Config::load(&flags).expect("it was read before");
        assert!(config.differences(&again).is_empty());
    }
});
