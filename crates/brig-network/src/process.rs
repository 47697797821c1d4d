//! Starting the few programs that networks need.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where administrators' programs are, even if PATH leaves these out.
const SYSTEM_DIRS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];
/// How much of a program's complaint is handed on, in characters.
const MAX_COMPLAINT: usize = 600;

/// What a program did.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) success: bool,
    /// Its standard output.
    pub(crate) text: String,
    /// The first lines of its standard error.
    pub(crate) complaint: String,
}

/// Finds a program in PATH and the system's directories.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .chain(SYSTEM_DIRS.iter().map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::metadata(file)
                .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
}

/// Runs a program with an empty environment, writes `input` to it and waits for it.
pub(crate) fn run(program: &Path, arguments: &[&str], input: &[u8]) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", SYSTEM_DIRS.join(":"))
        .current_dir("/")
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It reads all of its input before it writes anything, so this cannot get stuck; one that
        // dies early says why on standard error.
        match stdin.write_all(input) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let output = child.wait_with_output()?;
    Ok(Output {
        success: output.status.success(),
        text: String::from_utf8_lossy(&output.stdout).into_owned(),
        complaint: String::from_utf8_lossy(&output.stderr)
            .trim()
            .chars()
            .take(MAX_COMPLAINT)
            .collect(),
    })
}
