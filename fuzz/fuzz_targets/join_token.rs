//! Join tokens and unlock keys.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // One text for each value: what parses is written the same.
    if let Ok(token) = brig_pki::token::JoinToken::parse(text) {
        assert_eq!(token.to_secret_string().expose_secret(), text.trim());
        assert_eq!(token.to_secret_string().expose_secret(), text.trim());
        assert!(brig_pki::token::JoinToken::text_matches(text, text.trim()));
    }
    if let Ok(key) = brig_pki::token::UnlockKey::parse(text) {
        assert_eq!(key.to_secret_string().expose_secret(), text.trim());
    }
});
