//! `--network` of containers and services, and the flags that belong to a container's first one.

use std::collections::BTreeMap;

use brig_api::network::{EndpointIpamConfig, EndpointSettings};

use super::{BadValue, bad, csv, key_value};

/// One `--network`: a name, or `name=…,alias=…,ip=…`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Attachment {
    pub(crate) target: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) driver_opts: BTreeMap<String, String>,
    pub(crate) links: Vec<String>,
    pub(crate) ipv4: String,
    pub(crate) ipv6: String,
    pub(crate) link_local: Vec<String>,
    pub(crate) mac: String,
    pub(crate) gw_priority: Option<i64>,
}

/// Reads `--network`.
pub(crate) fn attachment(spec: &str) -> Result<Attachment, BadValue> {
    if spec.is_empty() {
        return bad("network name cannot be empty");
    }
    let fields = csv::pairs(spec)?;
    if fields.len() == 1 && !spec.contains('=') {
        return Ok(Attachment { target: spec.to_owned(), ..Attachment::default() });
    }
    let mut network = Attachment::default();
    for (key, value) in fields {
        let Some(value) = value else {
            return bad(format!("invalid field {key}: must be a key=value pair"));
        };
        match key.as_str() {
            "name" => network.target = value,
            "alias" => network.aliases.push(value),
            "driver-opt" => network.driver_opts.extend([key_value(&value)]),
            "ip" => network.ipv4 = value,
            "ip6" => network.ipv6 = value,
            "mac-address" => network.mac = value,
            "link-local-ip" => network.link_local.push(value),
            "gw-priority" => {
                network.gw_priority = Some(
                    value.parse().map_err(|_| BadValue(format!("invalid gw-priority: {value}")))?,
                );
            }
            _ => return bad(format!("invalid field key {key}")),
        }
    }
    if network.target.is_empty() {
        return bad("network name/id is not specified");
    }
    Ok(network)
}

impl Attachment {
    /// As the API takes it.
    pub(crate) fn endpoint(&self) -> EndpointSettings {
        let has_address =
            !(self.ipv4.is_empty() && self.ipv6.is_empty() && self.link_local.is_empty());
        EndpointSettings {
            ipam_config: has_address.then(|| EndpointIpamConfig {
                ipv4_address: self.ipv4.clone(),
                ipv6_address: self.ipv6.clone(),
                link_local_ips: self.link_local.clone(),
            }),
            links: self.links.clone(),
            aliases: self.aliases.clone(),
            driver_opts: self.driver_opts.clone(),
            mac_address: self.mac.clone(),
            gw_priority: self.gw_priority.filter(|p| *p != 0),
            ..EndpointSettings::default()
        }
    }
}

/// Whether a network mode names a network that somebody created.
pub(crate) fn is_user_defined(mode: &str) -> bool {
    !matches!(mode, "default" | "bridge" | "host" | "none") && !mode.starts_with("container:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        assert_eq!(attachment("nx").unwrap().target, "nx");
        assert_eq!(attachment("container:abc").unwrap().target, "container:abc");
        let long = attachment("name=nx,alias=a,alias=b,ip=10.0.0.5,driver-opt=k=v").unwrap();
        let endpoint = long.endpoint();
        assert_eq!(endpoint.aliases, ["a", "b"]);
        assert_eq!(endpoint.ipam_config.unwrap().ipv4_address, "10.0.0.5");
        assert_eq!(endpoint.driver_opts["k"], "v");
        for spec in ["", "alias=a", "name=a,b", "name=a,x=y"] {
            assert!(attachment(spec).is_err(), "{spec}");
        }
    }
}
