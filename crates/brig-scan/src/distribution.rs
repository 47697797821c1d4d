//! Which Linux distribution an image is made of.

use serde::{Deserialize, Serialize};

/// A distribution as the image's own files tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// `debian`, `ubuntu`, `alpine`, `almalinux`, …: os-release's `ID`, lower case.
    pub id: String,
    /// os-release's `ID_LIKE`, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub like: Vec<String>,
    /// `VERSION_ID`, or the version that an older sign gives: `12`, `22.04`, `3.19.1`, `9.3`. Debian
    /// testing and unstable have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `VERSION_CODENAME`: `bookworm`, `noble`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codename: Option<String>,
    /// A version more exact than `version`, where a file has one (`etc/debian_version`: `12.5`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point_release: Option<String>,
    /// The name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretty_name: Option<String>,
    /// The files that were the evidence, the deciding one first.
    pub known_by: Vec<String>,
    /// Signs that say another distribution than the deciding one, as `path: id version`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contradicted_by: Vec<String>,
}

impl Distribution {
    /// A distribution of which nothing but its name and version is known.
    pub fn new(id: impl Into<String>, version: Option<&str>) -> Self {
        Self {
            id: id.into(),
            like: Vec::new(),
            version: version.map(str::to_owned),
            codename: None,
            point_release: None,
            pretty_name: None,
            known_by: Vec::new(),
            contradicted_by: Vec::new(),
        }
    }

    /// The first number of the version: `9` of `9.3`.
    #[must_use]
    pub fn major(&self) -> Option<&str> {
        let version = self.version.as_deref()?;
        version.split('.').next().filter(|major| !major.is_empty())
    }

    /// The first two numbers of the version: `3.19` of `3.19.1`.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        let version = self.version.as_deref()?;
        let end = version.match_indices('.').nth(1).map_or(version.len(), |(at, _)| at);
        version.get(..end)
    }

    /// `debian-12`, as the `distro` qualifier of package URLs has it; a codename stands in for a
    /// missing version.
    #[must_use]
    pub fn qualifier(&self) -> String {
        match self.version.as_deref().or(self.codename.as_deref()) {
            Some(version) => format!("{}-{version}", self.id),
            None => self.id.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: Option<&str>) -> Distribution {
        Distribution { codename: Some("name".to_owned()), ..Distribution::new("x", version) }
    }

    #[test]
    fn numbers_of_a_version() {
        let exact = version(Some("3.19.1"));
        assert_eq!((exact.major(), exact.branch()), (Some("3"), Some("3.19")));
        assert_eq!(exact.qualifier(), "x-3.19.1");
        let short = version(Some("12"));
        assert_eq!((short.major(), short.branch()), (Some("12"), Some("12")));
        let none = version(None);
        assert_eq!((none.major(), none.branch()), (None, None));
        assert_eq!(none.qualifier(), "x-name");
    }
}
