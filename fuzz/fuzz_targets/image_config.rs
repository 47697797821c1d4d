//! Configurations of images, and the directives of `import --change`.
#![no_main]

use brig_image::{ImageConfig, RunConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(data) {
        let _ = (config.created_at(), config.platform());
        // What was read is written in a way that is read again.
        let text = serde_json::to_vec(&config).expect("it can be written");
        let again: ImageConfig = serde_json::from_slice(&text).expect("and read");
        assert_eq!(again, config);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let mut config = RunConfig::default();
        for line in text.lines() {
            let _ = brig_image::changes::apply(&mut config, line);
        }
    }
});
