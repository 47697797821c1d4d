//! The key sequence that leaves a container running (`ctrl-p,ctrl-q`).

use crate::error::{Result, message};

/// Docker's default.
pub(crate) const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Reads `ctrl-p,ctrl-q`, `a,b`, `ctrl-@` …; empty text is no sequence.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>> {
    let invalid = || message(format!("invalid detach keys ({text}): unknown key"));
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(',')
        .map(|key| {
            let ctrl = key.strip_prefix("ctrl-").filter(|k| !k.is_empty());
            match (ctrl.unwrap_or(key).as_bytes(), ctrl.is_some()) {
                ([letter @ b'a'..=b'z'], true) => Ok(letter - b'a' + 1),
                (b"@", true) => Ok(0),
                (b"[", true) => Ok(27),
                (b"\\", true) => Ok(28),
                (b"]", true) => Ok(29),
                (b"^", true) => Ok(30),
                (b"_", true) => Ok(31),
                ([byte], false) if byte.is_ascii() => Ok(*byte),
                _ => Err(invalid()),
            }
        })
        .collect()
}

/// Watches input for the sequence. What might be its beginning is held back until it is clear.
#[derive(Debug)]
pub(crate) struct Filter {
    keys: Vec<u8>,
    matched: usize,
}

impl Filter {
    /// A filter for a sequence; an empty one never matches.
    pub(crate) const fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// What of the input goes on, and whether the sequence is complete.
    pub(crate) fn feed(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(input.len() + self.keys.len());
        for &byte in input {
            loop {
                if self.keys.get(self.matched) == Some(&byte) {
                    self.matched += 1;
                    if self.matched == self.keys.len() {
                        self.matched = 0;
                        return (out, true);
                    }
                    break;
                }
                if self.matched == 0 {
                    out.push(byte);
                    break;
                }
                // Not the sequence after all: what was held back goes on, the byte is looked at
                // again as a possible beginning.
                out.extend_from_slice(self.keys.get(..self.matched).unwrap_or_default());
                self.matched = 0;
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_read() {
        assert_eq!(parse(DEFAULT).unwrap(), [16, 17]);
        assert_eq!(parse("a,ctrl-@,ctrl-]").unwrap(), [b'a', 0, 29]);
        assert!(parse("").unwrap().is_empty());
        for text in ["ctrl-", "ctrl-A", "ab", "a,,b"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_sequence_is_found_across_reads_and_false_starts_go_on() {
        let mut filter = Filter::new(vec![16, 17]);
        assert_eq!(filter.feed(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(filter.feed(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(filter.feed(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(filter.feed(b"\x11z"), (Vec::new(), true));
        assert_eq!(Filter::new(Vec::new()).feed(b"\x10\x11"), (vec![16, 17], false));
    }

    proptest::proptest! {
        #[test]
        fn without_the_sequence_nothing_is_lost(input in proptest::collection::vec(0_u8..16, 0..60), cut in 1..10_usize) {
            let mut filter = Filter::new(vec![16, 17]);
            let mut out = Vec::new();
            for part in input.chunks(cut) {
                let (passed, detached) = filter.feed(part);
                out.extend(passed);
                proptest::prop_assert!(!detached);
            }
            proptest::prop_assert_eq!(out, input);
        }
    }
}
