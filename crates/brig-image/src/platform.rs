//! Operating system and processor of an image (OCI image spec, "platform").

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an image runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system, in Go's words: `linux`.
    #[serde(default)]
    pub os: String,
    /// Processor, in Go's words: `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// Variant of the processor: `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A string that is no `os/arch[/variant]`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is an invalid platform: expected os/architecture[/variant]")]
pub struct InvalidPlatform(String);

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Self {
        let (architecture, variant) = normalise(std::env::consts::ARCH, None);
        Self { os: std::env::consts::OS.to_owned(), architecture, variant }
    }

    /// Reads `os`, `os/arch`, `os/arch/variant` or `arch`, with the aliases people use (`x86_64`).
    ///
    /// # Errors
    /// [`InvalidPlatform`] for empty or strange parts.
    pub fn parse(text: &str) -> Result<Self, InvalidPlatform> {
        let invalid = || InvalidPlatform(text.chars().take(80).collect());
        let parts: Vec<&str> = text.split('/').collect();
        let plain = |p: &&str| {
            !p.is_empty()
                && p.len() <= 32
                && p.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        if !parts.iter().all(plain) {
            return Err(invalid());
        }
        let host = Self::host();
        match *parts.as_slice() {
            ["linux"] => Ok(host),
            [architecture] => Ok(Self::of("linux", architecture, None)),
            [os, architecture] => Ok(Self::of(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::of(os, architecture, Some(variant))),
            _ => Err(invalid()),
        }
    }

    /// A platform from its parts, normalised.
    #[must_use]
    pub fn of(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, variant) = normalise(architecture, variant);
        Self { os: os.to_ascii_lowercase(), architecture, variant }
    }

    /// How well an image for `candidate` runs where `self` is wanted: `None` not at all, else
    /// smaller is better.
    #[must_use]
    pub fn accepts(&self, candidate: &Self) -> Option<u8> {
        let candidate =
            Self::of(&candidate.os, &candidate.architecture, candidate.variant.as_deref());
        if self.os != candidate.os || self.architecture != candidate.architecture {
            return None;
        }
        let level = |variant: &Option<String>| -> Option<u8> {
            variant.as_deref().and_then(|v| v.strip_prefix('v')).and_then(|v| v.parse().ok())
        };
        match (self.variant.as_deref(), candidate.variant.as_deref()) {
            (a, b) if a == b => Some(0),
            (_, None) => Some(100),
            (None, Some(_)) => Some(101),
            // 32-bit ARM runs lower variants.
            (Some(_), Some(_)) if self.architecture == "arm" => {
                let (want, have) = (level(&self.variant)?, level(&candidate.variant)?);
                want.checked_sub(have)
            }
            (Some(_), Some(_)) => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

fn normalise(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.filter(|v| !v.is_empty()).map(str::to_ascii_lowercase);
    let (architecture, variant) = match architecture.as_str() {
        "x86_64" | "x86-64" => ("amd64", variant),
        "i386" | "i486" | "i586" | "i686" | "x86" => ("386", None),
        "aarch64" => ("arm64", variant),
        "armhf" => ("arm", Some("v7".to_owned())),
        "armel" => ("arm", Some("v6".to_owned())),
        "powerpc64le" => ("ppc64le", variant),
        other => (other, variant),
    };
    let variant = match (architecture, variant.as_deref()) {
        // The baseline is the same with or without its number.
        ("amd64", Some("v1")) | ("arm64", Some("8" | "v8")) => None,
        ("arm", None) => Some("v7".to_owned()),
        ("arm", Some(number)) if !number.starts_with('v') => Some(format!("v{number}")),
        _ => variant,
    };
    (architecture.to_owned(), variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_mean_the_same() {
        assert_eq!(Platform::parse("linux/x86_64").unwrap(), Platform::of("linux", "amd64", None));
        assert_eq!(Platform::parse("linux/arm64/v8").unwrap().to_string(), "linux/arm64");
        assert_eq!(Platform::parse("arm").unwrap().to_string(), "linux/arm/v7");
        for text in ["", "/", "linux/", "a/b/c/d", "linux/am d64", "../x/y z"] {
            assert!(Platform::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_closest_variant_wins() {
        let v7 = Platform::of("linux", "arm", Some("v7"));
        assert_eq!(v7.accepts(&Platform::of("linux", "arm", Some("v7"))), Some(0));
        assert_eq!(v7.accepts(&Platform::of("linux", "arm", Some("v6"))), Some(1));
        assert_eq!(v7.accepts(&Platform::of("linux", "arm", Some("v8"))), None);
        assert_eq!(v7.accepts(&Platform::of("linux", "arm64", None)), None);
        let amd64 = Platform::of("linux", "amd64", None);
        assert!(amd64.accepts(&Platform::of("unknown", "unknown", None)).is_none());
    }
}
