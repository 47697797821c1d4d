//! IPv6 subnets in CIDR notation (RFC 4291).

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use brig_types::id::NetworkId;
use serde::{Deserialize, Serialize};

use crate::subnet::InvalidSubnet;

/// Longest prefix that leaves room for a gateway and a container.
pub(crate) const MAX_PREFIX_LEN: u8 = 126;
/// The prefix of local subnets that nobody assigns (RFC 4193): `fd` and 40 random bits.
const UNIQUE_LOCAL: u128 = 0xfd << 120;

/// A subnet: its first address and the length of its prefix. Host bits are always zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv6Net {
    network: u128,
    prefix_len: u8,
}

impl Ipv6Net {
    /// The subnet that `address` lies in; host bits are dropped. Lengths above 128 count as 128.
    #[must_use]
    pub const fn new(address: Ipv6Addr, prefix_len: u8) -> Self {
        let prefix_len = if prefix_len > 128 { 128 } else { prefix_len };
        Self { network: address.to_bits() & mask(prefix_len), prefix_len }
    }

    /// A subnet of 64 bits of its own for a network, from the range for such uses.
    #[must_use]
    pub fn unique_local(network: &NetworkId) -> Self {
        let digits = network.as_str().get(..10).unwrap_or_default();
        let random = u128::from_str_radix(digits, 16).unwrap_or(1);
        Self { network: UNIQUE_LOCAL | random << 80, prefix_len: 64 }
    }

    /// The first address, which names the subnet.
    #[must_use]
    pub const fn network(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.network)
    }

    /// The last address.
    #[must_use]
    pub const fn last(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.network | !mask(self.prefix_len))
    }

    /// Number of leading bits that all addresses share, 0 to 128.
    #[must_use]
    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// Whether the address lies in the subnet.
    #[must_use]
    pub const fn contains(self, address: Ipv6Addr) -> bool {
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
}

const fn mask(prefix_len: u8) -> u128 {
    match prefix_len {
        0 => 0,
        length => u128::MAX << (128 - length),
    }
}

impl fmt::Display for Ipv6Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network(), self.prefix_len)
    }
}

impl fmt::Debug for Ipv6Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Ipv6Net {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, InvalidSubnet> {
        let invalid = || InvalidSubnet::new(text);
        let (address, length) = text.split_once('/').ok_or_else(invalid)?;
        let address: Ipv6Addr = address.parse().map_err(|_| invalid())?;
        if length.is_empty() || length.len() > 3 || !length.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        match length.parse::<u8>() {
            Ok(length) if length <= 128 => Ok(Self::new(address, length)),
            _ => Err(invalid()),
        }
    }
}

impl TryFrom<String> for Ipv6Net {
    type Error = InvalidSubnet;

    fn try_from(text: String) -> Result<Self, InvalidSubnet> {
        text.parse()
    }
}

impl From<Ipv6Net> for String {
    fn from(net: Ipv6Net) -> Self {
        net.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    #[test]
    fn edges_and_overlap() {
        let subnet = net("fd00:1::7/64");
        assert_eq!(subnet.to_string(), "fd00:1::/64");
        assert_eq!(subnet.last().to_string(), "fd00:1::ffff:ffff:ffff:ffff");
        assert!(subnet.contains("fd00:1::9".parse().unwrap()));
        assert!(net("fd00::/16").contains_net(subnet) && subnet.overlaps(net("fd00::/16")));
        assert!(!subnet.overlaps(net("fd00:2::/64")));
        assert!(net("::/0").overlaps(subnet));
    }

    #[test]
    fn a_local_subnet_for_each_network() {
        let (a, b) = (NetworkId::generate(), NetworkId::generate());
        let subnet = Ipv6Net::unique_local(&a);
        assert_eq!((subnet.network().octets()[0], subnet.prefix_len()), (0xfd, 64));
        assert_eq!(subnet, Ipv6Net::unique_local(&a));
        assert!(!subnet.overlaps(Ipv6Net::unique_local(&b)));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "fd00::", "fd00::/", "fd00::/129", "fd00::/+8", "x/8", "10.0.0.0/8"] {
            assert!(text.parse::<Ipv6Net>().is_err(), "{text}");
        }
    }
}
