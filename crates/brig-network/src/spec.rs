//! What a network is asked to be, and the checks that turn the request into a record.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use brig_types::id::NetworkId;
use brig_types::{Labels, name};
use serde::{Deserialize, Serialize};

use crate::error::NetworkError;
use crate::subnet::{Ipv4Net, Ipv6Net};

/// Name of the network that containers join when nobody says otherwise.
pub const BRIDGE: &str = "bridge";
/// Name of the network that shares the host's interfaces.
pub const HOST: &str = "host";
/// Name of the network without any interface but loopback.
pub const NONE: &str = "none";
/// The network mode that means [`BRIDGE`].
pub const DEFAULT: &str = "default";

const OPTION_BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const OPTION_ICC: &str = "com.docker.network.bridge.enable_icc";
const OPTION_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const OPTION_HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const OPTION_MTU: &str = "com.docker.network.driver.mtu";
const OPTION_CONTAINER_PREFIX: &str = "com.docker.network.container_iface_prefix";

/// Longest interface name (IFNAMSIZ without its terminator).
const MAX_INTERFACE_NAME: usize = 15;
const DEFAULT_MTU: u32 = 1500;
const MIN_MTU: u32 = 68;
const MAX_MTU: u32 = 65_535;

/// A driver that brig has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A Linux bridge with address translation.
    Bridge,
    /// The host's own interfaces.
    Host,
    /// Loopback only.
    Null,
}

impl Driver {
    /// The name in `network ls`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

/// A request for a user-defined network, with the texts of the API still unread.
#[derive(Clone, Debug, Default)]
pub struct NetworkSpec {
    /// The network's name.
    pub name: String,
    /// The driver; empty means `bridge`.
    pub driver: String,
    /// IPAM driver; empty means `default`.
    pub ipam_driver: String,
    /// Options of the IPAM driver, kept for inspection.
    pub ipam_options: BTreeMap<String, String>,
    /// At most one subnet of each family; none means one from the pools.
    pub subnets: Vec<SubnetSpec>,
    /// Whether containers are cut off from everything outside the network.
    pub internal: bool,
    /// Kept for inspection; containers may attach to any local network.
    pub attachable: bool,
    /// Whether containers get IPv6 addresses too.
    pub ipv6: bool,
    /// Free-form labels.
    pub labels: Labels,
    /// Driver options, `com.docker.network.*`.
    pub options: BTreeMap<String, String>,
}

/// One entry of the API's `IPAM.Config`.
#[derive(Clone, Debug, Default)]
pub struct SubnetSpec {
    /// CIDR; empty means one from the pools.
    pub subnet: String,
    /// CIDR within the subnet that addresses are taken from; empty means all of it.
    pub ip_range: String,
    /// The bridge's own address; empty means the first of the subnet (or of the range).
    pub gateway: String,
    /// Addresses that are never given to containers, by name.
    pub aux_addresses: BTreeMap<String, String>,
}

/// The addresses of a bridge network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam {
    /// The subnet.
    pub subnet: Ipv4Net,
    /// The part of it that addresses are taken from, if it was narrowed.
    pub ip_range: Option<Ipv4Net>,
    /// The bridge's own address, the containers' gateway.
    pub gateway: Ipv4Addr,
    /// Addresses that are never given to containers, by name.
    pub aux_addresses: BTreeMap<String, Ipv4Addr>,
    /// Whether the user chose the subnet; only then may containers choose addresses.
    pub user_subnet: bool,
    /// Whether the user named the gateway.
    pub user_gateway: bool,
    /// IPAM driver options as given.
    pub options: BTreeMap<String, String>,
    /// The IPv6 side, if the network has one.
    #[serde(default)]
    pub v6: Option<Ipam6>,
}

/// The IPv6 addresses of a bridge network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipam6 {
    /// The subnet.
    pub subnet: Ipv6Net,
    /// The part of it that addresses are taken from, if it was narrowed.
    pub ip_range: Option<Ipv6Net>,
    /// The bridge's own address, the containers' gateway.
    pub gateway: Ipv6Addr,
    /// Addresses that are never given to containers, by name.
    pub aux_addresses: BTreeMap<String, Ipv6Addr>,
    /// Whether the user chose the subnet; only then may containers choose addresses.
    pub user_subnet: bool,
}

impl Ipam6 {
    /// A subnet's addresses without anything special about them.
    pub(crate) fn plain(subnet: Ipv6Net) -> Self {
        Self {
            subnet,
            ip_range: None,
            gateway: Ipv6Addr::from_bits(subnet.network().to_bits().saturating_add(1)),
            aux_addresses: BTreeMap::new(),
            user_subnet: false,
        }
    }
}

/// What the driver options say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeSettings {
    /// Name of the Linux bridge.
    pub name: String,
    /// Whether containers of the network reach each other.
    pub icc: bool,
    /// Whether the containers' addresses are hidden behind the host's.
    pub masquerade: bool,
    /// Where ports are published that name no host address.
    pub host_binding: Option<Ipv4Addr>,
    /// Largest packet, in bytes.
    pub mtu: u32,
}

/// A network as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// The id.
    pub id: NetworkId,
    /// The name.
    pub name: String,
    /// The driver.
    pub driver: Driver,
    /// When it was created, in nanoseconds since 1970.
    pub created_unix_nanos: i64,
    /// Cut off from everything outside.
    pub internal: bool,
    /// As asked for.
    pub attachable: bool,
    /// Free-form labels.
    pub labels: Labels,
    /// Driver options as given.
    pub options: BTreeMap<String, String>,
    /// Addresses; only bridges have them.
    pub ipam: Option<Ipam>,
    /// Settings; only bridges have them.
    pub bridge: Option<BridgeSettings>,
}

impl NetworkRecord {
    /// Whether it is one of `bridge`, `host` and `none`.
    #[must_use]
    pub fn predefined(&self) -> bool {
        is_predefined(&self.name)
    }

    /// Whether its containers find each other by name.
    #[must_use]
    pub fn has_names(&self) -> bool {
        self.driver == Driver::Bridge && !self.predefined()
    }
}

/// Whether the name belongs to a network that always exists.
#[must_use]
pub fn is_predefined(name: &str) -> bool {
    matches!(name, BRIDGE | HOST | NONE | DEFAULT)
}

/// A request whose every text has been read.
#[derive(Clone, Debug)]
pub(crate) struct CheckedSpec {
    pub(crate) name: String,
    pub(crate) subnet: Option<Ipv4Net>,
    pub(crate) ip_range: Option<Ipv4Net>,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) aux_addresses: BTreeMap<String, Ipv4Addr>,
    pub(crate) v6: Checked6,
}

/// What is asked for of IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Checked6 {
    No,
    /// With a subnet that is still to be chosen.
    AnySubnet,
    Chosen(Ipam6),
}

impl NetworkSpec {
    /// Reads the request's texts.
    pub(crate) fn check(&self) -> Result<CheckedSpec, NetworkError> {
        if is_predefined(&self.name) {
            return Err(NetworkError::PredefinedCreate(self.name.clone()));
        }
        if !name::is_restricted_name(&self.name) && !is_single_character(&self.name) {
            return Err(NetworkError::InvalidName(self.name.chars().take(120).collect()));
        }
        match self.driver.as_str() {
            "" | "bridge" | "default" => {}
            driver @ ("host" | "null") => {
                return Err(NetworkError::SingleInstanceDriver(driver.to_owned()));
            }
            driver @ ("overlay" | "macvlan" | "ipvlan") => {
                return Err(NetworkError::NotImplemented(format!("the network driver {driver}")));
            }
            driver => return Err(NetworkError::UnknownDriver(driver.chars().take(80).collect())),
        }
        match self.ipam_driver.as_str() {
            "" | "default" => {}
            driver => return Err(NetworkError::UnknownDriver(driver.chars().take(80).collect())),
        }
        let (six, four): (Vec<_>, Vec<_>) =
            self.subnets.iter().partition(|subnet| subnet.is_ipv6());
        let only = |subnets: &[&SubnetSpec]| match subnets {
            [] => Ok(None),
            [one] => Ok(Some((*one).clone())),
            _ => Err(NetworkError::NotImplemented(
                "more than one subnet of a family per bridge network".to_owned(),
            )),
        };
        let (four, six) = (only(&four)?, only(&six)?);
        let v6 = match six {
            Some(_) if !self.ipv6 => {
                return Err(NetworkError::Config(
                    "an IPv6 subnet needs IPv6: create the network with --ipv6".to_owned(),
                ));
            }
            Some(subnet) => Checked6::Chosen(subnet.check6()?),
            None if self.ipv6 => Checked6::AnySubnet,
            None => Checked6::No,
        };
        four.unwrap_or_default().check(&self.name, v6)
    }

    /// Reads the driver options; `default_name` is the bridge's name if they give none.
    pub(crate) fn bridge_settings(
        &self,
        default_name: &str,
    ) -> Result<BridgeSettings, NetworkError> {
        let option =
            |key: &str| self.options.get(key).map(String::as_str).filter(|v| !v.is_empty());
        let flag = |key: &str| match option(key) {
            None => Ok(true),
            Some(value) => parse_bool(value)
                .ok_or_else(|| NetworkError::Config(format!("invalid value for {key}: {value:?}"))),
        };
        if option(OPTION_CONTAINER_PREFIX).is_some_and(|prefix| prefix != "eth") {
            return Err(NetworkError::NotImplemented(OPTION_CONTAINER_PREFIX.to_owned()));
        }
        let name = option(OPTION_BRIDGE_NAME).unwrap_or(default_name);
        if !is_interface_name(name) {
            return Err(NetworkError::Config(format!("invalid bridge name {name:?}")));
        }
        let mtu = match option(OPTION_MTU) {
            None => DEFAULT_MTU,
            Some(text) => text
                .parse()
                .ok()
                .filter(|mtu| *mtu == 0 || (MIN_MTU..=MAX_MTU).contains(mtu))
                .map(|mtu| if mtu == 0 { DEFAULT_MTU } else { mtu })
                .ok_or_else(|| NetworkError::Config(format!("invalid MTU {text:?}")))?,
        };
        let host_binding = match option(OPTION_HOST_BINDING) {
            None => None,
            Some(text) => {
                let address: Ipv4Addr = text
                    .parse()
                    .map_err(|_| NetworkError::Config(format!("invalid host binding {text:?}")))?;
                (!address.is_unspecified()).then_some(address)
            }
        };
        Ok(BridgeSettings {
            name: name.to_owned(),
            icc: flag(OPTION_ICC)?,
            masquerade: flag(OPTION_MASQUERADE)?,
            host_binding,
            mtu,
        })
    }
}

impl SubnetSpec {
    fn is_ipv6(&self) -> bool {
        self.subnet.contains(':') || (self.subnet.is_empty() && self.gateway.contains(':'))
    }

    fn check6(&self) -> Result<Ipam6, NetworkError> {
        let net = |text: &str| text.parse::<Ipv6Net>().map_err(NetworkError::Subnet);
        let invalid = |what: &str, text: &str| {
            NetworkError::Config(format!("invalid {what} {text}: it is not within the subnet"))
        };
        if self.subnet.is_empty() {
            return Err(NetworkError::Config(
                "gateway, ip-range and auxiliary addresses need a subnet".to_owned(),
            ));
        }
        let subnet = net(&self.subnet)?;
        if subnet.prefix_len() > Ipv6Net::MAX_PREFIX_LEN || subnet.prefix_len() == 0 {
            return Err(NetworkError::Config(format!("invalid subnet {subnet}: its size")));
        }
        let address = |what: &str, text: &str| match text.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) if subnet.contains(ip) && ip != subnet.network() => Ok(ip),
            _ => Err(invalid(what, text)),
        };
        let mut ipam = Ipam6 { user_subnet: true, ..Ipam6::plain(subnet) };
        if !self.ip_range.is_empty() {
            let range = net(&self.ip_range)?;
            if !subnet.contains_net(range) {
                return Err(invalid("ip-range", &self.ip_range));
            }
            ipam.ip_range = Some(range);
        }
        if !self.gateway.is_empty() {
            ipam.gateway = address("gateway", &self.gateway)?;
        }
        ipam.aux_addresses = self
            .aux_addresses
            .iter()
            .map(|(key, text)| Ok((key.clone(), address("auxiliary address", text)?)))
            .collect::<Result<_, NetworkError>>()?;
        Ok(ipam)
    }

    fn check(&self, name: &str, v6: Checked6) -> Result<CheckedSpec, NetworkError> {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let net = |text: String| text.parse::<Ipv4Net>().map_err(NetworkError::Subnet);
        let address = |text: &str| match text.parse() {
            Ok(IpAddr::V4(address)) => Ok(address),
            _ => Err(NetworkError::Config(format!("invalid address {text:?}"))),
        };
        let subnet = given(&self.subnet).map(net).transpose()?;
        let ip_range = given(&self.ip_range).map(net).transpose()?;
        let gateway = given(&self.gateway).map(|text| address(&text)).transpose()?;
        let aux_addresses = self
            .aux_addresses
            .iter()
            .map(|(key, text)| Ok((key.clone(), address(text)?)))
            .collect::<Result<BTreeMap<_, _>, NetworkError>>()?;
        match subnet {
            Some(subnet) => {
                if subnet.prefix_len() > Ipv4Net::MAX_PREFIX_LEN || subnet.prefix_len() == 0 {
                    return Err(NetworkError::Config(format!("invalid subnet {subnet}: its size")));
                }
                if ip_range.is_some_and(|range| !subnet.contains_net(range)) {
                    return Err(NetworkError::Config(format!(
                        "invalid ip-range {}: it is not within subnet {subnet}",
                        self.ip_range
                    )));
                }
                let usable = |address: Ipv4Addr| {
                    subnet.contains(address)
                        && address != subnet.network()
                        && address != subnet.last()
                };
                if let Some(gateway) = gateway.filter(|gateway| !usable(*gateway)) {
                    return Err(NetworkError::Config(format!(
                        "invalid gateway {gateway}: it is not a host address of subnet {subnet}"
                    )));
                }
                if let Some((key, address)) =
                    aux_addresses.iter().find(|(_, address)| !subnet.contains(**address))
                {
                    return Err(NetworkError::Config(format!(
                        "invalid auxiliary address {key}={address}: it is not within subnet {subnet}"
                    )));
                }
            }
            None if gateway.is_some() || ip_range.is_some() || !aux_addresses.is_empty() => {
                return Err(NetworkError::Config(
                    "gateway, ip-range and auxiliary addresses need a subnet".to_owned(),
                ));
            }
            None => {}
        }
        Ok(CheckedSpec { name: name.to_owned(), subnet, ip_range, gateway, aux_addresses, v6 })
    }
}

impl CheckedSpec {
    /// The addresses of the network in `subnet`.
    pub(crate) fn ipam(
        self,
        subnet: Ipv4Net,
        v6: Option<Ipam6>,
        options: BTreeMap<String, String>,
    ) -> Ipam {
        let first = |net: Ipv4Net| Ipv4Addr::from_bits(net.network().to_bits().saturating_add(1));
        Ipam {
            subnet,
            gateway: self.gateway.unwrap_or_else(|| first(subnet)),
            user_subnet: self.subnet.is_some(),
            user_gateway: self.gateway.is_some(),
            ip_range: self.ip_range,
            aux_addresses: self.aux_addresses,
            options,
            v6,
        }
    }
}

fn is_single_character(name: &str) -> bool {
    name.len() == 1 && name.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Whether the kernel and nft take it as an interface's name without quoting surprises.
pub(crate) fn is_interface_name(name: &str) -> bool {
    (1..=MAX_INTERFACE_NAME).contains(&name.len())
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// The spellings of Go's `strconv.ParseBool`, which docker reads options with.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use brig_types::error::{Categorized, ErrorKind};

    use super::*;

    fn spec(subnet: &str, range: &str, gateway: &str) -> NetworkSpec {
        NetworkSpec {
            name: "net".to_owned(),
            subnets: vec![SubnetSpec {
                subnet: subnet.to_owned(),
                ip_range: range.to_owned(),
                gateway: gateway.to_owned(),
                aux_addresses: BTreeMap::new(),
            }],
            ..NetworkSpec::default()
        }
    }

    #[test]
    fn the_gateway_is_the_first_address() {
        let checked = spec("10.5.0.0/16", "10.5.4.0/24", "").check().unwrap();
        let ipam = checked.ipam("10.5.0.0/16".parse().unwrap(), None, BTreeMap::new());
        assert_eq!(ipam.gateway, Ipv4Addr::new(10, 5, 0, 1));
        assert!(ipam.user_subnet);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (subnet, range, gateway) in [
            ("10.5.0.0/16", "10.6.0.0/24", ""),
            ("10.5.0.0/16", "", "10.6.0.1"),
            ("10.5.0.0/16", "", "10.5.255.255"),
            ("10.5.0.0/31", "", ""),
            ("10.5.0.0", "", ""),
            ("", "", "10.5.0.1"),
            ("0.0.0.0/0", "", ""),
        ] {
            let error = spec(subnet, range, gateway).check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{subnet} {range} {gateway}");
        }
        let error = spec("fd00::/64", "", "").check().unwrap_err();
        assert!(error.to_string().contains("--ipv6"), "{error}");
    }

    #[test]
    fn both_families() {
        let six = |subnet: &str, range: &str, gateway: &str| {
            let spec = NetworkSpec { ipv6: true, ..spec(subnet, range, gateway) };
            spec.check().map(|checked| (checked.subnet, checked.v6))
        };
        let chosen = |answer: Result<(Option<Ipv4Net>, Checked6), NetworkError>| match answer {
            Ok((None, Checked6::Chosen(ipam))) => ipam,
            other => panic!("{other:?}"),
        };
        assert_eq!(chosen(six("fd00::/64", "", "")).gateway.to_string(), "fd00::1");
        let narrowed = chosen(six("fd00::/64", "fd00::8000/113", "fd00::9"));
        assert_eq!(
            (narrowed.gateway.to_string().as_str(), narrowed.ip_range.is_some()),
            ("fd00::9", true)
        );
        let four = six("10.5.0.0/16", "", "").unwrap();
        assert_eq!(four, ("10.5.0.0/16".parse().ok(), Checked6::AnySubnet));
        for (subnet, range, gateway) in [
            ("fd00::/64", "fd01::/65", ""),
            ("fd00::/64", "", "fd01::1"),
            ("fd00::/64", "", "10.0.0.1"),
            ("fd00::/127", "", ""),
            ("", "", "fd00::1"),
        ] {
            let error = six(subnet, range, gateway).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{subnet} {range} {gateway}");
        }
    }

    #[test]
    fn names_and_drivers() {
        let named = |name: &str, driver: &str| {
            NetworkSpec { name: name.to_owned(), driver: driver.to_owned(), ..Default::default() }
                .check()
                .map_err(|error| (error.kind(), error.to_string()))
        };
        assert!(named("my_net.1-a", "").is_ok());
        assert!(named("a", "bridge").is_ok());
        assert_eq!(
            named("bridge", "").unwrap_err(),
            (
                ErrorKind::Forbidden,
                "operation is not permitted on predefined bridge network".into()
            )
        );
        assert_eq!(named("x", "host").unwrap_err().0, ErrorKind::Forbidden);
        assert_eq!(named("x", "overlay").unwrap_err().0, ErrorKind::NotImplemented);
        assert_eq!(
            named("x", "weave").unwrap_err(),
            (ErrorKind::NotFound, "plugin \"weave\" not found".into())
        );
        assert_eq!(named("a b", "").unwrap_err().0, ErrorKind::InvalidParameter);
    }

    #[test]
    fn driver_options() {
        let mut spec = NetworkSpec { name: "n".to_owned(), ..NetworkSpec::default() };
        let defaults = spec.bridge_settings("br-1").unwrap();
        assert!(defaults.icc && defaults.masquerade && defaults.mtu == 1500);
        for (key, value) in [
            (OPTION_BRIDGE_NAME, "mybr"),
            (OPTION_ICC, "false"),
            (OPTION_MTU, "1400"),
            (OPTION_HOST_BINDING, "127.0.0.1"),
        ] {
            spec.options.insert(key.to_owned(), value.to_owned());
        }
        let settings = spec.bridge_settings("br-1").unwrap();
        assert_eq!(settings.name, "mybr");
        assert_eq!(settings.host_binding, Some(Ipv4Addr::LOCALHOST));
        assert!(!settings.icc && settings.mtu == 1400);
        spec.options.insert(OPTION_BRIDGE_NAME.to_owned(), "a\" b".to_owned());
        assert!(spec.bridge_settings("br-1").is_err());
    }
}
