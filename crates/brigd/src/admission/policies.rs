//! Where policies are: in the cluster's store, where every manager has them; on a node that is in
//! no cluster, in a file each. A cluster's policies win on its nodes.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use brig_proto::brig::Policy;
use brig_store::StoreObject as _;
use brig_swarm::{ControlError, SwarmError};
use brig_types::error::{Categorized, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use super::facts::ClusterFacts;
use super::files;

/// Largest document.
pub const MAX_DOCUMENT: usize = 256 << 10;
/// A document in its file, with what is noted beside it.
const MAX_FILE: u64 = MAX_DOCUMENT as u64 + (64 << 10);

/// Whose policy it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole cluster's.
    Swarm,
    /// This node's alone.
    Node,
}

impl Scope {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Swarm => "swarm",
            Self::Node => "node",
        }
    }
}

/// A policy as it counts now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyInForce {
    /// Which gate's.
    pub name: String,
    /// Grows with every change; what a change has to name.
    pub version: u64,
    /// Canonical JSON.
    pub document: Vec<u8>,
    /// Who changed it last.
    pub changed_by: String,
    /// When, Unix seconds.
    pub changed_at: i64,
    /// Images of services that were there before it, as their specs name them.
    pub standing: Vec<String>,
    /// Whose it is.
    pub scope: Scope,
}

impl PolicyInForce {
    /// A policy that is only tried.
    #[must_use]
    pub fn candidate(name: &str, document: Vec<u8>) -> Self {
        Self {
            name: name.to_owned(),
            version: 0,
            document,
            changed_by: String::new(),
            changed_at: 0,
            standing: Vec::new(),
            scope: Scope::Node,
        }
    }
}

impl From<&Policy> for PolicyInForce {
    fn from(policy: &Policy) -> Self {
        Self {
            name: policy.name.clone(),
            version: policy.version(),
            document: policy.document.clone(),
            changed_by: policy.changed_by.clone(),
            changed_at: policy.changed_at,
            standing: policy.standing.clone(),
            scope: Scope::Swarm,
        }
    }
}

/// What can go wrong with policies.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// There is none of that name.
    #[error("there is no {0} policy")]
    NotFound(String),
    /// It is another one by now.
    #[error("update out of sequence: the policy was changed meanwhile; inspect it, then try again")]
    OutOfSequence,
    /// The document is no good.
    #[error("invalid {name} policy: {reason}")]
    Invalid {
        /// Which.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What managers said is not to be read.
    #[error("cannot read what this node remembers of its swarm's policies")]
    Remembered(#[source] io::Error),
    /// Only a manager changes a cluster's policies.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    /// The cluster's store.
    #[error(transparent)]
    Control(ControlError),
    /// The work was cut off.
    #[error("the work was interrupted")]
    Interrupted,
}

impl From<ControlError> for PolicyError {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::OutOfSequence => Self::OutOfSequence,
            error => Self::Control(error),
        }
    }
}

impl Categorized for PolicyError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Invalid { .. } => ErrorKind::InvalidParameter,
            Self::OutOfSequence => ErrorKind::Conflict,
            Self::File { .. } | Self::Remembered(_) | Self::Interrupted => ErrorKind::System,
            Self::Swarm(error) => error.kind(),
            Self::Control(error) => error.kind(),
        }
    }
}

/// A policy in its file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Stored {
    version: u64,
    changed_by: String,
    changed_at: i64,
    document: Value,
}

/// The policies that this node goes by.
#[derive(Debug)]
pub struct Policies {
    dir: PathBuf,
    facts: Arc<ClusterFacts>,
    /// This node's own.
    own: RwLock<BTreeMap<String, PolicyInForce>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

impl Policies {
    /// Reads this node's own policies. Blocks.
    ///
    /// # Errors
    /// A file that is damaged: without its policy anything could start.
    pub fn open(dir: PathBuf, facts: Arc<ClusterFacts>) -> Result<Self, PolicyError> {
        let own = read_all(&dir)?;
        Ok(Self { dir, facts, own: RwLock::new(own), changing: tokio::sync::Mutex::default() })
    }

    /// The policy of a gate, if there is one.
    ///
    /// # Errors
    /// When this node's cluster has policies and they cannot be known.
    pub async fn find(&self, name: &str) -> Result<Option<PolicyInForce>, PolicyError> {
        Ok(self.list().await?.into_iter().find(|policy| policy.name == name))
    }

    /// All policies that count here.
    ///
    /// # Errors
    /// As [`Policies::find`].
    pub async fn list(&self) -> Result<Vec<PolicyInForce>, PolicyError> {
        match self.facts.ask("").await.map_err(PolicyError::Remembered)? {
            Some(facts) => Ok(facts.policies.iter().map(PolicyInForce::from).collect()),
            None => Ok(self.own().values().cloned().collect()),
        }
    }

    fn own(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, PolicyInForce>> {
        self.own.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a document in force. `version` is what it replaces, 0 for none.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub async fn put(
        &self,
        name: &str,
        document: Vec<u8>,
        version: u64,
        changed_by: String,
    ) -> Result<PolicyInForce, PolicyError> {
        let changed_at = OffsetDateTime::now_utc().unix_timestamp();
        match self.facts.swarm().control() {
            Ok(control) => {
                let policy = Policy {
                    name: name.to_owned(),
                    document,
                    changed_by,
                    changed_at,
                    ..Policy::default()
                };
                Ok(control.put_policy(policy, version).await?.as_ref().into())
            }
            Err(SwarmError::NotInSwarm) => {
                let _changing = self.changing.lock().await;
                let found = self.own().get(name).map_or(0, |policy| policy.version);
                if found != version {
                    return Err(PolicyError::OutOfSequence);
                }
                let policy = PolicyInForce {
                    name: name.to_owned(),
                    version: version.saturating_add(1),
                    document,
                    changed_by,
                    changed_at,
                    standing: Vec::new(),
                    scope: Scope::Node,
                };
                self.write(name, Some(policy.clone())).await?;
                Ok(policy)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes a policy out of force.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub async fn remove(&self, name: &str, version: u64) -> Result<(), PolicyError> {
        match self.facts.swarm().control() {
            Ok(control) => match control.remove_policy(name, version).await {
                Err(ControlError::NotFound { .. }) => Err(PolicyError::NotFound(name.to_owned())),
                outcome => Ok(outcome?),
            },
            Err(SwarmError::NotInSwarm) => {
                let _changing = self.changing.lock().await;
                match self.own().get(name).map(|policy| policy.version) {
                    None => return Err(PolicyError::NotFound(name.to_owned())),
                    Some(found) if found != version => return Err(PolicyError::OutOfSequence),
                    Some(_) => {}
                }
                self.write(name, None).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Changes this node's own, first on disk and then in memory.
    async fn write(&self, name: &str, policy: Option<PolicyInForce>) -> Result<(), PolicyError> {
        let path = path(&self.dir, name);
        let content = policy.as_ref().map(encode).transpose()?;
        let write = move || match content {
            Some(content) => files::replace(&path, &content).map_err(file("write", &path)),
            None => files::remove(&path).map(drop).map_err(file("remove", &path)),
        };
        tokio::task::spawn_blocking(write).await.map_err(|_| PolicyError::Interrupted)??;
        let mut own = self.own.write().unwrap_or_else(PoisonError::into_inner);
        match policy {
            Some(policy) => own.insert(name.to_owned(), policy),
            None => own.remove(name),
        };
        Ok(())
    }
}

fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.json"))
}

fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PolicyError {
    let path = path.to_owned();
    move |source| PolicyError::File { action, path, source }
}

fn encode(policy: &PolicyInForce) -> Result<Vec<u8>, PolicyError> {
    let invalid = |reason: String| PolicyError::Invalid { name: policy.name.clone(), reason };
    let stored = Stored {
        version: policy.version,
        changed_by: policy.changed_by.clone(),
        changed_at: policy.changed_at,
        document: serde_json::from_slice(&policy.document).map_err(|e| invalid(e.to_string()))?,
    };
    serde_json::to_vec(&stored).map_err(|e| invalid(e.to_string()))
}

fn read_all(dir: &Path) -> Result<BTreeMap<String, PolicyInForce>, PolicyError> {
    let mut found = BTreeMap::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(source) => return Err(file("read", dir)(source)),
    };
    for entry in entries {
        let path = entry.map_err(file("read", dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(name) = name.strip_suffix(".json").map(str::to_owned) else { continue };
        let content = files::read(&path, MAX_FILE).map_err(file("read", &path))?;
        let Some(content) = content else { continue };
        let stored: Stored = serde_json::from_slice(&content)
            .map_err(|error| file("read", &path)(io::Error::other(error)))?;
        let policy = PolicyInForce {
            name: name.clone(),
            version: stored.version,
            document: stored.document.to_string().into_bytes(),
            changed_by: stored.changed_by,
            changed_at: stored.changed_at,
            standing: Vec::new(),
            scope: Scope::Node,
        };
        found.insert(name, policy);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use brig_proto::swarm::{Node, NodeDescription, Task};
    use brig_swarm::{
        Controller, Dependencies, Executor, InitRequest, StoreSettings, Swarm, SwarmConfig,
        TaskError,
    };

    use super::*;

    /// A node that runs nothing.
    struct Idle;

    #[async_trait]
    impl Executor for Idle {
        async fn describe(&self) -> NodeDescription {
            NodeDescription::default()
        }

        async fn configure(&self, _: &Node) {}

        async fn controller(
            &self,
            _: &Task,
            _: Arc<dyn Dependencies>,
        ) -> Result<Arc<dyn Controller>, TaskError> {
            Err(TaskError::fatal("nothing runs here"))
        }

        async fn retain(&self, _: &[String]) {}

        async fn discard(&self, _: &str) {}
    }

    async fn swarm(dir: &Path) -> Swarm {
        let config = SwarmConfig {
            state_dir: dir.join("swarm"),
            executor: Arc::new(Idle),
            store: StoreSettings::default(),
        };
        Swarm::open(config).await.unwrap()
    }

    fn document(text: &str) -> Vec<u8> {
        format!("{{\"is\":\"{text}\"}}").into_bytes()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_nodes_policies_are_files_and_its_clusters_win_while_it_is_in_one() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let swarm = swarm(dir.path()).await;
        let facts = || Arc::new(ClusterFacts::new(dir.path().join("admission"), swarm.clone()));
        let open = || Policies::open(dir.path().join("policies"), facts()).unwrap();
        let policies = open();
        assert_eq!(policies.find("trust").await.unwrap(), None);
        let by = || "uid:0".to_owned();
        let stale = policies.put("trust", document("a"), 3, by()).await.unwrap_err();
        assert!(matches!(stale, PolicyError::OutOfSequence));
        let first = policies.put("trust", document("a"), 0, by()).await.unwrap();
        assert_eq!((first.version, first.scope), (1, Scope::Node));
        let second = policies.put("trust", document("b"), 1, by()).await.unwrap();
        // The next daemon finds it.
        assert_eq!(open().find("trust").await.unwrap().unwrap(), second);
        assert!(policies.remove("trust", 1).await.is_err());

        let request = InitRequest {
            listen_addr: "127.0.0.1:0".to_owned(),
            advertise_addr: "127.0.0.1".to_owned(),
            ..InitRequest::default()
        };
        swarm.init(request).await.unwrap();
        assert_eq!(policies.find("trust").await.unwrap(), None);
        let shared = policies.put("trust", document("c"), 0, by()).await.unwrap();
        assert_eq!(shared.scope, Scope::Swarm);
        let again = policies.put("trust", document("d"), 0, by()).await.unwrap_err();
        assert!(matches!(again, PolicyError::OutOfSequence), "{again}");
        let newer = policies.put("trust", document("d"), shared.version, by()).await.unwrap();
        assert!(newer.version > shared.version);
        assert_eq!(policies.list().await.unwrap(), std::slice::from_ref(&newer));
        policies.remove("trust", newer.version).await.unwrap();
        let gone = policies.remove("trust", newer.version).await.unwrap_err();
        assert!(matches!(gone, PolicyError::NotFound(_)));

        swarm.leave(true).await.unwrap();
        assert_eq!(policies.find("trust").await.unwrap(), Some(second));
        policies.remove("trust", 2).await.unwrap();
        assert_eq!(open().find("trust").await.unwrap(), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_damaged_policy_is_not_taken_for_none() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let swarm = swarm(dir.path()).await;
        let policies = dir.path().join("policies");
        fs::create_dir(&policies).unwrap();
        fs::write(policies.join("trust.json"), "{").unwrap();
        let facts = Arc::new(ClusterFacts::new(dir.path().join("admission"), swarm));
        let error = Policies::open(policies, facts).unwrap_err();
        assert!(error.to_string().contains("trust.json"), "{error}");
    }
}
