//! A daemon with bindings, and clients that other users of this host run.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{Gid, Uid};

use crate::{Brigd, Client, Output};

/// Who has which role by [`BINDINGS`].
pub const VIEWER: u32 = 61_001;
/// See [`VIEWER`].
pub const OPERATOR: u32 = 61_002;
/// See [`VIEWER`].
pub const DEPLOYER: u32 = 61_003;
/// Without any role.
pub const NOBODY: u32 = 61_004;

/// Bindings with every role.
pub const BINDINGS: &str = r#"{"local":"none","bindings":[
    {"uid":61001,"role":"viewer"},
    {"uid":61002,"role":"operator"},
    {"uid":61003,"role":"deployer","services":["web"],"secrets":["key"]}
]}"#;

/// A daemon with rules whose socket anybody may open.
#[derive(Debug)]
pub struct Guarded {
    /// The daemon.
    pub daemon: Brigd,
    rules: tempfile::TempDir,
}

impl Guarded {
    /// Starts one with these bindings.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(bindings: &str) -> Self {
        let rules = tempfile::tempdir_in("/var/tmp").unwrap();
        let file = rules.path().join("bindings.json");
        fs::write(&file, bindings).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let daemon = Brigd::start_with(&["--access", rules.path().to_str().unwrap()]);
        fs::set_permissions(daemon.root(), Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(daemon.socket(), Permissions::from_mode(0o666)).unwrap();
        // The build's own folder may be closed to other users.
        let brig = daemon.root().join("brig");
        fs::copy(crate::daemon::built("brig"), &brig).unwrap();
        fs::set_permissions(&brig, Permissions::from_mode(0o755)).unwrap();
        Self { daemon, rules }
    }

    /// Where the rules lie.
    #[must_use]
    pub fn rules(&self) -> &Path {
        self.rules.path()
    }

    /// brig's CLI and every docker CLI there is, for [`Guarded::run`].
    #[must_use]
    pub fn programs(&self) -> Vec<PathBuf> {
        let dockers = ["/usr/local/bin/docker", "/usr/bin/docker"].map(PathBuf::from);
        let found = dockers.into_iter().filter(|path| path.exists());
        [self.brig()].into_iter().chain(found).collect()
    }

    /// brig's CLI where every user may run it.
    #[must_use]
    pub fn brig(&self) -> PathBuf {
        self.daemon.root().join("brig")
    }

    /// Runs a client as another user.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn run(&self, uid: u32, program: &Path, args: &[&str]) -> Output {
        let id = uid.to_string();
        let output = Command::new("timeout")
            .args(["-k", "5", "60", "setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"])
            .arg(program)
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("DOCKER_HOST", format!("unix://{}", self.daemon.socket().display()))
            .env("HOME", "/nonexistent")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Output::of(format!("uid {uid}: {} {}", program.display(), args.join(" ")), &output)
    }

    /// One request as another user: status and body. The kernel asks the thread that connects who
    /// it is.
    ///
    /// # Panics
    /// When there is no answer.
    #[must_use]
    pub fn call(&self, uid: u32, method: &str, path: &str, body: &str) -> (u16, String) {
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: e2e\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let socket = self.daemon.socket();
        let talk = std::thread::spawn(move || {
            let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
            rustix::thread::set_thread_res_gid(group, group, group).unwrap();
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            let mut stream = UnixStream::connect(socket).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            // A daemon that refuses a body before its end closes the connection under it.
            let _ = stream.write_all(request.as_bytes());
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            String::from_utf8_lossy(&answer).into_owned()
        });
        let answer = talk.join().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// brig's CLI as root.
    #[must_use]
    pub fn root(&self) -> Client {
        self.daemon.brig()
    }
}
