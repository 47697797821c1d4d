//! What the programs that the daemon needs call themselves, for `/version`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use brig_api::system::ComponentVersion;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Mutex;

/// A program that has not said its version by then is broken.
const LIMIT: Duration = Duration::from_secs(5);
/// Longest text of a version that is read, in bytes.
const MAX_TEXT: u64 = 16 << 10;

/// Programs whose versions are asked for once, and again when they were replaced.
#[derive(Debug)]
pub struct Programs {
    paths: Vec<PathBuf>,
    known: Mutex<Vec<(Option<SystemTime>, Option<ComponentVersion>)>>,
}

impl Programs {
    /// By absolute path.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, known: Mutex::default() }
    }

    /// Their versions; those that do not tell are left out.
    pub async fn versions(&self) -> Vec<ComponentVersion> {
        let mut known = self.known.lock().await;
        known.resize_with(self.paths.len(), Default::default);
        for (path, (changed, version)) in self.paths.iter().zip(known.iter_mut()) {
            let now = std::fs::metadata(path).and_then(|meta| meta.modified()).ok();
            if now.is_none() || *changed != now {
                (*changed, *version) = (now, ask(path).await);
            }
        }
        known.iter().filter_map(|(_, version)| version.clone()).collect()
    }
}

async fn ask(path: &Path) -> Option<ComponentVersion> {
    let text = async {
        let mut child = tokio::process::Command::new(path)
            .arg("--version")
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut text = String::new();
        if let Some(out) = child.stdout.take() {
            out.take(MAX_TEXT).read_to_string(&mut text).await?;
        }
        child.wait().await?;
        std::io::Result::Ok(text)
    };
    let text = match tokio::time::timeout(LIMIT, text).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => {
            tracing::debug!(program = %path.display(), %error, "a program does not tell its version");
            return None;
        }
        Err(_) => return None,
    };
    parse(&path.file_name()?.to_string_lossy(), &text)
}

/// `NAME version VERSION`, and a line `commit: COMMIT`.
fn parse(name: &str, text: &str) -> Option<ComponentVersion> {
    let version = text.lines().next()?.split_once(" version ")?.1.trim();
    let commit = text.lines().find_map(|line| line.strip_prefix("commit: ")).map(str::trim);
    let commit = commit.filter(|commit| *commit != "unknown").unwrap_or_default();
    Some(ComponentVersion {
        name: name.to_owned(),
        version: version.to_owned(),
        // Clients print it whether or not there is one.
        details: [("GitCommit".to_owned(), commit.to_owned())].into(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn versions_are_read() {
        let runc =
            parse("runc", "runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1\nspec: 1.0.2\n").unwrap();
        assert_eq!((runc.name.as_str(), runc.version.as_str()), ("runc", "1.1.5+ds1"));
        assert_eq!(runc.details["GitCommit"], "1.1.5+ds1-1");
        let conmon = parse("conmon", "conmon version 2.1.6\ncommit: unknown\n").unwrap();
        assert_eq!((conmon.version.as_str(), conmon.details["GitCommit"].as_str()), ("2.1.6", ""));
        assert!(parse("x", "").is_none() && parse("x", "usage: x").is_none());
    }

    #[tokio::test]
    async fn a_replaced_program_is_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tool");
        let write = |version: &str, second: u64| {
            // Not written while it is executed: a new file each time.
            let new = dir.path().join("new");
            std::fs::write(&new, format!("#!/bin/sh\necho tool version {version}\n")).unwrap();
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
            let file = std::fs::File::options().append(true).open(&new).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap();
            drop(file);
            std::fs::rename(&new, &path).unwrap();
        };
        let programs = Programs::new(vec![path.clone(), dir.path().join("missing")]);
        for (version, second) in [("1", 10), ("2", 20)] {
            write(version, second);
            for _ in 0..2 {
                let versions = programs.versions().await;
                assert_eq!(versions.len(), 1);
                assert_eq!(versions[0].version, version);
            }
        }
    }
}
