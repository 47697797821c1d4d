//! The openssl program on files of a folder of its own.

#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use brig_pki::csr::NodeKey;
use brig_pki::identity::NodeIdentity;
use brig_pki::token::NodeRole;
use brig_types::id::{ClusterId, NodeId};

pub fn identity(role: NodeRole) -> NodeIdentity {
    NodeIdentity { cluster: ClusterId::generate().to_string(), role, node: NodeId::generate() }
}

pub fn request() -> Vec<u8> {
    NodeKey::generate().unwrap().csr_pem().unwrap()
}

/// A folder to run openssl in.
pub struct Desk(tempfile::TempDir);

impl Desk {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn put(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn get(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path().join(name)).unwrap()
    }

    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("openssl");
        command.args(arguments.split_whitespace()).current_dir(self.path()).stdin(Stdio::null());
        command
    }

    /// Runs openssl; the arguments have no spaces in them.
    pub fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs openssl, which has to succeed; what it printed.
    pub fn ok(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "openssl {arguments}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs openssl, which has to fail; what it printed.
    pub fn fails(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "openssl {arguments}: {}", text(&output));
        text(&output)
    }
}

fn text(output: &Output) -> String {
    let part = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", part(&output.stdout), part(&output.stderr))
}
