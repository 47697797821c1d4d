//! Who asks, and may they?
//!
//! Every request passes [`authorize`] between the route table and its handler: the table names
//! the [`Action`], the path names the object, the connection names the [`Principal`]. Handlers
//! get an [`Authorized`], which only this module can make.
//!
//! Without a policy the rule is docker's: whoever may open the socket, or holds a certificate of
//! the authority that the daemon was given, may do everything.

use std::fmt;
use std::sync::Arc;

/// Who is at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Principal {
    /// A process of this host that opened the Unix socket, as the kernel tells it.
    Local {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Process id; 0 when it lives in a pid namespace that is not visible from here.
        pid: i32,
    },
    /// Whoever holds this certificate of the configured authority, over TLS.
    Certificate {
        /// The subject's common name; empty when it has none.
        common_name: Arc<str>,
        /// SHA-256 of the certificate, hexadecimal.
        fingerprint: Arc<str>,
    },
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, pid, .. } => write!(f, "uid {uid} (process {pid})"),
            // The name is what the authority signed, which may hold anything.
            Self::Certificate { common_name, fingerprint } => {
                write!(f, "certificate {common_name:?} (sha256:{fingerprint})")
            }
        }
    }
}

/// The object an action is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object<'a> {
    /// Name or id as it stands in the path; `None` for actions on no object in particular.
    pub name: Option<&'a str>,
}

/// Proof that an action was allowed.
#[derive(Clone, Debug)]
pub struct Authorized {
    principal: Principal,
    action: Action,
}

impl Authorized {
    /// Who was allowed.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What was allowed.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.action
    }
}

/// The principal may not do this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("access denied: {principal} may not {action}{}", object.as_ref().map(|o| format!(" on {o:?}")).unwrap_or_default())]
pub struct Denied {
    principal: Principal,
    action: Action,
    object: Option<String>,
}

impl brig_types::error::Categorized for Denied {
    fn kind(&self) -> brig_types::error::ErrorKind {
        brig_types::error::ErrorKind::Forbidden
    }
}

/// Decides whether `principal` may do `action` on `object`.
///
/// # Errors
/// [`Denied`].
pub fn authorize(
    principal: Principal,
    action: Action,
    object: Object<'_>,
) -> Result<Authorized, Denied> {
    match principal {
        // SECURITY: the mode of the socket, or the configured authority, decided who could get here.
        Principal::Local { .. } | Principal::Certificate { .. } => {
            tracing::trace!(%principal, %action, object = object.name, "allowed");
            Ok(Authorized { principal, action })
        }
    }
}

macro_rules! actions {
    ($( $(#[$doc:meta])* $name:ident = $text:literal, )+) => {
        /// What a request wants to do. Each route names one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Action { $( $(#[$doc])* $name, )+ }

        impl Action {
            /// Every action there is.
            pub const ALL: &[Self] = &[ $( Self::$name, )+ ];

            /// The name that policies and the log use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $text, )+ }
            }
        }
    };
}

actions! {
    /// Is it alive, which version does it speak.
    SystemPing = "system.ping",
    /// Versions.
    SystemVersion = "system.version",
    /// The state of the engine.
    SystemInfo = "system.info",
    /// What happens on the engine.
    SystemEvents = "system.events",
    /// Use of the disk.
    SystemDiskUsage = "system.disk-usage",
    /// What ends and when.
    SystemExpiring = "system.expiring",
    /// Check credentials against a registry.
    RegistryLogin = "registry.login",
    /// Ask a registry about an image.
    RegistryInspect = "registry.inspect",
    /// Search a registry.
    RegistrySearch = "registry.search",
    /// List containers.
    ContainerList = "container.list",
    /// Make a container.
    ContainerCreate = "container.create",
    /// Look at a container.
    ContainerInspect = "container.inspect",
    /// Read a container's output.
    ContainerLogs = "container.logs",
    /// Start a container.
    ContainerStart = "container.start",
    /// Stop a container.
    ContainerStop = "container.stop",
    /// Restart a container.
    ContainerRestart = "container.restart",
    /// Send a signal to a container.
    ContainerKill = "container.kill",
    /// Pause or unpause a container.
    ContainerPause = "container.pause",
    /// Change a container's limits.
    ContainerUpdate = "container.update",
    /// Rename a container.
    ContainerRename = "container.rename",
    /// Resize a container's terminal.
    ContainerResize = "container.resize",
    /// Talk to a container's process.
    ContainerAttach = "container.attach",
    /// Wait for a container's end.
    ContainerWait = "container.wait",
    /// Remove a container.
    ContainerRemove = "container.remove",
    /// Remove stopped containers.
    ContainerPrune = "container.prune",
    /// Read files of a container.
    ContainerReadFiles = "container.files.read",
    /// Write files of a container.
    ContainerWriteFiles = "container.files.write",
    /// Run a process in a container.
    ContainerExec = "container.exec",
    /// Look at a process run in a container.
    ExecInspect = "exec.inspect",
    /// List images.
    ImageList = "image.list",
    /// Look at an image.
    ImageInspect = "image.inspect",
    /// Fetch an image from a registry or take one from an archive.
    ImagePull = "image.pull",
    /// Send an image to a registry.
    ImagePush = "image.push",
    /// Take images from an archive.
    ImageLoad = "image.load",
    /// Write images into an archive.
    ImageSave = "image.save",
    /// Give an image another name.
    ImageTag = "image.tag",
    /// Remove an image.
    ImageRemove = "image.remove",
    /// Remove unused images.
    ImagePrune = "image.prune",
    /// Make an image.
    ImageBuild = "image.build",
    /// List networks.
    NetworkList = "network.list",
    /// Look at a network.
    NetworkInspect = "network.inspect",
    /// Make a network.
    NetworkCreate = "network.create",
    /// Remove a network.
    NetworkRemove = "network.remove",
    /// Remove unused networks.
    NetworkPrune = "network.prune",
    /// Attach a container to a network or detach it.
    NetworkConnect = "network.connect",
    /// List volumes.
    VolumeList = "volume.list",
    /// Look at a volume.
    VolumeInspect = "volume.inspect",
    /// Make a volume.
    VolumeCreate = "volume.create",
    /// Change a volume.
    VolumeUpdate = "volume.update",
    /// Remove a volume.
    VolumeRemove = "volume.remove",
    /// Remove unused volumes.
    VolumePrune = "volume.prune",
    /// List plugins.
    PluginList = "plugin.list",
    /// Look at a plugin.
    PluginInspect = "plugin.inspect",
    /// Install, upgrade or make a plugin.
    PluginInstall = "plugin.install",
    /// Enable, disable or set up a plugin.
    PluginUpdate = "plugin.update",
    /// Send a plugin to a registry.
    PluginPush = "plugin.push",
    /// Remove a plugin.
    PluginRemove = "plugin.remove",
    /// Look at the cluster.
    SwarmInspect = "swarm.inspect",
    /// Make a cluster of this node.
    SwarmInit = "swarm.init",
    /// Join a cluster.
    SwarmJoin = "swarm.join",
    /// Leave the cluster.
    SwarmLeave = "swarm.leave",
    /// Change the cluster's settings.
    SwarmUpdate = "swarm.update",
    /// Unlock a locked manager.
    SwarmUnlock = "swarm.unlock",
    /// Read the key that unlocks managers.
    SwarmUnlockKey = "swarm.unlock-key",
    /// List nodes.
    NodeList = "node.list",
    /// Look at a node.
    NodeInspect = "node.inspect",
    /// Change a node.
    NodeUpdate = "node.update",
    /// Remove a node.
    NodeRemove = "node.remove",
    /// List services.
    ServiceList = "service.list",
    /// Look at a service.
    ServiceInspect = "service.inspect",
    /// Make a service.
    ServiceCreate = "service.create",
    /// Change a service.
    ServiceUpdate = "service.update",
    /// Remove a service.
    ServiceRemove = "service.remove",
    /// Read a service's output.
    ServiceLogs = "service.logs",
    /// List tasks.
    TaskList = "task.list",
    /// Look at a task.
    TaskInspect = "task.inspect",
    /// Read a task's output.
    TaskLogs = "task.logs",
    /// List secrets; their data is never shown.
    SecretList = "secret.list",
    /// Look at a secret; its data is never shown.
    SecretInspect = "secret.inspect",
    /// Make a secret.
    SecretCreate = "secret.create",
    /// Change a secret's labels.
    SecretUpdate = "secret.update",
    /// Remove a secret.
    SecretRemove = "secret.remove",
    /// List configs.
    ConfigList = "config.list",
    /// Look at a config.
    ConfigInspect = "config.inspect",
    /// Make a config.
    ConfigCreate = "config.create",
    /// Change a config's labels.
    ConfigUpdate = "config.update",
    /// Remove a config.
    ConfigRemove = "config.remove",
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = Action::ALL.iter().map(|a| a.name()).collect();
        assert_eq!(names.len(), Action::ALL.len());
    }

    #[test]
    fn whoever_got_in_may_do_everything() {
        let local = Principal::Local { uid: 1000, gid: 998, pid: 7 };
        let remote =
            Principal::Certificate { common_name: "ann\n".into(), fingerprint: "00ff".into() };
        assert_eq!(remote.to_string(), r#"certificate "ann\n" (sha256:00ff)"#);
        for principal in [local, remote] {
            for &action in Action::ALL {
                let object = Object { name: Some("x") };
                let proof = authorize(principal.clone(), action, object).unwrap();
                assert_eq!((proof.principal(), proof.action()), (&principal, action));
            }
        }
    }
}
