//! Everything that can be asked of the engine. Each route names one of these.

use std::fmt;

/// What sort of thing an action is. Each class is an action group of its policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Looks, and shows nothing that must stay hidden.
    Read,
    /// Shows the output of workloads.
    Logs,
    /// Looks at, or uses, what not everybody may.
    Guarded,
    /// Changes something.
    Change,
    /// Gets inside a container: its processes, its files.
    Reach,
    /// Is about rights themselves.
    Administration,
}

impl Class {
    /// Every class.
    pub const ALL: &[Self] =
        &[Self::Read, Self::Logs, Self::Guarded, Self::Change, Self::Reach, Self::Administration];

    /// The group's name in policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Logs => "logs",
            Self::Guarded => "guarded",
            Self::Change => "change",
            Self::Reach => "reach",
            Self::Administration => "administration",
        }
    }
}

macro_rules! actions {
    ($( $(#[$doc:meta])* $name:ident = $text:literal in $class:ident, )+) => {
        /// What a request wants to do. Each route names one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Action { $( $(#[$doc])* $name, )+ }

        impl Action {
            /// Every action there is.
            pub const ALL: &[Self] = &[ $( Self::$name, )+ ];

            /// The name that policies and the logs use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$name => $text, )+ }
            }

            /// What sort of action it is.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $( Self::$name => Class::$class, )+ }
            }
        }
    };
}

impl Action {
    /// The action of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.name() == name)
    }

    /// Whether it changes something, gets inside something, or takes secrets out: these are audited
    /// when allowed.
    #[must_use]
    pub const fn is_change(self) -> bool {
        match self.class() {
            Class::Change | Class::Reach => true,
            Class::Read | Class::Logs | Class::Guarded | Class::Administration => matches!(
                self,
                Self::AccessIssue
                    | Self::AccessRevoke
                    | Self::AccessRenew
                    | Self::AccessEnrol
                    | Self::PolicyUpdate
                    | Self::ClusterBackup
                    | Self::ScanDatabaseUpdate
                    | Self::ClusterRestore
            ),
        }
    }
}

actions! {
    /// Is it alive, which version does it speak.
    SystemPing = "system.ping" in Read,
    /// Versions.
    SystemVersion = "system.version" in Read,
    /// The state of the engine.
    SystemInfo = "system.info" in Read,
    /// What happens on the engine.
    SystemEvents = "system.events" in Read,
    /// Use of the disk.
    SystemDiskUsage = "system.disk-usage" in Read,
    /// What ends and when.
    SystemExpiring = "system.expiring" in Read,
    /// Check credentials against a registry.
    RegistryLogin = "registry.login" in Guarded,
    /// Ask a registry about an image.
    RegistryInspect = "registry.inspect" in Read,
    /// Search a registry.
    RegistrySearch = "registry.search" in Read,
    /// List containers.
    ContainerList = "container.list" in Read,
    /// Make a container.
    ContainerCreate = "container.create" in Change,
    /// Look at a container.
    ContainerInspect = "container.inspect" in Read,
    /// Read a container's output.
    ContainerLogs = "container.logs" in Logs,
    /// Start a container.
    ContainerStart = "container.start" in Change,
    /// Stop a container.
    ContainerStop = "container.stop" in Change,
    /// Restart a container.
    ContainerRestart = "container.restart" in Change,
    /// Send a signal to a container.
    ContainerKill = "container.kill" in Change,
    /// Pause or unpause a container.
    ContainerPause = "container.pause" in Change,
    /// Change a container's limits.
    ContainerUpdate = "container.update" in Change,
    /// Rename a container.
    ContainerRename = "container.rename" in Change,
    /// Resize a container's terminal.
    ContainerResize = "container.resize" in Change,
    /// Talk to a container's process.
    ContainerAttach = "container.attach" in Reach,
    /// Wait for a container's end.
    ContainerWait = "container.wait" in Read,
    /// Remove a container.
    ContainerRemove = "container.remove" in Change,
    /// Remove stopped containers.
    ContainerPrune = "container.prune" in Change,
    /// Read files of a container.
    ContainerReadFiles = "container.files.read" in Reach,
    /// Write files of a container.
    ContainerWriteFiles = "container.files.write" in Reach,
    /// Run a process in a container.
    ContainerExec = "container.exec" in Reach,
    /// Make an image of a container.
    ContainerCommit = "container.commit" in Reach,
    /// Write a container's whole file system out.
    ContainerExport = "container.export" in Reach,
    /// Look at a process run in a container.
    ExecInspect = "exec.inspect" in Read,
    /// List images.
    ImageList = "image.list" in Read,
    /// Look at an image.
    ImageInspect = "image.inspect" in Read,
    /// List the images that run, and who runs them.
    InventoryList = "inventory.list" in Read,
    /// Look at what is installed in an image.
    ImageInventory = "image.inventory" in Read,
    /// Fetch an image from a registry or take one from an archive.
    ImagePull = "image.pull" in Change,
    /// Send an image to a registry.
    ImagePush = "image.push" in Change,
    /// Take images from an archive.
    ImageLoad = "image.load" in Change,
    /// Write images into an archive.
    ImageSave = "image.save" in Guarded,
    /// Give an image another name.
    ImageTag = "image.tag" in Change,
    /// Remove an image.
    ImageRemove = "image.remove" in Change,
    /// Remove unused images.
    ImagePrune = "image.prune" in Change,
    /// Make an image.
    ImageBuild = "image.build" in Change,
    /// List networks.
    NetworkList = "network.list" in Read,
    /// Look at a network.
    NetworkInspect = "network.inspect" in Read,
    /// Make a network.
    NetworkCreate = "network.create" in Change,
    /// Remove a network.
    NetworkRemove = "network.remove" in Change,
    /// Remove unused networks.
    NetworkPrune = "network.prune" in Change,
    /// Attach a container to a network or detach it.
    NetworkConnect = "network.connect" in Change,
    /// List volumes.
    VolumeList = "volume.list" in Read,
    /// Look at a volume.
    VolumeInspect = "volume.inspect" in Read,
    /// Make a volume.
    VolumeCreate = "volume.create" in Change,
    /// Remove a volume.
    VolumeRemove = "volume.remove" in Change,
    /// Remove unused volumes.
    VolumePrune = "volume.prune" in Change,
    /// Change a volume.
    VolumeUpdate = "volume.update" in Change,
    /// Look at a plugin.
    PluginInspect = "plugin.inspect" in Read,
    /// Install, upgrade or make a plugin.
    PluginInstall = "plugin.install" in Change,
    /// Enable, disable or set up a plugin.
    PluginUpdate = "plugin.update" in Change,
    /// Send a plugin to a registry.
    PluginPush = "plugin.push" in Change,
    /// Remove a plugin.
    PluginRemove = "plugin.remove" in Change,
    /// List plugins.
    PluginList = "plugin.list" in Read,
    /// Look at the cluster.
    SwarmInspect = "swarm.inspect" in Guarded,
    /// Make a cluster of this node.
    SwarmInit = "swarm.init" in Change,
    /// Join a cluster.
    SwarmJoin = "swarm.join" in Change,
    /// Leave the cluster.
    SwarmLeave = "swarm.leave" in Change,
    /// Change the cluster's settings.
    SwarmUpdate = "swarm.update" in Change,
    /// Unlock a locked manager.
    SwarmUnlock = "swarm.unlock" in Change,
    /// Read the key that unlocks managers.
    SwarmUnlockKey = "swarm.unlock-key" in Administration,
    /// Take everything of the cluster out, encrypted.
    ClusterBackup = "cluster.backup" in Administration,
    /// Read a backup to its end and try it out.
    ClusterVerify = "cluster.verify" in Administration,
    /// Make this node the manager of a cluster out of a backup.
    ClusterRestore = "cluster.restore" in Administration,
    /// See which data keys are in use.
    ClusterKeys = "cluster.keys" in Guarded,
    /// Seal the cluster's objects with another data key.
    ClusterRotateKeys = "cluster.rotate-keys" in Change,
    /// List nodes.
    NodeList = "node.list" in Read,
    /// Look at a node.
    NodeInspect = "node.inspect" in Read,
    /// Change a node.
    NodeUpdate = "node.update" in Change,
    /// Remove a node.
    NodeRemove = "node.remove" in Change,
    /// List services.
    ServiceList = "service.list" in Read,
    /// Look at a service.
    ServiceInspect = "service.inspect" in Read,
    /// Make a service.
    ServiceCreate = "service.create" in Change,
    /// Change a service.
    ServiceUpdate = "service.update" in Change,
    /// Remove a service.
    ServiceRemove = "service.remove" in Change,
    /// Read a service's output.
    ServiceLogs = "service.logs" in Logs,
    /// List tasks.
    TaskList = "task.list" in Read,
    /// Look at a task.
    TaskInspect = "task.inspect" in Read,
    /// Read a task's output.
    TaskLogs = "task.logs" in Logs,
    /// List secrets; their data is never shown.
    SecretList = "secret.list" in Guarded,
    /// Look at a secret; its data is never shown.
    SecretInspect = "secret.inspect" in Guarded,
    /// Make a secret.
    SecretCreate = "secret.create" in Change,
    /// Change a secret's labels.
    SecretUpdate = "secret.update" in Change,
    /// Remove a secret.
    SecretRemove = "secret.remove" in Change,
    /// List configs.
    ConfigList = "config.list" in Read,
    /// Look at a config.
    ConfigInspect = "config.inspect" in Read,
    /// Make a config.
    ConfigCreate = "config.create" in Change,
    /// Change a config's labels.
    ConfigUpdate = "config.update" in Change,
    /// Remove a config.
    ConfigRemove = "config.remove" in Change,
    /// See the environments of containers and services, and which secrets they hold.
    EnvironmentRead = "environment.read" in Guarded,
    /// Have a secret's value: grant it to a service, or reach into a container that holds it.
    SecretUse = "secret.use" in Guarded,
    /// Lend a container a socket with a role, or reach into a container that has one.
    AccessLend = "access.lend" in Guarded,
    /// See what may start: the policies of the gates.
    PolicyInspect = "policy.inspect" in Read,
    /// Change what may start.
    PolicyUpdate = "policy.update" in Administration,
    /// Ask why an image may start, or may not.
    AdmissionExplain = "admission.explain" in Read,
    /// See roles, bindings and policies.
    AccessInspect = "access.inspect" in Administration,
    /// Ask why something would be allowed or denied.
    AccessExplain = "access.explain" in Guarded,
    /// Give somebody a certificate or an SSH key a role.
    AccessIssue = "access.issue" in Administration,
    /// Take it away again.
    AccessRevoke = "access.revoke" in Administration,
    /// Let newcomers ask for a certificate, or turn them away.
    AccessEnrol = "access.enrol" in Administration,
    /// Get a new certificate for the one that one has.
    AccessRenew = "access.renew" in Guarded,
    /// See which vulnerability database the gate judges by, or take it out.
    ScanDatabaseInspect = "scan.database-inspect" in Read,
    /// Give the gate another vulnerability database.
    ScanDatabaseUpdate = "scan.database-update" in Administration,
    /// Read the audit log.
    AuditRead = "audit.read" in Administration,
    /// Check the audit log.
    AuditVerify = "audit.verify" in Administration,
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
    fn names_are_unique_and_found() {
        let names: std::collections::BTreeSet<_> = Action::ALL.iter().map(|a| a.name()).collect();
        assert_eq!(names.len(), Action::ALL.len());
        for &action in Action::ALL {
            assert_eq!(Action::parse(action.name()), Some(action));
            assert!(Class::ALL.contains(&action.class()));
        }
        assert_eq!(Action::parse("container"), None);
    }
}
