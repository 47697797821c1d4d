//! The key sequence that takes a client off a container (`ctrl-p,ctrl-q`).

use crate::error::EngineError;

/// Longest accepted sequence, in keys.
pub const MAX_KEYS: usize = 16;

/// A checked key sequence, as the bytes a terminal sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl DetachKeys {
    /// Reads docker's notation: keys with commas between, a key is one character or `ctrl-` and a
    /// letter or one of `@[\]^_`. Empty means none.
    ///
    /// # Errors
    /// [`EngineError::Invalid`].
    pub fn parse(text: &str) -> Result<Option<Self>, EngineError> {
        if text.is_empty() {
            return Ok(None);
        }
        let invalid = || {
            EngineError::Invalid(format!(
                "Invalid detach keys ({}) provided",
                text.chars().take(80).collect::<String>()
            ))
        };
        let keys: Vec<u8> = text
            .split(',')
            .map(|key| match key.as_bytes() {
                [byte] => Some(*byte),
                [b'c', b't', b'r', b'l', b'-', letter] => match letter {
                    b'a'..=b'z' => Some(letter - b'a' + 1),
                    b'@' => Some(0),
                    b'[' => Some(27),
                    b'\\' => Some(28),
                    b']' => Some(29),
                    b'^' => Some(30),
                    b'_' => Some(31),
                    _ => None,
                },
                _ => None,
            })
            .collect::<Option<_>>()
            .ok_or_else(invalid)?;
        if keys.len() > MAX_KEYS { Err(invalid()) } else { Ok(Some(Self(keys))) }
    }
}

/// Watches a client's input for the sequence, across reads.
#[derive(Clone, Debug)]
pub struct DetachFilter {
    keys: Vec<u8>,
    matched: usize,
}

/// What to do with a piece of input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filtered {
    /// What goes to the process.
    pub forward: Vec<u8>,
    /// The sequence was completed: the client leaves.
    pub detach: bool,
}

impl DetachFilter {
    /// A filter for one client.
    #[must_use]
    pub fn new(keys: DetachKeys) -> Self {
        Self { keys: keys.0, matched: 0 }
    }

    /// Takes the next input. A begun sequence is held back until it is completed or broken.
    pub fn feed(&mut self, input: &[u8]) -> Filtered {
        let mut forward = Vec::with_capacity(input.len());
        for &byte in input {
            loop {
                if self.keys.get(self.matched) == Some(&byte) {
                    self.matched += 1;
                    if self.matched == self.keys.len() {
                        return Filtered { forward, detach: true };
                    }
                    break;
                }
                if self.matched == 0 {
                    forward.push(byte);
                    break;
                }
                // Broken: give out what can no longer begin the sequence, then look at the byte
                // again with the longest beginning that still fits.
                let held = self.matched;
                let keep = (0..held)
                    .rev()
                    .find(|&n| self.keys.get(..n) == self.keys.get(held - n..held))
                    .unwrap_or(0);
                forward.extend(self.keys.iter().take(held - keep));
                self.matched = keep;
            }
        }
        Filtered { forward, detach: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> DetachFilter {
        DetachFilter::new(DetachKeys::parse(text).unwrap().unwrap())
    }

    #[test]
    fn notation() {
        assert_eq!(DetachKeys::parse("ctrl-p,ctrl-q").unwrap(), Some(DetachKeys(vec![16, 17])));
        assert_eq!(DetachKeys::parse("a,ctrl-[").unwrap(), Some(DetachKeys(vec![b'a', 27])));
        assert_eq!(DetachKeys::parse("").unwrap(), None);
        for bad in ["ctrl-", "ctrl-P", "ab", "a,,b", "ctrl-1"] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn detaches_across_reads_and_returns_what_was_held() {
        let mut keys = filter("ctrl-p,ctrl-q");
        assert_eq!(keys.feed(b"ab\x10"), Filtered { forward: b"ab".to_vec(), detach: false });
        assert_eq!(keys.feed(b"x"), Filtered { forward: b"\x10x".to_vec(), detach: false });
        assert!(!keys.feed(b"\x10").detach);
        assert!(keys.feed(b"\x11").detach);
    }

    #[test]
    fn overlapping_beginnings_are_found() {
        let mut keys = filter("a,a,b");
        let result = keys.feed(b"aaab");
        assert_eq!(result, Filtered { forward: b"a".to_vec(), detach: true });
    }

    proptest! {
        #[test]
        fn without_the_sequence_all_input_arrives(input in prop::collection::vec(0_u8..16, 0..200), cuts in prop::collection::vec(1..9_usize, 1..40)) {
            let mut keys = filter("ctrl-p,ctrl-q");
            let mut output = Vec::new();
            let mut rest = input.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                let result = keys.feed(now);
                prop_assert!(!result.detach);
                output.extend(result.forward);
                rest = later;
            }
            prop_assert_eq!(output, input);
        }
    }
}
