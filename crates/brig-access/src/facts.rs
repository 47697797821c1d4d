//! What a request asks for, and the object it is about, as policies see them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Label that names the stack of an object.
pub const STACK_LABEL: &str = "com.docker.stack.namespace";

/// Something that a request or an object refers to by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Reference {
    /// Its name; an id that nothing is known of stands for itself.
    pub name: String,
    /// Its stack, if it belongs to one.
    pub stack: String,
}

impl Reference {
    /// A reference to something that belongs to no stack.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), stack: String::new() }
    }
}

/// The object that a request is about, as the engine knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Object {
    /// `container`, `service`, `network` …
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its name, or what the path says if there is no such object.
    pub name: String,
    /// The service that it is or belongs to.
    pub service: String,
    /// The stack that it belongs to.
    pub stack: String,
    /// The image that it runs.
    pub image: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Secrets that it holds.
    pub secrets: Vec<Reference>,
    /// How it reaches its host, in words.
    pub host_access: BTreeSet<String>,
    /// Roles of the engine's socket that it was lent.
    pub engine_access: BTreeSet<String>,
}

impl Object {
    /// An object that only its name is known of.
    #[must_use]
    pub fn named(kind: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), name: name.to_owned(), ..Self::default() }
    }

    /// Takes labels over, and the stack that they name.
    #[must_use]
    pub fn with_labels(mut self, labels: BTreeMap<String, String>) -> Self {
        if let Some(stack) = labels.get(STACK_LABEL) {
            self.stack.clone_from(stack);
        }
        self.labels = labels;
        self
    }

    /// What the audit log calls it.
    #[must_use]
    pub fn label(&self) -> &str {
        if self.name.is_empty() { &self.id } else { &self.name }
    }
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Facts {
    /// Whether the request makes an object or says what it shall be.
    pub makes: bool,
    /// The name of what is made.
    pub name: String,
    /// The stack that what is made says it belongs to.
    pub stack: String,
    /// The image.
    pub image: String,
    /// All of the host's devices and capabilities.
    pub privileged: bool,
    /// Paths of the host that are mounted, also through volumes.
    pub host_mounts: BTreeSet<String>,
    /// Added capabilities.
    pub capabilities: BTreeSet<String>,
    /// Namespaces shared with the host or another container, `pid=host`.
    pub host_namespaces: BTreeSet<String>,
    /// Devices, device rules and device requests.
    pub devices: BTreeSet<String>,
    /// Options that weaken confinement.
    pub security_options: BTreeSet<String>,
    /// Other ways to the host, in words.
    pub other_access: BTreeSet<String>,
    /// Networks joined.
    pub networks: Vec<Reference>,
    /// Named volumes mounted.
    pub volumes: Vec<Reference>,
    /// Published ports, `8080:80/tcp`.
    pub ports: BTreeSet<String>,
    /// Secrets granted.
    pub secrets: Vec<Reference>,
    /// Configs granted.
    pub configs: Vec<Reference>,
    /// Labels of what is made.
    pub labels: BTreeMap<String, String>,
    /// Roles of the engine's socket that are lent.
    pub engine_access: BTreeSet<String>,
}

impl Facts {
    /// Everything that gives access to the host, in words.
    #[must_use]
    pub fn host_access(&self) -> BTreeSet<String> {
        let mut all = self.other_access.clone();
        if self.privileged {
            all.insert("privileged".to_owned());
        }
        for (what, items) in [
            ("mount of", &self.host_mounts),
            ("capability", &self.capabilities),
            ("namespace", &self.host_namespaces),
            ("device", &self.devices),
            ("security option", &self.security_options),
        ] {
            all.extend(items.iter().map(|item| format!("{what} {item}")));
        }
        all
    }
}
