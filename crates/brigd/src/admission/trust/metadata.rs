//! Trust metadata: asked of the policy's server, verified, kept, and read again without the server
//! for as long as the policy allows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use brig_api::auth::RegistryAuth;
use brig_pki::hash;
use brig_pki::web::{WebConnector, WebTrust};
use brig_proto::brig::TrustMetadata;
use brig_trust::cache::{Cache, CacheError, CachedFiles};
use brig_trust::policy::{Dct, Expired};
use brig_trust::remote::{Action, Credentials, HttpRemote, RemoteError, ServerAddress};
use brig_trust::{
    Gun, Pinning, Reading as TufReading, Repository, Role, RootCheck, Stale, TrustError,
    UpdateError, check_pinned, read_offline, update,
};
use brig_types::error::{Categorized as _, ErrorKind, chain};
use brig_types::secret::SecretString;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::admission::files;

/// How long a server may take to tell everything about a repository.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a server that did not answer is left alone.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// What was confirmed so lately is not asked again for tasks: their image was judged already.
pub(super) const RECENT_FOR_TASKS: Duration = Duration::from_secs(60);
/// Nor when a container first starts that was judged when it was made: with `run` that is a moment
/// ago.
pub(super) const RECENT_FOR_STARTS: Duration = Duration::from_secs(10);
/// Metadata that has run out and counts all the same may be this old.
const LONG_AGO: time::Duration = time::Duration::days(3650);
const MAX_STAMP: u64 = 64;

/// What is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading<'a> {
    /// Whom to believe.
    pub(super) rule: &'a Dct,
    /// The repository.
    pub(super) gun: &'a Gun,
    /// Who asks.
    pub(super) auth: Option<&'a RegistryAuth>,
    /// What was confirmed less than this ago is not asked again; nothing where it is zero.
    pub(super) recent: Duration,
}

/// What may be believed.
#[derive(Debug)]
pub(super) struct Known {
    /// The repository.
    pub(super) repository: Repository,
    /// When the server last said so.
    pub(super) confirmed_at: OffsetDateTime,
    /// Whether it is what was stored.
    pub(super) stored: bool,
    /// What somebody should know.
    pub(super) warnings: Vec<String>,
}

/// Why nothing may be believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unknown {
    /// The server knows no such repository.
    #[error("{server} has no trust data for {gun}: nobody has signed anything there")]
    NoData { server: String, gun: Gun },
    /// What the server says does not hold.
    #[error("the trust data of {gun} at {server} is not believed")]
    Untrusted {
        server: String,
        gun: Gun,
        #[source]
        source: UpdateError,
    },
    /// The server is out of reach and nothing is stored.
    #[error("the trust server {server} cannot be asked ({reason}), and nothing is stored of {gun}")]
    Unreachable { server: String, gun: Gun, reason: String },
    /// What is stored does not do.
    #[error(
        "the trust server {server} cannot be asked ({reason}), and what is stored of {gun} does not do"
    )]
    Stored {
        server: String,
        gun: Gun,
        reason: String,
        #[source]
        source: UpdateError,
    },
    /// What is stored is too old for the policy.
    #[error("the trust server {server} cannot be asked ({reason}), and what is stored of {gun} was last confirmed {} ago; the policy allows {}", span(*.age), span(*.max_age))]
    TooOld { server: String, gun: Gun, reason: String, age: Duration, max_age: Duration },
}

/// A length of time in its two largest units.
fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// The metadata of all repositories.
#[derive(Debug)]
pub(super) struct Metadata {
    cache: Cache,
    stamps: PathBuf,
    /// One reading of a repository at a time.
    readings: Mutex<BTreeMap<Gun, Arc<tokio::sync::Mutex<()>>>>,
    /// Servers that did not answer, by address and authorities, and why.
    failures: Mutex<BTreeMap<(String, String), (Instant, String)>>,
    /// By the authorities that are trusted beside the system's.
    connectors: Mutex<BTreeMap<String, WebConnector>>,
}

impl Metadata {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            cache: Cache::new(dir),
            stamps: dir.join("confirmed"),
            readings: Mutex::default(),
            failures: Mutex::default(),
            connectors: Mutex::default(),
        }
    }

    /// Reads a repository. `evidence` is what other nodes have verified, and is verified again.
    pub(super) async fn read(
        &self,
        reading: &Reading<'_>,
        evidence: Option<&TrustMetadata>,
    ) -> Result<Known, Unknown> {
        let Reading { rule, gun, .. } = *reading;
        let alone = {
            let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
            readings.retain(|_, reading| Arc::strong_count(reading) > 1);
            Arc::clone(readings.entry(gun.clone()).or_default())
        };
        let _alone = alone.lock().await;
        let pinning = rule.pinning(gun);
        let now = OffsetDateTime::now_utc();
        self.take_over(evidence, gun, &pinning, now).await;
        if !reading.recent.is_zero()
            && age(now, self.confirmed(gun).await) < reading.recent
            && let Ok(known) = self.stored(reading, &pinning, now, String::new()).await
        {
            return Ok(Known { stored: false, ..known });
        }
        let failed = self.failed_lately(rule);
        let reason = match failed {
            Some(reason) => reason,
            None => match self.fresh(reading, &pinning, now).await {
                Ok(known) => return Ok(known),
                Err(Fresh::Unknown(unknown)) => return Err(unknown),
                Err(Fresh::Silent(reason)) => {
                    self.note_failure(rule, reason.clone());
                    reason
                }
                // The server has nothing newer, or not for this caller; whether what is stored
                // counts is the policy's to say.
                Err(Fresh::Unreachable(reason) | Fresh::Expired(reason)) => reason,
            },
        };
        self.stored(reading, &pinning, now, reason).await
    }

    /// Everything that is kept of a repository, and when it was confirmed.
    pub(super) async fn kept(&self, gun: &Gun) -> (CachedFiles, i64) {
        let files = self.load(gun).await.unwrap_or_default();
        (files, self.confirmed(gun).await.unix_timestamp())
    }

    /// As the server says it now.
    async fn fresh(
        &self,
        reading: &Reading<'_>,
        pinning: &Pinning,
        now: OffsetDateTime,
    ) -> Result<Known, Fresh> {
        let Reading { rule, gun, auth, .. } = *reading;
        let unreachable = |error: RemoteError| Fresh::Unreachable(chain(&error));
        let address = ServerAddress::parse(&rule.server).map_err(unreachable)?;
        let tls = self.connector(&rule.ca).map_err(unreachable)?;
        let credentials = auth.map(credentials).unwrap_or_default();
        let remote = HttpRemote::new(address, tls, credentials, Action::Pull);
        let tuf = TufReading { pinning, stale: Stale::Refuse, root: RootCheck::WhenNeeded, now };
        let ask = async {
            let first = update(&remote, &self.cache, gun, &tuf).await;
            let repository = match first {
                Ok(repository) => repository,
                // SECURITY: the policy says whom to believe, over what was believed before: a
                // remembered root that the pins do not name is no reason to refuse the one they do.
                Err(UpdateError::Untrusted(_)) if self.forget_unpinned(gun, pinning, now).await => {
                    update(&remote, &self.cache, gun, &tuf).await?
                }
                Err(error) => return Err(error),
            };
            check_pinned(&repository.root, gun, pinning, now)?;
            Ok(repository)
        };
        let asked = tokio::time::timeout(PATIENCE, ask);
        let repository = match asked.await {
            Ok(Ok(repository)) => repository,
            Ok(Err(error)) => return Err(self.classified(reading, error)),
            Err(_) => return Err(Fresh::Silent("it does not answer in time".to_owned())),
        };
        self.confirm(gun, now).await;
        let warnings = Vec::new();
        Ok(Known { repository, confirmed_at: now, stored: false, warnings })
    }

    fn classified(&self, reading: &Reading<'_>, error: UpdateError) -> Fresh {
        let Reading { rule, gun, .. } = *reading;
        let (server, gun) = (rule.server.clone(), gun.clone());
        match error {
            UpdateError::NoTrustData { .. } => Fresh::Unknown(Unknown::NoData { server, gun }),
            UpdateError::Untrusted(TrustError::Expired { role: Role::Timestamp, .. })
                if rule.expired == Expired::Warn =>
            {
                Fresh::Expired(chain(&error))
            }
            UpdateError::Remote(RemoteError::Connect { .. } | RemoteError::Http { .. }) => {
                Fresh::Silent(chain(&error))
            }
            UpdateError::Remote(ref remote) if remote.kind() != ErrorKind::InvalidParameter => {
                Fresh::Unreachable(chain(&error))
            }
            // A root without a timestamp: it is being set up, or somebody withholds it.
            UpdateError::Missing(_) => Fresh::Unreachable(chain(&error)),
            source => Fresh::Unknown(Unknown::Untrusted { server, gun, source }),
        }
    }

    /// As it is stored, if the policy takes that.
    async fn stored(
        &self,
        reading: &Reading<'_>,
        pinning: &Pinning,
        now: OffsetDateTime,
        reason: String,
    ) -> Result<Known, Unknown> {
        let Reading { rule, gun, .. } = *reading;
        let server = rule.server.clone();
        let files = match self.load(gun).await {
            Ok(files) if files.contains_key(&Role::Timestamp) => files,
            Ok(_) => return Err(Unknown::Unreachable { server, gun: gun.clone(), reason }),
            Err(error) => {
                let source = UpdateError::Cache(error);
                return Err(Unknown::Stored { server, gun: gun.clone(), reason, source });
            }
        };
        let grace = match rule.expired {
            Expired::Refuse => time::Duration::ZERO,
            Expired::Warn => LONG_AGO,
        };
        let repository = verified(files, gun, pinning, now, grace).map_err(|source| {
            let (server, reason) = (server.clone(), reason.clone());
            Unknown::Stored { server, gun: gun.clone(), reason, source }
        })?;
        let confirmed_at = self.confirmed(gun).await;
        let age = age(now, confirmed_at);
        if let Some(max_age) = rule.max_age.filter(|max_age| age > *max_age) {
            return Err(Unknown::TooOld { server, gun: gun.clone(), reason, age, max_age });
        }
        let mut warnings = Vec::new();
        if !reason.is_empty() {
            warnings.push(format!(
                "the trust server {server} was not asked about {gun} ({reason}); what it said {} ago counts",
                span(age)
            ));
        }
        if repository.timestamp.document.expires.0 < now {
            warnings.push(format!("the trust data of {gun} has run out"));
        }
        Ok(Known { repository, confirmed_at, stored: true, warnings })
    }

    /// Takes what another node has verified, where it is newer and holds here too.
    async fn take_over(
        &self,
        evidence: Option<&TrustMetadata>,
        gun: &Gun,
        pinning: &Pinning,
        now: OffsetDateTime,
    ) {
        let Some(evidence) = evidence.filter(|evidence| !evidence.files.is_empty()) else { return };
        let files: CachedFiles = evidence
            .files
            .iter()
            .filter_map(|file| Some((Role::parse(&file.role).ok()?, file.content.clone())))
            .collect();
        let theirs = match verified(files.clone(), gun, pinning, now, LONG_AGO) {
            Ok(theirs) => theirs,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(%gun, error, "what the cluster keeps of a repository does not hold");
                return;
            }
        };
        let own = self.load(gun).await.unwrap_or_default();
        let own = verified(own, gun, pinning, now, LONG_AGO).ok();
        let version = |r: &Repository| (r.root.document.version, r.timestamp.document.version);
        let confirmed = self.confirmed(gun).await.unix_timestamp();
        if own.as_ref().is_none_or(|own| version(&theirs) > version(own)) {
            let (cache, name) = (self.cache.clone(), gun.clone());
            let stored = tokio::task::spawn_blocking(move || {
                files.iter().try_for_each(|(role, content)| cache.store(&name, role, content))
            });
            if let Ok(Err(error)) = stored.await {
                tracing::warn!(%gun, error = %chain(&error), "cannot keep what the cluster has verified");
                return;
            }
        } else if own.is_some_and(|own| version(&own) != version(&theirs)) {
            return;
        }
        if evidence.confirmed_at > confirmed
            && let Ok(at) = OffsetDateTime::from_unix_timestamp(evidence.confirmed_at)
        {
            self.confirm(gun, at.min(now)).await;
        }
    }

    /// Forgets a repository whose remembered root the pins do not name. Whether it did.
    async fn forget_unpinned(&self, gun: &Gun, pinning: &Pinning, now: OffsetDateTime) -> bool {
        if pinning.keys.is_empty() && pinning.certificates.is_empty() {
            return false;
        }
        let files = self.load(gun).await.unwrap_or_default();
        let Some(root) = files.get(&Role::Root) else { return false };
        let Ok(root) = brig_trust::Signed::parse(root, &Role::Root) else { return false };
        if check_pinned(&root, gun, pinning, now).is_ok() {
            return false;
        }
        let (cache, name) = (self.cache.clone(), gun.clone());
        let forgotten = tokio::task::spawn_blocking(move || cache.forget(&name)).await;
        matches!(forgotten, Ok(Ok(())))
    }

    async fn load(&self, gun: &Gun) -> Result<CachedFiles, CacheError> {
        let (cache, gun) = (self.cache.clone(), gun.clone());
        tokio::task::spawn_blocking(move || cache.load(&gun))
            .await
            .unwrap_or_else(|_| Ok(CachedFiles::new()))
    }

    fn stamp(&self, gun: &Gun) -> PathBuf {
        self.stamps.join(hash::hex(&hash::sha256(gun.as_str().as_bytes())))
    }

    /// When a server last confirmed what is stored; long ago where that is not known.
    async fn confirmed(&self, gun: &Gun) -> OffsetDateTime {
        let path = self.stamp(gun);
        let read = move || {
            let content = files::read(&path, MAX_STAMP).ok().flatten()?;
            let seconds = String::from_utf8(content).ok()?.trim().parse().ok()?;
            OffsetDateTime::from_unix_timestamp(seconds).ok()
        };
        let found = tokio::task::spawn_blocking(read).await.ok().flatten();
        found.unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    async fn confirm(&self, gun: &Gun, at: OffsetDateTime) {
        let (path, stamp) = (self.stamp(gun), at.unix_timestamp().to_string());
        let write = move || files::replace(&path, stamp.as_bytes());
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(%gun, %error, "cannot remember when trust data was confirmed");
        }
    }

    fn failed_lately(&self, rule: &Dct) -> Option<String> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        // With other authorities it is another question.
        let (at, reason) = failures.get(&(rule.server.clone(), rule.ca.clone()))?;
        (at.elapsed() < PAUSE_AFTER_FAILURE).then(|| reason.clone())
    }

    fn note_failure(&self, rule: &Dct, reason: String) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.retain(|_, (at, _)| at.elapsed() < PAUSE_AFTER_FAILURE);
        let server = (rule.server.clone(), rule.ca.clone());
        failures.insert(server, (Instant::now(), reason));
    }

    /// TLS with these authorities beside the system's.
    fn connector(&self, ca: &str) -> Result<WebConnector, RemoteError> {
        let mut known = self.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connector) = known.get(ca) {
            return Ok(connector.clone());
        }
        let extra_roots = if ca.is_empty() { Vec::new() } else { vec![ca.as_bytes().to_vec()] };
        let connector = WebConnector::new(&WebTrust::Verified { extra_roots }, None)
            .map_err(RemoteError::Tls)?;
        known.insert(ca.to_owned(), connector.clone());
        Ok(connector)
    }
}

/// Why there is nothing fresh.
enum Fresh {
    /// Nothing answers: it is left alone for a while, whoever asks.
    Silent(String),
    /// It does answer, and says nothing of this repository to this caller.
    Unreachable(String),
    Expired(String),
    Unknown(Unknown),
}

/// Verifies files by themselves.
fn verified(
    files: CachedFiles,
    gun: &Gun,
    pinning: &Pinning,
    now: OffsetDateTime,
    grace: time::Duration,
) -> Result<Repository, UpdateError> {
    let repository = read_offline(files, gun, now, grace)?;
    check_pinned(&repository.root, gun, pinning, now)?;
    Ok(repository)
}

fn age(now: OffsetDateTime, at: OffsetDateTime) -> Duration {
    Duration::try_from(now - at).unwrap_or_default()
}

fn credentials(auth: &RegistryAuth) -> Credentials {
    let secret = |text: &str| SecretString::new(text.to_owned());
    Credentials {
        username: auth.username.clone(),
        password: secret(auth.password.expose_secret()),
        identity_token: secret(auth.identitytoken.expose_secret()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(ca: &str) -> Dct {
        let text = format!(
            r#"{{"server":"https://trust.example","first_use":true,"ca":{}}}"#,
            serde_json::Value::from(ca)
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn only_silence_is_a_reason_to_leave_a_server_alone() {
        let metadata = Metadata::new(Path::new("/nonexistent"));
        let (rule, gun) = (rule(""), Gun::parse("reg.example/app").unwrap());
        let reading = Reading { rule: &rule, gun: &gun, auth: None, recent: Duration::ZERO };
        let silent = |error| matches!(metadata.classified(&reading, error), Fresh::Silent(_));
        let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let refused = RemoteError::Connect { what: "connect to", host: "t".to_owned(), source };
        assert!(silent(UpdateError::Remote(refused)));
        // What it says to one caller, or of one repository, it need not say to others.
        for error in [RemoteError::Unauthorized, RemoteError::Credentials, RemoteError::Status(500)]
        {
            assert!(!silent(UpdateError::Remote(error)));
        }
        assert!(!silent(UpdateError::Missing(Role::Timestamp)));
    }

    #[test]
    fn a_mended_policy_is_tried_at_once() {
        let metadata = Metadata::new(Path::new("/nonexistent"));
        metadata.note_failure(&rule("wrong"), "the certificate".to_owned());
        assert_eq!(metadata.failed_lately(&rule("wrong")).as_deref(), Some("the certificate"));
        assert_eq!(metadata.failed_lately(&rule("right")), None);
    }
}
