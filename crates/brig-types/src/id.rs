//! Identifiers: 64 hexadecimal digits for objects of one node, 25 base-36 digits for objects of
//! the cluster.
//!
//! The cluster form is SwarmKit's: 17 random bytes with the top bit set, printed in base 36, first
//! digit dropped, 25 digits kept.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Length of a node-local id in hexadecimal digits.
pub const HEX_ID_LEN: usize = 64;
/// Length of the short form that listings print.
pub const SHORT_ID_LEN: usize = 12;
/// Length of a cluster object's id.
pub const SWARM_ID_LEN: usize = 25;

/// A string that is not an id of the expected shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a valid {kind} id")]
pub struct InvalidId {
    kind: &'static str,
    value: String,
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    // The kernel's generator cannot fail once the system has booted; without it nothing that
    // follows could be safe, so there is no error to hand on.
    #[allow(clippy::expect_used)]
    getrandom::fill(&mut bytes).expect("the kernel's random number generator answers");
    bytes
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A random 64-digit hexadecimal id, for objects that need no type of their own.
#[must_use]
pub fn random_hex() -> String {
    hex(&random::<32>())
}

/// Prints bytes as one big-endian number in base 36, most significant digit first, without
/// padding.
#[must_use]
pub fn base36(bytes: &[u8]) -> String {
    let mut number = bytes.to_vec();
    let mut digits = Vec::new();
    while number.iter().any(|&byte| byte != 0) {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 36).unwrap_or(u8::MAX);
            remainder = value % 36;
        }
        digits.push(char::from_digit(remainder, 36).unwrap_or('0'));
    }
    digits.iter().rev().collect()
}

fn swarm_id_from(mut bytes: [u8; 17]) -> String {
    if let Some(first) = bytes.first_mut() {
        *first |= 0x80;
    }
    base36(&bytes).chars().skip(1).take(SWARM_ID_LEN).collect()
}

/// A random cluster object id, for objects that need no type of their own.
#[must_use]
pub fn random_swarm_id() -> String {
    swarm_id_from(random::<17>())
}

fn is_hex_id(text: &str) -> bool {
    text.len() == HEX_ID_LEN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_swarm_id(text: &str) -> bool {
    text.len() == SWARM_ID_LEN && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'z'))
}

macro_rules! ids {
    ($valid:ident, $generate:path, $( $(#[$doc:meta])* $name:ident = $kind:literal ),+ $(,)?) => { $(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// A new random id.
            #[must_use]
            pub fn generate() -> Self {
                Self($generate())
            }

            /// Reads a full id.
            ///
            /// # Errors
            /// [`InvalidId`] when length or alphabet are wrong.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                if $valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidId { kind: $kind, value: text.chars().take(80).collect() })
                }
            }

            /// The whole id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first twelve characters, as listings print them.
            #[must_use]
            pub fn short(&self) -> &str {
                self.0.get(..SHORT_ID_LEN).unwrap_or(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )+ };
}

ids! { is_hex_id, random_hex,
    /// A container.
    ContainerId = "container",
    /// One process started in a running container.
    ExecId = "exec",
    /// A network of one node.
    NetworkId = "network",
    /// One attachment of a container to a network.
    EndpointId = "endpoint",
}

ids! { is_swarm_id, random_swarm_id,
    /// A cluster; also the organisation in every node certificate.
    ClusterId = "cluster",
    /// A node of the cluster; also the common name of its certificate.
    NodeId = "node",
    /// A service.
    ServiceId = "service",
    /// One task of a service.
    TaskId = "task",
    /// A secret.
    SecretId = "secret",
    /// A config.
    ConfigId = "config",
    /// A network of the cluster.
    SwarmNetworkId = "network",
    /// A session of an agent with a dispatcher.
    SessionId = "session",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swarm_id_follows_swarmkits_rule() {
        let mut bytes = [0_u8; 17];
        for (i, byte) in bytes.iter_mut().enumerate().skip(1) {
            *byte = u8::try_from(i - 1).unwrap();
        }
        bytes[0] = 0x80;
        assert_eq!(swarm_id_from(bytes), "hvy0wel6hpfm1nhkp0oqqavkz");
    }

    #[test]
    fn generated_ids_parse_and_differ() {
        let (a, b) = (NodeId::generate(), NodeId::generate());
        assert_ne!(a, b);
        assert_eq!(NodeId::parse(a.as_str()), Ok(a));
        let c = ContainerId::generate();
        assert_eq!(c.short().len(), SHORT_ID_LEN);
        assert_eq!(ContainerId::parse(c.as_str()), Ok(c));
    }

    #[test]
    fn wrong_shapes_are_refused() {
        for text in ["", "abc", &"g".repeat(64), &"A".repeat(64), "../etc"] {
            assert!(ContainerId::parse(text).is_err(), "{text}");
            assert!(TaskId::parse(text).is_err(), "{text}");
        }
    }
}
