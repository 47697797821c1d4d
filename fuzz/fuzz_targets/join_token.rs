//! Join tokens and unlock keys.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = brig_pki::token::JoinToken::parse(text);
    let _ = brig_pki::token::UnlockKey::parse(text);
});
