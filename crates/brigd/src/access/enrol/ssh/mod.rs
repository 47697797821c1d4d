//! SSH keys that are worth a role and no shell.
//!
//! Each key has a socket of its own, and a line in a login's `authorized_keys` that lets it do one
//! thing: connect there. Whoever comes over that socket is the key's holder, whatever the login
//! may do otherwise.

mod authorized;
mod key;

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use authorized::Login;
use brig_access::{Grant, Principal, Scope};
pub use key::PublicKey;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{EnrolError, files};
use crate::server::connection::{self, KeyHolder};
use crate::server::listener::Listener;
use crate::server::pool::Pool;
use crate::server::service::ApiService;

const FILE: &str = "ssh.json";
const SOCKETS: &str = "ssh";
/// Most keys.
const MAX_KEYS: usize = 512;
/// Characters of a key's id.
const ID_LEN: usize = 16;
/// Time for a socket to be there after its key was added.
const SOCKET_WAIT: Duration = Duration::from_secs(5);
/// Places where the CLI is looked for, after the daemon's own folder.
const PROGRAMS: [&str; 2] = ["/usr/bin/brig", "/usr/local/bin/brig"];

/// A key that was added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Key {
    /// Name of its socket and of its line.
    #[serde(rename = "ID")]
    pub id: String,
    /// `SHA256:…`.
    pub fingerprint: String,
    /// Kind and data.
    pub key: String,
    /// What its owner calls it.
    pub comment: String,
    /// The login that it opens.
    pub user: String,
    /// The login's user.
    pub uid: u32,
    /// What its holder may do.
    pub role: String,
    /// What the role is about.
    #[serde(default, flatten)]
    pub scope: ShownScope,
    /// RFC 3339.
    pub added: String,
    /// Who added it.
    pub added_by: String,
}

/// What a role is about, in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ShownScope {
    /// Services.
    pub services: std::collections::BTreeSet<String>,
    /// Stacks.
    pub stacks: std::collections::BTreeSet<String>,
    /// Secrets.
    pub secrets: std::collections::BTreeSet<String>,
    /// Configs.
    pub configs: std::collections::BTreeSet<String>,
    /// Networks.
    pub networks: std::collections::BTreeSet<String>,
    /// Volumes.
    pub volumes: std::collections::BTreeSet<String>,
}

impl From<ShownScope> for Scope {
    fn from(shown: ShownScope) -> Self {
        Self {
            services: shown.services,
            stacks: shown.stacks,
            secrets: shown.secrets,
            configs: shown.configs,
            networks: shown.networks,
            volumes: shown.volumes,
        }
    }
}

impl From<&Scope> for ShownScope {
    fn from(scope: &Scope) -> Self {
        Self {
            services: scope.services.clone(),
            stacks: scope.stacks.clone(),
            secrets: scope.secrets.clone(),
            configs: scope.configs.clone(),
            networks: scope.networks.clone(),
            volumes: scope.volumes.clone(),
        }
    }
}

impl Key {
    /// Who comes with it.
    #[must_use]
    pub fn principal(&self) -> Principal {
        let grant = Grant { role: self.role.clone(), scope: self.scope.clone().into() };
        Principal::SshKey { fingerprint: self.fingerprint.clone(), grants: vec![grant] }
    }
}

/// The keys of this host.
#[derive(Debug)]
pub struct Keys {
    file: PathBuf,
    sockets: PathBuf,
    known: Mutex<Vec<Key>>,
    changing: tokio::sync::Mutex<()>,
    /// How often the keys have changed, and up to which change the sockets are there.
    wanted: watch::Sender<u64>,
    done: watch::Sender<u64>,
}

impl Keys {
    /// Reads the keys that were added.
    ///
    /// # Errors
    /// [`EnrolError::File`], also for a file that is damaged.
    pub fn open(dir: &Path, exec_root: &Path) -> Result<Self, EnrolError> {
        let file = dir.join(FILE);
        let known = match files::read(&file)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| EnrolError::File {
                action: "understand",
                path: file.clone(),
                source: error.into(),
            })?,
            None => Vec::new(),
        };
        Ok(Self {
            file,
            sockets: exec_root.join(SOCKETS),
            known: Mutex::new(known),
            changing: tokio::sync::Mutex::default(),
            wanted: watch::Sender::new(0),
            done: watch::Sender::new(0),
        })
    }

    /// The keys.
    #[must_use]
    pub fn list(&self) -> Vec<Key> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn socket(&self, id: &str) -> PathBuf {
        self.sockets.join(format!("{id}.sock"))
    }

    /// Adds a key: its record, its socket, then its line. The line.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub async fn add(
        &self,
        login: Login,
        mut key: Key,
        write_line: bool,
    ) -> Result<(Key, String), EnrolError> {
        let _changing = self.changing.lock().await;
        let mut all = self.list();
        if all.iter().any(|one| one.fingerprint == key.fingerprint && one.user == key.user) {
            return Err(EnrolError::Conflict(format!(
                "the key {} opens {:?} already: brig access ssh rm {}",
                key.fingerprint, key.user, key.fingerprint
            )));
        }
        if all.len() >= MAX_KEYS {
            return Err(EnrolError::Conflict(format!("there are {MAX_KEYS} keys already")));
        }
        key.id = brig_types::id::random_hex().chars().take(ID_LEN).collect();
        let line = self.line(&key)?;
        all.push(key.clone());
        self.keep(all).await?;
        if write_line {
            let (id, text) = (key.id.clone(), line.clone());
            let put = tokio::task::spawn_blocking(move || login.put(&id, &text)).await;
            if let Err(error) = put.unwrap_or(Err(EnrolError::Interrupted)) {
                let mut all = self.list();
                all.retain(|one| one.id != key.id);
                self.keep(all).await?;
                return Err(error);
            }
        }
        Ok((key, line))
    }

    /// Takes keys away, by fingerprint or id: their lines, their sockets, who is connected.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub async fn remove(&self, reference: &str) -> Result<Vec<Key>, EnrolError> {
        let _changing = self.changing.lock().await;
        let names = |key: &Key| {
            key.fingerprint == reference
                || key.fingerprint.strip_prefix("SHA256:") == Some(reference)
                || key.id == reference
        };
        let (gone, rest): (Vec<Key>, Vec<Key>) = self.list().into_iter().partition(names);
        if gone.is_empty() {
            return Err(EnrolError::NotFound(format!(
                "there is no key {reference:?}: see brig access ssh ls"
            )));
        }
        self.keep(rest).await?;
        for key in &gone {
            let (user, id) = (key.user.clone(), key.id.clone());
            let take = move || Login::find(&user, None)?.take_out(&id);
            let taken = tokio::task::spawn_blocking(take).await;
            if let Err(error) = taken.unwrap_or(Err(EnrolError::Interrupted)) {
                // Its socket is gone: the line opens nothing any more.
                let error = brig_types::error::chain(&error);
                tracing::warn!(%error, user = key.user, "the key's line is still there");
            }
        }
        Ok(gone)
    }

    /// Takes the lines of all keys out, of logins that are still there.
    ///
    /// # Errors
    /// [`EnrolError::File`].
    pub fn purge(&self) -> Result<(), EnrolError> {
        for key in self.list() {
            match Login::find(&key.user, None) {
                Ok(login) => login.take_out(&key.id)?,
                Err(EnrolError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn keep(&self, keys: Vec<Key>) -> Result<(), EnrolError> {
        let json = serde_json::to_vec_pretty(&keys).map_err(|error| EnrolError::File {
            action: "write",
            path: self.file.clone(),
            source: error.into(),
        })?;
        let path = self.file.clone();
        let wrote = tokio::task::spawn_blocking(move || files::replace(&path, &json, 0o600)).await;
        wrote.unwrap_or(Err(EnrolError::Interrupted))?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = keys;
        let mut number = 0;
        self.wanted.send_modify(|count| {
            *count += 1;
            number = *count;
        });
        let mut done = self.done.subscribe();
        let there = done.wait_for(|count| *count >= number);
        match tokio::time::timeout(SOCKET_WAIT, there).await {
            Ok(_) => Ok(()),
            Err(_) => Err(EnrolError::Unavailable(
                "the key's socket could not be made; the daemon's log says why".to_owned(),
            )),
        }
    }

    /// What stands in `authorized_keys`, without its mark.
    fn line(&self, key: &Key) -> Result<String, EnrolError> {
        let program = program()?;
        let socket = self.socket(&key.id);
        let command = format!(
            "{} -H unix://{} system dial-stdio --forced",
            program.display(),
            socket.display()
        );
        let fits = |c: char| {
            c.is_ascii_graphic()
                && !matches!(
                    c,
                    '"' | '\''
                        | '\\'
                        | '$'
                        | '`'
                        | ';'
                        | '&'
                        | '|'
                        | '<'
                        | '>'
                        | '*'
                        | '?'
                        | '('
                        | ')'
                )
        };
        if !command.chars().all(|c| c == ' ' || fits(c)) || command.split(' ').count() != 6 {
            return Err(EnrolError::Invalid(format!(
                "sshd cannot be told to run {command:?}: the paths of brig and of --exec-root must be plain"
            )));
        }
        Ok(format!("restrict,command=\"{command}\" {}", key.key))
    }

    /// Keeps a socket for each key until told to stop.
    pub async fn serve(&self, service: ApiService, pool: Arc<Pool>, stop: CancellationToken) {
        let mut wanted = self.wanted.subscribe();
        let mut open: BTreeMap<String, CancellationToken> = BTreeMap::new();
        loop {
            let number = *wanted.borrow_and_update();
            self.reconcile(&mut open, &service, &pool, &stop);
            self.done.send_modify(|done| *done = number);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = wanted.changed() => if changed.is_err() { return },
            }
        }
    }

    fn reconcile(
        &self,
        open: &mut BTreeMap<String, CancellationToken>,
        service: &ApiService,
        pool: &Arc<Pool>,
        stop: &CancellationToken,
    ) {
        let known = self.list();
        open.retain(|id, revoked| {
            let stays = known.iter().any(|key| key.id == *id);
            if !stays {
                revoked.cancel();
            }
            stays
        });
        if known.is_empty() {
            return;
        }
        if let Err(error) = make_folder(&self.sockets) {
            tracing::error!(%error, path = %self.sockets.display(), "no sockets for SSH keys");
            return;
        }
        for key in known {
            if open.contains_key(&key.id) {
                continue;
            }
            let listener = match Listener::bind_for(&self.socket(&key.id), key.uid) {
                Ok(listener) => Arc::new(listener),
                Err(error) => {
                    let error = brig_types::error::chain(&error);
                    tracing::error!(%error, key = key.fingerprint, "no socket for an SSH key");
                    continue;
                }
            };
            let revoked = CancellationToken::new();
            let holder = KeyHolder {
                principal: Arc::new(key.principal()),
                uid: key.uid,
                revoked: revoked.clone(),
            };
            open.insert(key.id, revoked);
            let accept = connection::accept_key(
                listener,
                holder,
                service.clone(),
                Arc::clone(pool),
                stop.clone(),
            );
            service.state().tasks.spawn(accept);
        }
    }
}

/// The CLI that belongs to this daemon.
fn program() -> Result<PathBuf, EnrolError> {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name("brig"));
    let found = beside.into_iter().chain(PROGRAMS.map(PathBuf::from)).find(|path| path.is_file());
    found.ok_or_else(|| {
        EnrolError::NotFound(format!(
            "the program brig, which sshd is to run for the key, is neither beside brigd nor one of {}",
            PROGRAMS.join(", ")
        ))
    })
}

/// Others pass through to their own socket, and see none.
fn make_folder(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711))
}
