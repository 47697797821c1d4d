//! Facts about this host that the API and the cluster tell others.

use std::io::Read as _;

/// Largest file of facts that is read.
const MAX_FACTS_FILE: u64 = 1 << 20;

/// What this host is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Name of the host.
    pub hostname: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Name and version of the distribution, for people.
    pub operating_system: String,
    /// Version of the distribution.
    pub os_version: String,
    /// Machine as the kernel names it (`x86_64`, `aarch64`).
    pub machine: String,
    /// Processors that this process may use.
    pub cpus: u32,
    /// Main memory in bytes.
    pub memory: u64,
}

impl HostFacts {
    /// Asks the kernel and the distribution's files. What can't be read stays empty.
    #[must_use]
    pub fn read() -> Self {
        let uname = rustix::system::uname();
        let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
        let release = ["/etc/os-release", "/usr/lib/os-release"]
            .into_iter()
            .find_map(read_file)
            .unwrap_or_default();
        Self {
            hostname: text(uname.nodename()),
            kernel: text(uname.release()),
            operating_system: release_field(&release, "PRETTY_NAME")
                .or_else(|| release_field(&release, "NAME"))
                .unwrap_or_else(|| "Linux".to_owned()),
            os_version: release_field(&release, "VERSION_ID").unwrap_or_default(),
            machine: text(uname.machine()),
            cpus: std::thread::available_parallelism()
                .ok()
                .and_then(|n| u32::try_from(n.get()).ok())
                .unwrap_or(1),
            memory: read_file("/proc/meminfo").and_then(|text| total_memory(&text)).unwrap_or(0),
        }
    }

    /// The architecture by the name that Go and OCI use (`amd64`, `arm64`).
    #[must_use]
    pub fn architecture(&self) -> &str {
        match self.machine.as_str() {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }
}

fn read_file(path: &str) -> Option<String> {
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(MAX_FACTS_FILE).read_to_string(&mut text).ok()?;
    Some(text)
}

/// A field of os-release(5), without its quotes.
fn release_field(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix(key)?.strip_prefix('=')?.trim();
        let bare = value
            .strip_prefix('"')
            .and_then(|v| v.strip_suffix('"'))
            .or_else(|| value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')))
            .unwrap_or(value);
        Some(bare.replace("\\\"", "\"").replace("\\$", "$"))
    })
}

/// `MemTotal` of proc(5), in bytes.
fn total_memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Whether a switch below `/proc/sys` is on.
#[must_use]
pub fn sysctl_enabled(path: &str) -> bool {
    read_file(path).is_some_and(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_facts() {
        let facts = HostFacts::read();
        assert!(!facts.kernel.is_empty() && facts.cpus > 0 && facts.memory > 1 << 20, "{facts:?}");
    }

    #[test]
    fn fields_are_unquoted() {
        let text = "NAME=\"A \\\"B\\\"\"\nVERSION_ID='12'\nID=debian\n";
        assert_eq!(release_field(text, "NAME").as_deref(), Some("A \"B\""));
        assert_eq!(release_field(text, "VERSION_ID").as_deref(), Some("12"));
        assert_eq!(release_field(text, "ID").as_deref(), Some("debian"));
        assert_eq!(release_field(text, "PRETTY_NAME"), None);
        assert_eq!(total_memory("MemTotal:       16384 kB\n"), Some(16384 * 1024));
        assert_eq!(total_memory("MemFree: 1 kB"), None);
    }
}
