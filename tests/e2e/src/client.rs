//! The command-line clients: brig's own and the docker CLIs that are installed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A client program and the daemon it talks to.
#[derive(Clone, Debug)]
pub struct Client {
    /// What messages call it.
    pub name: &'static str,
    program: PathBuf,
    host: String,
    config: PathBuf,
}

/// What a client printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Exit status; -1 when a signal ended it.
    pub code: i32,
    /// Standard output, lossy.
    pub stdout: String,
    /// Standard error, lossy.
    pub stderr: String,
}

impl Output {
    /// What a command that has ended said.
    #[must_use]
    pub fn of(command: String, ended: &std::process::Output) -> Self {
        Self {
            command,
            code: ended.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
        }
    }

    /// Standard output without the final newline.
    ///
    /// # Panics
    /// When the command failed.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(
            self.code, 0,
            "{} failed\nstdout: {}\nstderr: {}",
            self.command, self.stdout, self.stderr
        );
        self.stdout.trim_end_matches('\n')
    }

    /// Standard error of a command that had to fail with this exit status.
    ///
    /// # Panics
    /// When it ended in another way.
    #[track_caller]
    pub fn fails(&self, code: i32) -> &str {
        assert_eq!(
            self.code, code,
            "{} should end with {code}\nstdout: {}\nstderr: {}",
            self.command, self.stdout, self.stderr
        );
        &self.stderr
    }
}

impl Client {
    /// brig's own CLI from this build.
    #[must_use]
    pub fn brig(socket: &Path, config: &Path) -> Self {
        Self::at("brig", crate::daemon::built("brig"), socket, config)
    }

    /// Every docker CLI on this machine: a newer one first in the path, Debian's at /usr/bin.
    #[must_use]
    pub fn dockers(socket: &Path, config: &Path) -> Vec<Self> {
        let known =
            [("docker (local)", "/usr/local/bin/docker"), ("docker (Debian)", "/usr/bin/docker")];
        known
            .into_iter()
            .filter(|(_, path)| Path::new(path).exists())
            .map(|(name, path)| Self::at(name, PathBuf::from(path), socket, config))
            .collect()
    }

    /// docker-compose as Debian packages it: Python, over docker's SDK for it.
    #[must_use]
    pub fn compose(socket: &Path, config: &Path) -> Self {
        Self::at("docker-compose", PathBuf::from("/usr/bin/docker-compose"), socket, config)
    }

    fn at(name: &'static str, program: PathBuf, socket: &Path, config: &Path) -> Self {
        Self {
            name,
            program,
            host: format!("unix://{}", socket.display()),
            config: config.to_path_buf(),
        }
    }

    /// The command, ready to be changed before it is run.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        // Nothing a client does in these tests takes a minute; a hang must end.
        let mut command = Command::new("timeout");
        command
            .args(["-k", "5", "60"])
            .arg(&self.program)
            .args(args)
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_CONFIG", &self.config)
            // The engine has the classic builder only.
            .env("DOCKER_BUILDKIT", "0")
            .env_remove("DOCKER_CONTEXT")
            .env_remove("BRIG_HOST")
            .stdin(Stdio::null());
        command
    }

    /// Runs to the end without input.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        self.run_with(args, b"")
    }

    /// Runs to the end with `input` on standard input.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the client starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || {
            // The client may not read its input at all: then the pipe breaks, and that is fine.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().expect("the client ends");
        let _ = feeder.join();
        Output::of(format!("{}: {}", self.name, args.join(" ")), &output)
    }

    /// Runs inside a terminal of its own (`script`), with `input` typed into it; returns what the
    /// terminal showed and the exit status.
    ///
    /// # Panics
    /// When `script` cannot be started.
    #[must_use]
    pub fn run_in_terminal(&self, args: &[&str], input: &str) -> Output {
        let quoted: Vec<String> =
            args.iter().map(|arg| format!("'{}'", arg.replace('\'', r"'\''"))).collect();
        let line = format!("{} {}", self.program.display(), quoted.join(" "));
        let mut child = Command::new("timeout")
            .args(["-k", "5", "60", "script", "-qec", &line, "/dev/null"])
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_CONFIG", &self.config)
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("script starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = input.to_owned();
        let feeder = std::thread::spawn(move || {
            // A person types after the prompt is there, a line at a time.
            for typed in input.split_inclusive('\n') {
                std::thread::sleep(std::time::Duration::from_millis(700));
                let _ = stdin.write_all(typed.as_bytes());
            }
            std::thread::sleep(std::time::Duration::from_millis(700));
        });
        let output = child.wait_with_output().expect("script ends");
        let _ = feeder.join();
        Output::of(format!("{} (terminal): {}", self.name, args.join(" ")), &output)
    }
}
