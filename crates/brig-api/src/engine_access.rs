//! The engine's API, lent to a container by a socket of its own: in which role, and on what.
//!
//! Docker has no such field. In a container's `HostConfig` it stands as `EngineAccess`, which
//! docker's clients pass over; clients that cannot write it, and services, say it with a label.

use std::collections::BTreeMap;
use std::fmt;

/// The label of a container, or of a service's containers, that says the same as
/// `HostConfig.EngineAccess`, in the notation of [`EngineAccess::parse`].
pub const LABEL: &str = "com.brig.engine-access";
/// Where the socket is in every container that has one: at a path of its own, and where docker's
/// clients look.
pub const TARGETS: [&str; 2] = ["/run/brig/engine.sock", "/var/run/docker.sock"];
/// Longest name of a role.
const MAX_ROLE: usize = 64;
/// Most names that one access may list, all kinds together.
const MAX_NAMES: usize = 256;

model! {
    /// What a container may ask of the engine through its socket.
    pub struct EngineAccess {
        /// A ready role or one that policies name.
        role: String,
        /// Services that the role is about.
        services: Vec<String> = omitempty,
        /// Stacks that the role is about.
        stacks: Vec<String> = omitempty,
        /// Secrets that may be used.
        secrets: Vec<String> = omitempty,
        /// Configs that may be used.
        configs: Vec<String> = omitempty,
        /// Networks that may be joined.
        networks: Vec<String> = omitempty,
        /// Volumes that may be mounted.
        volumes: Vec<String> = omitempty,
        /// More paths at which the container sees the socket.
        targets: Vec<String> = omitempty,
    }
}

/// A text that is no access.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid engine access {text:?}: {reason}; expected ROLE[:service=NAME,stack=NAME,…]")]
pub struct EngineAccessError {
    text: String,
    reason: String,
}

impl EngineAccess {
    /// Reads `ROLE[:KEY=NAME[,KEY=NAME…]]`; the keys are `service`, `stack`, `secret`, `config`,
    /// `network` and `volume`, each as often as need be.
    ///
    /// # Errors
    /// [`EngineAccessError`].
    pub fn parse(text: &str) -> Result<Self, EngineAccessError> {
        let fail = |reason: String| EngineAccessError { text: shortened(text), reason };
        let (role, rest) = match text.find([':', ',']) {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let mut access = Self { role: role.to_owned(), ..Self::default() };
        let rest = rest.get(1..).unwrap_or_default();
        for item in rest.split(',').filter(|_| !rest.is_empty()) {
            let (key, name) =
                item.split_once('=').ok_or_else(|| fail(format!("{item:?} is not KEY=NAME")))?;
            let list = access
                .list(key)
                .ok_or_else(|| fail(format!("{key:?} is none of {}", KEYS.join(", "))))?;
            list.push(name.to_owned());
        }
        access.check().map_err(fail)?;
        Ok(access)
    }

    fn list(&mut self, key: &str) -> Option<&mut Vec<String>> {
        Some(match key {
            "service" => &mut self.services,
            "stack" => &mut self.stacks,
            "secret" => &mut self.secrets,
            "config" => &mut self.configs,
            "network" => &mut self.networks,
            "volume" => &mut self.volumes,
            _ => return None,
        })
    }

    fn lists(&self) -> [(&'static str, &Vec<String>); 6] {
        [
            ("service", &self.services),
            ("stack", &self.stacks),
            ("secret", &self.secrets),
            ("config", &self.configs),
            ("network", &self.networks),
            ("volume", &self.volumes),
        ]
    }

    /// Checks what came as JSON.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.role.is_empty() {
            return Err("there is no role".to_owned());
        }
        if self.role.len() > MAX_ROLE || !self.role.chars().all(plain) {
            return Err(format!("{:?} is no name of a role", shortened(&self.role)));
        }
        let names = || self.lists().into_iter().flat_map(|(_, list)| list);
        if names().count() > MAX_NAMES {
            return Err(format!("more than {MAX_NAMES} names"));
        }
        match names().find(|name| name.is_empty() || name.contains([',', '=', '\0'])) {
            Some(name) => Err(format!("{:?} is no name", shortened(name))),
            None => Ok(()),
        }
    }
}

/// What a request asks for, by its field or else by its label.
///
/// # Errors
/// [`EngineAccessError`].
pub fn asked(
    field: Option<&EngineAccess>,
    labels: &BTreeMap<String, String>,
) -> Result<Option<EngineAccess>, EngineAccessError> {
    match (field, labels.get(LABEL)) {
        (Some(access), _) => match access.check() {
            Ok(()) => Ok(Some(access.clone())),
            Err(reason) => Err(EngineAccessError { text: shortened(&access.role), reason }),
        },
        (None, Some(text)) => EngineAccess::parse(text).map(Some),
        (None, None) => Ok(None),
    }
}

const KEYS: [&str; 6] = ["service", "stack", "secret", "config", "network", "volume"];

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

impl fmt::Display for EngineAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.role)?;
        let mut before = ':';
        for (key, list) in self.lists() {
            for name in list {
                write!(f, "{before}{key}={name}")?;
                before = ',';
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_notations_are_read() {
        let viewer = EngineAccess::parse("viewer").unwrap();
        assert_eq!((viewer.role.as_str(), viewer.to_string().as_str()), ("viewer", "viewer"));
        for text in
            ["deployer:service=web,stack=shop,secret=*", "deployer,service=web,stack=shop,secret=*"]
        {
            let access = EngineAccess::parse(text).unwrap();
            assert_eq!((access.services[0].as_str(), access.stacks[0].as_str()), ("web", "shop"));
            assert_eq!(access.secrets, ["*"]);
            assert_eq!(access.to_string(), "deployer:service=web,stack=shop,secret=*");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("", "there is no role"),
            (":service=web", "there is no role"),
            ("a b", "no name of a role"),
            ("viewer:web", "not KEY=NAME"),
            ("viewer:servces=web", "none of service, stack"),
            ("viewer:service=", "is no name"),
            ("viewer:,", "not KEY=NAME"),
        ] {
            let error = EngineAccess::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in "\\PC{0,60}") {
            if let Ok(access) = EngineAccess::parse(&text) {
                prop_assert_eq!(EngineAccess::parse(&access.to_string()).unwrap(), access);
            }
        }
    }
}
