//! Subnets in CIDR notation (RFC 4632, RFC 4291).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use brig_types::id::NetworkId;
use serde::{Deserialize, Serialize};

/// The prefix of local IPv6 subnets that nobody assigns (RFC 4193): `fd` and 40 random bits.
const UNIQUE_LOCAL: u128 = 0xfd << 120;

/// Text that is no subnet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub struct InvalidSubnet(String);

impl InvalidSubnet {
    /// The beginning of the text that is none.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.chars().take(80).collect())
    }
}

/// What subnets of both families have. A macro: traits have no `const` functions.
macro_rules! net {
    ($(#[$doc:meta])* $Net:ident, $Address:ident, $Bits:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $Net {
            network: $Bits,
            prefix_len: u8,
        }

        impl $Net {
            const BITS: u8 = if $Bits::BITS > 32 { 128 } else { 32 };
            const DIGITS: usize = if Self::BITS > 99 { 3 } else { 2 };
            /// Longest prefix that leaves room for a gateway and a container.
            pub(crate) const MAX_PREFIX_LEN: u8 = Self::BITS - 2;

            /// The subnet that `address` lies in; host bits are dropped. Lengths above an
            /// address's count as that.
            #[must_use]
            pub const fn new(address: $Address, prefix_len: u8) -> Self {
                let prefix_len = if prefix_len > Self::BITS { Self::BITS } else { prefix_len };
                Self { network: address.to_bits() & Self::mask(prefix_len), prefix_len }
            }

            const fn mask(prefix_len: u8) -> $Bits {
                match prefix_len {
                    0 => 0,
                    length => $Bits::MAX << (Self::BITS - length),
                }
            }

            /// The first address, which names the subnet.
            #[must_use]
            pub const fn network(self) -> $Address {
                $Address::from_bits(self.network)
            }

            /// The last address; for IPv4 the one to which broadcasts go.
            #[must_use]
            pub const fn last(self) -> $Address {
                $Address::from_bits(self.network | !Self::mask(self.prefix_len))
            }

            /// Number of leading bits that all addresses share.
            #[must_use]
            pub const fn prefix_len(self) -> u8 {
                self.prefix_len
            }

            /// Whether the address lies in the subnet.
            #[must_use]
            pub const fn contains(self, address: $Address) -> bool {
                address.to_bits() & Self::mask(self.prefix_len) == self.network
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

        impl fmt::Display for $Net {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.network(), self.prefix_len)
            }
        }

        impl fmt::Debug for $Net {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $Net {
            type Err = InvalidSubnet;

            fn from_str(text: &str) -> Result<Self, InvalidSubnet> {
                let invalid = || InvalidSubnet::new(text);
                let (address, length) = text.split_once('/').ok_or_else(invalid)?;
                let address: $Address = address.parse().map_err(|_| invalid())?;
                let digits = matches!(length.len(), 1..=Self::DIGITS);
                if !digits || !length.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(invalid());
                }
                match length.parse::<u8>() {
                    Ok(length) if length <= Self::BITS => Ok(Self::new(address, length)),
                    _ => Err(invalid()),
                }
            }
        }

        impl TryFrom<String> for $Net {
            type Error = InvalidSubnet;

            fn try_from(text: String) -> Result<Self, InvalidSubnet> {
                text.parse()
            }
        }

        impl From<$Net> for String {
            fn from(net: $Net) -> Self {
                net.to_string()
            }
        }
    };
}

net! {
    /// An IPv4 subnet: its first address and the length of its prefix. Host bits are always zero.
    Ipv4Net, Ipv4Addr, u32
}

net! {
    /// An IPv6 subnet: its first address and the length of its prefix. Host bits are always zero.
    Ipv6Net, Ipv6Addr, u128
}

impl Ipv4Net {
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

impl Ipv6Net {
    /// A subnet of 64 bits of its own for a network, from the range for such uses.
    #[must_use]
    pub fn unique_local(network: &NetworkId) -> Self {
        let digits = network.as_str().get(..10).unwrap_or_default();
        let random = u128::from_str_radix(digits, 16).unwrap_or(1);
        Self { network: UNIQUE_LOCAL | random << 80, prefix_len: 64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net4(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn net6(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    #[test]
    fn edges_of_a_subnet4() {
        let subnet = net4("172.17.3.4/16");
        assert_eq!(subnet.to_string(), "172.17.0.0/16");
        assert_eq!(subnet.last(), Ipv4Addr::new(172, 17, 255, 255));
        assert!(subnet.contains(Ipv4Addr::new(172, 17, 200, 1)));
        assert!(!subnet.contains(Ipv4Addr::new(172, 18, 0, 0)));
        assert_eq!(net4("0.0.0.0/0").last(), Ipv4Addr::BROADCAST);
        assert_eq!(net4("10.0.0.1/32").network(), Ipv4Addr::new(10, 0, 0, 1));
    }

    #[test]
    fn overlap_is_symmetric() {
        for (a, b, overlaps) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.0.0.0/16", "10.1.0.0/16", false),
            ("0.0.0.0/0", "192.168.0.0/24", true),
        ] {
            assert_eq!(net4(a).overlaps(net4(b)), overlaps);
            assert_eq!(net4(b).overlaps(net4(a)), overlaps);
        }
        assert!(net4("10.0.0.0/8").contains_net(net4("10.9.0.0/24")));
        assert!(!net4("10.9.0.0/24").contains_net(net4("10.0.0.0/8")));
    }

    #[test]
    fn splits_into_smaller_ones() {
        let parts: Vec<_> = net4("192.168.0.0/16").subnets(20).collect();
        assert_eq!(parts.len(), 16);
        assert_eq!(parts.get(1), Some(&net4("192.168.16.0/20")));
        assert_eq!(net4("10.0.0.0/24").subnets(16).count(), 0);
        assert_eq!(net4("255.255.255.0/24").subnets(32).count(), 256);
    }

    #[test]
    fn other_texts_are_no_ipv4_subnets() {
        for text in ["", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "a/8", "fd00::/64"]
        {
            assert!(text.parse::<Ipv4Net>().is_err(), "{text}");
        }
    }

    #[test]
    fn edges_and_overlap_of_ipv6() {
        let subnet = net6("fd00:1::7/64");
        assert_eq!(subnet.to_string(), "fd00:1::/64");
        assert_eq!(subnet.last().to_string(), "fd00:1::ffff:ffff:ffff:ffff");
        assert!(subnet.contains("fd00:1::9".parse().unwrap()));
        assert!(net6("fd00::/16").contains_net(subnet) && subnet.overlaps(net6("fd00::/16")));
        assert!(!subnet.overlaps(net6("fd00:2::/64")));
        assert!(net6("::/0").overlaps(subnet));
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
    fn other_texts_are_no_ipv6_subnets() {
        for text in ["", "fd00::", "fd00::/", "fd00::/129", "fd00::/+8", "x/8", "10.0.0.0/8"] {
            assert!(text.parse::<Ipv6Net>().is_err(), "{text}");
        }
    }
}
