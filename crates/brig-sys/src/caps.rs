//! Capability names and the bounding set of this process.

use std::collections::BTreeSet;

use rustix::thread::{CapabilitySet, capability_is_in_bounding_set};

// linux/capability.h, in the order of the numbers.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The name of every capability this crate knows (`CAP_CHOWN`, ...), by number.
#[must_use]
pub const fn known() -> &'static [&'static str] {
    &NAMES
}

/// The capabilities in the calling thread's bounding set: the most that any process it starts can
/// ever have. Capabilities that the running kernel does not know are not in it.
#[must_use]
pub fn bounding() -> BTreeSet<String> {
    NAMES
        .iter()
        .enumerate()
        .filter(|(number, _)| {
            let capability = CapabilitySet::from_bits_retain(1_u64 << number);
            capability_is_in_bounding_set(capability).unwrap_or(false)
        })
        .map(|(_, name)| (*name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounding_set_agrees_with_proc() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|l| l.starts_with("CapBnd:")).unwrap();
        let mask = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        let set = bounding();
        for (number, name) in NAMES.iter().enumerate() {
            assert_eq!(set.contains(*name), mask >> number & 1 == 1, "{name}");
        }
    }
}
