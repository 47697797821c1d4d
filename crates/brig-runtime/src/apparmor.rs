//! The AppArmor profile that containers run under unless they ask for another.
//!
//! It is loaded once into the kernel, by `apparmor_parser`, and stays there: containers go on under
//! it when the daemon is gone. Its name is the one that docker's default profile has, because
//! people's rules and inspections name that; a profile of that name that is there already is used.
//! On a host without AppArmor, or without the parser, containers run without a profile, and the
//! daemon's information says so by not naming AppArmor.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// The default profile's name.
const DEFAULT_PROFILE: &str = "docker-default";
/// The word for no profile at all.
const UNCONFINED: &str = "unconfined";

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
const PARSER: &str = "apparmor_parser";
/// Longest list of loaded profiles that is read.
const MAX_PROFILES: u64 = 16 << 20;
/// How much of the parser's complaint is handed on, in characters.
const MAX_COMPLAINT: usize = 600;

/// What this host has of AppArmor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppArmor {
    /// The kernel has none, or it is switched off.
    Off,
    /// The kernel has it, but the default profile could not be loaded.
    WithoutDefault,
    /// The default profile is loaded.
    Ready,
}

impl AppArmor {
    /// Looks at the kernel, and loads the default profile where it is missing. Blocking.
    #[must_use]
    pub fn set_up() -> Self {
        if !switched_on(&fs::read_to_string(ENABLED).unwrap_or_default()) {
            return Self::Off;
        }
        let loaded = || match read_profiles() {
            Ok(profiles) => is_loaded(&profiles, DEFAULT_PROFILE),
            Err(error) => {
                tracing::debug!(%error, "the loaded AppArmor profiles cannot be listed");
                false
            }
        };
        if loaded() {
            return Self::Ready;
        }
        match load(&profile()) {
            Ok(()) => Self::Ready,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "containers run without an AppArmor profile; install the package apparmor and restart brigd"
                );
                Self::WithoutDefault
            }
        }
    }

    /// The profile of a container: what it asks for, else the default; none for a privileged one,
    /// and none where the kernel has no AppArmor, as docker has it.
    #[must_use]
    pub fn profile_for(self, asked: Option<&str>, privileged: bool) -> Option<String> {
        let asked = asked.filter(|name| !name.is_empty());
        let name = match (self, asked) {
            (Self::Off, _) => return None,
            (_, Some(name)) => name,
            (_, None) if privileged => UNCONFINED,
            (Self::Ready, None) => DEFAULT_PROFILE,
            (Self::WithoutDefault, None) => return None,
        };
        Some(name.to_owned())
    }
}

fn switched_on(parameter: &str) -> bool {
    parameter.trim() == "Y"
}

fn read_profiles() -> io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    fs::File::open(PROFILES)?.take(MAX_PROFILES).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether the kernel's list (`name (mode)`, one a line) has the profile.
fn is_loaded(list: &str, name: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(known, _)| known == name))
}

fn load(profile: &str) -> io::Result<()> {
    // -K: nothing is kept in the parser's cache, which belongs to the system's own profiles.
    run_parser(&["-K", "--replace"], profile)
}

fn run_parser(arguments: &[&str], profile: &str) -> io::Result<()> {
    let program = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"]
        .into_iter()
        .map(|dir| Path::new(dir).join(PARSER))
        .find(|path| path.is_file())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "apparmor_parser is missing"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(profile.as_bytes()) {
            // It says why on standard error.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let complaint: String =
        String::from_utf8_lossy(&output.stderr).trim().chars().take(MAX_COMPLAINT).collect();
    Err(io::Error::other(format!("apparmor_parser: {complaint}")))
}

/// The default profile's text. It needs no other file, so that it loads on every distribution.
///
/// Containers may do with files, network and capabilities what namespaces and the other filters
/// let them; what is denied is what would reach the host through /proc and /sys, mounting, and
/// touching processes outside.
fn profile() -> String {
    format!(
        "profile {DEFAULT_PROFILE} flags=(attach_disconnected,mediate_deleted) {{
  network,
  capability,
  file,
  umount,

  # The daemon, the runtime and the monitor end containers, whatever profile they have; a
  # container's processes signal and trace each other.
  signal (receive) peer=unconfined,
  signal (receive) peer=crun,
  signal (receive) peer=runc,
  signal (receive) peer=conmon,
  signal (send, receive) peer={DEFAULT_PROFILE},
  ptrace (trace, read, tracedby, readby) peer={DEFAULT_PROFILE},

  deny mount,

  # Of /proc only the processes may be written, and of /proc/sys the limits of shared memory.
  deny /proc/* w,
  deny /proc/{{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9/]*}}/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/{{?,??,[^s][^h][^m]**}} w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,

  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_which_profile() {
        use AppArmor::{Off, Ready, WithoutDefault};
        for (host, asked, privileged, profile) in [
            (Off, None, false, None),
            (Off, Some("mine"), false, None),
            (Ready, None, false, Some("docker-default")),
            (Ready, Some(""), false, Some("docker-default")),
            (Ready, None, true, Some("unconfined")),
            (Ready, Some("mine"), true, Some("mine")),
            (Ready, Some("unconfined"), false, Some("unconfined")),
            (WithoutDefault, None, false, None),
            (WithoutDefault, Some("mine"), false, Some("mine")),
        ] {
            let got = host.profile_for(asked, privileged);
            assert_eq!(got.as_deref(), profile, "{host:?} {asked:?} {privileged}");
        }
    }

    #[test]
    fn the_kernels_answers() {
        assert!(switched_on("Y\n") && !switched_on("N\n") && !switched_on(""));
        let list = "/usr/bin/man (enforce)\ndocker-default (enforce)\nodd (name) (complain)\n";
        assert!(is_loaded(list, "docker-default") && is_loaded(list, "odd (name)"));
        assert!(!is_loaded(list, "docker") && !is_loaded("", "docker-default"));
    }

    #[test]
    fn the_parser_takes_the_profile() {
        // Compiles it for a kernel with all features and loads nothing.
        match run_parser(&["-Q", "-K", "-S"], &profile()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                panic!("apparmor_parser is missing: scripts/setup.sh test")
            }
            result => result.unwrap(),
        }
        assert!(run_parser(&["-Q", "-K", "-S"], "profile x { nonsense }").is_err());
    }
}
