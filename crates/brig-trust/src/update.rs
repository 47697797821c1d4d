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
use crate::metadata::{Document, FileMeta, MAX_TIMESTAMP, Root, Targets, Timestamp};
use crate::name::{Gun, Role};
use crate::remote::{Remote, RemoteError, RemoteFile};
use crate::repository::Repository;
use crate::root::{Pinning, accept_root};
use crate::signed::{Demands, Signed};

mod verify;

use verify::{Below, Floors, Verifier, remembered_root};

/// Roots that are followed from the remembered one to the newest.
const MAX_ROOTS: u64 = 1024;
/// Delegations that one repository may have.
const MAX_DELEGATIONS: usize = 4096;

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
