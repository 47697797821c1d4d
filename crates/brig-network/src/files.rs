//! What containers find in `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname`, as docker writes
//! it.

use std::net::{IpAddr, Ipv4Addr};

use crate::dns::SERVER_ADDRESS;
use crate::error::NetworkError;

/// The servers that docker falls back to when the host names none that a container can reach.
const FALLBACK_SERVERS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)), IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4))];
/// The value of an extra host that means the host itself.
const HOST_GATEWAY: &str = "host-gateway";

const DEFAULT_HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// A line that the user adds to `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// Its address.
    pub ip: IpAddr,
}

/// What the user says about name resolution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsOptions {
    /// Name servers instead of the host's (`--dns`).
    pub servers: Vec<IpAddr>,
    /// Search domains instead of the host's (`--dns-search`); `.` alone means none.
    pub search: Vec<String>,
    /// Options instead of the host's (`--dns-option`).
    pub options: Vec<String>,
}

/// Which name servers a container's resolv.conf names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolvMode {
    /// The host's file as it is (`--network host`).
    Host,
    /// The host's servers that a container can reach (default bridge, `none`).
    Direct,
    /// The embedded server (user-defined networks).
    Embedded,
}

/// The content of a resolv.conf, as far as it is understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(crate) servers: Vec<IpAddr>,
    search: Vec<String>,
    options: Vec<String>,
}

impl ResolvConf {
    /// Reads a resolv.conf; what cannot be understood is left out.
    pub(crate) fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone after the address means something on the host only.
                    let bare = words.next().and_then(|word| word.split('%').next());
                    let address: Option<IpAddr> = bare.and_then(|word| word.parse().ok());
                    conf.servers.extend(address);
                }
                // The last of both wins (resolv.conf(5)).
                Some("search" | "domain") => conf.search = words.map(str::to_owned).collect(),
                Some("options") => conf.options = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        conf
    }

    /// The servers that a container can reach: loopback means itself there, and its networks have
    /// no IPv6.
    fn reachable(&self) -> Vec<IpAddr> {
        let servers: Vec<IpAddr> =
            self.servers.iter().copied().filter(|ip| ip.is_ipv4() && !ip.is_loopback()).collect();
        if servers.is_empty() { FALLBACK_SERVERS.to_vec() } else { servers }
    }

    fn overridden(&self, dns: &DnsOptions) -> (Vec<String>, Vec<String>) {
        let or = |own: &[String], host: &[String]| {
            if own.is_empty() { host.to_vec() } else { own.to_vec() }
        };
        (or(&dns.search, &self.search), or(&dns.options, &self.options))
    }
}

/// Builds a container's resolv.conf from the host's and the user's options.
#[must_use]
pub fn resolv_conf(host: &str, mode: ResolvMode, dns: &DnsOptions) -> String {
    let unchanged = dns.servers.is_empty() && dns.search.is_empty() && dns.options.is_empty();
    let parsed = ResolvConf::parse(host);
    let (search, mut options) = parsed.overridden(dns);
    let servers = match mode {
        ResolvMode::Host if unchanged => return host.to_owned(),
        ResolvMode::Host | ResolvMode::Direct if !dns.servers.is_empty() => dns.servers.clone(),
        ResolvMode::Host => parsed.servers,
        ResolvMode::Direct => parsed.reachable(),
        ResolvMode::Embedded => {
            if !options.iter().any(|option| option.starts_with("ndots:")) {
                options.push("ndots:0".to_owned());
            }
            vec![IpAddr::V4(SERVER_ADDRESS)]
        }
    };
    let mut text = String::new();
    if !search.is_empty() && search != ["."] {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

/// The content of `/etc/hosts` of a container with a network of its own.
///
/// `addresses` are the container's; each gets a line with the host name, in full and bare.
#[must_use]
pub fn hosts(
    hostname: &str,
    domainname: &str,
    addresses: &[IpAddr],
    extra: &[ExtraHost],
) -> String {
    let mut text = DEFAULT_HOSTS.to_owned();
    push_extra(&mut text, extra);
    let full = match domainname {
        "" => hostname.to_owned(),
        domain => format!("{hostname}.{domain}"),
    };
    let names = match full.split_once('.') {
        Some((bare, _)) => format!("{full} {bare}"),
        None => full,
    };
    for address in addresses.iter().filter(|_| !names.is_empty()) {
        text.push_str(&format!("{address}\t{names}\n"));
    }
    text
}

/// The content of `/etc/hosts` of a container that shares the host's network.
#[must_use]
pub fn hosts_of_host(host: &str, extra: &[ExtraHost]) -> String {
    let mut text = host.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    push_extra(&mut text, extra);
    text
}

/// The content of `/etc/hostname`.
#[must_use]
pub fn hostname(hostname: &str) -> String {
    format!("{hostname}\n")
}

/// Reads `NAME:IP` or `NAME=IP`, where the address may be `host-gateway`.
///
/// # Errors
/// [`NetworkError::ExtraHost`].
pub fn extra_host(text: &str, host_gateway: Ipv4Addr) -> Result<ExtraHost, NetworkError> {
    let invalid = || NetworkError::ExtraHost(text.chars().take(120).collect());
    let separator = text.find(['=', ':']).ok_or_else(invalid)?;
    let (name, rest) = text.split_at_checked(separator).ok_or_else(invalid)?;
    let address = rest.get(1..).unwrap_or_default();
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(invalid());
    }
    let ip = match address {
        HOST_GATEWAY => IpAddr::V4(host_gateway),
        address => {
            let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']'));
            bare.unwrap_or(address).parse().map_err(|_| invalid())?
        }
    };
    Ok(ExtraHost { name: name.to_owned(), ip })
}

fn push_extra(text: &mut String, extra: &[ExtraHost]) {
    for host in extra {
        text.push_str(&format!("{}\t{}\n", host.ip, host.name));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: &str = "# comment\nsearch a.example b.example\nnameserver 127.0.0.53\n\
        nameserver 192.0.2.1 # trailing\nnameserver fe80::1%eth0\noptions edns0 trust-ad\n";

    #[test]
    fn default_bridge_leaves_loopback_out() {
        assert_eq!(
            resolv_conf(HOST, ResolvMode::Direct, &DnsOptions::default()),
            "search a.example b.example\nnameserver 192.0.2.1\noptions edns0 trust-ad\n"
        );
        assert_eq!(
            resolv_conf("nameserver 127.0.0.53\n", ResolvMode::Direct, &DnsOptions::default()),
            "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        );
    }

    #[test]
    fn user_networks_have_the_embedded_server() {
        assert_eq!(
            resolv_conf(HOST, ResolvMode::Embedded, &DnsOptions::default()),
            "search a.example b.example\nnameserver 127.0.0.11\noptions edns0 trust-ad ndots:0\n"
        );
        let dns = DnsOptions {
            servers: vec!["192.0.2.9".parse().unwrap()],
            search: vec![".".to_owned()],
            options: vec!["ndots:2".to_owned()],
        };
        assert_eq!(
            resolv_conf(HOST, ResolvMode::Embedded, &dns),
            "nameserver 127.0.0.11\noptions ndots:2\n"
        );
        assert_eq!(
            resolv_conf(HOST, ResolvMode::Direct, &dns),
            "nameserver 192.0.2.9\noptions ndots:2\n"
        );
    }

    #[test]
    fn the_hosts_own_file_is_kept() {
        assert_eq!(resolv_conf(HOST, ResolvMode::Host, &DnsOptions::default()), HOST);
    }

    #[test]
    fn hosts_lines() {
        let extra = extra_host("db:10.0.0.5", Ipv4Addr::LOCALHOST).unwrap();
        let text = hosts("web", "", &[Ipv4Addr::new(172, 17, 0, 2).into()], &[extra]);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost"));
        assert!(text.ends_with("10.0.0.5\tdb\n172.17.0.2\tweb\n"));
        let text = hosts("web.example.org", "", &[Ipv4Addr::new(172, 17, 0, 2).into()], &[]);
        assert!(text.ends_with("172.17.0.2\tweb.example.org web\n"));
        let text = hosts("web", "example.org", &[Ipv4Addr::new(172, 17, 0, 2).into()], &[]);
        assert!(text.ends_with("172.17.0.2\tweb.example.org web\n"));
        assert_eq!(hosts_of_host("1.2.3.4\tx", &[]), "1.2.3.4\tx\n");
        assert_eq!(hostname("web"), "web\n");
    }

    #[test]
    fn extra_hosts_in_every_spelling() {
        let gateway = Ipv4Addr::new(172, 17, 0, 1);
        let ip = |text: &str| extra_host(text, gateway).unwrap().ip.to_string();
        assert_eq!(ip("host.docker.internal:host-gateway"), "172.17.0.1");
        assert_eq!(ip("a=1.2.3.4"), "1.2.3.4");
        assert_eq!(ip("a:::1"), "::1");
        assert_eq!(ip("a:[2001:db8::1]"), "2001:db8::1");
        for text in ["", "a", ":1.2.3.4", "a:", "a:b", "a b:1.2.3.4", "a\n:1.2.3.4"] {
            assert!(extra_host(text, gateway).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_host_file_gives_servers(text in "(?s).{0,200}") {
            let built = resolv_conf(&text, ResolvMode::Direct, &DnsOptions::default());
            prop_assert!(!ResolvConf::parse(&built).servers.is_empty());
        }
    }
}
