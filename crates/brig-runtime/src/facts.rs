//! What this host allows and is, gathered once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use brig_sys::cgroup::CgroupMode;

use crate::apparmor::AppArmor;

/// The facts that a container's configuration depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Processor architecture, as Rust names it (`x86_64`, `aarch64`).
    pub machine: String,
    /// First two numbers of the kernel's version.
    pub kernel: (u32, u32),
    /// How control groups are mounted.
    pub cgroup: CgroupMode,
    /// The capabilities that this daemon can hand on.
    pub bounding: BTreeSet<String>,
    /// The daemon's own hard limits by name (`RLIMIT_NOFILE`).
    pub hard_limits: BTreeMap<String, u64>,
    /// The lowest OOM score adjustment it may set, if that is limited.
    pub oom_score_floor: Option<i32>,
    /// A static init for `--init`.
    pub init: Option<PathBuf>,
    /// What there is of AppArmor.
    pub apparmor: AppArmor,
    /// The control group that containers are put below unless they ask for another.
    pub cgroup_parent: String,
}

const LIMITS: [&str; 16] = [
    "RLIMIT_AS",
    "RLIMIT_CORE",
    "RLIMIT_CPU",
    "RLIMIT_DATA",
    "RLIMIT_FSIZE",
    "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_NOFILE",
    "RLIMIT_NPROC",
    "RLIMIT_RSS",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
    "RLIMIT_SIGPENDING",
    "RLIMIT_STACK",
];

const RAISE_LIMITS: &str = "CAP_SYS_RESOURCE";

impl HostFacts {
    /// Asks the kernel. What it does not say counts as the most careful answer.
    #[must_use]
    pub fn gather(init: Option<PathBuf>, cgroup_parent: String) -> Self {
        let bounding = brig_sys::caps::bounding();
        let uname = rustix::system::uname();
        let kernel = parse_kernel(&uname.release().to_string_lossy()).unwrap_or((0, 0));
        let hard_limits = LIMITS
            .iter()
            .filter_map(|name| {
                let limit = brig_sys::process::hard_limit(name)?;
                Some(((*name).to_owned(), limit.unwrap_or(u64::MAX)))
            })
            .collect();
        let oom_score_floor = (!bounding.contains(RAISE_LIMITS)).then(|| {
            fs::read_to_string("/proc/self/oom_score_adj")
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0)
        });
        Self {
            machine: std::env::consts::ARCH.to_owned(),
            kernel,
            cgroup: brig_sys::cgroup::mode(),
            bounding,
            hard_limits,
            oom_score_floor,
            init,
            apparmor: AppArmor::set_up(),
            cgroup_parent,
        }
    }

    /// Whether limits may be set above the daemon's own.
    #[must_use]
    pub fn may_raise_limits(&self) -> bool {
        self.bounding.contains(RAISE_LIMITS)
    }
}

/// `6.1.0-13-amd64` is (6, 1).
fn parse_kernel(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions() {
        assert_eq!(parse_kernel("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(parse_kernel("3.12-rc5"), Some((3, 12)));
        assert_eq!(parse_kernel("x"), None);
    }

    #[test]
    fn this_host() {
        let facts = HostFacts::gather(None, "/brig".to_owned());
        assert!(facts.kernel > (4, 0));
        assert!(facts.hard_limits.contains_key("RLIMIT_NOFILE"));
    }
}
