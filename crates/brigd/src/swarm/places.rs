//! Addresses that requests name by an interface.

use std::net::{IpAddr, SocketAddr};

use brig_network::InterfaceError;

use crate::server::ApiError;

/// Puts the interface's address into `NAME` or `NAME:PORT`. What names no interface stays as it
/// is: whoever uses it says what is wrong with it.
pub(super) async fn resolve(text: String) -> Result<String, ApiError> {
    if text.is_empty() || text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok() {
        return Ok(text);
    }
    let work = move || look_up(text);
    let found = tokio::task::spawn_blocking(work).await;
    let found = found.map_err(|_| ApiError::system("interrupted"))?;
    found.map_err(|error| ApiError::invalid(brig_types::error::chain(&error)))
}

fn look_up(text: String) -> Result<String, InterfaceError> {
    // Names of interfaces may have colons themselves.
    if let Some(address) = brig_network::interface_address(&text)? {
        return Ok(address.to_string());
    }
    let Some((name, port)) = text.rsplit_once(':') else { return Ok(text) };
    let Ok(port) = port.parse::<u16>() else { return Ok(text) };
    let address = brig_network::interface_address(name)?;
    Ok(address.map_or_else(|| text.clone(), |ip| SocketAddr::new(ip, port).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn interfaces_become_addresses() {
        for (text, address) in [
            ("", ""),
            ("lo", "127.0.0.1"),
            ("lo:2377", "127.0.0.1:2377"),
            ("10.0.0.1", "10.0.0.1"),
            ("[::1]:7", "[::1]:7"),
            ("no-such-link:7", "no-such-link:7"),
            ("lo:x", "lo:x"),
        ] {
            assert_eq!(resolve(text.to_owned()).await.unwrap(), address);
        }
    }
}
