//! Names that people give to containers, volumes, networks and cluster objects.

/// A name that breaks the rule of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// A container name with a foreign character.
    #[error("Invalid container name ({0}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Container(String),
    /// A cluster object's name that is no DNS name component.
    #[error("name must be valid as a DNS name component")]
    DnsComponent,
    /// A secret or config name outside its alphabet or length.
    #[error(
        "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]"
    )]
    SecretOrConfig,
    /// No name at all.
    #[error("name must be provided")]
    Missing,
}

const MAX_DNS_COMPONENT: usize = 63;
const MAX_SECRET_NAME: usize = 64;

/// Whether `name` has the shape `[a-zA-Z0-9][a-zA-Z0-9_.-]+` of container, volume and network
/// names.
#[must_use]
pub fn is_restricted_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() >= 2
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Checks a container's name; a leading slash is dropped, as docker does.
///
/// # Errors
/// [`InvalidName::Container`].
pub fn container_name(name: &str) -> Result<&str, InvalidName> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    if is_restricted_name(bare) {
        Ok(bare)
    } else {
        Err(InvalidName::Container(name.chars().take(120).collect()))
    }
}

/// Checks a service's name: one DNS label, letters, digits and inner dashes, or underscores.
///
/// # Errors
/// [`InvalidName::Missing`] or [`InvalidName::DnsComponent`].
pub fn service_name(name: &str) -> Result<&str, InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Missing);
    }
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let valid = name.len() <= MAX_DNS_COMPONENT
        && edge(name.bytes().next())
        && edge(name.bytes().last())
        && name.bytes().all(inner);
    valid.then_some(name).ok_or(InvalidName::DnsComponent)
}

/// Checks a secret's or config's name.
///
/// # Errors
/// [`InvalidName::Missing`] or [`InvalidName::SecretOrConfig`].
pub fn secret_name(name: &str) -> Result<&str, InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Missing);
    }
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let valid = name.len() <= MAX_SECRET_NAME
        && edge(name.bytes().next())
        && edge(name.bytes().last())
        && name.bytes().all(inner);
    valid.then_some(name).ok_or(InvalidName::SecretOrConfig)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_names() {
        assert_eq!(container_name("/web.1"), Ok("web.1"));
        for bad in ["", "x_!", "-a", "a", "a/b", "a b", "ä1"] {
            assert!(container_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn service_and_secret_names() {
        assert!(service_name("my_service").is_ok());
        assert!(secret_name("db.pass-1").is_ok());
        let long = "a".repeat(65);
        for bad in ["", "-a", "a-", "a/b", "a b", &long] {
            assert!(service_name(bad).is_err(), "{bad}");
            assert!(secret_name(bad).is_err(), "{bad}");
        }
    }
}
