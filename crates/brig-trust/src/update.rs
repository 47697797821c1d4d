//! Reading a repository: from what was believed before to what may be believed now.
//!
//! The remembered root, or the first one that is seen, says who signs the timestamp; that names
//! the snapshot, which names everything else. Whatever does not fit means that the root may have
//! changed: then the newest root is fetched, must follow from the remembered one step by step,
//! and all is tried once more.

use std::collections::BTreeMap;

use brig_types::error::{Categorized, ErrorKind};
use time::{Duration, OffsetDateTime};

use crate::TrustError;
use crate::cache::{Cache, CacheError, CachedFiles};
use crate::metadata::{
    Document, FileMeta, MAX_TIMESTAMP, RoleKeys, Root, Snapshot, Targets, Timestamp,
};
use crate::name::{Gun, Role};
use crate::remote::{Remote, RemoteError, RemoteFile};
use crate::repository::{Repository, Skipped};
use crate::root::{Pinning, accept_root, check_remembered};
use crate::signed::{Demands, Signed};

/// Roots that are followed from the remembered one to the newest.
const MAX_ROOTS: u64 = 1024;
/// Delegations that one repository may have.
const MAX_DELEGATIONS: usize = 4096;
/// From when on a coming end is told.
const NEAR_EXPIRY: Duration = Duration::days(180);

const STALE_TIMESTAMP: &str = "Error while downloading remote metadata, using cached timestamp - this might not be the latest version available remotely";

/// What a timestamp that cannot be had means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stale {
    /// The remembered one counts until it runs out, as with docker's clients. Whoever keeps the
    /// server out of reach keeps news away for that long.
    #[default]
    UseRemembered,
    /// Nothing is believed without the server.
    Refuse,
}

/// How a repository is read.
#[derive(Clone, Debug)]
pub struct Reading<'a> {
    /// What roots must match.
    pub pinning: &'a Pinning,
    /// What happens without the server.
    pub stale: Stale,
    /// Asks for the newest root even if one is remembered: before anything is published.
    pub root: RootCheck,
    /// The time.
    pub now: OffsetDateTime,
}

/// Whether the newest root is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootCheck {
    /// Where the remembered one does not do.
    WhenNeeded,
    /// Always.
    Always,
}

/// Why a repository cannot be believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The server has no root for it.
    #[error("{host} does not have trust data for {gun}")]
    NoTrustData {
        /// The server.
        host: String,
        /// The repository.
        gun: Gun,
    },
    /// The server has a root but no timestamp, and none is remembered.
    #[error("{0} trust data unavailable.  Has a notary repository been initialized?")]
    Missing(Role),
    /// A file that others name is not there.
    #[error("the trust server does not have {0}, which its other files name")]
    Incomplete(Role),
    /// The server cannot be asked.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// What it says does not hold.
    #[error(transparent)]
    Untrusted(#[from] TrustError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// More delegations than are followed.
    #[error("the repository has more than {MAX_DELEGATIONS} delegations")]
    TooManyDelegations,
    /// The task that reads and writes files ended before its time.
    #[error("reading the trust data was interrupted")]
    Interrupted,
}

impl Categorized for UpdateError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoTrustData { .. } | Self::Missing(_) => ErrorKind::NotFound,
            Self::Remote(error) => error.kind(),
            Self::Untrusted(error) => error.kind(),
            Self::Incomplete(_) => ErrorKind::Unavailable,
            Self::TooManyDelegations => ErrorKind::Forbidden,
            Self::Cache(_) | Self::Interrupted => ErrorKind::System,
        }
    }
}

/// Reads a repository from a server and remembers what was verified.
///
/// # Errors
/// [`UpdateError`]; what was remembered stays, but for a newer root that was accepted.
pub async fn update<R: Remote>(
    remote: &R,
    cache: &Cache,
    gun: &Gun,
    reading: &Reading<'_>,
) -> Result<Repository, UpdateError> {
    let cached = on_disk(cache, gun, Cache::load).await?;
    let session = Session { remote, cache, gun, reading, floors: Floors::of(&cached, gun), cached };
    let (root, is_new) = session.first_root().await?;
    let first = if is_new || reading.root == RootCheck::WhenNeeded {
        session.below(&root).await
    } else {
        Err(UpdateError::Missing(Role::Root))
    };
    let (root, repository) = match first {
        Ok(found) => (root, found),
        Err(_) => {
            let root = session.newer_root(root).await?;
            let found = session.below(&root).await?;
            (root, found)
        }
    };
    session.keep(root, repository).await
}

/// Reads a repository from what is remembered alone, without any server.
///
/// Everything is verified again; the timestamp's time decides how long that may go on.
/// `grace` is how far past its end it still counts.
///
/// # Errors
/// [`UpdateError`].
pub fn read_offline(
    cached: CachedFiles,
    gun: &Gun,
    now: OffsetDateTime,
    grace: Duration,
) -> Result<Repository, UpdateError> {
    let root = remembered_root(&cached, gun)?.ok_or(UpdateError::Missing(Role::Root))?;
    let floors = Floors { versions: BTreeMap::new() };
    let at = now.saturating_sub(grace.max(Duration::ZERO));
    let verifier = Verifier { root: &root, floors: &floors, now };
    let late = Verifier { now: at, ..verifier };
    let timestamp = cached.get(&Role::Timestamp).ok_or(UpdateError::Missing(Role::Timestamp))?;
    let timestamp: Signed<Timestamp> = late.base(timestamp, &Role::Timestamp)?;
    let file = |role: &Role| cached.get(role).ok_or_else(|| UpdateError::Incomplete(role.clone()));
    let snapshot = verifier.snapshot(file(&Role::Snapshot)?, &timestamp)?;
    let mut found = Below::new(timestamp, snapshot);
    let targets = verifier.targets(file(&Role::Targets)?, &Role::Targets, &found)?;
    let mut waiting = found.add(Role::Targets, targets);
    while let Some(role) = waiting.pop() {
        let Some(content) = found.listed(&role).and_then(|_| cached.get(&role)) else {
            continue;
        };
        if let Some(more) = found.take(&verifier, &role, content)? {
            waiting.extend(more);
        }
    }
    Ok(found.into_repository(gun.clone(), root, now))
}

struct Session<'a, R> {
    remote: &'a R,
    cache: &'a Cache,
    gun: &'a Gun,
    reading: &'a Reading<'a>,
    floors: Floors,
    cached: CachedFiles,
}

impl<R: Remote> Session<'_, R> {
    /// The remembered root, or the server's; whether it is the server's newest.
    async fn first_root(&self) -> Result<(Signed<Root>, bool), UpdateError> {
        if let Some(root) = remembered_root(&self.cached, self.gun)? {
            return Ok((root, false));
        }
        let root = self.fetch_root(None).await?;
        accept_root(&root, None, self.gun, self.reading.pinning, self.reading.now)?;
        self.meets(&root, 1)?;
        self.remember_root(&root).await?;
        Ok((root, true))
    }

    async fn fetch_root(&self, version: Option<u64>) -> Result<Signed<Root>, UpdateError> {
        let file = match version {
            None => RemoteFile::Newest(Role::Root),
            Some(version) => RemoteFile::Version(Role::Root, version),
        };
        let raw = self.remote.fetch(self.gun, &file, Root::MAX_SIZE).await?;
        let raw = raw.ok_or_else(|| UpdateError::NoTrustData {
            host: self.remote.host().to_owned(),
            gun: self.gun.clone(),
        })?;
        Ok(Signed::parse(&raw, &Role::Root)?)
    }

    fn meets(&self, root: &Signed<Root>, at_least: u64) -> Result<(), TrustError> {
        root.meets(&Role::Root, Demands { at_least, unexpired_at: Some(self.reading.now) })
    }

    async fn remember_root(&self, root: &Signed<Root>) -> Result<(), UpdateError> {
        let content = root.raw().to_vec();
        on_disk(self.cache, self.gun, move |cache, gun| cache.store(gun, &Role::Root, &content))
            .await
    }

    /// The newest root, if it follows from the remembered one.
    async fn newer_root(&self, mut known: Signed<Root>) -> Result<Signed<Root>, UpdateError> {
        let newest = self.fetch_root(None).await?;
        let (pinning, now) = (self.reading.pinning, self.reading.now);
        let follows = |root: &Signed<Root>, before: &Signed<Root>| {
            accept_root(root, Some(&before.document), self.gun, pinning, now)
        };
        if newest.raw() == known.raw() {
            self.meets(&newest, 1)?;
            return Ok(newest);
        }
        let version = newest.document.version;
        if let Err(refused) = follows(&newest, &known) {
            let next = known.document.version.saturating_add(1);
            if version <= next || version - next > MAX_ROOTS {
                return Err(refused.into());
            }
            for number in next..version {
                let step = self.fetch_root(Some(number)).await?;
                follows(&step, &known)?;
                if step.document.version != number {
                    let found = step.document.version;
                    return Err(
                        TrustError::Rollback { role: Role::Root, found, known: number }.into()
                    );
                }
                known = step;
            }
            follows(&newest, &known)?;
        }
        self.meets(&newest, known.document.version)?;
        self.remember_root(&newest).await?;
        Ok(newest)
    }

    /// Everything below a root.
    async fn below(&self, root: &Signed<Root>) -> Result<Below, UpdateError> {
        let verifier = Verifier { root, floors: &self.floors, now: self.reading.now };
        root.meets(&Role::Root, Demands { at_least: 1, unexpired_at: Some(self.reading.now) })?;
        let mut warnings = Vec::new();
        let timestamp = self.timestamp(&verifier, &mut warnings).await?;
        let unnamed = || UpdateError::Incomplete(Role::Snapshot);
        let meta = timestamp.document.snapshot().ok_or_else(unnamed)?;
        let content = self.file(&Role::Snapshot, meta).await?;
        let snapshot = verifier.snapshot(&content, &timestamp)?;
        let mut found = Below::new(timestamp, snapshot);
        found.warnings = warnings;

        let meta = found.listed(&Role::Targets).cloned();
        let meta = meta.ok_or(UpdateError::Incomplete(Role::Targets))?;
        let content = self.file(&Role::Targets, &meta).await?;
        let targets = verifier.targets(&content, &Role::Targets, &found)?;
        let mut waiting = found.add(Role::Targets, targets);
        // Depth first, in the order of the file.
        while let Some(role) = waiting.pop() {
            if found.count() > MAX_DELEGATIONS {
                return Err(UpdateError::TooManyDelegations);
            }
            let Some(meta) = found.listed(&role).cloned() else {
                continue;
            };
            let content = self.file(&role, &meta).await?;
            if let Some(more) = found.take(&verifier, &role, &content)? {
                waiting.extend(more);
            }
        }
        Ok(found)
    }

    async fn timestamp(
        &self,
        verifier: &Verifier<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Signed<Timestamp>, UpdateError> {
        let file = RemoteFile::Newest(Role::Timestamp);
        let missing = match self.remote.fetch(self.gun, &file, MAX_TIMESTAMP).await {
            Ok(Some(content)) => return Ok(verifier.base(&content, &Role::Timestamp)?),
            Ok(None) => UpdateError::Missing(Role::Timestamp),
            Err(error @ RemoteError::TooLarge { .. }) => return Err(error.into()),
            Err(error) => error.into(),
        };
        let Some(remembered) = self.cached.get(&Role::Timestamp) else {
            return Err(missing);
        };
        if self.reading.stale == Stale::Refuse {
            return Err(missing);
        }
        let timestamp = verifier.base(remembered, &Role::Timestamp)?;
        warnings.push(STALE_TIMESTAMP.to_owned());
        Ok(timestamp)
    }

    /// A file that another one describes: the remembered one if it is that, else the server's.
    async fn file(&self, role: &Role, meta: &FileMeta) -> Result<Vec<u8>, UpdateError> {
        if let Some(content) = self.cached.get(role)
            && meta.check(role.as_str(), content).is_ok()
        {
            return Ok(content.clone());
        }
        let hash = meta.sha256().ok_or_else(|| UpdateError::Incomplete(role.clone()))?;
        let limit = usize::try_from(meta.length).unwrap_or(usize::MAX).min(Targets::MAX_SIZE);
        let file = RemoteFile::Hash(role.clone(), hash);
        let content = match self.remote.fetch(self.gun, &file, limit).await {
            // More than what was signed for cannot be what was signed for.
            Err(RemoteError::TooLarge { .. }) => {
                return Err(TrustError::Length {
                    role: role.to_string(),
                    found: meta.length.saturating_add(1),
                    expected: meta.length,
                }
                .into());
            }
            fetched => fetched?.ok_or_else(|| UpdateError::Incomplete(role.clone()))?,
        };
        meta.check(role.as_str(), &content)?;
        Ok(content)
    }

    /// Remembers what is new.
    async fn keep(self, root: Signed<Root>, below: Below) -> Result<Repository, UpdateError> {
        let repository = below.into_repository(self.gun.clone(), root, self.reading.now);
        let mut files = vec![(Role::Snapshot, repository.snapshot.raw().to_vec())];
        files.extend(repository.targets.iter().map(|(role, f)| (role.clone(), f.raw().to_vec())));
        // Last: it vouches for the others.
        files.push((Role::Timestamp, repository.timestamp.raw().to_vec()));
        files.retain(|(role, content)| self.cached.get(role) != Some(content));
        if !files.is_empty() {
            on_disk(self.cache, self.gun, move |cache, gun| {
                files.iter().try_for_each(|(role, content)| cache.store(gun, role, content))
            })
            .await?;
        }
        Ok(repository)
    }
}

/// Runs what blocks where it may.
async fn on_disk<T: Send + 'static>(
    cache: &Cache,
    gun: &Gun,
    work: impl FnOnce(&Cache, &Gun) -> Result<T, CacheError> + Send + 'static,
) -> Result<T, UpdateError> {
    let (cache, gun) = (cache.clone(), gun.clone());
    let done = tokio::task::spawn_blocking(move || work(&cache, &gun)).await;
    Ok(done.map_err(|_| UpdateError::Interrupted)??)
}

/// The remembered root. It is the pin: one that does not hold is an error, not a reason to take
/// whatever the server has.
fn remembered_root(cached: &CachedFiles, gun: &Gun) -> Result<Option<Signed<Root>>, TrustError> {
    let Some(content) = cached.get(&Role::Root) else {
        return Ok(None);
    };
    let root = Signed::<Root>::parse(content, &Role::Root)?;
    check_remembered(&root, gun)?;
    Ok(Some(root))
}

/// The versions that were seen before, of files that their keys have signed.
struct Floors {
    versions: BTreeMap<Role, u64>,
}

impl Floors {
    fn of(cached: &CachedFiles, gun: &Gun) -> Self {
        fn version<T: Document>(
            cached: &CachedFiles,
            role: &Role,
            keys: Option<RoleKeys<'_>>,
        ) -> Option<(u64, Signed<T>)> {
            let file = Signed::<T>::parse(cached.get(role)?, role).ok()?;
            file.verify(&keys?).ok()?;
            Some((file.document.version(), file))
        }
        let mut versions = BTreeMap::new();
        let Ok(Some(root)) = remembered_root(cached, gun) else {
            return Self { versions };
        };
        let keys = |role: &Role| root.document.role_keys(role);
        let (timestamp, snapshot) = (Role::Timestamp, Role::Snapshot);
        if let Some((v, _)) = version::<Timestamp>(cached, &timestamp, keys(&timestamp)) {
            versions.insert(timestamp, v);
        }
        if let Some((v, _)) = version::<Snapshot>(cached, &snapshot, keys(&snapshot)) {
            versions.insert(snapshot, v);
        }
        let mut files: BTreeMap<Role, Signed<Targets>> = BTreeMap::new();
        // Parents come before their children: their names are shorter beginnings.
        for role in cached.keys().filter(|role| role.has_targets()) {
            let keys = match role.parent() {
                None => keys(role),
                Some(parent) => files.get(&parent).and_then(|f| f.document.role_keys(role)),
            };
            if let Some((v, file)) = version::<Targets>(cached, role, keys) {
                versions.insert(role.clone(), v);
                files.insert(role.clone(), file);
            }
        }
        Self { versions }
    }

    fn floor(&self, role: &Role) -> u64 {
        self.versions.get(role).copied().unwrap_or(1)
    }
}

/// Checks files against a root.
#[derive(Clone, Copy)]
struct Verifier<'a> {
    root: &'a Signed<Root>,
    floors: &'a Floors,
    now: OffsetDateTime,
}

impl Verifier<'_> {
    fn base<T: Document>(&self, content: &[u8], role: &Role) -> Result<Signed<T>, TrustError> {
        let keys = self.root.document.role_keys(role);
        self.verify(content, role, keys)
    }

    fn verify<T: Document>(
        &self,
        content: &[u8],
        role: &Role,
        keys: Option<RoleKeys<'_>>,
    ) -> Result<Signed<T>, TrustError> {
        let file = Signed::<T>::parse(content, role)?;
        file.verify(&keys.ok_or_else(|| TrustError::Threshold(role.clone()))?)?;
        let at_least = self.floors.floor(role);
        file.meets(role, Demands { at_least, unexpired_at: Some(self.now) })?;
        Ok(file)
    }

    fn snapshot(
        &self,
        content: &[u8],
        timestamp: &Signed<Timestamp>,
    ) -> Result<Signed<Snapshot>, TrustError> {
        let role = Role::Snapshot;
        if let Some(meta) = timestamp.document.snapshot() {
            meta.check(role.as_str(), content)?;
        }
        let snapshot: Signed<Snapshot> = self.base(content, &role)?;
        // The root that is believed and the one that the rest was made for are the same.
        if let Some(meta) = snapshot.document.meta.get(&Role::Root) {
            meta.check(Role::Root.as_str(), self.root.raw())?;
        }
        Ok(snapshot)
    }

    fn targets(
        &self,
        content: &[u8],
        role: &Role,
        found: &Below,
    ) -> Result<Signed<Targets>, TrustError> {
        if let Some(meta) = found.listed(role) {
            meta.check(role.as_str(), content)?;
        }
        let keys = match role.parent() {
            None => self.root.document.role_keys(role),
            Some(parent) => found.targets.get(&parent).and_then(|f| f.document.role_keys(role)),
        };
        self.verify(content, role, keys)
    }
}

/// What was found below a root.
struct Below {
    timestamp: Signed<Timestamp>,
    snapshot: Signed<Snapshot>,
    targets: BTreeMap<Role, Signed<Targets>>,
    skipped: BTreeMap<Role, Skipped>,
    warnings: Vec<String>,
}

impl Below {
    fn new(timestamp: Signed<Timestamp>, snapshot: Signed<Snapshot>) -> Self {
        Self {
            timestamp,
            snapshot,
            targets: BTreeMap::new(),
            skipped: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    fn listed(&self, role: &Role) -> Option<&FileMeta> {
        self.snapshot.document.meta.get(role)
    }

    fn count(&self) -> usize {
        self.targets.len() + self.skipped.len()
    }

    /// Adds a file; what it delegates to is next, the first role last: it is taken from the end.
    fn add(&mut self, role: Role, file: Signed<Targets>) -> Vec<Role> {
        let roles = file.document.delegations.roles.iter().rev().map(|d| d.name.clone()).collect();
        self.targets.insert(role, file);
        roles
    }

    /// Takes a delegation's file. One that is expired or lacks signatures is left out with a
    /// warning; any other fault fails everything.
    fn take(
        &mut self,
        verifier: &Verifier<'_>,
        role: &Role,
        content: &[u8],
    ) -> Result<Option<Vec<Role>>, TrustError> {
        match verifier.targets(content, role, self) {
            Ok(file) => Ok(Some(self.add(role.clone(), file))),
            Err(error @ (TrustError::Expired { .. } | TrustError::Threshold(_))) => {
                let file = Signed::<Targets>::parse(content, role)?;
                let expired = matches!(error, TrustError::Expired { .. });
                self.skipped.insert(
                    role.clone(),
                    Skipped {
                        version: file.document.version,
                        expired: expired.then_some(file.document),
                    },
                );
                self.warnings.push(format!("Error getting {role}: {error}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn into_repository(self, gun: Gun, root: Signed<Root>, now: OffsetDateTime) -> Repository {
        let mut warnings = self.warnings;
        let mut near = |role: &Role, expires: OffsetDateTime| {
            if expires < now.saturating_add(NEAR_EXPIRY) {
                warnings.push(format!(
                    "{role} metadata is nearing expiry, you should re-sign the role metadata"
                ));
            }
        };
        near(&Role::Root, root.document.expires());
        for (role, file) in &self.targets {
            near(role, file.document.expires());
        }
        Repository {
            gun,
            root,
            timestamp: self.timestamp,
            snapshot: self.snapshot,
            targets: self.targets,
            skipped: self.skipped,
            warnings,
        }
    }
}
