//! Which principal has which role, and on what.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::facts::{Facts, Object, Reference};
use crate::principal::Principal;

/// Stands for everything in a list of a binding.
const ALL: &str = "*";
/// Most bindings of a file.
pub const MAX_BINDINGS: usize = 10_000;

/// The file `bindings.json`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Bindings {
    /// Role of local processes that no binding names; `none` for no role. Without it, docker's
    /// rule holds: whoever may open the socket is `admin`.
    #[serde(default)]
    pub local: Option<String>,
    /// The bindings.
    #[serde(default)]
    pub bindings: Vec<Binding>,
}

/// One principal's role.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Binding {
    /// User id of local processes.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Primary group id of local processes.
    #[serde(default)]
    pub gid: Option<u32>,
    /// Common name of a client certificate.
    #[serde(default)]
    pub certificate: Option<String>,
    /// Fingerprint of an SSH key.
    #[serde(default)]
    pub ssh: Option<String>,
    /// The role.
    pub role: String,
    /// Services that the role is about.
    #[serde(default)]
    pub services: BTreeSet<String>,
    /// Stacks that the role is about.
    #[serde(default)]
    pub stacks: BTreeSet<String>,
    /// Secrets that may be used.
    #[serde(default)]
    pub secrets: BTreeSet<String>,
    /// Configs that may be used.
    #[serde(default)]
    pub configs: BTreeSet<String>,
    /// Networks that may be joined.
    #[serde(default)]
    pub networks: BTreeSet<String>,
    /// Volumes that may be mounted.
    #[serde(default)]
    pub volumes: BTreeSet<String>,
}

impl Binding {
    /// How many principals it names; must be one.
    #[must_use]
    pub fn subjects(&self) -> usize {
        usize::from(self.uid.is_some())
            + usize::from(self.gid.is_some())
            + usize::from(self.certificate.is_some())
            + usize::from(self.ssh.is_some())
    }

    /// Whom it names, for people.
    #[must_use]
    pub fn subject(&self) -> String {
        match (&self.certificate, &self.ssh) {
            (Some(name), _) => format!("cert:{name}"),
            (None, Some(key)) => format!("ssh:{key}"),
            (None, None) => match (self.uid, self.gid) {
                (Some(uid), _) => format!("uid:{uid}"),
                (None, Some(gid)) => format!("gid:{gid}"),
                (None, None) => "nobody".to_owned(),
            },
        }
    }

    fn names(&self, principal: &Principal) -> bool {
        match principal {
            Principal::Local { uid, gid, .. } => self.uid == Some(*uid) || self.gid == Some(*gid),
            Principal::Certificate { name, .. } => self.certificate.as_ref() == Some(name),
            Principal::SshKey { fingerprint, .. } => self.ssh.as_ref() == Some(fingerprint),
            Principal::Lent { .. } => false,
        }
    }

    /// What it gives.
    #[must_use]
    pub fn grant(&self) -> Grant {
        Grant {
            role: self.role.clone(),
            scope: Scope {
                services: self.services.clone(),
                stacks: self.stacks.clone(),
                secrets: self.secrets.clone(),
                configs: self.configs.clone(),
                networks: self.networks.clone(),
                volumes: self.volumes.clone(),
            },
        }
    }
}

/// A role and what it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The role's name; empty for nobody in particular.
    pub role: String,
    /// What it is about.
    pub scope: Scope,
}

impl Grant {
    /// A role that is about nothing in particular.
    #[must_use]
    pub fn of(role: &str) -> Self {
        Self { role: role.to_owned(), scope: Scope::default() }
    }
}

/// Names that a role is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Services.
    pub services: BTreeSet<String>,
    /// Stacks.
    pub stacks: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
    /// Configs.
    pub configs: BTreeSet<String>,
    /// Networks.
    pub networks: BTreeSet<String>,
    /// Volumes.
    pub volumes: BTreeSet<String>,
}

fn within(set: &BTreeSet<String>, name: &str) -> bool {
    !name.is_empty() && (set.contains(name) || set.contains(ALL))
}

impl Scope {
    fn has(&self, names: &BTreeSet<String>, what: &Reference) -> bool {
        within(names, &what.name) || within(&self.stacks, &what.stack)
    }

    /// Whether an object is one that the role is about.
    #[must_use]
    pub fn owns(&self, object: &Object) -> bool {
        let listed = match object.kind.as_str() {
            "service" | "task" | "container" => within(&self.services, &object.service),
            "network" => within(&self.networks, &object.name),
            "volume" => within(&self.volumes, &object.name),
            "secret" => within(&self.secrets, &object.name),
            "config" => within(&self.configs, &object.name),
            _ => return false,
        };
        listed || within(&self.stacks, &object.stack)
    }

    /// Whether what a request makes stays within what the role is about: a service by its name,
    /// all else by a stack whose name the object's begins with.
    #[must_use]
    pub fn owns_new(&self, object: &Object, facts: &Facts) -> bool {
        if !facts.makes {
            return false;
        }
        if object.id.is_empty() {
            let named = object.kind == "service"
                && within(&self.services, &facts.name)
                && (facts.stack.is_empty() || within(&self.stacks, &facts.stack));
            // SECURITY: the label alone would let anybody claim any name.
            let of_stack = within(&self.stacks, &facts.stack)
                && facts
                    .name
                    .strip_prefix(facts.stack.as_str())
                    .is_some_and(|rest| rest.starts_with('_') && rest.len() > 1);
            named || of_stack
        } else {
            // What exists keeps its name and its stack.
            facts.name == object.name && facts.stack == object.stack && self.owns(object)
        }
    }

    /// Which of these the role was not given, by name.
    pub(crate) fn missing(
        &self,
        names: &BTreeSet<String>,
        wanted: &[Reference],
    ) -> BTreeSet<String> {
        wanted.iter().filter(|what| !self.has(names, what)).map(|what| what.name.clone()).collect()
    }
}

impl Bindings {
    /// The roles of a principal.
    #[must_use]
    pub fn grants(&self, principal: &Principal) -> Vec<Grant> {
        let mut grants: Vec<Grant> = self
            .bindings
            .iter()
            .filter(|binding| binding.names(principal))
            .map(Binding::grant)
            .collect();
        match principal {
            Principal::Local { uid, .. } if grants.is_empty() => {
                // SECURITY: root could take every right anyway; it must not lock itself out.
                let role = match self.local.as_deref() {
                    _ if *uid == 0 => "admin",
                    None => "admin",
                    Some("none") => return grants,
                    Some(role) => role,
                };
                grants.push(Grant::of(role));
            }
            // Docker's rule for whoever holds a certificate of the daemon's authority, as long as
            // nobody has bound anything.
            Principal::Certificate { grants: own, .. }
                if own.is_empty() && self.bindings.is_empty() && self.local.is_none() =>
            {
                grants.push(Grant::of("admin"));
            }
            Principal::Certificate { .. } | Principal::SshKey { .. } => {
                grants.extend_from_slice(principal.own_grants());
            }
            Principal::Lent { role, scope, .. } => {
                grants.push(Grant { role: role.clone(), scope: scope.clone() });
            }
            Principal::Local { .. } => {}
        }
        grants
    }
}
