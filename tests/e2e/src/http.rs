//! The Engine API without a client: single requests over a unix socket, for asking often.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// Longest silence of a daemon.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An answer: status and body. `None` when the daemon did not answer.
fn exchange(socket: &Path, request: &str) -> Option<(u16, String)> {
    exchange_within(socket, request, TIMEOUT)
}

fn exchange_within(socket: &Path, request: &str, limit: Duration) -> Option<(u16, String)> {
    let mut answer = String::new();
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

/// One GET; the body of a success, parsed where it is JSON, [`Value::Null`] otherwise.
#[must_use]
pub fn get(socket: &Path, path: &str) -> Value {
    // 1.0: bodies end with the connection and come without chunks.
    match exchange(socket, &format!("GET {path} HTTP/1.0\r\nHost: e2e\r\n\r\n")) {
        Some((200, body)) => {
            serde_json::from_str(&body).unwrap_or_else(|_| Value::String(body.trim().to_owned()))
        }
        _ => Value::Null,
    }
}

/// One GET; the whole answer as it came, head included, and nothing if there was none.
#[must_use]
pub fn get_raw(socket: &Path, path: &str) -> String {
    let mut answer = String::new();
    let mut asked = || -> std::io::Result<usize> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: e2e\r\n\r\n").as_bytes())?;
        stream.read_to_string(&mut answer)
    };
    // What was read before a failure is an answer that is cut off.
    let _ = asked();
    answer
}

/// One DELETE.
///
/// # Errors
/// The answer of a daemon that refused.
pub fn delete(socket: &Path, path: &str) -> Result<(), String> {
    match exchange(socket, &format!("DELETE {path} HTTP/1.0\r\nHost: e2e\r\n\r\n")) {
        Some((200..300, _)) => Ok(()),
        Some((status, body)) => Err(format!("{status}: {body}")),
        None => Err("no answer".to_owned()),
    }
}

/// One GET whose answer is only counted: its bytes, head included.
///
/// # Errors
/// When the daemon does not answer.
pub fn count(socket: &Path, path: &str) -> std::io::Result<u64> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: e2e\r\n\r\n").as_bytes())?;
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(total),
            read => total += u64::try_from(read).unwrap_or_default(),
        }
    }
}

/// One POST of a JSON body.
///
/// # Errors
/// The answer of a daemon that refused.
pub fn post(socket: &Path, path: &str, body: &Value) -> Result<String, String> {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: e2e\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    match exchange(socket, &request) {
        Some((200..300, body)) => Ok(body),
        Some((status, body)) => Err(format!("{status}: {body}")),
        None => Err("no answer".to_owned()),
    }
}

/// One request, with a body or without; status and body of the answer, nothing where none came
/// within the time.
#[must_use]
pub fn call(
    socket: &Path,
    (method, path): (&str, &str),
    body: Option<&Value>,
    limit: Duration,
) -> Option<(u16, String)> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: e2e\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange_within(socket, &request, limit)
}
