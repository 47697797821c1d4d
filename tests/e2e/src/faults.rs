//! What goes wrong with managers on hosts: processes that are killed or stand still, disks that
//! are slow or full, clocks that jump. Networks are in [`Hosts`].

use std::path::Path;

use crate::hosts::{HostNode, Hosts};

/// A process of a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// The daemon.
    Brigd,
    /// Its member of the store.
    Etcd,
}

impl Process {
    /// Its number as its host sees it.
    fn pid(self, node: &HostNode) -> Option<String> {
        match self {
            Self::Brigd => {
                let pid = std::fs::read_to_string(node.socket().with_file_name("d.pid")).ok()?;
                Some(pid.trim().to_owned())
            }
            Self::Etcd => {
                let text = std::fs::read(node.data().join("swarm/etcd/process.json")).ok()?;
                let process: serde_json::Value = serde_json::from_slice(&text).ok()?;
                Some(process["pid"].as_i64()?.to_string())
            }
        }
    }
}

/// The library that shifts a process's clock.
///
/// # Panics
/// When it is not installed.
#[must_use]
pub fn clock_shifter() -> String {
    ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|folder| format!("/usr/lib/{folder}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("libfaketime (package faketime)")
}

impl Hosts {
    /// Sends a process a signal (`KILL`, `STOP`, `CONT`); whether it was there.
    pub fn signal(&self, node: &HostNode, process: Process, signal: &str) -> bool {
        let Some(pid) = process.pid(node) else { return false };
        self.exec(node.host, &["kill", &format!("-{signal}"), &pid]).code == 0
    }

    /// Makes every `fsync` of a host's etcd take that much longer, for as long as what this
    /// answers is kept.
    #[must_use]
    pub fn slow_disk(&self, node: &HostNode, milliseconds: u32) -> Option<SlowDisk<'_>> {
        let pid = Process::Etcd.pid(node)?;
        let delay = format!("inject=fsync,fdatasync:delay_enter={milliseconds}ms");
        let log = "strace.log";
        self.spawn(
            node.host,
            log,
            &["strace", "-f", "-q", "-e", "trace=fsync,fdatasync", "-e", &delay, "-p", &pid],
        );
        Some(SlowDisk { hosts: self, host: node.host, traced: pid })
    }

    /// How often etcd was held up since the last [`Hosts::slow_disk`] began.
    #[must_use]
    pub fn slowed(&self, host: usize) -> usize {
        let log = std::fs::read_to_string(self.log(host, "strace.log")).unwrap_or_default();
        log.matches("sync(").count()
    }

    /// Writes to the disk of a host's data until nothing more fits.
    pub fn fill_disk(&self, node: &HostNode) {
        let file = node.data().join("filler").display().to_string();
        // It ends with "no space left on device".
        let _ = self.exec(node.host, &["dd", "if=/dev/zero", &format!("of={file}"), "bs=1M"]);
    }

    /// Makes room again.
    pub fn empty_disk(&self, node: &HostNode) {
        let _ = std::fs::remove_file(node.data().join("filler"));
    }

    /// What a daemon has to be started with for [`Hosts::shift_clock`].
    #[must_use]
    pub fn with_clock(&self, host: usize) -> Vec<String> {
        self.write_clock(host, "+0");
        vec![
            format!("LD_PRELOAD={}", clock_shifter()),
            format!("FAKETIME_TIMESTAMP_FILE={}", self.log(host, "clock").display()),
            "FAKETIME_CACHE_DURATION=1".to_owned(),
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        ]
    }

    /// Sets the wall clock of a host's daemon forward or back (`+3600`, `-86400`) against the
    /// true one, within a second.
    pub fn shift_clock(&self, node: &HostNode, shift: &str) {
        self.write_clock(node.host, shift);
    }

    fn write_clock(&self, host: usize, shift: &str) {
        let path = self.log(host, "clock");
        let next = path.with_extension("next");
        let written = std::fs::write(&next, format!("{shift}\n"));
        written.and_then(|()| std::fs::rename(&next, &path)).expect("the clock is set");
    }
}

/// Ends when it is dropped.
#[derive(Debug)]
pub struct SlowDisk<'a> {
    hosts: &'a Hosts,
    host: usize,
    traced: String,
}

impl Drop for SlowDisk<'_> {
    fn drop(&mut self) {
        // Ending strace lets go of what it traced.
        let traced = format!("strace -f .* -p {}$", self.traced);
        let _ = self.hosts.exec(self.host, &["pkill", "-TERM", "-f", &traced]);
    }
}
