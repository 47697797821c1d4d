//! `network create`.

use std::net::IpAddr;

use brig_api::network::{
    ConfigReference, Ipam, IpamConfig, NetworkCreateRequest, NetworkCreateResponse,
};
use brig_api::version::ApiVersion;
use clap::Args;

use crate::cli::flags::optional_boolean;
use crate::cli::leaf;
use crate::client::Call;
use crate::context::Context;
use crate::error::{Result, message};
use crate::parse::{key_value, key_value_map};

leaf!(CREATE, "create", "[OPTIONS] NETWORK", "Create a network", CreateArgs, create);

/// From this version on, names are unique without being asked for it.
const UNIQUE_SINCE: ApiVersion = ApiVersion::new(1, 44);

#[derive(Args, Debug)]
struct CreateArgs {
    /// Enable manual container attachment
    #[arg(long)]
    attachable: bool,
    /// Auxiliary IPv4 or IPv6 addresses used by Network driver
    #[arg(long)]
    aux_address: Vec<String>,
    /// The network from which to copy the configuration
    #[arg(long)]
    config_from: Option<String>,
    /// Create a configuration only network
    #[arg(long)]
    config_only: bool,
    /// Driver to manage the Network
    #[arg(long, short = 'd', default_value = "bridge")]
    driver: String,
    /// IPv4 or IPv6 Gateway for the master subnet
    #[arg(long, value_delimiter = ',')]
    gateway: Vec<String>,
    /// Create swarm routing-mesh network
    #[arg(long)]
    ingress: bool,
    /// Restrict external access to the network
    #[arg(long)]
    internal: bool,
    /// Allocate container ip from a sub-range
    #[arg(long, value_delimiter = ',')]
    ip_range: Vec<String>,
    /// IP Address Management Driver
    #[arg(long, default_value = "default")]
    ipam_driver: String,
    /// Set IPAM driver specific options
    #[arg(long)]
    ipam_opt: Vec<String>,
    #[command(flatten)]
    families: Families,
    /// Set metadata on a network
    #[arg(long)]
    label: Vec<String>,
    /// Set driver specific options
    #[arg(long, short = 'o')]
    opt: Vec<String>,
    /// Control the network's scope
    #[arg(long, default_value = "")]
    scope: String,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long, value_delimiter = ',')]
    subnet: Vec<String>,
    #[arg(hide = true)]
    network: String,
}

/// `--ipv4` and `--ipv6`: sent only when they were given.
#[derive(Debug)]
struct Families {
    ipv4: Option<bool>,
    ipv6: Option<bool>,
}

impl clap::FromArgMatches for Families {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let flag = |name: &str| matches.get_one::<bool>(name).copied();
        Ok(Self { ipv4: flag("ipv4"), ipv6: flag("ipv6") })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Families {
    fn augment_args(command: clap::Command) -> clap::Command {
        let arg = |name: &'static str, help: &'static str| {
            optional_boolean(clap::Arg::new(name).long(name)).help(help)
        };
        command
            .arg(arg("ipv4", "Enable or disable IPv4 address assignment (default true)"))
            .arg(arg("ipv6", "Enable or disable IPv6 address assignment"))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl CreateArgs {
    fn request(&self, version: ApiVersion) -> Result<NetworkCreateRequest> {
        Ok(NetworkCreateRequest {
            name: self.network.clone(),
            check_duplicate: version < UNIQUE_SINCE,
            driver: self.driver.clone(),
            scope: self.scope.clone(),
            enable_ipv4: self.families.ipv4,
            enable_ipv6: self.families.ipv6,
            ipam: Some(Ipam {
                driver: self.ipam_driver.clone(),
                options: key_value_map(&self.ipam_opt),
                config: self.subnets()?,
            }),
            internal: self.internal,
            attachable: self.attachable,
            ingress: self.ingress,
            config_only: self.config_only,
            config_from: self.config_from.clone().map(|network| ConfigReference { network }),
            options: key_value_map(&self.opt),
            labels: key_value_map(&self.label),
        })
    }

    /// One configuration a subnet; ranges, gateways and other addresses go to the one they are in.
    fn subnets(&self) -> Result<Vec<IpamConfig>> {
        if self.subnet.len() < self.ip_range.len() || self.subnet.len() < self.gateway.len() {
            return Err(message("every ip-range or gateway must have a corresponding subnet"));
        }
        let mut subnets = Vec::new();
        for text in &self.subnet {
            let subnet = Cidr::parse(text)
                .ok_or_else(|| message(format!("invalid CIDR address: {text}")))?;
            if subnets.iter().any(|(other, _): &(Cidr, IpamConfig)| other.overlaps(&subnet)) {
                return Err(message("multiple overlapping subnet configuration is not supported"));
            }
            subnets.push((subnet, IpamConfig { subnet: text.clone(), ..IpamConfig::default() }));
        }
        for range in &self.ip_range {
            let cidr = Cidr::parse(range)
                .ok_or_else(|| message(format!("invalid CIDR address: {range}")))?;
            let Some((_, config)) =
                subnets.iter_mut().find(|(subnet, _)| subnet.contains(cidr.address))
            else {
                return Err(message(format!("no matching subnet for range {range}")));
            };
            if !config.ip_range.is_empty() {
                return Err(message(format!(
                    "cannot configure multiple ranges ({range}, {}) on the same subnet ({})",
                    config.ip_range, config.subnet
                )));
            }
            config.ip_range.clone_from(range);
        }
        for gateway in &self.gateway {
            let config = self.owner(&mut subnets, gateway, "gateway")?;
            if !config.gateway.is_empty() {
                return Err(message(format!(
                    "cannot configure multiple gateways ({gateway}, {}) for the same subnet ({})",
                    config.gateway, config.subnet
                )));
            }
            config.gateway.clone_from(gateway);
        }
        for entry in &self.aux_address {
            let (name, address) = key_value(entry);
            self.owner(&mut subnets, &address, "aux-address")?
                .auxiliary_addresses
                .insert(name, address);
        }
        Ok(subnets.into_iter().map(|(_, config)| config).collect())
    }

    fn owner<'a>(
        &self,
        subnets: &'a mut [(Cidr, IpamConfig)],
        address: &str,
        what: &str,
    ) -> Result<&'a mut IpamConfig> {
        let parsed = address.parse().ok();
        subnets
            .iter_mut()
            .find(|(subnet, _)| parsed.is_some_and(|ip| subnet.contains(ip)))
            .map(|(_, config)| config)
            .ok_or_else(|| message(format!("no matching subnet for {what} {address}")))
    }
}

/// An address and the length of its network part.
#[derive(Clone, Copy, Debug)]
struct Cidr {
    address: IpAddr,
    prefix: u32,
}

impl Cidr {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let prefix: u32 = prefix.parse().ok()?;
        (prefix <= if address.is_ipv4() { 32 } else { 128 }).then_some(Self { address, prefix })
    }

    fn network(address: IpAddr, prefix: u32) -> (bool, u128) {
        let (bits, width) = match address {
            IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
            IpAddr::V6(ip) => (u128::from(ip), 128),
        };
        (address.is_ipv4(), bits.checked_shr(width - prefix.min(width)).unwrap_or(0))
    }

    fn contains(&self, address: IpAddr) -> bool {
        Self::network(address, self.prefix) == Self::network(self.address, self.prefix)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let prefix = self.prefix.min(other.prefix);
        Self::network(self.address, prefix) == Self::network(other.address, prefix)
    }
}

async fn create(context: &Context, args: CreateArgs) -> Result<()> {
    let request = args.request(context.client.version().await?)?;
    let response: NetworkCreateResponse =
        context.client.json(Call::post("/networks/create").json(&request)?).await?;
    if !response.warning.is_empty() {
        crate::output::warn(&format!("WARNING: {}", response.warning));
    }
    crate::output::line(&response.id)
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;
    use serde_json::json;

    use super::*;

    fn request(line: &str) -> Result<serde_json::Value> {
        let matches = CREATE
            .command("brig network create")
            .try_get_matches_from(std::iter::once("c").chain(line.split(' ')))
            .unwrap();
        let args = CreateArgs::from_arg_matches(&matches).unwrap();
        Ok(serde_json::to_value(args.request(ApiVersion::new(1, 41))?).unwrap())
    }

    #[test]
    fn a_plain_network_is_the_captured_body() {
        assert_eq!(
            request("nx").unwrap(),
            json!({"Name": "nx", "CheckDuplicate": true, "Driver": "bridge", "Scope": "",
                "IPAM": {"Driver": "default", "Options": null, "Config": []}, "Internal": false,
                "Attachable": false, "Ingress": false, "ConfigOnly": false, "ConfigFrom": null,
                "Options": {}, "Labels": {}})
        );
    }

    #[test]
    fn addresses_find_their_subnet() {
        let body = request("--subnet 10.1.0.0/16 --subnet fd00::/64 --gateway 10.1.0.9 --ip-range 10.1.2.0/24 --aux-address r=fd00::5 --ipv6 -d overlay nx").unwrap();
        assert_eq!(
            body["IPAM"]["Config"],
            json!([{"Subnet": "10.1.0.0/16", "IPRange": "10.1.2.0/24", "Gateway": "10.1.0.9"},
                   {"Subnet": "fd00::/64", "AuxiliaryAddresses": {"r": "fd00::5"}}])
        );
        assert_eq!(body["EnableIPv6"], json!(true));
        for line in [
            "--gateway 10.0.0.1 nx",
            "--subnet 10.0.0.0/8 --subnet 10.1.0.0/16 nx",
            "--subnet x nx",
            "--subnet 10.0.0.0/8 --gateway 11.0.0.1 nx",
            "--subnet 10.0.0.0/33 nx",
        ] {
            assert!(request(line).is_err(), "{line}");
        }
    }
}
