//! Keeps the register, and tells the port.
//!
//! An engine in no swarm, and a worker, has an authority of its own: a file. Managers share the
//! cluster's, sealed in its store; what a manager has on disk is then a copy without the key, so
//! that its port knows who counts while the store is locked. The engine that starts a swarm
//! brings its authority along. One that leaves gets it back when the swarm ends with it; otherwise
//! it starts with an empty register: what the swarm issued counts there no more.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use brig_access::Grant;
use brig_pki::access_ca::{AccessCa, Issued};
use brig_pki::engine::{AccessTrust, ClientCertificate, EngineServer};
use brig_proto::brig::Access;
use brig_swarm::{ControlError, LocalNodeState, Swarm, SwarmError};
use brig_types::secret::SecretBytes;
use prost::Message as _;
use time::OffsetDateTime;

use super::register::{self, Wanted};
use super::{EnrolError, files};

const FILE: &str = "authority";
const MODE: u32 = 0o600;
/// Attempts to store a change while other managers store theirs.
const ATTEMPTS: usize = 5;
/// Holders of certificates whose last visit is remembered.
const MAX_SEEN: usize = 4096;

/// Where the register is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a file of this engine's.
    Engine,
    /// In the cluster's store, at this version.
    Cluster(u64),
}

#[derive(Debug)]
struct Held {
    access: Access,
    place: Place,
}

/// The register, and the key that signs.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    held: ArcSwap<Held>,
    changing: tokio::sync::Mutex<()>,
    port: OnceLock<Arc<EngineServer>>,
    /// Whether no other manager has what this one has.
    alone: AtomicBool,
    /// Whether the port's certificate is another authority's.
    behind: AtomicBool,
    seen: Mutex<HashMap<String, OffsetDateTime>>,
}

impl Authority {
    /// Reads what this engine has kept.
    ///
    /// # Errors
    /// [`EnrolError::File`], [`EnrolError::Damaged`].
    pub fn open(dir: PathBuf) -> Result<Self, EnrolError> {
        files::make_dir(&dir)?;
        let path = dir.join(FILE);
        let access = match files::read(&path)? {
            Some(bytes) => Access::decode(bytes.as_slice())
                .map_err(|source| EnrolError::Damaged { path, source })?,
            None => Access::default(),
        };
        let is_copy = !access.ca_certificate.is_empty() && access.ca_key.is_empty();
        let place = if is_copy { Place::Cluster(0) } else { Place::Engine };
        Ok(Self {
            dir,
            held: ArcSwap::from_pointee(Held { access, place }),
            changing: tokio::sync::Mutex::default(),
            port: OnceLock::new(),
            alone: AtomicBool::new(false),
            behind: AtomicBool::new(false),
            seen: Mutex::default(),
        })
    }

    /// Where the files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the port has to know.
    #[must_use]
    pub fn trust(&self) -> Option<AccessTrust> {
        trust_of(&self.held.load().access)
    }

    /// From now on this port hears of every change.
    pub fn serve(&self, port: Arc<EngineServer>) {
        // There is one.
        let _ = self.port.set(port);
    }

    /// Whether the port's certificate is of an authority that is not this one any more.
    #[must_use]
    pub fn port_is_behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed)
    }

    pub(super) fn port_is_up_to_date(&self) {
        self.behind.store(false, Ordering::Relaxed);
    }

    /// The register as it is now.
    #[must_use]
    pub fn with<R>(&self, look: impl FnOnce(&Access) -> R) -> R {
        look(&self.held.load().access)
    }

    /// Whether the register is the cluster's.
    #[must_use]
    pub fn is_clusters(&self) -> bool {
        matches!(self.held.load().place, Place::Cluster(_))
    }

    /// What a client may do that was just let in; `None` when it should not have been. Nothing
    /// for certificates of an operator's authority: bindings say what they may do.
    #[must_use]
    pub fn admitted(&self, client: &ClientCertificate) -> Option<Vec<Grant>> {
        let fingerprint = hex(&client.fingerprint);
        let held = self.held.load();
        match register::holder(&held.access, &fingerprint) {
            Some(identity) => {
                let now = OffsetDateTime::now_utc();
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                if seen.len() >= MAX_SEEN {
                    seen.clear();
                }
                seen.insert(identity.id.clone(), now);
                Some(vec![register::grant(identity)])
            }
            // SECURITY: without grants it would count as an operator's, who may do everything.
            None if client.of_access_authority => None,
            None => Some(Vec::new()),
        }
    }

    /// When somebody came last since the daemon was started.
    #[must_use]
    pub fn last_seen(&self, id: &str) -> Option<OffsetDateTime> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }

    /// Issues a first certificate.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub async fn issue(
        &self,
        swarm: &Swarm,
        wanted: &Wanted,
        request: &[u8],
    ) -> Result<(Issued, Vec<u8>), EnrolError> {
        wanted.check()?;
        self.change(swarm, |access, now| {
            register::check_free(access, &wanted.name, now)?;
            let ca = ca_of(access)?;
            let issued = sign(&ca, wanted, request)?;
            register::add(access, wanted, &issued, now);
            Ok((issued, ca.cert_pem().to_vec()))
        })
        .await
    }

    /// Issues the next certificate to the holder of this one.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub async fn renew(
        &self,
        swarm: &Swarm,
        fingerprint: &str,
        request: &[u8],
    ) -> Result<(Issued, Vec<u8>), EnrolError> {
        let fingerprint = hex(fingerprint);
        self.change(swarm, |access, now| {
            let wanted = register::renewal(access, &fingerprint, now)?;
            let ca = ca_of(access)?;
            let issued = sign(&ca, &wanted, request)?;
            register::renewed(access, &fingerprint, &issued);
            Ok((issued, ca.cert_pem().to_vec()))
        })
        .await
    }

    /// Takes an identity away, with all of its certificates; its name.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub async fn revoke(&self, swarm: &Swarm, key: &str) -> Result<String, EnrolError> {
        self.change(swarm, |access, now| register::revoke(access, key, now)).await
    }

    /// The authority with its key, made if there is none.
    ///
    /// # Errors
    /// [`EnrolError`], above all when the key is in a store that is locked.
    pub async fn signer(&self, swarm: &Swarm) -> Result<AccessCa, EnrolError> {
        let kept = {
            let held = self.held.load();
            (!held.access.ca_key.is_empty()).then(|| ca_of(&held.access))
        };
        match kept {
            Some(ca) => ca,
            None => self.change(swarm, |access, _| ca_of(access)).await,
        }
    }

    /// Changes the register where it is kept; acknowledged when it is durable.
    async fn change<R>(
        &self,
        swarm: &Swarm,
        work: impl Fn(&mut Access, OffsetDateTime) -> Result<R, EnrolError>,
    ) -> Result<R, EnrolError> {
        let _changing = self.changing.lock().await;
        for _ in 0..ATTEMPTS {
            self.take_over(swarm).await?;
            let held = self.held.load_full();
            let mut access = held.access.clone();
            if access.ca_certificate.is_empty() {
                let ca = AccessCa::generate()
                    .map_err(|source| EnrolError::Pki { action: "make an authority", source })?;
                access.ca_certificate = ca.cert_pem().to_vec();
                access.ca_key = ca.key_pem().expose_secret().to_vec();
            }
            let now = OffsetDateTime::now_utc();
            register::forget(&mut access, now);
            let answer = work(&mut access, now)?;
            match (held.place, swarm.control()) {
                (_, Ok(control)) => {
                    let version = match held.place {
                        Place::Cluster(version) => version,
                        Place::Engine => 0,
                    };
                    if access.id.is_empty() {
                        access.id = brig_types::id::random_hex();
                    }
                    match control.put_access(access, version).await {
                        Ok(stored) => self.adopt(&stored).await?,
                        Err(ControlError::OutOfSequence) => continue,
                        Err(error) => return Err(EnrolError::Store(error)),
                    }
                }
                (Place::Engine, Err(_)) => self.keep(access, Place::Engine).await?,
                (Place::Cluster(_), Err(error)) => return Err(locked(&error)),
            }
            return Ok(answer);
        }
        Err(EnrolError::Conflict("other managers change the register; try again".to_owned()))
    }

    /// Makes the register what it should be where this node stands now.
    ///
    /// # Errors
    /// [`EnrolError`].
    pub async fn sync(&self, swarm: &Swarm) -> Result<(), EnrolError> {
        let _changing = self.changing.lock().await;
        self.take_over(swarm).await
    }

    async fn take_over(&self, swarm: &Swarm) -> Result<(), EnrolError> {
        let held = self.held.load_full();
        match swarm.control() {
            Ok(control) => {
                self.alone.store(control.managers() <= 1, Ordering::Relaxed);
                match (control.access(), held.place) {
                    (Some(stored), Place::Cluster(version)) if version_of(&stored) == version => {
                        Ok(())
                    }
                    (Some(stored), _) => self.adopt(&stored).await,
                    (None, Place::Engine) if !held.access.ca_key.is_empty() => {
                        // The engine that started the swarm brings its authority along.
                        let mut access = held.access.clone();
                        access.id = brig_types::id::random_hex();
                        let stored =
                            control.put_access(access, 0).await.map_err(EnrolError::Store)?;
                        tracing::info!("the cluster takes over the engine's access authority");
                        self.adopt(&stored).await
                    }
                    (None, Place::Engine) => Ok(()),
                    // Another swarm than the one that this came from.
                    (None, Place::Cluster(_)) => self.start_anew().await,
                }
            }
            Err(_) if held.place == Place::Engine => Ok(()),
            Err(SwarmError::NotInSwarm) => self.leave(&held).await,
            // A worker, for certain: not a manager that is on its way up.
            Err(SwarmError::NotManager)
                if swarm.status().local_node_state == LocalNodeState::Active =>
            {
                self.leave(&held).await
            }
            // Locked, or broken: the copy says who counts.
            Err(_) => Ok(()),
        }
    }

    async fn leave(&self, held: &Held) -> Result<(), EnrolError> {
        if self.alone.load(Ordering::Relaxed) && !held.access.ca_key.is_empty() {
            tracing::info!("the access authority is the engine's again");
            let mut access = held.access.clone();
            access.meta = None;
            return self.keep(access, Place::Engine).await;
        }
        self.start_anew().await
    }

    /// What another authority issued counts here no more.
    async fn start_anew(&self) -> Result<(), EnrolError> {
        tracing::warn!("identities of the swarm count on this engine no more");
        self.keep(Access::default(), Place::Engine).await
    }

    async fn adopt(&self, stored: &Access) -> Result<(), EnrolError> {
        self.keep(stored.clone(), Place::Cluster(version_of(stored))).await
    }

    /// Writes the register to the disk, then lets it count.
    async fn keep(&self, access: Access, place: Place) -> Result<(), EnrolError> {
        let path = self.dir.join(FILE);
        let mut written = access.clone();
        if place != Place::Engine {
            // SECURITY: the cluster's key is sealed in the store and nowhere else.
            written.ca_key.clear();
        }
        let bytes = SecretBytes::new(written.encode_to_vec());
        let write = move || files::replace(&path, bytes.expose_secret(), MODE);
        let wrote = tokio::task::spawn_blocking(write).await;
        match wrote.unwrap_or(Err(EnrolError::Interrupted)) {
            Ok(()) => {}
            // What the store has counts, on a full disk too.
            Err(error) if place != Place::Engine => {
                let error = brig_types::error::chain(&error);
                tracing::error!(%error, "the copy of the register of identities is not up to date");
            }
            Err(error) => return Err(error),
        }
        let other = self.held.load().access.ca_certificate != access.ca_certificate;
        let trust = trust_of(&access);
        self.held.store(Arc::new(Held { access, place }));
        if other {
            self.behind.store(true, Ordering::Relaxed);
        }
        if let Some(port) = self.port.get()
            && let Err(error) = port.trust(trust.unwrap_or_default())
        {
            let error = brig_types::error::chain(&error);
            tracing::error!(%error, "the port cannot take over the access authority");
        }
        Ok(())
    }
}

fn sign(ca: &AccessCa, wanted: &Wanted, request: &[u8]) -> Result<Issued, EnrolError> {
    ca.issue_client(request, &wanted.name, &wanted.grant.role, wanted.lifetime)
        .map_err(|source| EnrolError::Pki { action: "issue the certificate", source })
}

fn ca_of(access: &Access) -> Result<AccessCa, EnrolError> {
    if access.ca_key.is_empty() {
        return Err(EnrolError::Unavailable(
            "the access authority's key is in the cluster's store: unlock it first (brig swarm unlock)"
                .to_owned(),
        ));
    }
    let key = SecretBytes::new(access.ca_key.clone());
    AccessCa::from_pem(&access.ca_certificate, &key)
        .map_err(|source| EnrolError::Pki { action: "use the access authority", source })
}

fn trust_of(access: &Access) -> Option<AccessTrust> {
    (!access.ca_certificate.is_empty()).then(|| AccessTrust {
        ca_pem: access.ca_certificate.clone(),
        known: register::known(access),
    })
}

fn version_of(access: &Access) -> u64 {
    let version = access.meta.as_ref().and_then(|meta| meta.version.as_ref());
    version.map_or(0, |version| version.index)
}

fn locked(error: &SwarmError) -> EnrolError {
    EnrolError::Unavailable(format!(
        "the register of identities is in the cluster's store, which cannot be used now: {error}"
    ))
}

/// Bytes of hexadecimal digits; nothing for what is none.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter_map(|b| char::from(b).to_digit(16))
        .filter_map(|d| u8::try_from(d).ok())
        .collect();
    digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |all, digit| all << 4 | digit)).collect()
}
