//! Daemons with rules, and users of this host with roles.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::common::Daemon;

pub const VIEWER: u32 = 61_001;
pub const OPERATOR: u32 = 61_002;
pub const DEPLOYER: u32 = 61_003;
pub const NOBODY: u32 = 61_004;

pub const BINDINGS: &str = r#"{"local":"none","bindings":[
    {"uid":61001,"role":"viewer"},
    {"uid":61002,"role":"operator"},
    {"uid":61003,"role":"deployer","services":["web"],"secrets":["key"]}
]}"#;

pub fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

/// A daemon whose socket anybody may open, with these rules.
pub fn daemon(bindings: &str, policies: &[(&str, &str)]) -> Daemon {
    let rules = tempfile::tempdir_in("/var/tmp").unwrap().keep();
    write(&rules.join("bindings.json"), bindings);
    for (name, text) in policies {
        write(&rules.join(name), text);
    }
    let daemon = Daemon::start_with(&["--access", rules.to_str().unwrap()]);
    open_to_all(&daemon);
    daemon
}

fn open_to_all(daemon: &Daemon) {
    for path in [daemon.dir.clone(), daemon.dir.join("exec")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(&daemon.socket, std::fs::Permissions::from_mode(0o666)).unwrap();
}

pub fn rules_dir(daemon: &Daemon) -> std::path::PathBuf {
    let at = daemon.arguments.iter().position(|word| word == "--access").unwrap();
    daemon.arguments[at + 1].clone().into()
}

pub fn forget(daemon: Daemon) {
    let dir = rules_dir(&daemon);
    drop(daemon);
    std::fs::remove_dir_all(dir).unwrap();
}

/// Sends bytes as another user, and what comes until the connection ends. The kernel asks the
/// thread that connects who it is.
pub fn send(daemon: &Daemon, uid: u32, request: &[u8]) -> String {
    let (socket, request) = (daemon.socket.clone(), request.to_owned());
    let talk = std::thread::spawn(move || {
        let (user, group) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(uid));
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // A daemon that refuses a body before its end closes the connection under it.
        let _ = stream.write_all(&request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    talk.join().unwrap()
}

/// As [`send`], and there must be an answer.
pub fn raw(daemon: &Daemon, uid: u32, request: &[u8]) -> String {
    let answer = send(daemon, uid, request);
    assert!(!answer.is_empty(), "no answer\n{}", daemon.log());
    answer
}

/// One request with a JSON body on a connection of its own.
pub fn call(daemon: &Daemon, uid: u32, method: &str, path: &str, body: &str) -> String {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    raw(daemon, uid, request.as_bytes())
}

pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

pub fn rest(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}
