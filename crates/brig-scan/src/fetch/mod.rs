//! Files from the web, feeds and whole databases: HTTPS only, the system's authorities, the
//! environment's proxy, a few redirections, bounds on time and size; what did not change is not
//! fetched, and what broke off goes on.

mod kept;
mod proxy;

use std::fs::File;
use std::io::{self, Write as _};
use std::time::Duration;

use brig_pki::tls::Connector;
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HOST, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LAST_MODIFIED, LOCATION, RANGE, USER_AGENT,
};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Body as _;
use hyper_util::rt::TokioIo;

pub use kept::Kept;
use kept::Version;

/// Redirections that are followed.
const MAX_REDIRECTS: usize = 5;
/// How long connecting, and each piece of an answer, may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a server is asked.
const ATTEMPTS: u32 = 3;

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// What a server says in so many words, or what is wrong with the address: it does not change in
    /// a second.
    #[error("{0}")]
    Refused(String),
    /// TLS cannot be set up.
    #[error("TLS to {0}")]
    Tls(String, #[source] brig_pki::PkiError),
    /// The connection, or a file here.
    #[error("{0}")]
    Io(String, #[source] io::Error),
    /// The server's answer.
    #[error("fetching {0}")]
    Http(String, #[source] hyper::Error),
}

type Result<T> = std::result::Result<T, FetchError>;

const fn message(text: String) -> FetchError {
    FetchError::Refused(text)
}

/// What came of asking.
#[derive(Debug)]
pub struct Fetched {
    /// The file, from its beginning.
    pub file: File,
    /// It is what was fetched before.
    pub unchanged: bool,
}

/// Fetches an address, at most `limit` bytes, or what of it is not kept yet.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(address: &str, kept: &Kept, limit: u64) -> Result<Fetched> {
    let mut attempt = 1;
    loop {
        match once(address, kept, limit).await {
            Ok(fetched) => return Ok(fetched),
            Err(error @ (FetchError::Refused(_) | FetchError::Tls(..))) => return Err(error),
            Err(error) if attempt == ATTEMPTS => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_secs(u64::from(attempt))).await,
        }
        attempt += 1;
    }
}

async fn once(address: &str, kept: &Kept, limit: u64) -> Result<Fetched> {
    let mut uri: Uri =
        address.parse().map_err(|_| message(format!("{address:?} is no address")))?;
    for _ in 0..=MAX_REDIRECTS {
        match get(&uri, address, kept, limit).await? {
            Answer::Feed(fetched) => return Ok(fetched),
            Answer::Elsewhere(location) => uri = joined(&uri, &location)?,
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

enum Answer {
    Feed(Fetched),
    Elsewhere(String),
}

/// Asks one server. What is kept goes by the feed's own address, wherever that leads.
async fn get(uri: &Uri, address: &str, kept: &Kept, limit: u64) -> Result<Answer> {
    if uri.scheme_str() != Some("https") {
        return Err(message(format!(
            "{uri} is not https: fetch it by other means and name the file"
        )));
    }
    let host = uri.host().ok_or_else(|| message(format!("{uri} names no host")))?;
    let port = uri.port_u16().unwrap_or(443);
    let io = |source| FetchError::Io(format!("connecting to {host}"), source);
    let late = || io(std::io::Error::from(std::io::ErrorKind::TimedOut));
    let connector = Connector::web(host.trim_matches(['[', ']']))
        .map_err(|error| FetchError::Tls(host.to_owned(), error))?;
    let stream = tokio::time::timeout(PATIENCE, async {
        let tcp = proxy::connect(uri, host.trim_matches(['[', ']']), port).await?;
        connector.connect(tcp).await
    })
    .await
    .map_err(|_| late())?
    .map_err(io)?;
    let http = |source| FetchError::Http(uri.to_string(), source);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(connection);
    let part = kept.part(address);
    let whole = if part.is_none() { kept.whole(address) } else { None };
    let request = request(uri, host, &part, &whole)?;
    let result = async {
        let mut answer = tokio::time::timeout(PATIENCE, sender.send_request(request))
            .await
            .map_err(|_| late())?
            .map_err(http)?;
        let keep = |source| FetchError::Io("keeping what was fetched".to_owned(), source);
        let text = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let new = Version {
            etag: text(ETAG).map(str::to_owned),
            modified: text(LAST_MODIFIED).map(str::to_owned),
        };
        let status = answer.status().as_u16();
        let larger = || message(format!("{uri} is larger than {limit} bytes"));
        if answer.body().size_hint().lower() > limit {
            return Err(larger());
        }
        let (mut file, mut size, version) = match (status, part, whole) {
            (200, ..) => (kept.begin(address, &new).map_err(keep)?, 0, new),
            (206, Some((file, size, version)), _) if continues(text(CONTENT_RANGE), size) => {
                (file, size, version)
            }
            (304, None, Some((file, _))) => {
                return Ok(Answer::Feed(Fetched { file, unchanged: true }));
            }
            (206 | 416, ..) => {
                kept.forget_part(address);
                let what = format!("{uri} does not go on where it broke off");
                return Err(FetchError::Io(what, std::io::ErrorKind::InvalidData.into()));
            }
            (301 | 302 | 303 | 307 | 308, ..) if text(LOCATION).is_some() => {
                return Ok(Answer::Elsewhere(text(LOCATION).unwrap_or_default().to_owned()));
            }
            (500.., ..) => {
                let what = format!("{uri} answers with status {status}");
                return Err(FetchError::Io(
                    what,
                    std::io::Error::other("the server is in trouble"),
                ));
            }
            _ => return Err(message(format!("{uri} answers with status {status}"))),
        };
        while let Some(frame) =
            tokio::time::timeout(PATIENCE, answer.frame()).await.map_err(|_| late())?
        {
            if let Ok(data) = frame.map_err(http)?.into_data() {
                size += u64::try_from(data.len()).unwrap_or(u64::MAX);
                if size > limit {
                    kept.forget_part(address);
                    return Err(larger());
                }
                file.write_all(&data).map_err(keep)?;
            }
        }
        let file = kept.finish(address, file, version).map_err(keep)?;
        Ok(Answer::Feed(Fetched { file, unchanged: false }))
    }
    .await;
    driver.shutdown().await;
    result
}

/// Asks for the rest of what broke off, or for what is newer than what is kept.
fn request(
    uri: &Uri,
    host: &str,
    part: &Option<(File, u64, Version)>,
    whole: &Option<(File, Version)>,
) -> Result<Request<Empty<Bytes>>> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path)
        .header(HOST, uri.authority().map_or(host, |authority| authority.as_str()))
        .header(USER_AGENT, concat!("brig/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT_ENCODING, "identity");
    if let Some((_, size, version)) = part {
        request = request
            .header(RANGE, format!("bytes={size}-"))
            .header(IF_RANGE, version.strong().unwrap_or_default());
    }
    if let Some((_, version)) = whole {
        if let Some(etag) = &version.etag {
            request = request.header(IF_NONE_MATCH, etag);
        } else if let Some(modified) = &version.modified {
            request = request.header(IF_MODIFIED_SINCE, modified);
        }
    }
    request.body(Empty::<Bytes>::new()).map_err(|_| message(format!("{uri} cannot be asked for")))
}

/// Whether a part begins behind what is there: `bytes FIRST-LAST/SIZE`.
fn continues(range: Option<&str>, size: u64) -> bool {
    let first = range
        .and_then(|range| range.trim().strip_prefix("bytes "))
        .and_then(|range| range.split('-').next());
    first.and_then(|first| first.trim().parse().ok()) == Some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn plain_http_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(&folder.path().join("a.db")).unwrap();
        let address = "http://127.0.0.1:1/feed.json";
        let error = get(&address.parse().unwrap(), address, &kept, 1).await.err().unwrap();
        assert!(error.to_string().contains("is not https"));
    }

    #[test]
    fn parts_are_put_together_where_they_belong() {
        assert!(continues(Some("bytes 5-9/10"), 5));
        assert!(!continues(Some("bytes 0-9/10"), 5));
        assert!(!continues(Some("bytes */10"), 5));
        assert!(!continues(None, 0));
    }

    #[test]
    fn redirections_are_joined() {
        let uri: Uri = "https://a.example/x".parse().unwrap();
        assert_eq!(joined(&uri, "/y?z").unwrap().to_string(), "https://a.example/y?z");
        assert_eq!(joined(&uri, "https://b.example/").unwrap().host(), Some("b.example"));
    }
}
