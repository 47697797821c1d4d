//! IPv4 subnets in CIDR notation (RFC 4632).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A subnet: its first address and the length of its prefix. Host bits are always zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Net {
    network: u32,
    prefix_len: u8,
}

/// Text that is no IPv4 subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub struct InvalidSubnet(String);

impl InvalidSubnet {
    /// The beginning of the text that is none.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.chars().take(80).collect())
    }
}

/// Longest prefix that leaves room for a gateway and a container.
pub(crate) const MAX_PREFIX_LEN: u8 = 30;

impl Ipv4Net {
    /// The subnet that `address` lies in; host bits are dropped. Lengths above 32 count as 32.
    #[must_use]
    pub const fn new(address: Ipv4Addr, prefix_len: u8) -> Self {
        let prefix_len = if prefix_len > 32 { 32 } else { prefix_len };
        Self { network: address.to_bits() & mask(prefix_len), prefix_len }
    }

    /// The first address, which names the subnet.
    #[must_use]
    pub const fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network)
    }

    /// The last address, to which broadcasts go.
    #[must_use]
    pub const fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network | !mask(self.prefix_len))
    }

    /// Number of leading bits that all addresses share, 0 to 32.
    #[must_use]
    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// Whether the address lies in the subnet.
    #[must_use]
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix_len) == self.network
    }

    /// Whether all of `other` lies in this subnet.
    #[must_use]
    pub const fn contains_net(self, other: Self) -> bool {
        self.prefix_len <= other.prefix_len && self.contains(other.network())
    }

    /// Whether the two subnets share an address.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }

    /// The subnets of length `prefix_len` within this one, in order.
    pub fn subnets(self, prefix_len: u8) -> impl Iterator<Item = Self> {
        let valid = prefix_len >= self.prefix_len && prefix_len <= 32;
        let count = if valid { 1_u64 << (prefix_len - self.prefix_len) } else { 0 };
        let step = 1_u64 << (32 - u64::from(prefix_len.min(32)));
        let first = u64::from(self.network);
        (0..count).filter_map(move |index| {
            let network = u32::try_from(first + index * step).ok()?;
            Some(Self { network, prefix_len })
        })
    }
}

const fn mask(prefix_len: u8) -> u32 {
    match prefix_len {
        0 => 0,
        length => u32::MAX << (32 - length),
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix_len)
    }
}

impl fmt::Debug for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Ipv4Net {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, InvalidSubnet> {
        let invalid = || InvalidSubnet::new(text);
        let (address, length) = text.split_once('/').ok_or_else(invalid)?;
        let address: Ipv4Addr = address.parse().map_err(|_| invalid())?;
        if length.is_empty() || length.len() > 2 || !length.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        match length.parse::<u8>() {
            Ok(length) if length <= 32 => Ok(Self::new(address, length)),
            _ => Err(invalid()),
        }
    }
}

impl TryFrom<String> for Ipv4Net {
    type Error = InvalidSubnet;

    fn try_from(text: String) -> Result<Self, InvalidSubnet> {
        text.parse()
    }
}

impl From<Ipv4Net> for String {
    fn from(net: Ipv4Net) -> Self {
        net.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    #[test]
    fn edges_of_a_subnet() {
        let subnet = net("172.17.3.4/16");
        assert_eq!(subnet.to_string(), "172.17.0.0/16");
        assert_eq!(subnet.broadcast(), Ipv4Addr::new(172, 17, 255, 255));
        assert!(subnet.contains(Ipv4Addr::new(172, 17, 200, 1)));
        assert!(!subnet.contains(Ipv4Addr::new(172, 18, 0, 0)));
        assert_eq!(net("0.0.0.0/0").broadcast(), Ipv4Addr::BROADCAST);
        assert_eq!(net("10.0.0.1/32").network(), Ipv4Addr::new(10, 0, 0, 1));
    }

    #[test]
    fn overlap_is_symmetric() {
        for (a, b, overlaps) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.0.0.0/16", "10.1.0.0/16", false),
            ("0.0.0.0/0", "192.168.0.0/24", true),
        ] {
            assert_eq!(net(a).overlaps(net(b)), overlaps);
            assert_eq!(net(b).overlaps(net(a)), overlaps);
        }
        assert!(net("10.0.0.0/8").contains_net(net("10.9.0.0/24")));
        assert!(!net("10.9.0.0/24").contains_net(net("10.0.0.0/8")));
    }

    #[test]
    fn splits_into_smaller_ones() {
        let parts: Vec<_> = net("192.168.0.0/16").subnets(20).collect();
        assert_eq!(parts.len(), 16);
        assert_eq!(parts.get(1), Some(&net("192.168.16.0/20")));
        assert_eq!(net("10.0.0.0/24").subnets(16).count(), 0);
        assert_eq!(net("255.255.255.0/24").subnets(32).count(), 256);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "a/8", "fd00::/64"]
        {
            assert!(text.parse::<Ipv4Net>().is_err(), "{text}");
        }
    }
}
