//! System call filters: Docker's profile format, and ready filters so that a container need not
//! wait for one to be compiled.

mod cache;
mod profile;

use oci_spec::runtime::{LinuxSeccomp, Process};

pub(crate) use cache::{FilterCache, FilterKey};

use crate::facts::HostFacts;
use crate::spec::{SeccompProfile, SpecError};

/// The filter of a container, or none when it may make every call.
pub(crate) fn resolve(
    wanted: &SeccompProfile,
    privileged: bool,
    process: &Process,
    host: &HostFacts,
) -> Result<Option<LinuxSeccomp>, SpecError> {
    match wanted {
        // COMPAT: privileged means unconfined, whatever the profile.
        _ if privileged => Ok(None),
        SeccompProfile::Unconfined => Ok(None),
        SeccompProfile::Default => profile::resolve(profile::DEFAULT, process, host),
        SeccompProfile::Custom(json) => profile::resolve(json, process, host),
    }
}

#[cfg(test)]
mod tests;
