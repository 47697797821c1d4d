//! The addresses of the machine's interfaces, for whoever names one instead of an address.

use std::fs;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv6Addr};

use crate::netlink::route::RouteSocket;

/// Where the kernel lists IPv6 addresses.
const IPV6_TABLE: &str = "/proc/net/if_inet6";
/// Longest such table.
const MAX_TABLE: u64 = 1 << 20;

/// Why an interface's name is no address. The texts are Docker's.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The interface has none.
    #[error("interface {0} has no usable IPv4 or IPv6 address")]
    None(String),
    /// It has several, and none is the right one.
    #[error("interface {name} has more than one {family} address ({first} and {second})")]
    Several {
        /// The interface.
        name: String,
        /// IPv4 or IPv6.
        family: &'static str,
        /// One of them.
        first: IpAddr,
        /// Another one.
        second: IpAddr,
    },
    /// The kernel does not say.
    #[error("the addresses of interface {name} cannot be read")]
    Io {
        /// The interface.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The one address of an interface, an IPv4 one if it has both; `None` if there is no interface of
/// that name.
///
/// # Errors
/// [`InterfaceError`], when it has none or several.
pub fn interface_address(name: &str) -> Result<Option<IpAddr>, InterfaceError> {
    let failed = |source| InterfaceError::Io { name: name.to_owned(), source };
    let mut socket = RouteSocket::open().map_err(failed)?;
    let links = socket.links().map_err(failed)?;
    let Some(link) = links.into_iter().find(|link| link.name == name) else {
        return Ok(None);
    };
    let found = socket.addresses().map_err(failed)?.into_iter();
    let of_link = found.filter(|(index, ..)| *index == link.index);
    let v4: Vec<IpAddr> = of_link.map(|(_, address, _)| IpAddr::V4(address)).collect();
    let mut table = String::new();
    // Absent where there is no IPv6.
    if let Ok(file) = fs::File::open(IPV6_TABLE) {
        file.take(MAX_TABLE).read_to_string(&mut table).map_err(failed)?;
    }
    choose(name, &v4, &listed6(&table, name)).map(Some)
}

fn choose(name: &str, v4: &[IpAddr], v6: &[IpAddr]) -> Result<IpAddr, InterfaceError> {
    for (family, found) in [("IPv4", v4), ("IPv6", v6)] {
        if let [first, second, ..] = found {
            let (name, first, second) = (name.to_owned(), *first, *second);
            return Err(InterfaceError::Several { name, family, first, second });
        }
    }
    let one = v4.first().or(v6.first()).copied();
    one.ok_or_else(|| InterfaceError::None(name.to_owned()))
}

fn listed6(table: &str, name: &str) -> Vec<IpAddr> {
    let read = |line: &str| {
        let mut fields = line.split_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        (fields.nth(4)? == name).then(|| IpAddr::V6(Ipv6Addr::from(address)))
    };
    table.lines().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces_are_addresses() {
        assert_eq!(interface_address("lo").unwrap(), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(interface_address("no-such-link").unwrap(), None);
    }

    #[test]
    fn one_address_is_chosen_and_several_are_none() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (a, b, six) = (ip("10.0.0.1"), ip("10.0.0.2"), ip("fd00::1"));
        assert_eq!(choose("x", &[a], &[six]).unwrap(), a);
        assert_eq!(choose("x", &[], &[six]).unwrap(), six);
        let several = choose("x", &[a, b], &[]).unwrap_err().to_string();
        assert_eq!(several, "interface x has more than one IPv4 address (10.0.0.1 and 10.0.0.2)");
        assert!(matches!(choose("x", &[], &[]), Err(InterfaceError::None(_))));
        let table = "fe800000000000000042acfffe110002 02 40 20 80     eth0\n\
                     00000000000000000000000000000001 01 80 10 80       lo\nnonsense\n";
        assert_eq!(listed6(table, "lo"), [ip("::1")]);
        assert_eq!(listed6(table, "eth0"), [ip("fe80::42:acff:fe11:2")]);
        assert_eq!(listed6(table, "eth1"), [] as [IpAddr; 0]);
    }
}
