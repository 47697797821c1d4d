//! Paths inside archives, made safe to resolve.

use crate::error::UnpackError;
use crate::limits::{MAX_COMPONENT, MAX_PATH};

/// A path below the layer's root: no `.`, no `..`, no empty component, no leading slash. Empty for
/// the root itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Reads an archive's path. Absolute paths are relative to the layer's root, as for docker.
    ///
    /// # Errors
    /// [`UnpackError::Escapes`] when `..` leads above the root, even for a moment;
    /// [`UnpackError::Invalid`] when it is too long or has a NUL.
    pub fn parse(raw: &[u8]) -> Result<Self, UnpackError> {
        if raw.len() > MAX_PATH {
            return Err(invalid(raw, "path is too long"));
        }
        if raw.contains(&0) {
            return Err(invalid(raw, "path has a NUL byte"));
        }
        let mut clean: Vec<&[u8]> = Vec::new();
        for component in raw.split(|&b| b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => {
                    if clean.pop().is_none() {
                        return Err(UnpackError::Escapes(display(raw)));
                    }
                }
                name if name.len() > MAX_COMPONENT => {
                    return Err(invalid(raw, "path component is too long"));
                }
                name => clean.push(name),
            }
        }
        Ok(Self(clean.join(&b'/')))
    }

    /// Whether this is the layer's root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The whole path.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Directory and last component; both empty for the root.
    #[must_use]
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|&b| b == b'/') {
            Some(at) => {
                let (parent, base) = self.0.split_at(at);
                (parent, base.get(1..).unwrap_or_default())
            }
            None => (&[], &self.0),
        }
    }
}

/// A path for messages: bounded, without control characters.
#[must_use]
pub fn display(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw)
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(300)
        .collect()
}

pub(crate) fn invalid(raw: &[u8], reason: &'static str) -> UnpackError {
    UnpackError::Invalid { entry: display(raw), reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_cleaned_and_escapes_refused() {
        for (raw, clean) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("a/../b", "b"),
            ("./", ""),
            ("", ""),
            ("...", "..."),
        ] {
            assert_eq!(EntryPath::parse(raw.as_bytes()).unwrap().as_bytes(), clean.as_bytes());
        }
        for raw in ["..", "../a", "a/../../b", "/..", "a/b/../../../a/b"] {
            let error = EntryPath::parse(raw.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), format!("layer entry {raw:?} escapes the root"));
        }
        assert!(EntryPath::parse(&[b'a'; 256]).is_err());
        assert!(EntryPath::parse(&b"a/".repeat(2050)).is_err());
        assert!(EntryPath::parse(b"a\0b").is_err());
        assert_eq!(EntryPath::parse(b"a/b/c").unwrap().split(), (&b"a/b"[..], &b"c"[..]));
    }

    proptest! {
        #[test]
        fn no_clean_path_has_a_special_component(raw in proptest::collection::vec(
            prop_oneof![Just(b'.'), Just(b'/'), Just(b'a'), any::<u8>()], 0..40)) {
            if let Ok(path) = EntryPath::parse(&raw)
                && !path.is_root()
            {
                for component in path.as_bytes().split(|&b| b == b'/') {
                    prop_assert!(!matches!(component, b"" | b"." | b".."));
                }
            }
        }
    }
}
