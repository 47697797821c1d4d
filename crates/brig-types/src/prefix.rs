//! Prefixes of image names, by which policies choose their rule.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::reference::Reference;

/// Why a text is not a prefix of image names. The texts say what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPrefix {
    /// It is neither a registry, nor a folder, nor a repository.
    #[error(
        "{0:?} is no prefix of image names: write \"*\" for all, \"registry:5000/\" for a registry, \
         \"registry:5000/team/\" for a folder, or a repository, with a tag if it is about one"
    )]
    Malformed(String),
    /// `registry:5000` could be a repository's tag.
    #[error("{0:?} may be a registry or a tag: write \"{0}/\" or \"docker.io/library/{0}\"")]
    Ambiguous(String),
    /// A digest names bytes and not a place.
    #[error("{0:?} has a digest, which a prefix cannot have")]
    Digest(String),
}

/// The beginning of an image's normalised name, in whole components: all images, a registry, a
/// folder or repository and all below it, or one tag of a repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImagePrefix {
    /// Without a slash at its end; empty for all.
    name: String,
    tag: Option<String>,
}

impl ImagePrefix {
    /// The prefix of every name.
    #[must_use]
    pub fn all() -> Self {
        Self { name: String::new(), tag: None }
    }

    /// Reads a prefix.
    ///
    /// # Errors
    /// [`InvalidPrefix`].
    pub fn parse(text: &str) -> Result<Self, InvalidPrefix> {
        let malformed = || InvalidPrefix::Malformed(text.to_owned());
        if text == "*" {
            return Ok(Self::all());
        }
        if text.contains('@') {
            return Err(InvalidPrefix::Digest(text.to_owned()));
        }
        if let Some(folder) = text.strip_suffix('/') {
            // The grammar of references judges the rest, as of a repository in this folder.
            let is_registry =
                !folder.contains('/') && (folder.contains(['.', ':']) || folder == "localhost");
            let inside = if is_registry { "/x/x" } else { "/x" };
            let image = Reference::parse(&format!("{folder}{inside}")).map_err(|_| malformed())?;
            let name = image.name();
            let name = name.strip_suffix(inside).ok_or_else(malformed)?;
            return Ok(Self { name: name.to_owned(), tag: None });
        }
        if text == "docker.io/library" {
            return Self::parse("docker.io/library/");
        }
        if !text.contains('/') {
            let port = text.split_once(':').map(|(_, port)| port);
            if port.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit())) {
                return Err(InvalidPrefix::Ambiguous(text.to_owned()));
            }
            if port.is_none() && (text.contains('.') || text == "localhost") {
                return Self::parse(&format!("{text}/"));
            }
        }
        let reference = Reference::parse(text).map_err(|_| malformed())?;
        Ok(Self { name: reference.name(), tag: reference.tag().map(ToOwned::to_owned) })
    }

    /// Whether it is the prefix of every name.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.name.is_empty()
    }

    /// Whether an image's name begins with it. A reference without a tag and with a digest has no
    /// tag that it could match.
    #[must_use]
    pub fn matches(&self, image: &Reference) -> bool {
        if self.is_all() {
            return true;
        }
        let name = image.name();
        let Some(rest) = name.strip_prefix(self.name.as_str()) else { return false };
        match &self.tag {
            Some(tag) => rest.is_empty() && image.tag() == Some(tag),
            None => rest.is_empty() || rest.starts_with('/'),
        }
    }

    /// How much it says: of two prefixes that match a name, the one with more decides.
    #[must_use]
    pub fn weight(&self) -> (usize, bool) {
        (self.name.len(), self.tag.is_some())
    }
}

impl fmt::Display for ImagePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.tag, self.name.as_str()) {
            (_, "") => f.write_str("*"),
            (Some(tag), name) => write!(f, "{name}:{tag}"),
            // Docker's own registry puts `library/` before a single component.
            (None, name) if name.strip_prefix("docker.io/").unwrap_or(name).contains('/') => {
                f.write_str(name)
            }
            (None, name) => write!(f, "{name}/"),
        }
    }
}

impl FromStr for ImagePrefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        Self::parse(text)
    }
}

impl TryFrom<String> for ImagePrefix {
    type Error = InvalidPrefix;

    fn try_from(text: String) -> Result<Self, InvalidPrefix> {
        Self::parse(&text)
    }
}

impl From<ImagePrefix> for String {
    fn from(prefix: ImagePrefix) -> Self {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(prefix: &str, image: &str) -> bool {
        ImagePrefix::parse(prefix).unwrap().matches(&Reference::parse(image).unwrap())
    }

    #[test]
    fn whole_components_match_and_parts_do_not() {
        for (prefix, image) in [
            ("*", "anything:1"),
            ("docker.io", "busybox"),
            ("docker.io/", "team/app"),
            ("docker.io/library/", "busybox:1"),
            ("docker.io/library", "busybox"),
            ("busybox", "docker.io/library/busybox:2"),
            ("busybox:v1", "busybox:v1"),
            ("registry:5000/", "registry:5000/a/b"),
            ("registry:5000/team", "registry:5000/team/app"),
            ("registry:5000/team/", "registry:5000/team/app"),
            ("registry:5000/team/app", "registry:5000/team/app:9"),
            ("team/", "team/app"),
            ("localhost", "localhost/app"),
        ] {
            assert!(matches(prefix, image), "{prefix} {image}");
        }
        for (prefix, image) in [
            ("docker.io/library", "docker.io/libraryx/app"),
            ("registry:5000/team", "registry:5000/teams/app"),
            ("registry:5000/team", "registry:5001/team"),
            ("busybox", "busybox2"),
            ("busybox:v1", "busybox:v11"),
            ("busybox:v1", "busybox"),
            ("registry/", "registry:5000/app"),
            ("example.com", "example.com.evil.org/app"),
        ] {
            assert!(!matches(prefix, image), "{prefix} {image}");
        }
    }

    #[test]
    fn what_could_be_meant_in_two_ways_is_refused() {
        assert!(matches!(ImagePrefix::parse("registry:5000"), Err(InvalidPrefix::Ambiguous(_))));
        assert!(matches!(ImagePrefix::parse("a@sha256:0"), Err(InvalidPrefix::Digest(_))));
        for text in ["", "/", "UPPER", "a//b", "a b", "**", "a/*"] {
            assert!(matches!(ImagePrefix::parse(text), Err(InvalidPrefix::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn what_is_printed_is_read_again() {
        for text in
            ["*", "docker.io", "busybox", "busybox:v1", "registry:5000/", "r:5000/a/b", "team/"]
        {
            let prefix = ImagePrefix::parse(text).unwrap();
            assert_eq!(ImagePrefix::parse(&prefix.to_string()), Ok(prefix.clone()), "{text}");
        }
    }
}
