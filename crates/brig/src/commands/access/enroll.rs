//! `access enroll`, and the other end of it: `open`, `pending`, `approve`, `deny`.

use std::time::Duration;

use brig_pki::access_ca::check_issued;
use brig_pki::csr::NodeKey;
use brig_pki::engine::EngineClient;
use brig_pki::enrol::{self, Code, NONCE_LEN, Transcript};
use brig_types::secret::SecretBytes;
use clap::Args;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpStream;

use super::identity::{Given, ScopeArgs, escaped, keep, pki, seconds};
use crate::cli::leaf;
use crate::client::{Address, Call, Client, Endpoint};
use crate::context::Context;
use crate::contexts::{self, TlsFiles};
use crate::error::{Error, Result, message};
use crate::output::list::{Listing, Row};
use crate::output::{line, prompt, warn};
use crate::parse::duration;

leaf!(
    ENROLL,
    "enroll" | "enrol",
    "[OPTIONS] HOST[:PORT]",
    "Get a certificate from an engine, and a context that uses and renews it",
    EnrollArgs,
    enroll
);
leaf!(
    OPEN,
    "open",
    "[OPTIONS]",
    "Let clients ask for a certificate for some minutes",
    OpenArgs,
    open
);
leaf!(
    PENDING,
    "pending",
    "[OPTIONS]",
    "List clients that ask for a certificate, with the code that they show",
    PendingArgs,
    pending
);
leaf!(
    APPROVE,
    "approve",
    "[OPTIONS] CODE",
    "Give the client that shows this code a certificate with a role",
    ApproveArgs,
    approve
);
leaf!(DENY, "deny", "CODE", "Turn away the client that shows this code", DenyArgs, deny);

/// Time for the connection and the first messages.
const TALK: Duration = Duration::from_secs(20);
/// Time for an administrator to answer; the engine gives up earlier.
const PATIENCE: Duration = Duration::from_secs(660);
/// Longest message of an engine, in bytes.
const MAX_MESSAGE: u64 = 256 << 10;
const PORT: u16 = 2376;

#[derive(Args, Debug)]
struct EnrollArgs {
    /// Name to ask for (default USER-HOST of this machine)
    #[arg(long)]
    name: Option<String>,
    /// Name of the context (default the host)
    #[arg(long)]
    context: Option<String>,
    /// Do not ask whether the code was compared
    #[arg(long, short = 'y')]
    yes: bool,
    #[arg(hide = true)]
    host: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Hello<'a> {
    commitment: String,
    name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Opening<'a> {
    request: &'a str,
    nonce: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
enum Message {
    Nonce(String),
    Welcome(Welcome),
    Refused(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Welcome {
    certificate: String,
    authority: String,
    name: String,
    role: String,
    ends: String,
}

async fn enroll(context: &Context, args: EnrollArgs) -> Result<()> {
    let (host, port) = place(&args.host)?;
    let called = args.context.clone().unwrap_or_else(|| context_name(&host));
    contexts::validate_name(&called)?;
    if contexts::Store::in_config(&context.globals.config_dir()).exists(&called) {
        return Err(message(format!(
            "context {called:?} already exists: choose another name with --context, or remove it first ({} context rm {called})",
            context.program
        )));
    }
    let name = args.name.clone().unwrap_or_else(own_name);
    let key = NodeKey::generate().map_err(|error| pki(&error))?;
    let request = key.csr_pem().map_err(|error| pki(&error))?;
    let met = tokio::time::timeout(TALK, meet(&host, port, &name, &request)).await;
    let (mut stream, code) =
        met.unwrap_or_else(|_| Err(message(format!("{host}:{port} does not answer"))))?;
    line(&format!("Code: {code}"))?;
    warn(&format!(
        "On the engine, somebody who may has to compare the code and type:\n  brig access approve {code} --role ROLE\nWaiting…"
    ));
    let answer = tokio::time::timeout(PATIENCE, hear::<Message>(&mut stream)).await;
    let welcome = match answer.unwrap_or_else(|_| Err(message("nobody has approved it in time")))? {
        Message::Welcome(welcome) => welcome,
        Message::Refused(reason) => return Err(message(format!("{host}: {reason}"))),
        Message::Nonce(_) => return Err(message("the engine does not keep to the protocol")),
    };
    // Whoever is in between could say that as well: only people know who has seen which code.
    if !args.yes && !confirmed(&code, &welcome)? {
        return Err(message(
            "nothing was kept. If nobody approved that code on the engine, somebody is in between",
        ));
    }
    let info = check_issued(welcome.certificate.as_bytes(), &key).map_err(|error| pki(&error))?;
    let secret = |text: &str| Some(SecretBytes::new(text.as_bytes().to_vec()));
    let files = TlsFiles {
        ca: secret(&welcome.authority),
        cert: secret(&welcome.certificate),
        key: Some(key.key_pem()),
    };
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let url = format!("tcp://{bracketed}:{port}");
    // The engine must be what its own authority says, by the name that will be used.
    let address = Address::parse(&url, true)?;
    let client = Client::new(
        Endpoint::new(address, Some(files.client(false)?)),
        &context.config.http_headers(),
    );
    client.version().await.map_err(|error| {
        message(format!(
            "the engine's certificate does not fit {host}: {}. Start brigd with --tlsname {host}, or enroll by a name that it has; then revoke {} and try again",
            error.text(),
            welcome.name
        ))
    })?;
    keep(context, &called, &url, &files, &format!("{} as {}", welcome.name, welcome.role))?;
    line(&called)?;
    warn(&format!(
        "You are {:?}, {:?}, until {}; brig renews that by itself ({}).\nUse it:  {program} --context {called} ps, or: {program} context use {called}",
        welcome.name,
        welcome.role,
        welcome.ends,
        info.subject,
        program = context.program
    ));
    Ok(())
}

fn confirmed(code: &Code, welcome: &Welcome) -> Result<bool> {
    let answer = prompt(&format!(
        "The engine says: approved, as {:?} with role {:?}.\nDid you, or somebody you trust, see the code {code} on the engine and approve it? [y/N] ",
        welcome.name, welcome.role
    ))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// `HOST[:PORT]`, also as an address.
fn place(text: &str) -> Result<(String, u16)> {
    let url = if text.contains("://") { text.to_owned() } else { format!("tcp://{text}") };
    let url = if url.starts_with("tcp://") && !has_port(&url) {
        format!("{}:{PORT}", url.trim_end_matches('/'))
    } else {
        url
    };
    match Address::parse(&url, true)? {
        Address::Tcp { host, port } => Ok((host, port)),
        _ => Err(message(format!("invalid host {text:?}: expected HOST or HOST:PORT"))),
    }
}

fn has_port(url: &str) -> bool {
    let rest = url.trim_start_matches("tcp://").trim_end_matches('/');
    let tail = rest.rsplit_once(']').map_or(rest, |(_, tail)| tail);
    tail.contains(':')
}

fn fitting(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fitted: String = text.chars().map(|c| if fits(c) { c } else { '-' }).collect();
    fitted.trim_start_matches(['.', '_', '-']).chars().take(63).collect()
}

fn context_name(host: &str) -> String {
    let name = fitting(host);
    if name.len() > 1 { name } else { format!("engine-{name}") }
}

fn own_name() -> String {
    let user = std::env::var("USER").ok().filter(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| "root".to_owned());
    let host = rustix::system::uname();
    fitting(&format!("{user}-{}", host.nodename().to_string_lossy()))
}

type Stream = BufReader<brig_pki::engine::EngineConnection<TcpStream>>;

/// The handshake and the three messages, up to the code.
async fn meet(host: &str, port: u16, name: &str, request: &[u8]) -> Result<(Stream, Code)> {
    let unreachable = |source: std::io::Error| Error::Unreachable {
        address: format!("tcp://{host}:{port}"),
        reason: source.to_string(),
    };
    let stream = TcpStream::connect((host, port)).await.map_err(unreachable)?;
    let client = EngineClient::for_enrolment().map_err(|error| pki(&error))?;
    let stream = client.connect(host, stream).await.map_err(|error| {
        message(format!(
            "{host}:{port} enrolls nobody now ({error}): on the engine, let somebody who may type: brig access open --for 10m"
        ))
    })?;
    let server_key =
        stream.server_key().ok_or_else(|| message("the engine showed no certificate"))?;
    let mut stream = BufReader::new(stream);
    let client_nonce = enrol::nonce().map_err(|error| pki(&error))?;
    let commitment = brig_pki::hash::hex(&enrol::commitment(request, name, &client_nonce));
    tell(&mut stream, &Hello { commitment, name }).await?;
    let server_nonce = match hear(&mut stream).await? {
        Message::Nonce(nonce) => nonce_of(&nonce)?,
        Message::Refused(reason) => return Err(message(format!("{host}: {reason}"))),
        Message::Welcome(_) => return Err(message("the engine does not keep to the protocol")),
    };
    let text = std::str::from_utf8(request).map_err(|error| pki(&error))?;
    tell(&mut stream, &Opening { request: text, nonce: brig_pki::hash::hex(&client_nonce) })
        .await?;
    let transcript = Transcript {
        server_key: &server_key,
        request,
        name,
        client_nonce: &client_nonce,
        server_nonce: &server_nonce,
    };
    let code = transcript.code().map_err(|error| pki(&error))?;
    Ok((stream, code))
}

fn nonce_of(text: &str) -> Result<[u8; NONCE_LEN]> {
    let wrong = || message("the engine does not keep to the protocol");
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.ok_or_else(wrong)?;
    let bytes: Vec<u8> =
        digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |all, d| all << 4 | d)).collect();
    bytes.try_into().map_err(|_| wrong())
}

async fn tell(
    stream: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>,
    what: &impl Serialize,
) -> Result<()> {
    let mut text = serde_json::to_vec(what)
        .map_err(|source| Error::Answer { path: "enrolment".to_owned(), source })?;
    text.push(b'\n');
    let sent = async {
        stream.write_all(&text).await?;
        stream.flush().await
    };
    sent.await.map_err(|source| Error::io("writing to the engine", source))
}

async fn hear<T: DeserializeOwned>(stream: &mut BufReader<impl AsyncRead + Unpin>) -> Result<T> {
    let mut text = Vec::new();
    let read = stream.take(MAX_MESSAGE).read_until(b'\n', &mut text).await;
    read.map_err(|source| Error::io("reading from the engine", source))?;
    if text.last() != Some(&b'\n') {
        return Err(message("the engine has ended the connection"));
    }
    serde_json::from_slice(&text)
        .map_err(|source| Error::Answer { path: "enrolment".to_owned(), source })
}

#[derive(Args, Debug)]
struct OpenArgs {
    /// For how long (s|m|h); 0s closes
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::with_days, default_value = "10m")]
    time: i64,
    /// Close at once; whoever waits is turned away
    #[arg(long)]
    close: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Door {
    open_until: String,
    newcomers: Vec<Newcomer>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Newcomer {
    code: String,
    name: String,
    from: String,
    since: String,
}

async fn open(context: &Context, args: OpenArgs) -> Result<()> {
    let time = if args.close || args.time == 0 { 0 } else { seconds(args.time) };
    let call = Call::post("/brig/access/newcomers").json(&json!({ "Seconds": time }))?;
    let door: Door = context.client.json(call).await?;
    if door.open_until.is_empty() {
        return line("closed");
    }
    line(&door.open_until)?;
    warn(
        "Until then a client may ask:  brig access enroll HOST\nIts code is shown here:       brig access pending",
    );
    Ok(())
}

#[derive(Args, Debug)]
struct PendingArgs {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display codes
    #[arg(long, short = 'q')]
    quiet: bool,
}

async fn pending(context: &Context, args: PendingArgs) -> Result<()> {
    let door: Door = context.client.json(Call::get("/brig/access/newcomers")).await?;
    if door.open_until.is_empty() && door.newcomers.is_empty() && !args.quiet {
        warn(
            "Nobody may enroll now; let clients ask for some minutes:  brig access open --for 10m",
        );
    }
    let rows: Vec<Row> = door
        .newcomers
        .iter()
        .map(|one| {
            Row::new()
                .with("Code", one.code.as_str())
                .with("Name", one.name.as_str())
                .with("From", one.from.as_str())
                .with("Since", one.since.as_str())
        })
        .collect();
    let listing = Listing {
        table: "{{.Code}}\t{{.Name}}\t{{.From}}\t{{.Since}}",
        headers: &[("Code", "CODE"), ("Name", "NAME"), ("From", "FROM"), ("Since", "SINCE")],
        id: "Code",
    };
    listing.print(&rows, args.format.as_deref(), args.quiet)
}

#[derive(Args, Debug)]
struct ApproveArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Another name than the client asks for
    #[arg(long)]
    name: Option<String>,
    /// Lifetime of each certificate (s|m|h|d); brig renews it past half of that
    #[arg(long, value_parser = duration::with_days, default_value = "24h")]
    ttl: i64,
    #[arg(hide = true)]
    code: String,
}

async fn approve(context: &Context, args: ApproveArgs) -> Result<()> {
    let mut wish = args.scope.wish()?;
    wish.insert("Name".to_owned(), json!(args.name.unwrap_or_default()));
    wish.insert("Lifetime".to_owned(), json!(seconds(args.ttl)));
    wish.insert("Renews".to_owned(), json!(true));
    let path = format!("/brig/access/newcomers/{}/approve", escaped(&args.code));
    let given: Given = context.client.json(Call::post(path).json(&wish)?).await?;
    line(&given.name)?;
    warn(&format!(
        "{} is {:?} until {}, and renews it by itself",
        given.name, given.role, given.ends
    ));
    Ok(())
}

#[derive(Args, Debug)]
struct DenyArgs {
    #[arg(hide = true)]
    code: String,
}

async fn deny(context: &Context, args: DenyArgs) -> Result<()> {
    let path = format!("/brig/access/newcomers/{}", escaped(&args.code));
    context.client.none(Call::delete(path)).await?;
    line(&args.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_get_their_port() {
        for (text, host, port) in [
            ("server", "server", 2376),
            ("server:2000", "server", 2000),
            ("tcp://server", "server", 2376),
            ("10.0.0.5:1", "10.0.0.5", 1),
            ("[fd00::5]", "fd00::5", 2376),
            ("tcp://[fd00::5]:7/", "fd00::5", 7),
        ] {
            assert_eq!(place(text).unwrap(), (host.to_owned(), port), "{text}");
        }
        for text in ["", "ssh://h", "unix:///x", "h:x"] {
            assert!(place(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_made_to_fit() {
        assert_eq!(fitting("ann@my host"), "ann-my-host");
        assert_eq!(context_name("a"), "engine-a");
        assert_eq!(context_name("fd00::5"), "fd00--5");
    }

    proptest::proptest! {
        #[test]
        fn any_answer_is_read_or_refused(text in "\\PC{0,80}") {
            let _ = nonce_of(&text);
            let _ = serde_json::from_str::<Message>(&text);
            let _ = place(&text);
        }
    }
}
