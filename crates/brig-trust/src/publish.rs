//! Publishing: the first time, and every time after.

use brig_pki::PkiError;
use brig_pki::signing::{Curve, PublisherCertificate, SigningKey};
use brig_types::error::{Categorized, ErrorKind};
use time::OffsetDateTime;

use crate::TrustError;
use crate::cache::Cache;
use crate::edit::{Change, Edit, EditError};
use crate::key::{Key, KeyId};
use crate::keystore::{KeyInfo, KeyStore, KeyStoreError, Passphrases};
use crate::metadata::{Expires, Root};
use crate::name::{Gun, Role};
use crate::remote::{Remote, RemoteError, ServerRole};
use crate::repository::Repository;
use crate::update::{Reading, RootCheck, Stale, UpdateError, update};

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// What is there cannot be read.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// The changes cannot be made or signed.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The server refuses, or is not there.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// A key cannot be made or kept.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// A key cannot be used.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

impl From<TrustError> for PublishError {
    fn from(error: TrustError) -> Self {
        Self::Edit(error.into())
    }
}

impl Categorized for PublishError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Update(error) => error.kind(),
            Self::Edit(error) => error.kind(),
            Self::Remote(error) => error.kind(),
            Self::Keys(error) => error.kind(),
            Self::Pki(error) => error.kind(),
        }
    }
}

/// Who keeps a role's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// The trust server.
    Server,
    /// The publisher.
    Publisher,
}

/// The publisher's side of one repository.
pub struct Publisher<'a, R> {
    /// The server.
    pub remote: &'a R,
    /// What was verified before.
    pub cache: &'a Cache,
    /// The repository.
    pub gun: &'a Gun,
    /// Private keys.
    pub keys: &'a mut KeyStore,
    /// Where their passphrases come from.
    pub passphrases: &'a mut dyn Passphrases,
    /// How the repository is read before it is changed.
    pub reading: Reading<'a>,
}

impl<R> std::fmt::Debug for Publisher<'_, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("gun", &self.gun).finish_non_exhaustive()
    }
}

impl<R: Remote> Publisher<'_, R> {
    /// Reads the newest state, which changes begin from.
    ///
    /// # Errors
    /// [`UpdateError`].
    pub async fn read(&self) -> Result<Repository, UpdateError> {
        let reading =
            Reading { root: RootCheck::Always, stale: Stale::Refuse, ..self.reading.clone() };
        update(self.remote, self.cache, self.gun, &reading).await
    }

    /// Makes changes to a repository that was just read; nothing is sent if nothing changes.
    ///
    /// # Errors
    /// [`PublishError`]; a publication that came between shows as a rejected one.
    pub async fn publish(
        &mut self,
        repository: &Repository,
        changes: &[Change],
    ) -> Result<(), PublishError> {
        let mut edit = Edit::of(repository, self.now());
        for change in changes {
            edit.apply(change)?;
        }
        if edit.is_empty() {
            return Ok(());
        }
        let files = edit.sign(self.keys, self.passphrases)?;
        Ok(self.remote.publish(self.gun, &files).await?)
    }

    /// Makes the repository's keys and publishes it for the first time, with these changes.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn initialise(&mut self, changes: &[Change]) -> Result<(), PublishError> {
        let root_key = self.root_key()?;
        let targets = self.new_key(&KeyInfo::of(self.gun, Role::Targets.as_str()))?;
        let timestamp = self.remote.server_key(self.gun, ServerRole::Timestamp).await?;
        let snapshot = self.remote.server_key(self.gun, ServerRole::Snapshot).await?;
        let certificate = self.certificate(&root_key)?;
        let expires = Expires::in_days(self.now(), Root::DAYS);
        let root = Root::new(expires, certificate, targets, snapshot, timestamp);
        let mut edit = Edit::first(root, self.now());
        for change in changes {
            edit.apply(change)?;
        }
        let files = edit.sign(self.keys, self.passphrases)?;
        Ok(self.remote.publish(self.gun, &files).await?)
    }

    /// Gives a base role another key. A new root is signed by the old key and the new one, so
    /// that whoever knows the old root believes it.
    ///
    /// # Errors
    /// [`PublishError`]; root and targets are the publisher's, the timestamp is the server's.
    pub async fn rotate(&mut self, role: &Role, keeper: Keeper) -> Result<(), PublishError> {
        let repository = self.read().await?;
        let key = match (role, keeper) {
            (Role::Root, Keeper::Publisher) => {
                let key = SigningKey::generate(Curve::P256)?;
                let id = self.keys.add(key, &KeyInfo::root(), self.passphrases)?;
                self.certificate(&id)?
            }
            (Role::Targets | Role::Snapshot, Keeper::Publisher) => {
                self.new_key(&KeyInfo::of(self.gun, role.as_str()))?
            }
            (Role::Snapshot, Keeper::Server) => {
                self.remote.rotate_server_key(self.gun, ServerRole::Snapshot).await?
            }
            (Role::Timestamp, Keeper::Server) => {
                self.remote.rotate_server_key(self.gun, ServerRole::Timestamp).await?
            }
            (role, _) => return Err(EditError::NoSuchRole(role.clone()).into()),
        };
        self.publish(&repository, &[Change::ReplaceKey { role: role.clone(), key }]).await
    }

    /// Gives snapshot and timestamp to the server that is asked now, both in one root: one that
    /// has taken the repository over holds neither key of the server before it, and can sign
    /// nothing until it has both.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn move_to_server(&mut self) -> Result<(), PublishError> {
        let repository = self.read().await?;
        let mut changes = Vec::new();
        for role in [ServerRole::Timestamp, ServerRole::Snapshot] {
            let key = self.remote.rotate_server_key(self.gun, role).await?;
            changes.push(Change::ReplaceKey { role: role.role(), key });
        }
        self.publish(&repository, &changes).await
    }

    fn now(&self) -> OffsetDateTime {
        self.reading.now
    }

    /// The publisher's root key: the first there is, else a new one.
    fn root_key(&mut self) -> Result<KeyId, PublishError> {
        match self.keys.first_of_role(Role::Root.as_str())? {
            Some(id) => {
                self.keys.open(&id, self.passphrases)?;
                Ok(id)
            }
            None => {
                let key = SigningKey::generate(Curve::P256)?;
                Ok(self.keys.add(key, &KeyInfo::root(), self.passphrases)?)
            }
        }
    }

    fn new_key(&mut self, info: &KeyInfo) -> Result<Key, PublishError> {
        let key = SigningKey::generate(Curve::P256)?;
        let public = Key::of(&key)?;
        self.keys.add(key, info, self.passphrases)?;
        Ok(public)
    }

    fn certificate(&mut self, id: &KeyId) -> Result<Key, PublishError> {
        let now = self.now();
        let key = self.keys.open(id, self.passphrases)?;
        let pem = PublisherCertificate::issue(self.gun.as_str(), key, now)?;
        Ok(Key::from_certificate(pem.as_bytes())?)
    }
}
