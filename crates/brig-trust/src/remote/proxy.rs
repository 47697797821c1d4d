//! Servers that are reached through a proxy: it is told to connect to them, and TLS is spoken with
//! the server itself.

use std::io;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brig_types::secret::SecretString;
use http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::RemoteError;

const PORT: u16 = 80;
/// Bytes of a proxy's answer.
const MAX_ANSWER: usize = 8 << 10;

/// Which servers are reached through which proxy, as `HTTPS_PROXY` and `NO_PROXY` say it.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    proxy: Option<Proxy>,
    /// Names, addresses and networks that are reached without.
    exceptions: Vec<String>,
}

/// A proxy.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    host: String,
    port: u16,
    /// User and password, encoded.
    credentials: Option<SecretString>,
}

impl Proxies {
    /// Reads what the variables have; nothing for none.
    ///
    /// # Errors
    /// [`RemoteError::Proxy`].
    pub fn new(proxy: &str, exceptions: &str) -> Result<Self, RemoteError> {
        let proxy = match proxy.trim() {
            "" => None,
            text => Some(Proxy::parse(text).ok_or(RemoteError::Proxy)?),
        };
        let exceptions = exceptions.split(',').map(|one| one.trim().to_ascii_lowercase());
        Ok(Self { proxy, exceptions: exceptions.filter(|one| !one.is_empty()).collect() })
    }

    /// The proxy for a server, if it is reached through one.
    pub(super) fn of(&self, host: &str, port: u16) -> Option<&Proxy> {
        let host = host.to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        // A proxy would look for it at its own side.
        if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
            return None;
        }
        let excepted = self.exceptions.iter().any(|rule| fits(rule, &host, address, port));
        self.proxy.as_ref().filter(|_| !excepted)
    }
}

/// As Go reads `NO_PROXY`.
fn fits(rule: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if rule == "*" {
        return true;
    }
    if let Some((network, bits)) = rule.split_once('/') {
        let network = network.parse::<IpAddr>().ok().zip(bits.parse::<u32>().ok());
        return network
            .zip(address)
            .is_some_and(|((network, bits), address)| in_network(address, network, bits));
    }
    let (name, wanted) = match rule.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
            (name, digits.parse::<u16>().ok())
        }
        _ => (rule, None),
    };
    if wanted.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let name = name.trim_start_matches('[').trim_end_matches(']');
    if let (Some(address), Ok(excepted)) = (address, name.parse::<IpAddr>()) {
        return address == excepted;
    }
    let name = name.strip_prefix('*').unwrap_or(name);
    match name.strip_prefix('.') {
        Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
        None => host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
    }
}

fn in_network(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32_u32.checked_sub(bits);
            shift.is_some_and(|s| a.to_bits().checked_shr(s) == b.to_bits().checked_shr(s))
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128_u32.checked_sub(bits);
            shift.is_some_and(|s| a.to_bits().checked_shr(s) == b.to_bits().checked_shr(s))
        }
        _ => false,
    }
}

impl Proxy {
    /// `[http://][user:password@]host[:port]`.
    fn parse(text: &str) -> Option<Self> {
        let uri: Uri = match text.contains("://") {
            true => text.parse().ok()?,
            false => format!("http://{text}").parse().ok()?,
        };
        if uri.scheme_str() != Some("http") {
            return None;
        }
        let authority = uri.authority()?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return None;
        }
        let credentials = authority.as_str().rsplit_once('@').map(|(user, _)| {
            let (user, password) = user.split_once(':').unwrap_or((user, ""));
            let pair = [decoded(user), b":".to_vec(), decoded(password)].concat();
            SecretString::new(STANDARD.encode(pair))
        });
        let port = authority.port_u16().unwrap_or(PORT);
        Some(Self { host: host.to_owned(), port, credentials })
    }

    /// A connection to a server, as if there were no proxy.
    pub(super) async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let target =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let authorization = match &self.credentials {
            Some(credentials) => {
                format!("Proxy-Authorization: Basic {}\r\n", credentials.expose_secret())
            }
            None => String::new(),
        };
        let request = SecretString::new(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n"
        ));
        stream.write_all(request.expose_secret().as_bytes()).await?;
        // Byte by byte: what follows is the server's. It says nothing before it is spoken to.
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() >= MAX_ANSWER {
                return Err(io::Error::other("the proxy's answer has no end"));
            }
            answer.push(stream.read_u8().await?);
        }
        let answer = String::from_utf8_lossy(&answer);
        let line = answer.lines().next().unwrap_or_default();
        match line.split(' ').nth(1) {
            Some("200") => Ok(stream),
            _ => Err(io::Error::other(format!("the proxy answers: {}", line.escape_debug()))),
        }
    }

    /// Host and port, for messages.
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

fn decoded(text: &str) -> Vec<u8> {
    let (mut rest, mut decoded) = (text.as_bytes(), Vec::new());
    while let Some((first, others)) = rest.split_first() {
        let digits = others.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let value = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match value.filter(|_| *first == b'%') {
            Some(value) => {
                decoded.push(value);
                rest = others.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(*first);
                rest = others;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn proxies_and_exceptions() {
        for bad in ["socks5://p:1", "https://p", "http://", "p q"] {
            let told = Proxies::new(bad, "").unwrap_err().to_string();
            assert!(told.contains("HTTPS_PROXY"), "{told}");
        }
        let proxies = Proxies::new(
            "http://u%40x:p%3Aw@proxy:3128/",
            "near.example, .sub.example,10.0.0.0/8,[2001:db8::1]:4443,port.example:4443,192.0.2.7",
        )
        .unwrap();
        let proxy = proxies.proxy.as_ref().unwrap();
        assert_eq!(proxy.address(), "proxy:3128");
        assert_eq!(proxy.credentials.as_ref().unwrap().expose_secret(), STANDARD.encode("u@x:p:w"));
        assert!(!format!("{proxies:?}").contains("dUB"), "no password is shown");
        for (host, port, through) in [
            ("far.example", 443, true),
            ("near.example", 443, false),
            ("a.near.example", 443, false),
            ("anear.example", 443, true),
            ("sub.example", 443, true),
            ("a.sub.example", 443, false),
            ("10.1.2.3", 443, false),
            ("11.1.2.3", 443, true),
            ("2001:db8::1", 4443, false),
            ("2001:db8::1", 443, true),
            ("Port.example", 4443, false),
            ("port.example", 443, true),
            ("192.0.2.7", 443, false),
            ("localhost", 443, false),
            ("127.0.0.9", 443, false),
            ("::1", 443, false),
        ] {
            assert_eq!(proxies.of(host, port).is_some(), through, "{host}:{port}");
        }
        assert!(Proxies::new("p:1", "*").unwrap().of("x", 1).is_none());
        assert!(Proxies::new("", "").unwrap().of("x", 1).is_none());
    }

    #[tokio::test]
    async fn it_is_told_where_to_connect() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxies = Proxies::new(&format!("u:p@127.0.0.1:{port}"), "").unwrap();
        let proxy = proxies.of("trust.example", 4443).unwrap();
        let answer = async |text: &'static str| {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            request.truncate(length);
            stream.write_all(text.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        };
        let (stream, request) = tokio::join!(
            proxy.connect("trust.example", 4443),
            answer("HTTP/1.1 200 Connection established\r\nX: y\r\n\r\nserver")
        );
        assert_eq!(
            request,
            "CONNECT trust.example:4443 HTTP/1.1\r\nHost: trust.example:4443\r\nProxy-Authorization: Basic dTpw\r\n\r\n"
        );
        let mut rest = String::new();
        stream.unwrap().read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "server");
        let (refused, _) = tokio::join!(
            proxy.connect("trust.example", 4443),
            answer("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        );
        assert!(refused.unwrap_err().to_string().contains("407"));
        let (cut, _) = tokio::join!(proxy.connect("trust.example", 4443), answer("HTTP/1.1 2"));
        assert!(cut.is_err());
    }
}
