//! Newcomers: clients without a certificate, waiting for an administrator's word.
//!
//! They get no further than this module: a handshake that asks for a protocol of its own, three
//! messages, and a short code that both ends show (`brig_pki::enrol`). Off unless an
//! administrator has opened it for some minutes; few at a time; forgotten soon.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use brig_pki::enrol::{self, Code, NONCE_LEN, Transcript};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::EnrolError;

/// Newcomers that wait at a time, and those of one address.
const MAX_WAITING: usize = 16;
const MAX_OF_ONE: usize = 4;
/// Newcomers that are let in for each time that an administrator opens the door.
const MAX_TRIES: u32 = 64;
/// How long a newcomer waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// How long the door may be open.
pub const MAX_OPEN: Duration = Duration::from_secs(24 * 3600);
/// Time for a newcomer's messages.
const TALK: Duration = Duration::from_secs(15);
/// Longest message of a newcomer, in bytes.
const MAX_MESSAGE: u64 = 16 << 10;
/// Longest name that a newcomer may ask for.
const MAX_NAME: usize = 63;

/// What a newcomer is told in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// The certificate, PEM.
    pub certificate: String,
    /// What the server's certificate is checked against, PEM.
    pub authority: String,
    /// The name that was given.
    pub name: String,
    /// The role that was given.
    pub role: String,
    /// When the certificate ends, RFC 3339.
    pub ends: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Hello {
    commitment: String,
    name: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Challenge {
    nonce: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Opening {
    request: String,
    nonce: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Last<'a> {
    Welcome(&'a Welcome),
    Refused(&'a str),
}

/// Somebody who waits, as administrators see them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The code.
    pub code: Code,
    /// The name that they ask for.
    pub name: String,
    /// Where they are.
    pub from: SocketAddr,
    /// Since when they wait.
    pub since: OffsetDateTime,
}

/// An answer on its way to a newcomer.
#[derive(Debug)]
pub struct Answer(oneshot::Sender<Result<Welcome, String>>);

/// Who waits, and whether anybody may.
#[derive(Debug, Default)]
pub struct Newcomers(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open_until: Option<(Instant, OffsetDateTime)>,
    tries: u32,
    talking: usize,
    waiting: BTreeMap<Code, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    shown: Shown,
    request: Vec<u8>,
    answer: oneshot::Sender<Result<Welcome, String>>,
}

/// A newcomer's place while it talks.
#[derive(Debug)]
struct Talking<'a>(&'a Newcomers);

impl Drop for Talking<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.talking = inner.talking.saturating_sub(1);
    }
}

/// A newcomer that waits: gone when it does not any more.
#[derive(Debug)]
struct Place<'a>(&'a Newcomers, Code);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting.remove(&self.1);
    }
}

impl Newcomers {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets newcomers ask for so long; zero closes. The end.
    pub fn open(&self, time: Duration) -> Option<OffsetDateTime> {
        let mut inner = self.lock();
        inner.tries = 0;
        if time.is_zero() {
            inner.open_until = None;
            // Whoever waits is told by the end of the connection.
            inner.waiting.clear();
            return None;
        }
        let time = time.min(MAX_OPEN);
        let end = OffsetDateTime::now_utc() + time;
        inner.open_until = Some((Instant::now() + time, end));
        Some(end)
    }

    /// Until when newcomers may ask.
    #[must_use]
    pub fn open_until(&self) -> Option<OffsetDateTime> {
        let inner = self.lock();
        inner.open_until.filter(|(end, _)| *end > Instant::now()).map(|(_, end)| end)
    }

    /// Whether a newcomer may ask now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let inner = self.lock();
        inner.open_until.is_some_and(|(end, _)| end > Instant::now()) && inner.tries < MAX_TRIES
    }

    /// Who waits.
    #[must_use]
    pub fn list(&self) -> Vec<Shown> {
        self.lock().waiting.values().map(|waiting| waiting.shown.clone()).collect()
    }

    /// Who shows this code: the name that they ask for, and their request.
    ///
    /// # Errors
    /// [`EnrolError::NotFound`]: nobody does, or somebody else is in between.
    pub fn look(&self, code: &str) -> Result<(Shown, Vec<u8>), EnrolError> {
        let inner = self.lock();
        let known = Code::parse(code).and_then(|code| inner.waiting.get(&code));
        known.map(|waiting| (waiting.shown.clone(), waiting.request.clone())).ok_or_else(|| {
            EnrolError::NotFound(format!(
                "nobody with the code {code:?} waits. If the client shows this code, it does not talk to this engine but to somebody in between: do not approve anything. See brig access pending"
            ))
        })
    }

    /// The way to whoever shows this code; nobody else can answer them then.
    pub fn take(&self, code: &Code) -> Option<Answer> {
        self.lock().waiting.remove(code).map(|waiting| Answer(waiting.answer))
    }

    fn begin(&self, from: IpAddr) -> Result<Talking<'_>, String> {
        let mut inner = self.lock();
        let is_open = inner.open_until.is_some_and(|(end, _)| end > Instant::now());
        if !is_open {
            return Err(
                "nobody may enrol now: an administrator allows it with brig access open".to_owned()
            );
        }
        let of_one = inner.waiting.values().filter(|one| one.shown.from.ip() == from).count();
        if inner.tries >= MAX_TRIES
            || inner.talking + inner.waiting.len() >= MAX_WAITING
            || of_one >= MAX_OF_ONE
        {
            return Err("too many others want to enrol; try again later".to_owned());
        }
        inner.tries += 1;
        inner.talking += 1;
        Ok(Talking(self))
    }

    /// Talks to a newcomer until it is answered, gives up, or has waited too long.
    ///
    /// # Errors
    /// When the connection breaks, or the newcomer does not keep to the protocol.
    pub async fn serve<IO>(
        &self,
        stream: IO,
        server_key: &[u8],
        from: SocketAddr,
    ) -> std::io::Result<()>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = BufReader::new(stream);
        let talking = match self.begin(from.ip()) {
            Ok(talking) => talking,
            Err(reason) => return say(&mut stream, &Last::Refused(&reason)).await,
        };
        let talk = tokio::time::timeout(TALK, meet(&mut stream, server_key, from)).await;
        let (shown, request) = match talk.map_err(|_| std::io::ErrorKind::TimedOut)?? {
            Ok(met) => met,
            Err(reason) => return say(&mut stream, &Last::Refused(reason)).await,
        };
        let (answer, answered) = oneshot::channel();
        let code = shown.code.clone();
        let place = {
            let mut inner = self.lock();
            if inner.waiting.contains_key(&code) {
                None
            } else {
                tracing::info!(%from, name = shown.name, "somebody wants to enrol");
                inner.waiting.insert(code.clone(), Waiting { shown, request, answer });
                Some(Place(self, code))
            }
        };
        drop(talking);
        // One in a hundred million; the next attempt has another code.
        let Some(_place) = place else {
            return say(&mut stream, &Last::Refused("try again")).await;
        };
        let mut rest = [0; 1];
        tokio::select! {
            answer = answered => match answer {
                Ok(Ok(welcome)) => say(&mut stream, &Last::Welcome(&welcome)).await,
                Ok(Err(reason)) => say(&mut stream, &Last::Refused(&reason)).await,
                Err(_) => say(&mut stream, &Last::Refused("nobody may enrol any more")).await,
            },
            // It has nothing more to say: it has gone.
            _ = stream.read(&mut rest) => Ok(()),
            () = tokio::time::sleep(PATIENCE) => {
                say(&mut stream, &Last::Refused("nobody has approved it within 10 minutes")).await
            }
        }
    }
}

impl Answer {
    /// Lets them in; whether they are still there.
    pub fn welcome(self, welcome: Welcome) -> bool {
        self.0.send(Ok(welcome)).is_ok()
    }

    /// Turns them away.
    pub fn refuse(self, reason: &str) {
        // They may have gone already.
        let _ = self.0.send(Err(reason.to_owned()));
    }
}

/// The three messages; what is shown then, and the request. An inner error is for the newcomer.
async fn meet<IO>(
    stream: &mut BufReader<IO>,
    server_key: &[u8],
    from: SocketAddr,
) -> std::io::Result<Result<(Shown, Vec<u8>), &'static str>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let hello: Hello = hear(stream).await?;
    if !is_name(&hello.name) {
        return Ok(Err("the name does not fit: letters, digits, '.', '_' and '-', at most 63"));
    }
    let server_nonce = enrol::nonce().map_err(std::io::Error::other)?;
    tell(stream, &Challenge { nonce: brig_pki::hash::hex(&server_nonce) }).await?;
    let opening: Opening = hear(stream).await?;
    let (Some(commitment), Some(client_nonce)) = (unhex(&hello.commitment), unhex(&opening.nonce))
    else {
        return Ok(Err("a number is not of 64 hexadecimal digits"));
    };
    let request = opening.request.into_bytes();
    if !enrol::keeps(&commitment, &request, &hello.name, &client_nonce) {
        return Ok(Err("the request is not the one that was announced"));
    }
    if brig_pki::issued::check_request(&request).is_err() {
        return Ok(Err("the signing request cannot be used"));
    }
    let transcript = Transcript {
        server_key,
        request: &request,
        name: &hello.name,
        client_nonce: &client_nonce,
        server_nonce: &server_nonce,
    };
    let code = transcript.code().map_err(std::io::Error::other)?;
    let since = OffsetDateTime::now_utc();
    Ok(Ok((Shown { code, name: hello.name, from, since }, request)))
}

fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(fits)
}

fn unhex(text: &str) -> Option<[u8; NONCE_LEN]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * NONCE_LEN {
        return None;
    }
    let mut bytes = [0; NONCE_LEN];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// A message: JSON on a line.
async fn hear<T: DeserializeOwned>(
    stream: &mut BufReader<impl AsyncRead + Unpin>,
) -> std::io::Result<T> {
    let mut line = Vec::new();
    stream.take(MAX_MESSAGE).read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&line).map_err(std::io::Error::other)
}

async fn tell(
    stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>,
    message: &impl Serialize,
) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message).map_err(std::io::Error::other)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

async fn say(
    stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>,
    last: &Last<'_>,
) -> std::io::Result<()> {
    let said = async {
        tell(stream, last).await?;
        stream.shutdown().await
    };
    tokio::time::timeout(TALK, said).await.map_err(|_| std::io::ErrorKind::TimedOut)?
}

#[cfg(test)]
mod tests;
