//! Where what is served is kept: a file of this server's, storage that others write to as well, or
//! nowhere at the moment. It can change while the server runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use brig_trust::Gun;
use brig_types::error::chain;
use time::OffsetDateTime;

use crate::fault::Fault;
use crate::repositories::{Adoption, Repositories};
use crate::server::{DATABASE, ImportFailure, ServerError, open_repositories};
use crate::storage::{Storage, StorageError};
use crate::vault::Vault;

/// Repositories that are looked up at a time.
const PAGE: usize = 64;

enum Serving {
    Repositories(Arc<Repositories>),
    Nothing(String),
}

/// Says what a server serves. Clones say it to the same one.
#[derive(Clone)]
pub struct Place(Arc<ArcSwap<Serving>>);

impl Default for Place {
    fn default() -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Serving::Nothing("the server is starting".to_owned()))))
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &**self.0.load() {
            Serving::Repositories(repositories) => repositories.fmt(f),
            Serving::Nothing(reason) => f.debug_tuple("Nothing").field(reason).finish(),
        }
    }
}

impl Place {
    /// From now on what is in this folder, whose files are made where there are none. Blocks.
    ///
    /// # Errors
    /// [`ServerError`]; then everything stays as it was.
    pub fn folder(&self, folder: &Path, seal_key: Option<&Path>) -> Result<(), ServerError> {
        let repositories = open_repositories(folder, seal_key)?;
        self.0.store(Arc::new(Serving::Repositories(Arc::new(repositories))));
        Ok(())
    }

    /// From now on what is in this storage, which seals everything itself and which other servers
    /// may write to.
    pub fn shared(&self, storage: Arc<dyn Storage>) {
        let repositories = Repositories::new(storage, Vault::of_storage());
        self.0.store(Arc::new(Serving::Repositories(Arc::new(repositories))));
    }

    /// From now on nothing: clients are told why. Files are closed when the last request that uses
    /// them has ended.
    pub fn nothing(&self, reason: impl Into<String>) {
        self.0.store(Arc::new(Serving::Nothing(reason.into())));
    }

    pub(crate) fn repositories(&self) -> Result<Arc<Repositories>, Fault> {
        match &**self.0.load() {
            Serving::Repositories(repositories) => Ok(Arc::clone(repositories)),
            Serving::Nothing(reason) => Err(Fault::unavailable(reason)),
        }
    }
}

/// What became of a folder's repositories.
#[derive(Debug, Default)]
pub struct HandedOver {
    /// How many are in the other storage now.
    pub repositories: usize,
    /// Those that the other storage has of its own: they stay in the file.
    pub conflicts: Vec<Gun>,
    /// The file, under its new name; `None` where there was none.
    pub file: Option<PathBuf>,
}

/// Copies the repositories of a folder, with the server's keys, into a storage that seals everything
/// itself, and puts the file aside. May be done again after a failure. Blocks.
///
/// # Errors
/// [`ImportFailure`], among them [`StorageError::InUse`] while requests still use the file.
pub fn hand_over(
    folder: &Path,
    seal_key: Option<&Path>,
    to: Arc<dyn Storage>,
) -> Result<HandedOver, ImportFailure> {
    let file = folder.join(DATABASE);
    if !file.exists() {
        return Ok(HandedOver::default());
    }
    let from = open_repositories(folder, seal_key)?;
    let to = Repositories::new(to, Vault::of_storage());
    let (mut done, mut after) = (HandedOver::default(), None);
    let now = OffsetDateTime::now_utc();
    loop {
        let all = from.all(after.as_ref(), PAGE).map_err(ServerError::from)?;
        for gun in &all {
            match to.adopt(&from, gun, now)? {
                Adoption::Done => done.repositories += 1,
                Adoption::Conflict => done.conflicts.push(gun.clone()),
            }
        }
        after = all.into_iter().next_back();
        if after.is_none() {
            break;
        }
    }
    drop(from);
    let aside = folder.join(format!("{DATABASE}.moved-{}", now.unix_timestamp()));
    let renamed = std::fs::rename(&file, &aside)
        .and_then(|()| std::fs::File::open(folder).and_then(|folder| folder.sync_all()));
    if let Err(source) = renamed {
        // The next time everything is there already.
        tracing::debug!(error = chain(&source), "the file stays where it is");
        let broken = StorageError::Open { path: file, source: source.into() };
        return Err(ServerError::from(broken).into());
    }
    done.file = Some(aside);
    Ok(done)
}
