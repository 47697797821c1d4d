//! Feeds from the web: HTTPS only, the system's authorities, a few redirections, a bound on time.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::time::Duration;

use brig_pki::tls::Connector;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, HOST, LOCATION, USER_AGENT};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::error::{Error, Result, message};

/// Redirections that are followed.
const MAX_REDIRECTS: usize = 5;
/// Largest feed that is fetched, in bytes, as it is packed.
const MAX_DOWNLOAD: u64 = 8 << 30;
/// How long connecting, and each piece of an answer, may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a feed is asked for.
const ATTEMPTS: u32 = 3;

/// Fetches an address into a file without a name, and rewinds it.
pub(super) async fn fetch(address: &str) -> Result<File> {
    let mut attempt = 1;
    loop {
        match once(address).await {
            Ok(file) => return Ok(file),
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_secs(u64::from(attempt))).await,
        }
        attempt += 1;
    }
}

async fn once(address: &str) -> Result<File> {
    let mut uri: Uri =
        address.parse().map_err(|_| message(format!("{address:?} is no address")))?;
    for _ in 0..=MAX_REDIRECTS {
        let (status, location, file) = get(&uri).await?;
        match (status.as_u16(), location) {
            (200, _) => return Ok(file),
            (301 | 302 | 303 | 307 | 308, Some(location)) => uri = joined(&uri, &location)?,
            (status, _) => return Err(message(format!("{uri} answers with status {status}"))),
        }
    }
    Err(message(format!("{address} redirects more than {MAX_REDIRECTS} times")))
}

/// A place to go on to, relative ones against where we are.
fn joined(uri: &Uri, location: &str) -> Result<Uri> {
    let bad = || message(format!("{uri} redirects to {location:?}, which is no address"));
    if location.starts_with('/') {
        let authority = uri.authority().ok_or_else(bad)?;
        return format!("https://{authority}{location}").parse().map_err(|_| bad());
    }
    location.parse().map_err(|_| bad())
}

async fn get(uri: &Uri) -> Result<(http::StatusCode, Option<String>, File)> {
    if uri.scheme_str() != Some("https") {
        return Err(message(format!(
            "{uri} is not https: fetch it by other means and name the file"
        )));
    }
    let host = uri.host().ok_or_else(|| message(format!("{uri} names no host")))?;
    let port = uri.port_u16().unwrap_or(443);
    let io = |source| Error::io(format!("connecting to {host}"), source);
    let late = || io(std::io::Error::from(std::io::ErrorKind::TimedOut));
    let connector = Connector::web(host.trim_matches(['[', ']']))
        .map_err(|error| message(format!("TLS to {host}: {}", brig_types::error::chain(&error))))?;
    let stream = tokio::time::timeout(PATIENCE, async {
        let tcp = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        connector.connect(tcp).await
    })
    .await
    .map_err(|_| late())?
    .map_err(io)?;
    let http = |source| Error::Http { what: "fetching a feed", source };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, uri.authority().map_or(host, |authority| authority.as_str()))
        .header(USER_AGENT, concat!("brig/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT_ENCODING, "identity")
        .body(Empty::<Bytes>::new())
        .map_err(|_| message(format!("{uri} cannot be asked for")))?;
    let result = async {
        let mut answer = tokio::time::timeout(PATIENCE, sender.send_request(request))
            .await
            .map_err(|_| late())?
            .map_err(http)?;
        let location =
            answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let keep = |source| Error::io("keeping a feed", source);
        let mut file = super::source::unnamed().map_err(keep)?;
        let status = answer.status();
        let mut size = 0_u64;
        let wanted = status == 200;
        loop {
            if !wanted {
                break;
            }
            let frame = tokio::time::timeout(PATIENCE, answer.frame()).await.map_err(|_| late())?;
            let Some(frame) = frame else { break };
            if let Ok(data) = frame.map_err(http)?.into_data() {
                size += u64::try_from(data.len()).unwrap_or(u64::MAX);
                if size > MAX_DOWNLOAD {
                    return Err(message(format!("{uri} is larger than {MAX_DOWNLOAD} bytes")));
                }
                file.write_all(&data).map_err(keep)?;
            }
        }
        file.rewind().map_err(keep)?;
        Ok((status, location, file))
    }
    .await;
    driver.shutdown().await;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn plain_http_is_refused() {
        let uri: Uri = "http://127.0.0.1:1/feed.json".parse().unwrap();
        assert!(get(&uri).await.unwrap_err().text().contains("is not https"));
    }

    #[test]
    fn redirections_are_joined() {
        let uri: Uri = "https://a.example/x".parse().unwrap();
        assert_eq!(joined(&uri, "/y?z").unwrap().to_string(), "https://a.example/y?z");
        assert_eq!(joined(&uri, "https://b.example/").unwrap().host(), Some("b.example"));
    }
}
