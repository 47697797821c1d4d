//! conmon's command line, and the pipes it is started with.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use brig_sys::process;
use brig_sys::spawn::Child;
use rustix::pipe::{PipeFlags, pipe_with};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use crate::console::ConsoleMode;
use crate::launch::{Launcher, Sees, pipe_end};
use crate::sealed::{self, SEALED_FD};
use crate::supervise::{KILL_LIMIT, kill_and_wait};

/// How often conmon may inherit children while they are killed.
const MAX_GENERATIONS: usize = 16;

/// The numbers under which conmon gets its pipes.
const SYNC_FD: i32 = 3;
const START_FD: i32 = 4;
const ATTACH_FD: i32 = 5;
/// And what it keeps for its container.
pub(crate) const KEPT_FD: i32 = 6;

/// A line with the OCI runtime's complete standard error is no longer than this.
const MAX_LINE: usize = 256 << 10;
/// Of what conmon itself complains about.
const MAX_COMPLAINT: u64 = 4096;

/// What conmon is to do.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    pub(crate) conmon: &'a Path,
    pub(crate) runtime: &'a Path,
    /// The runtime's sealed copy, which is used in its stead.
    pub(crate) sealed: Option<Arc<OwnedFd>>,
    /// Global arguments of the runtime.
    pub(crate) runtime_args: Vec<OsString>,
    pub(crate) container: &'a str,
    /// The container or the exec.
    pub(crate) id: &'a str,
    /// Where its files are; its working directory.
    pub(crate) bundle: &'a Path,
    pub(crate) exits: &'a Path,
    pub(crate) sockets: &'a Path,
    pub(crate) log: Option<&'a Path>,
    pub(crate) mode: ConsoleMode,
    /// The process to run in a container that exists.
    pub(crate) exec: Option<PathBuf>,
    /// What it keeps open for as long as it lives.
    pub(crate) keep: Option<&'a OwnedFd>,
}

/// A conmon that waits for its first byte.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) child: Child,
    pub(crate) start: OwnedFd,
    pub(crate) sync: LineReader,
    /// Only for exec.
    pub(crate) attach: LineReader,
    pub(crate) complaints: pipe::Receiver,
}

/// One message of conmon's, a line of JSON (`--api-version` 1).
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    /// A process id, an exit status, or below 0 for a failure.
    pub(crate) data: i64,
    #[serde(default)]
    pub(crate) message: Option<String>,
}

impl Task<'_> {
    /// Starts conmon. It does nothing until a byte is written to its start pipe; dropping that
    /// pipe counts as such a byte, so to stop it, kill it first.
    pub(crate) async fn launch(&self, launcher: &Launcher) -> io::Result<Waiting> {
        let (sync, sync_end) = pipe_end()?;
        let (attach, attach_end) = pipe_end()?;
        let (complaints, complaints_end) = pipe_end()?;
        let (start_end, start) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut program = Launcher::program(self.conmon)
            .args(self.args())
            .dir(self.bundle)
            .env("_OCI_SYNCPIPE", SYNC_FD.to_string())
            .env("_OCI_STARTPIPE", START_FD.to_string())
            .fd(complaints_end, 2)
            .fd(sync_end, SYNC_FD)
            .fd(start_end, START_FD);
        if self.exec.is_some() {
            program =
                program.env("_OCI_ATTACHPIPE", ATTACH_FD.to_string()).fd(attach_end, ATTACH_FD);
        }
        if let Some(keep) = self.keep {
            program = program.fd(keep.try_clone()?, KEPT_FD);
        }
        if let Some(sealed) = &self.sealed {
            program = program.fd(sealed.try_clone()?, SEALED_FD);
        }
        // A new container's binds may be of anything; an exec enters what is there.
        let sees = if self.exec.is_none() { Sees::All } else { Sees::Known };
        let child = launcher.start(program, sees).await?;
        Ok(Waiting {
            child,
            start,
            sync: LineReader::new(sync),
            attach: LineReader::new(attach),
            complaints,
        })
    }

    fn args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::with_capacity(48);
        let mut option = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
            args.push(name.into());
            args.push(value.as_ref().into());
        };
        option("-c", &self.container);
        option("-u", &self.id);
        option("-n", &self.id);
        match &self.sealed {
            Some(_) => option("-r", &sealed::path()),
            None => option("-r", &self.runtime),
        }
        option("-b", &self.bundle);
        option("-p", &self.bundle.join(PID_FILE));
        option("-P", &self.bundle.join(CONMON_PID_FILE));
        option("--exit-dir", &self.exits);
        option("--socket-dir-path", &self.sockets);
        option("--log-level", &"error");
        match self.log {
            Some(path) => {
                let mut target = OsString::from("k8s-file:");
                target.push(path);
                option("-l", &target);
            }
            None => option("-l", &"off"),
        }
        for arg in &self.runtime_args {
            option("--runtime-arg", arg);
        }
        match &self.exec {
            Some(process) => option("--exec-process-spec", process),
            None => option("--persist-dir", &self.bundle),
        }
        let flags = [
            (true, "--api-version"),
            (true, "--no-sync-log"),
            (self.exec.is_some(), "-e"),
            (self.exec.is_some(), "--exec-attach"),
            (self.mode.tty, "-t"),
            (self.mode.open_stdin, "-i"),
            (self.mode.open_stdin && !self.mode.stdin_once, "--leave-stdin-open"),
        ];
        args.extend(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| OsString::from(flag)));
        args
    }
}

/// Written by conmon: the container's first process, or the exec's.
pub(crate) const PID_FILE: &str = "pidfile";
/// Written by conmon: itself.
pub(crate) const CONMON_PID_FILE: &str = "conmon.pid";
/// Written by conmon in its working directory as soon as something was killed for memory.
pub(crate) const OOM_FILE: &str = "oom";
/// Written by conmon in its persist directory at the end.
pub(crate) const EXIT_FILE: &str = "exit";

/// Files of an earlier run in the same bundle.
pub(crate) const STALE_FILES: [&str; 7] =
    [PID_FILE, CONMON_PID_FILE, OOM_FILE, EXIT_FILE, "attach", "ctl", "winsz"];

/// Reads a process id that conmon wrote.
pub(crate) fn read_pid(path: &Path) -> io::Result<i32> {
    let text = std::fs::read_to_string(path)?;
    match text.trim().parse() {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a process id")),
    }
}

/// Ends the conmon of a container or exec that wrote its number into this folder, and what it
/// started: an OCI runtime that hangs ends by nothing else. What has lost its parent is conmon's
/// child as well, so there is nothing of it elsewhere.
pub(crate) async fn end(folder: &Path, id: &str) -> io::Result<()> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let (pid, conmon) = match read_pid(&folder.join(CONMON_PID_FILE))
        .and_then(|pid| Ok((pid, process::pidfd(pid)?)))
    {
        Ok(found) => found,
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    // The number may be another process's by now: only the one with this id is meant.
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if !line.split(|&byte| byte == 0).any(|arg| arg == id.as_bytes()) {
        return Ok(());
    }
    // The children first: once conmon is gone nothing tells them from others.
    for _ in 0..MAX_GENERATIONS {
        let children = tokio::task::spawn_blocking(move || process::children(pid))
            .await
            .map_err(io::Error::other)??;
        if children.is_empty() {
            break;
        }
        for child in &children {
            kill_and_wait(child, KILL_LIMIT).await?;
        }
    }
    kill_and_wait(&conmon, KILL_LIMIT).await
}

/// Lets conmon do its next step.
pub(crate) fn go(start: &OwnedFd) -> io::Result<()> {
    rustix::io::write(start, b"\n")?;
    Ok(())
}

/// What conmon wrote to its standard error, without waiting for more.
pub(crate) async fn complaint(pipe: pipe::Receiver) -> String {
    let mut text = Vec::new();
    let mut limited = pipe.take(MAX_COMPLAINT);
    let wait = std::time::Duration::from_millis(200);
    // Cut short is fine: it is only for the error's text.
    let _ = tokio::time::timeout(wait, limited.read_to_end(&mut text)).await;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim();
    if text.is_empty() { "it ended without a message".to_owned() } else { text.to_owned() }
}

/// Messages from a pipe.
#[derive(Debug)]
pub(crate) struct LineReader {
    pipe: pipe::Receiver,
    buffer: Vec<u8>,
}

impl LineReader {
    fn new(pipe: pipe::Receiver) -> Self {
        Self { pipe, buffer: Vec::new() }
    }

    /// The next message; `None` at the end. Cancel-safe.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return parse(&line).map(Some);
            }
            if self.buffer.len() > MAX_LINE {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "conmon's line is too long",
                ));
            }
            let mut piece = [0; 4096];
            let length = self.pipe.read(&mut piece).await?;
            if length == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    parse(&std::mem::take(&mut self.buffer)).map(Some)
                };
            }
            self.buffer.extend_from_slice(piece.get(..length).unwrap_or_default());
        }
    }
}

fn parse(line: &[u8]) -> io::Result<Message> {
    serde_json::from_slice(line).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("conmon's message: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_arrive_whole() {
        let (pipe, write) = pipe_end().unwrap();
        let mut lines = LineReader::new(pipe);
        rustix::io::write(&write, b"{\"data\": 12}\n{\"data\": -1, \"message\": \"a").unwrap();
        assert_eq!(lines.next().await.unwrap().unwrap().data, 12);
        rustix::io::write(&write, b"b\"}").unwrap();
        drop(write);
        let message = lines.next().await.unwrap().unwrap();
        assert_eq!((message.data, message.message.as_deref()), (-1, Some("ab")));
        assert!(lines.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn endless_lines_are_refused() {
        let (pipe, write) = pipe_end().unwrap();
        let mut lines = LineReader::new(pipe);
        let writer = std::thread::spawn(move || {
            let piece = [b'x'; 4096];
            while rustix::io::write(&write, &piece).is_ok() {}
        });
        assert!(lines.next().await.is_err());
        drop(lines);
        writer.join().unwrap();
    }
}
