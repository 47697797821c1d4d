//! Flags of services and of the swarm: secrets, configs, placement, external CAs, addresses.

use brig_api::swarm::{
    ConfigReference, ExternalCa, FileTarget, PlacementPreference, SecretReference, SpreadOver,
};

use super::{BadValue, bad, csv};

/// The mode of a secret's or config's file: 0444.
const DEFAULT_MODE: u32 = 0o444;

struct Target {
    source: String,
    file: FileTarget,
}

fn target(spec: &str, kind: &str) -> Result<Target, BadValue> {
    let file = |name: &str| FileTarget {
        name: name.to_owned(),
        uid: "0".to_owned(),
        gid: "0".to_owned(),
        mode: DEFAULT_MODE,
    };
    let fields = csv::pairs(spec)?;
    if let [(_, None)] = fields.as_slice() {
        let name = csv::fields(spec)?.into_iter().next().unwrap_or_default();
        if name.is_empty() {
            return bad(format!("invalid {kind}: name is empty"));
        }
        return Ok(Target { file: file(&name), source: name });
    }
    let (mut source, mut result) = (String::new(), file(""));
    for (key, value) in fields {
        let Some(value) = value else {
            return bad(format!("invalid field '{key}' must be a key=value pair"));
        };
        match key.as_str() {
            "source" | "src" => source = value,
            "target" => result.name = value,
            "uid" => result.uid = value,
            "gid" => result.gid = value,
            "mode" => {
                // Octal with a leading zero, as Go reads it with base 0.
                let parsed = match value.strip_prefix("0o").or_else(|| value.strip_prefix('0')) {
                    Some("") => Ok(0),
                    Some(octal) => u32::from_str_radix(octal, 8),
                    None => value.parse(),
                };
                result.mode =
                    parsed.map_err(|_| BadValue(format!("invalid mode specified: {value}")))?;
            }
            _ => return bad(format!("invalid field in {kind} request: {key}")),
        }
    }
    if source.is_empty() {
        return bad("source is required");
    }
    if result.name.is_empty() {
        result.name.clone_from(&source);
    }
    Ok(Target { source, file: result })
}

/// Reads `--secret`: a name, or `source=…,target=…,uid=…,gid=…,mode=…`. The id is not known yet.
pub(crate) fn secret(spec: &str) -> Result<SecretReference, BadValue> {
    let Target { source, file } = target(spec, "secret")?;
    Ok(SecretReference { file: Some(file), secret_id: String::new(), secret_name: source })
}

/// Reads `--config`, as [`secret`].
pub(crate) fn config(spec: &str) -> Result<ConfigReference, BadValue> {
    let Target { source, file } = target(spec, "config")?;
    Ok(ConfigReference { file: Some(file), config_name: source, ..ConfigReference::default() })
}

/// Reads `--placement-pref`: `spread=node.labels.zone`.
pub(crate) fn placement_preference(spec: &str) -> Result<PlacementPreference, BadValue> {
    match spec.split_once('=') {
        Some(("spread", descriptor)) => Ok(PlacementPreference {
            spread: Some(SpreadOver { spread_descriptor: descriptor.to_owned() }),
        }),
        Some((strategy, _)) => {
            bad(format!("unsupported placement preference {strategy} (only spread is supported)"))
        }
        None => bad(r#"placement preference must be of the format "<strategy>=<arg>""#),
    }
}

/// Reads `--external-ca`: `protocol=cfssl,url=https://…[,cacert=file]`.
pub(crate) fn external_ca(spec: &str) -> Result<ExternalCa, BadValue> {
    let mut ca = ExternalCa::default();
    for (key, value) in csv::pairs(spec)? {
        let Some(value) = value else {
            return bad(format!("invalid field '{key}' must be a key=value pair"));
        };
        match key.as_str() {
            "protocol" if value.eq_ignore_ascii_case("cfssl") => ca.protocol = "cfssl".to_owned(),
            "protocol" => return bad(format!("unrecognized external CA protocol {value}")),
            "url" => ca.url = value,
            "cacert" => {
                ca.ca_cert = std::fs::read_to_string(&value).map_err(|e| {
                    BadValue(format!("unable to read CA cert for external CA: {value}: {e}"))
                })?;
            }
            _ => {
                ca.options.insert(key, value);
            }
        }
    }
    if ca.protocol.is_empty() {
        return bad("the external-ca option needs a protocol= parameter");
    }
    if ca.url.is_empty() {
        return bad("the external-ca option needs a url= parameter");
    }
    Ok(ca)
}

/// Reads `--listen-addr`: an address, an interface or a port; 2377 is the default port.
pub(crate) fn listen_addr(text: &str) -> Result<String, BadValue> {
    const DEFAULT_PORT: &str = "2377";
    if text.is_empty() {
        return bad("invalid address");
    }
    if let Some(port) = text.strip_prefix(':') {
        return Ok(format!("0.0.0.0:{port}"));
    }
    let bare_v6 = text.matches(':').count() > 1 && !text.starts_with('[');
    Ok(if bare_v6 {
        format!("[{text}]:{DEFAULT_PORT}")
    } else if text.rsplit(']').next().is_some_and(|tail| tail.contains(':')) {
        text.to_owned()
    } else {
        format!("{text}:{DEFAULT_PORT}")
    })
}

/// An extra host: `host:ip` or `host=ip` as `host:ip`, checked as docker does.
pub(crate) fn extra_host(text: &str) -> Result<String, BadValue> {
    let (name, address) = match text.split_once('=') {
        Some(parts) => parts,
        None => text
            .split_once(':')
            .ok_or_else(|| BadValue(format!("bad format for add-host: {text:?}")))?,
    };
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if name.is_empty() {
        return bad(format!("bad format for add-host: {text:?}"));
    }
    if bare != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
        return bad(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{bare}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_a_file() {
        let short = secret("sec1").unwrap();
        assert_eq!(short.secret_name, "sec1");
        let file = short.file.unwrap();
        assert_eq!((file.name.as_str(), file.uid.as_str(), file.mode), ("sec1", "0", 292));
        let long = secret("source=s,target=/etc/x,uid=1,gid=2,mode=0400").unwrap();
        let file = long.file.unwrap();
        assert_eq!((file.name.as_str(), file.gid.as_str(), file.mode), ("/etc/x", "2", 0o400));
        assert_eq!(config("src=c").unwrap().file.unwrap().name, "c");
        for spec in ["", "target=x", "source=s,mode=9x", "source=s,bogus=1", "source=s,uid"] {
            assert!(secret(spec).is_err(), "{spec}");
        }
    }

    #[test]
    fn addresses_get_the_default_port() {
        for (text, addr) in [
            ("0.0.0.0", "0.0.0.0:2377"),
            ("eth0:4000", "eth0:4000"),
            (":4000", "0.0.0.0:4000"),
            ("fe80::1", "[fe80::1]:2377"),
            ("[::1]:5", "[::1]:5"),
        ] {
            assert_eq!(listen_addr(text).unwrap(), addr);
        }
        assert!(listen_addr("").is_err());
    }

    #[test]
    fn extra_hosts_take_both_signs() {
        assert_eq!(extra_host("h:1.2.3.4").unwrap(), "h:1.2.3.4");
        assert_eq!(extra_host("h=::1").unwrap(), "h:::1");
        assert_eq!(extra_host("h:host-gateway").unwrap(), "h:host-gateway");
        assert!(extra_host("h").is_err());
        assert!(extra_host("h:nope").is_err());
    }

    #[test]
    fn preferences_and_external_cas() {
        assert!(placement_preference("spread=node.labels.zone").is_ok());
        assert!(placement_preference("pack=x").is_err());
        assert_eq!(external_ca("protocol=cfssl,url=https://x,a=b").unwrap().options["a"], "b");
        assert!(external_ca("url=https://x").is_err());
    }
}
