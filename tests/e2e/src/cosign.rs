//! The real cosign (`scripts/setup.sh test` fetches it).

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Output;

/// Runs it in a folder that is its home and has docker's configuration, with the password of its
/// keys.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn run(folder: &Path, password: &str, args: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "60", "cosign"]).args(args);
    command
        .current_dir(folder)
        .env("DOCKER_CONFIG", folder)
        .env("HOME", folder)
        .env("COSIGN_EXPERIMENTAL", "1")
        .env("COSIGN_PASSWORD", password);
    let output = command.stdin(Stdio::null()).output().expect("timeout starts");
    Output::of(format!("cosign {}", args.join(" ")), &output)
}
