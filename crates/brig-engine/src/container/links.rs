//! `--link`: names of other containers in the hosts file.
//!
//! Networks resolve names by DNS, those of links too (`networking.rs`); the default bridge has no names, so its containers get those
//! that they ask for written into their hosts file, with the addresses at their start.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use brig_network::{BRIDGE, ExtraHost};

use super::Container;
use super::record::Record;
use crate::engine::Engine;
use crate::error::EngineError;

/// One `--link name:alias`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link<'a> {
    pub(crate) target: &'a str,
    pub(crate) alias: &'a str,
}

impl<'a> Link<'a> {
    /// Reads `name[:alias]`; also `/name:/own/alias`, as inspect shows it.
    pub(crate) fn parse(text: &'a str) -> Result<Self, EngineError> {
        let invalid = || EngineError::Invalid(format!("bad format for links: {text}"));
        let (target, alias) = match text.split_once(':') {
            Some((target, alias)) => (target, alias),
            None => (text, text),
        };
        let target = target.trim_start_matches('/');
        let alias = alias.rsplit('/').next().unwrap_or(alias);
        let plain = |name: &str| {
            !name.is_empty()
                && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':')
        };
        if plain(target) && plain(alias) { Ok(Self { target, alias }) } else { Err(invalid()) }
    }
}

/// The container that a link names.
pub(crate) fn find(engine: &Engine, text: &str) -> Result<Arc<Container>, EngineError> {
    let link = Link::parse(text)?;
    engine.registry().find(link.target).map_err(|error| {
        EngineError::Invalid(format!("could not get container for {}: {error}", link.target))
    })
}

/// The lines of the hosts file for a container's links.
pub(crate) fn hosts(engine: &Engine, record: &Record) -> Result<Vec<ExtraHost>, EngineError> {
    let mut hosts = Vec::new();
    if !record.networks.contains_key(BRIDGE) {
        return Ok(hosts);
    }
    for text in &record.host_config.links {
        let link = Link::parse(text)?;
        let other = find(engine, text)?.record();
        let endpoint = other.networks.get(BRIDGE);
        if endpoint.is_none() {
            return Err(EngineError::Invalid(format!(
                "Cannot link to /{}, as it does not belong to the default network",
                other.name
            )));
        }
        let address = endpoint
            .and_then(|endpoint| endpoint.ip_address.parse::<Ipv4Addr>().ok())
            .filter(|_| other.state.status.has_process())
            .ok_or_else(|| {
                EngineError::Conflict(format!(
                    "Cannot link to a non running container: /{} AS /{}/{}",
                    other.name, record.name, link.alias
                ))
            })?;
        let mut names = vec![link.alias, other.config.hostname.as_str(), other.name.as_str()];
        names.dedup();
        for name in names {
            hosts.push(ExtraHost { name: name.to_owned(), ip: IpAddr::V4(address) });
        }
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notations() {
        assert_eq!(Link::parse("db:sql").unwrap(), Link { target: "db", alias: "sql" });
        assert_eq!(Link::parse("db").unwrap(), Link { target: "db", alias: "db" });
        assert_eq!(Link::parse("/db:/web/sql").unwrap(), Link { target: "db", alias: "sql" });
        for bad in ["", ":", "a:b:c", "a: b", "a:\n"] {
            assert!(Link::parse(bad).is_err(), "{bad:?}");
        }
    }
}
