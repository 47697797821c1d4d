//! Connections over ssh: the far side's `system dial-stdio`, through the user's own `ssh`.
//!
//! Docker starts one ssh for each connection, each with a handshake of its own, which servers
//! throttle. Here the first ssh is the master of a private control socket, and the others run
//! their command through it: one connection, one login.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinSet;

use super::address::SshAddress;
use crate::error::{Error, Result, message};

/// Bytes of ssh's messages that are kept for an error.
const MAX_MESSAGES: u64 = 4096;
/// Longest path of the control socket: what the kernel takes, less the suffix that ssh adds
/// while it makes it.
const MAX_CONTROL_PATH: usize = 84;
/// Time for ssh to end once its connection broke.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The ssh processes of one client. They end with it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    address: SshAddress,
    /// `None`: the folder could not be made, each connection has its own login.
    control: Option<ControlDir>,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    children: Vec<Running>,
    readers: JoinSet<()>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    messages: Arc<Mutex<String>>,
}

impl Tunnel {
    /// Nothing is started yet.
    pub(crate) fn new(address: SshAddress) -> Self {
        Self { address, control: ControlDir::make(), state: RefCell::default() }
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["-o".to_owned(), "ConnectTimeout=30".to_owned()];
        if let Some(control) = &self.control {
            let path = control.0.join("m");
            for option in [
                "ControlMaster=auto".to_owned(),
                "ControlPersist=no".to_owned(),
                format!("ControlPath={}", path.display()),
            ] {
                arguments.extend(["-o".to_owned(), option]);
            }
        }
        arguments.push("-T".to_owned());
        arguments.extend(self.address.arguments());
        arguments
    }

    /// Starts the far side's `system dial-stdio`.
    pub(crate) fn connect(&self) -> Result<SshStream> {
        let mut child = Command::new("ssh")
            .args(self.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => message(
                    "ssh:// needs the program ssh, which is not in the PATH: install openssh-client",
                ),
                _ => Error::io("starting ssh", source),
            })?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(message("ssh was started without its streams"));
        };
        let messages = Arc::new(Mutex::new(String::new()));
        let mut state = self.state.borrow_mut();
        if let Some(mut stderr) = child.stderr.take() {
            let kept = Arc::clone(&messages);
            state.readers.spawn(async move {
                let mut text = Vec::new();
                // What could be read until then is all there is to show.
                let _ = (&mut stderr).take(MAX_MESSAGES).read_to_end(&mut text).await;
                *kept.lock().unwrap_or_else(PoisonError::into_inner) =
                    String::from_utf8_lossy(&text).into_owned();
                // ssh must not be held up by what nobody reads.
                let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
            });
        }
        state.children.push(Running { child, messages });
        Ok(SshStream { stdin: Some(stdin), stdout })
    }

    /// Why the last connection broke, if ssh has ended by itself.
    pub(crate) async fn failure(&self) -> Option<String> {
        let mut last = self.state.borrow_mut().children.pop()?;
        let ended = tokio::time::timeout(LAST_WORDS, last.child.wait()).await;
        let Ok(Ok(status)) = ended else {
            self.state.borrow_mut().children.push(last);
            return None;
        };
        if status.success() {
            return None;
        }
        // The reader of the messages sees their end a moment after the process's.
        tokio::task::yield_now().await;
        let messages = last.messages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let how = status.code().map_or_else(|| status.to_string(), |c| format!("exit status {c}"));
        Some(format!(
            "command [ssh {}] has exited with {how}, make sure the URL is valid, and Docker 18.09 or later is installed on the remote host: stderr={messages}",
            self.arguments().join(" ")
        ))
    }
}

/// A folder that only this user can enter; gone with the client.
#[derive(Debug)]
struct ControlDir(PathBuf);

impl ControlDir {
    fn make() -> Option<Self> {
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).ok()?;
        let name = format!("brig-ssh-{:016x}", u64::from_ne_bytes(random));
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let parents = runtime.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp")]);
        parents
            .map(|parent| parent.join(&name))
            // ssh expands percent signs.
            .filter(|dir| dir.as_os_str().len() + 2 <= MAX_CONTROL_PATH)
            .filter(|dir| dir.to_str().is_some_and(|text| !text.contains(['%', ' ', '"'])))
            .find(|dir| std::fs::DirBuilder::new().mode(0o700).create(dir).is_ok())
            .map(Self)
    }
}

impl Drop for ControlDir {
    fn drop(&mut self) {
        // Left behind, it is an empty folder among temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A connection over ssh's streams.
#[derive(Debug)]
pub(crate) struct SshStream {
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

impl AsyncRead for SshStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stdin {
            Some(stdin) => Pin::new(stdin).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Closes ssh's stdin: the far side half-closes its socket and goes on.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}
