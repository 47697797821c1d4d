//! What reaching a daemon from elsewhere needs: certificates as docker's tutorial makes them, an
//! sshd of our own, and clients with homes of their own.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::client::Output;
use crate::daemon::{built, free_port};
use crate::eventually;

/// A folder with an authority, a server's and clients' certificates, made by openssl.
#[derive(Debug)]
pub struct Pki {
    dir: tempfile::TempDir,
}

impl Pki {
    /// The commands of docker's tutorial, one by one.
    ///
    /// # Panics
    /// When openssl fails.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let pki = Self { dir };
        pki.sh("openssl genrsa -out ca-key.pem 2048");
        pki.sh("openssl req -new -x509 -days 365 -key ca-key.pem -sha256 -subj /CN=ca -out ca.pem");
        pki.server("server", 365);
        pki.client("client", "");
        pki
    }

    /// A server's certificate for this host.
    pub fn server(&self, name: &str, days: u32) {
        self.sh(&format!(
            "openssl genrsa -out {name}-key.pem 2048
             openssl req -subj /CN=localhost -sha256 -new -key {name}-key.pem -out {name}.csr
             echo subjectAltName = DNS:localhost,IP:127.0.0.1 > extfile.cnf
             echo extendedKeyUsage = serverAuth >> extfile.cnf
             openssl x509 -req -days {days} -sha256 -in {name}.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -out {name}-cert.pem -extfile extfile.cnf
             chmod 0400 {name}-key.pem"
        ));
    }

    /// A client's certificate: `PREFIXcert.pem`, `PREFIXkey.pem`.
    pub fn client(&self, common_name: &str, prefix: &str) {
        self.sh(&format!(
            "openssl genrsa -out {prefix}key.pem 2048
             openssl req -subj '/CN={common_name}' -new -key {prefix}key.pem -out client.csr
             echo extendedKeyUsage = clientAuth > extfile-client.cnf
             openssl x509 -req -days 365 -sha256 -in client.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -out {prefix}cert.pem -extfile extfile-client.cnf
             chmod 0400 {prefix}key.pem"
        ));
    }

    /// Runs a script in the folder; its output.
    ///
    /// # Panics
    /// When it fails.
    pub fn sh(&self, script: &str) -> String {
        let output =
            Command::new("sh").args(["-ec", script]).current_dir(self.dir.path()).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A file of the folder, as text for a command line.
    ///
    /// # Panics
    /// Never: the folder's name is text.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

/// A port for a listener.
#[must_use]
pub fn port() -> u16 {
    free_port()
}

/// A real sshd on this host, with keys and a port of its own. Whoever logs in finds brig under the
/// name of docker.
#[derive(Debug)]
pub struct Sshd {
    dir: tempfile::TempDir,
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl Sshd {
    /// Starts one in front of a daemon's socket.
    ///
    /// # Panics
    /// When there is no sshd (`scripts/setup.sh test`), or it does not start.
    #[must_use]
    pub fn start(socket: &Path) -> Self {
        Self::start_with("id.pub", Some(socket))
    }

    /// Starts one that lets in whom the logins' own `authorized_keys` let in.
    ///
    /// # Panics
    /// As [`Sshd::start`].
    #[must_use]
    pub fn start_for_logins() -> Self {
        Self::start_with(".ssh/authorized_keys", None)
    }

    /// The client's public key, as a file.
    ///
    /// # Panics
    /// Never: the folder's name is text.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.dir.path().join("id.pub").to_str().unwrap().to_owned()
    }

    fn start_with(keys: &str, socket: Option<&Path>) -> Self {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let root = dir.path().display();
        let port = free_port();
        for key in ["host", "id"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(dir.path().join(key))
                .status()
                .unwrap();
            assert!(made.success());
        }
        fs::create_dir(dir.path().join("bin")).unwrap();
        symlink(built("brig"), dir.path().join("bin/docker")).unwrap();
        // sshd wants it, and packages make it only with their service.
        fs::create_dir_all("/run/sshd").unwrap();
        let keys = if keys.starts_with('.') { keys.to_owned() } else { format!("{root}/{keys}") };
        let host = socket.map(|socket| format!("DOCKER_HOST=unix://{} ", socket.display()));
        let host = host.unwrap_or_default();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {root}/host\nAuthorizedKeysFile {keys}\n\
             PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\n\
             LogLevel VERBOSE\nMaxStartups 100\n\
             SetEnv {host}PATH={root}/bin:/usr/bin:/bin\n"
        );
        fs::write(dir.path().join("sshd_config"), config).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(dir.path().join("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("sshd: scripts/setup.sh test installs it");
        eventually("sshd answers", Duration::from_secs(10), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self { dir, child, port }
    }

    /// How many logins there have been.
    #[must_use]
    pub fn logins(&self) -> usize {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.matches("Accepted publickey").count()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A user of a client program, with a home of their own.
#[derive(Debug)]
pub struct User {
    /// What messages call the program.
    pub name: &'static str,
    program: PathBuf,
    home: tempfile::TempDir,
}

impl User {
    /// Users of brig and of every docker CLI there is.
    #[must_use]
    pub fn all() -> Vec<Self> {
        [("docker (local)", "/usr/local/bin/docker"), ("docker (Debian)", "/usr/bin/docker")]
            .into_iter()
            .filter(|(_, path)| Path::new(path).exists())
            .map(|(name, path)| Self::new(name, path.into()))
            .chain([Self::new("brig", built("brig"))])
            .collect()
    }

    fn new(name: &'static str, program: PathBuf) -> Self {
        let home = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::create_dir(home.path().join("bin")).unwrap();
        Self { name, program, home }
    }

    /// Lets `ssh server` reach this sshd: ssh itself knows nothing of another home.
    ///
    /// # Panics
    /// When the files cannot be written.
    pub fn knows(&self, sshd: &Sshd) {
        let home = self.home.path().display();
        let config = format!(
            "Host server\n  HostName 127.0.0.1\n  Port {}\nHost *\n  IdentityFile {}/id\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {home}/known_hosts\n  StrictHostKeyChecking accept-new\n  BatchMode yes\n",
            sshd.port,
            sshd.dir.path().display()
        );
        fs::write(self.home.path().join("ssh_config"), config).unwrap();
        let ssh = self.home.path().join("bin/ssh");
        fs::write(&ssh, format!("#!/bin/sh\nexec /usr/bin/ssh -F {home}/ssh_config \"$@\"\n"))
            .unwrap();
        fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The user's home, where relative files lie too.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The program, ready to be changed before it is run.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        self.surround(&mut command);
        command.args(["-k", "5", "60"]).arg(&self.program).args(args);
        command
    }

    fn surround(&self, command: &mut Command) {
        let path = format!("{}/bin:/usr/bin:/bin", self.home.path().display());
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home.path())
            .env("DOCKER_CONFIG", self.home.path().join("config"))
            .env("TERM", "xterm")
            .current_dir(self.home.path())
            .stdin(Stdio::null());
    }

    /// Runs to the end.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Output {
        self.finish(self.command(args), args, b"")
    }

    /// Runs to the end with `input` on standard input.
    #[must_use]
    pub fn run_with(&self, args: &[&str], input: &[u8]) -> Output {
        self.finish(self.command(args), args, input)
    }

    /// Runs to the end with one more variable.
    #[must_use]
    pub fn run_env(&self, env: &[(&str, &str)], args: &[&str]) -> Output {
        let mut command = self.command(args);
        command.envs(env.iter().copied());
        self.finish(command, args, b"")
    }

    /// Runs in a terminal.
    #[must_use]
    pub fn run_in_terminal(&self, args: &[&str]) -> Output {
        let quoted: Vec<String> =
            args.iter().map(|arg| format!("'{}'", arg.replace('\'', r"'\''"))).collect();
        let line = format!("{} {}", self.program.display(), quoted.join(" "));
        let mut command = Command::new("timeout");
        self.surround(&mut command);
        command.args(["-k", "5", "60", "script", "-qec", &line, "/dev/null"]);
        self.finish(command, args, b"")
    }

    fn finish(&self, mut command: Command, args: &[&str], input: &[u8]) -> Output {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || {
            // The client may not read its input at all.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        let _ = feeder.join();
        Output::of(format!("{}: {}", self.name, args.join(" ")), &output)
    }
}
