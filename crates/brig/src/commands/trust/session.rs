//! A repository's trust server, found and reached as docker does.

use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use brig_pki::web::{ClientIdentity, WebConnector, WebTrust};
use brig_trust::cache::Cache;
use brig_trust::changelist::{Changelist, ChangelistError};
use brig_trust::keystore::KeyStore;
use brig_trust::remote::{Action, Credentials, HttpRemote, Proxies, RemoteError, ServerAddress};
use brig_trust::{
    Change, Gun, Pinning, PublishError, Publisher, Reading, Repository, Role, RootCheck, Stale,
    TrustError, UpdateError, update,
};
use brig_types::error::chain;
use brig_types::reference::{DEFAULT_DOMAIN, Reference};
use brig_types::secret::{SecretBytes, SecretString};

use super::passphrase::Terminal;
use crate::cli::globals::variable;
use crate::config_file::registry_key;
use crate::context::Context;
use crate::error::{Error, Result, message};

/// Docker Hub's trust server.
const HUB: &str = "https://notary.docker.io";
const SERVER_VARIABLE: &str = "DOCKER_CONTENT_TRUST_SERVER";
/// The largest certificate or key.
const MAX_FILE: u64 = 1 << 20;
/// How often a publication is tried that others overtake.
const ATTEMPTS: u32 = 12;

/// A repository, its server, and this user's files.
pub(super) struct Session {
    /// The repository's name.
    pub(super) gun: Gun,
    /// The user's name at the registry.
    pub(super) username: String,
    /// The server.
    pub(super) remote: HttpRemote,
    /// What was verified before.
    pub(super) cache: Cache,
    /// Private keys.
    pub(super) keys: KeyStore,
    /// What nobody has published yet.
    changelist: Changelist,
    pinning: Pinning,
}

/// Where keys and metadata are.
pub(super) fn trust_dir(context: &Context) -> PathBuf {
    context.globals.config_dir().join("trust")
}

impl Session {
    /// Finds an image's trust server; nothing is opened yet.
    pub(super) async fn open(
        context: &Context,
        reference: &Reference,
        action: Action,
    ) -> Result<Self> {
        let gun = Gun::parse(&reference.name()).map_err(|e| message(e.to_string()))?;
        let domain = reference.domain();
        let url = match variable(SERVER_VARIABLE) {
            Some(url) => url,
            None if domain == DEFAULT_DOMAIN => {
                crate::output::warn(&format!(
                    "WARNING: {HUB} is asked, which is switched off on 8 December 2026. Name a trust server of your own in {SERVER_VARIABLE}."
                ));
                HUB.to_owned()
            }
            None => format!("https://{domain}"),
        };
        let unusable = |error: RemoteError| {
            message(format!("error establishing connection to trust repository: {}", chain(&error)))
        };
        let address = ServerAddress::parse(&url).map_err(unusable)?;
        let tls = connector(context, &address, domain)?;
        let auth = context.config.credentials(&registry_key(domain)).await;
        let secret = |text: &str| SecretString::new(text.to_owned());
        let credentials = Credentials {
            username: auth.username.clone(),
            password: secret(auth.password.expose_secret()),
            identity_token: secret(auth.identitytoken.expose_secret()),
        };
        let dir = trust_dir(context);
        Ok(Self {
            changelist: Changelist::new(&dir, &gun),
            gun,
            username: auth.username,
            remote: HttpRemote::new(address, tls, credentials, action).through(proxies()?),
            cache: Cache::new(&dir),
            keys: KeyStore::new(&dir),
            pinning: Pinning::default(),
        })
    }

    fn reading(pinning: &Pinning) -> Reading<'_> {
        Reading {
            pinning,
            stale: Stale::UseRemembered,
            root: RootCheck::WhenNeeded,
            now: brig_api::time::now(),
        }
    }

    /// The repository as it may be believed now. Warnings go to stderr.
    pub(super) async fn read(&self) -> Result<Repository, UpdateError> {
        let reading = Self::reading(&self.pinning);
        let repository = update(&self.remote, &self.cache, &self.gun, &reading).await?;
        warn(&repository);
        Ok(repository)
    }

    fn publisher<'a>(&'a mut self, terminal: &'a mut Terminal) -> Publisher<'a, HttpRemote> {
        Publisher {
            remote: &self.remote,
            cache: &self.cache,
            gun: &self.gun,
            keys: &mut self.keys,
            passphrases: terminal,
            reading: Self::reading(&self.pinning),
        }
    }

    /// The newest state, to be changed; `None` if the server has none.
    pub(super) async fn read_to_change(&mut self) -> Result<Option<Repository>> {
        let mut terminal = Terminal;
        let read = self.publisher(&mut terminal).read().await;
        match read {
            Ok(repository) => {
                warn(&repository);
                Ok(Some(repository))
            }
            Err(UpdateError::NoTrustData { .. }) => Ok(None),
            Err(error) => Err(explained(&self.gun, &error)),
        }
    }

    /// Publishes changes to what was read; or, where somebody else was quicker, to what he made of
    /// it. Pipelines sign at the same moment.
    pub(super) async fn publish(
        &mut self,
        repository: &Repository,
        changes: &[Change],
    ) -> Result<()> {
        let mut newer = None;
        for attempt in 1_u32.. {
            let mut terminal = Terminal;
            let repository = newer.as_ref().unwrap_or(repository);
            let done = self.publisher(&mut terminal).publish(repository, changes).await;
            match done {
                Err(PublishError::Remote(error)) if error.is_overtaken() && attempt < ATTEMPTS => {}
                done => return done.map_err(|error| self.unpublished(error)),
            }
            // Whoever is at it as well has another moment.
            let spread = u64::from(std::process::id() % 16) * 7;
            let pause = u64::from(attempt) * 20 + spread;
            tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
            let read = self.publisher(&mut terminal).read().await;
            newer = Some(read.map_err(|error| explained(&self.gun, &error))?);
        }
        Ok(())
    }

    /// Publishes changes, and before them what was left unpublished by whichever client. If it
    /// fails, the changes are left for the next one who publishes.
    pub(super) async fn publish_all(
        &mut self,
        repository: &Repository,
        changes: &[Change],
    ) -> Result<()> {
        let waiting = self.changelist.waiting(Some(repository)).map_err(unusable)?;
        if !waiting.is_empty() {
            let (count, gun) = (waiting.len(), &self.gun);
            crate::output::warn(&format!(
                "Publishing {count} changes of {gun} as well that were left unpublished before"
            ));
        }
        let all = [waiting.changes.as_slice(), changes].concat();
        match self.publish(repository, &all).await {
            Ok(()) => self.changelist.clear(&waiting).map_err(unusable),
            Err(error) => {
                self.leave(changes, Some(repository));
                Err(error)
            }
        }
    }

    /// Leaves changes for the next publication, as docker does where the server is out of reach.
    pub(super) fn leave(&self, changes: &[Change], known: Option<&Repository>) {
        let gun = &self.gun;
        match self.changelist.leave(changes, known) {
            Ok(count) => crate::output::warn(&format!(
                "{count} changes of {gun} are not published; they go along with the next push, or are dropped by the next `trust sign`"
            )),
            Err(error) => crate::output::warn(&format!(
                "the changes of {gun} are not kept for the next push: {}",
                chain(&error)
            )),
        }
    }

    /// Drops what nobody has published, as docker does before it signs or revokes.
    pub(super) fn drop_unpublished(&self) -> Result<()> {
        let count = self.changelist.clear_all().map_err(unusable)?;
        if count > 0 {
            let gun = &self.gun;
            crate::output::warn(&format!(
                "WARNING: {count} changes of {gun} that were left unpublished before are dropped"
            ));
        }
        Ok(())
    }

    /// What is remembered of the repository where the server cannot be asked.
    pub(super) async fn remembered(&self) -> Option<Repository> {
        let reading = Self::reading(&self.pinning);
        update(&self.remote, &self.cache, &self.gun, &reading).await.ok()
    }

    /// Publishes the repository for the first time, and remembers its root as the one to believe.
    pub(super) async fn initialise(&mut self, changes: &[Change]) -> Result<Repository> {
        let mut terminal = Terminal;
        let done = self.publisher(&mut terminal).initialise(changes).await;
        done.map_err(|error| self.unpublished(error))?;
        self.read().await.map_err(|error| explained(&self.gun, &error))
    }

    /// Gives a role another key.
    pub(super) async fn rotate(&mut self, role: &Role, keeper: brig_trust::Keeper) -> Result<()> {
        let mut terminal = Terminal;
        let done = self.publisher(&mut terminal).rotate(role, keeper).await;
        done.map_err(|error| self.unpublished(error))
    }

    /// Gives what servers sign to the server that is asked now.
    pub(super) async fn move_to_server(&mut self) -> Result<()> {
        let mut terminal = Terminal;
        let done = self.publisher(&mut terminal).move_to_server().await;
        done.map_err(|error| self.unpublished(error))
    }

    fn unpublished(&self, error: PublishError) -> Error {
        match error {
            PublishError::Update(error) => explained(&self.gun, &error),
            PublishError::Remote(error) => {
                let text = remote_text(&error);
                match error.detail() {
                    Some(detail) => message(format!("{text} ({detail})")),
                    None => message(text),
                }
            }
            error => message(chain(&error)),
        }
    }
}

fn unusable(error: ChangelistError) -> Error {
    message(chain(&error))
}

fn warn(repository: &Repository) {
    for warning in &repository.warnings {
        crate::output::warn(&format!("WARNING: {warning}"));
    }
}

/// Proxies, from the variables that docker's CLI reads.
pub(super) fn proxies() -> Result<Proxies> {
    let either = |upper, lower| variable(upper).or_else(|| variable(lower)).unwrap_or_default();
    Proxies::new(&either("HTTPS_PROXY", "https_proxy"), &either("NO_PROXY", "no_proxy"))
        .map_err(|error| message(error.to_string()))
}

/// Whom the trust server is believed to be.
pub(super) fn connector(
    context: &Context,
    address: &ServerAddress,
    registry: &str,
) -> Result<WebConnector> {
    let dir = context.globals.config_dir().join("tls").join(address.authority());
    let mut extra_roots = Vec::new();
    let mut identity = None;
    for entry in std::fs::read_dir(&dir).into_iter().flatten().filter_map(std::result::Result::ok) {
        let path = entry.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => extra_roots.push(crate::parse::env::read_limited(&path, MAX_FILE)?),
            Some("cert") => {
                let key = path.with_extension("key");
                identity = Some(ClientIdentity {
                    chain_pem: crate::parse::env::read_limited(&path, MAX_FILE)?,
                    key_pem: SecretBytes::new(crate::parse::env::read_limited(&key, MAX_FILE)?),
                });
            }
            _ => {}
        }
    }
    // COMPAT: docker does not look at the certificate where the image's registry is this machine.
    // SECURITY: it does here if there is an authority to look with.
    let trust = if extra_roots.is_empty() && is_loopback(registry) {
        WebTrust::DangerouslyAcceptAnyone
    } else {
        WebTrust::Verified { extra_roots }
    };
    WebConnector::new(&trust, identity.as_ref()).map_err(|error| {
        message(format!("the TLS files in {} cannot be used: {}", dir.display(), chain(&error)))
    })
}

fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => registry.split(':').next().unwrap_or(registry),
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        return address.is_loopback();
    }
    host == "localhost"
        || (host, 0)
            .to_socket_addrs()
            .is_ok_and(|mut addresses| addresses.next().is_some_and(|a| a.ip().is_loopback()))
}

/// What is wrong with a repository, in the words of docker's CLI.
pub(super) fn explained(gun: &Gun, error: &UpdateError) -> Error {
    let text = chain(error);
    message(match error {
        UpdateError::NoTrustData { .. } => {
            format!("Error: remote trust data does not exist for {gun}: {text}")
        }
        UpdateError::Missing(_) | UpdateError::Incomplete(_) => format!(
            "Error: trust data missing for remote repository {gun} or remote repository not found: {text}"
        ),
        UpdateError::Remote(error) => remote_text(error),
        UpdateError::Untrusted(TrustError::Expired { .. }) => {
            format!("Error: remote repository {gun} out-of-date: {text}")
        }
        UpdateError::Untrusted(TrustError::Rollback { .. }) => format!(
            "Warning: potential malicious behavior - trust data version is lower than expected for remote repository {gun}: {text}"
        ),
        UpdateError::Untrusted(TrustError::Threshold(_)) => format!(
            "Warning: potential malicious behavior - trust data has insufficient signatures for remote repository {gun}: {text}"
        ),
        _ => text,
    })
}

fn remote_text(error: &RemoteError) -> String {
    match error {
        RemoteError::Connect { .. }
        | RemoteError::Http { .. }
        | RemoteError::Tls(_)
        | RemoteError::Credentials => {
            format!("Error: error contacting notary server: {}", chain(error))
        }
        error => chain(error),
    }
}

#[cfg(test)]
mod tests {
    use brig_trust::LookupError;

    use super::*;

    #[test]
    fn registries_on_this_machine() {
        for near in ["127.0.0.1:5000", "127.8.8.8", "[::1]:5000", "localhost:5000", "localhost"] {
            assert!(is_loopback(near), "{near}");
        }
        for far in ["192.0.2.1:5000", "[2001:db8::1]:443", "registry.invalid"] {
            assert!(!is_loopback(far), "{far}");
        }
    }

    #[test]
    fn the_words_are_dockers() {
        let gun = Gun::parse("r/a").unwrap();
        let text = |error: UpdateError| explained(&gun, &error).text();
        let host = "h:1".to_owned();
        assert_eq!(
            text(UpdateError::NoTrustData { host, gun: gun.clone() }),
            "Error: remote trust data does not exist for r/a: h:1 does not have trust data for r/a"
        );
        assert_eq!(
            text(UpdateError::Missing(Role::Timestamp)),
            "Error: trust data missing for remote repository r/a or remote repository not found: timestamp trust data unavailable.  Has a notary repository been initialized?"
        );
        let rollback = TrustError::Rollback { role: Role::Timestamp, found: 18, known: 19 };
        assert_eq!(
            text(rollback.into()),
            "Warning: potential malicious behavior - trust data version is lower than expected for remote repository r/a: version 18 is lower than current version 19"
        );
        assert_eq!(
            text(TrustError::Threshold(Role::Timestamp).into()),
            "Warning: potential malicious behavior - trust data has insufficient signatures for remote repository r/a: valid signatures did not meet threshold for timestamp"
        );
        let at = time::OffsetDateTime::UNIX_EPOCH;
        assert_eq!(
            text(TrustError::Expired { role: Role::Targets, at }.into()),
            "Error: remote repository r/a out-of-date: targets expired at Thu Jan 1 00:00:00 UTC 1970"
        );
        assert_eq!(
            text(RemoteError::Status(503).into()),
            "unable to reach trust server at this time: 503."
        );
        assert_eq!(
            text(RemoteError::Unauthorized.into()),
            "you are not authorized to perform this operation: server returned 401."
        );
        assert_eq!(LookupError::Unknown("1".into()).to_string(), "No valid trust data for 1");
    }
}
