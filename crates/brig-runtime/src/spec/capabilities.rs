//! Which capabilities a process gets.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxCapabilities};

use super::SpecError;
use super::input::{Capabilities, UserSpec};
use crate::facts::HostFacts;

/// What a container has unless it asks for something else.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

const ALL: &str = "ALL";

pub(super) fn build(
    wanted: &Capabilities,
    user: &UserSpec,
    host: &HostFacts,
    warnings: &mut Vec<String>,
) -> Result<LinuxCapabilities, SpecError> {
    let names = names(wanted)?;
    let mut missing = Vec::new();
    let mut granted = HashSet::new();
    for name in names {
        // The kernel may not know it, or this daemon may not have it: then nobody it starts can.
        if !host.bounding.contains(&name) {
            missing.push(name);
        } else if let Some(capability) = capability(&name) {
            granted.insert(capability);
        }
    }
    // What nobody asked for by name is not worth a word.
    let asked = |name: &String| {
        wanted.add.iter().any(|add| normal(add).is_ok_and(|add| add == *name || add == ALL))
    };
    if wanted.privileged || missing.iter().any(asked) {
        missing.sort();
        if !missing.is_empty() {
            warnings.push(format!(
                "This host does not allow these capabilities: {}",
                missing.join(", ")
            ));
        }
    }
    let mut capabilities = LinuxCapabilities::default();
    // Root has them at once. Anybody else has none, and the bounding set is what set-user-id
    // programs can give.
    let held = if user.uid == 0 { granted.clone() } else { HashSet::new() };
    let some = |set: HashSet<Capability>| (!set.is_empty()).then_some(set);
    capabilities
        .set_bounding(Some(granted))
        .set_effective(some(held.clone()))
        .set_permitted(some(held))
        .set_inheritable(None)
        .set_ambient(None);
    Ok(capabilities)
}

fn capability(name: &str) -> Option<Capability> {
    name.strip_prefix("CAP_")?.parse().ok()
}

fn normal(name: &str) -> Result<String, SpecError> {
    let upper = name.trim().to_ascii_uppercase();
    if upper == ALL {
        return Ok(upper);
    }
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    if brig_sys::caps::known().contains(&full.as_str()) {
        Ok(full)
    } else {
        Err(SpecError::UnknownCapability(name.chars().take(80).collect()))
    }
}

fn names(wanted: &Capabilities) -> Result<Vec<String>, SpecError> {
    let everything = || brig_sys::caps::known().iter().map(|name| (*name).to_owned());
    let add: Vec<String> = wanted.add.iter().map(|name| normal(name)).collect::<Result<_, _>>()?;
    let drop: Vec<String> =
        wanted.drop.iter().map(|name| normal(name)).collect::<Result<_, _>>()?;
    Ok(if wanted.privileged {
        everything().collect()
    } else if add.iter().any(|name| name == ALL) {
        everything().filter(|name| !drop.contains(name)).collect()
    } else if drop.iter().any(|name| name == ALL) {
        add
    } else {
        DEFAULT
            .iter()
            .map(|name| (*name).to_owned())
            .filter(|name| !drop.contains(name))
            .chain(add)
            .collect()
    })
}
