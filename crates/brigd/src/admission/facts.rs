//! What a cluster's managers say of what may start, and what is remembered of it for when none of
//! them answers: a node that is cut off goes on by the rules that it knows.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use brig_pki::hash;
use brig_proto::brig::AdmissionFacts;
use brig_swarm::{Swarm, SwarmError};
use brig_types::error::{Categorized as _, ErrorKind, chain};
use prost::Message as _;
use tokio::time::Instant;

use super::files;

/// How long a worker goes by what it just heard of the policies.
const HEARD_LATELY: Duration = Duration::from_secs(1);
/// How long managers that did not answer are left alone.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Largest copy.
const MAX_COPY: u64 = 64 << 20;

/// The managers' word.
#[derive(Debug)]
pub struct ClusterFacts {
    dir: PathBuf,
    swarm: Swarm,
    /// Copies that are on the disk, by file: their hashes.
    written: Mutex<BTreeMap<PathBuf, [u8; 32]>>,
    /// Whether there may be copies of a cluster that this node is not in any more.
    stale: AtomicBool,
    /// What a worker heard last of the policies, so that not every container costs a connection.
    heard: Mutex<Option<(Instant, Option<AdmissionFacts>)>>,
    /// When no manager answered.
    failed: Mutex<Option<Instant>>,
}

impl ClusterFacts {
    /// With a folder for copies.
    #[must_use]
    pub fn new(dir: PathBuf, swarm: Swarm) -> Self {
        Self {
            dir,
            swarm,
            written: Mutex::default(),
            stale: AtomicBool::new(true),
            heard: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// The membership.
    #[must_use]
    pub const fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    /// The cluster's policies, and what was verified of a repository (nothing for an empty name).
    /// Nothing on a node that is in no cluster, or in one whose managers know no policies.
    ///
    /// # Errors
    /// When no manager answers and what is remembered cannot be read.
    pub async fn ask(&self, repository: &str) -> io::Result<Option<AdmissionFacts>> {
        let is_worker = self.swarm.control().is_err();
        if is_worker && repository.is_empty() {
            let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, facts)) = heard.as_ref()
                && at.elapsed() < HEARD_LATELY
            {
                return Ok(facts.clone());
            }
        }
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if is_worker && failed.is_some_and(|at| at.elapsed() < PAUSE_AFTER_FAILURE) {
            return self.remembered(repository).await;
        }
        let facts = self.asked(repository).await?;
        if is_worker && repository.is_empty() {
            *self.heard.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((Instant::now(), facts.clone()));
        }
        Ok(facts)
    }

    async fn asked(&self, repository: &str) -> io::Result<Option<AdmissionFacts>> {
        match self.swarm.admission_facts(repository).await {
            Ok(facts) => {
                if let Err(error) = self.remember(repository, &facts).await {
                    tracing::warn!(%error, "cannot remember what the managers say");
                }
                Ok(Some(facts))
            }
            Err(SwarmError::NotInSwarm) => {
                self.forget().await?;
                Ok(None)
            }
            Err(error) if error.kind() == ErrorKind::NotImplemented => Ok(None),
            Err(error) => {
                let error = chain(&error);
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                tracing::info!(error, "no manager says what may start; what is remembered counts");
                self.remembered(repository).await
            }
        }
    }

    fn paths(&self, repository: &str) -> (PathBuf, Option<PathBuf>) {
        let evidence = (!repository.is_empty()).then(|| {
            self.dir.join("evidence").join(hash::hex(&hash::sha256(repository.as_bytes())))
        });
        (self.dir.join("policies"), evidence)
    }

    async fn remember(&self, repository: &str, facts: &AdmissionFacts) -> io::Result<()> {
        self.stale.store(true, Ordering::Relaxed);
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let (policies, evidence) = self.paths(repository);
        let mut copies = vec![(
            policies,
            AdmissionFacts { policies: facts.policies.clone(), evidence: None }.encode_to_vec(),
        )];
        if let (Some(path), Some(evidence)) = (evidence, &facts.evidence) {
            let evidence =
                AdmissionFacts { policies: Vec::new(), evidence: Some(evidence.clone()) };
            copies.push((path, evidence.encode_to_vec()));
        }
        copies.retain(|(path, content)| {
            let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            written.get(path) != Some(&hash::sha256(content))
        });
        if copies.is_empty() {
            return Ok(());
        }
        let written = blocking(move || {
            for (path, content) in &copies {
                files::replace(path, content)?;
            }
            Ok(copies)
        })
        .await?;
        let mut known = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(written.into_iter().map(|(path, content)| (path, hash::sha256(&content))));
        Ok(())
    }

    async fn remembered(&self, repository: &str) -> io::Result<Option<AdmissionFacts>> {
        let (policies, evidence) = self.paths(repository);
        blocking(move || {
            let Some(mut facts) = read(&policies)? else { return Ok(None) };
            if let Some(path) = evidence {
                facts.evidence = read(&path)?.and_then(|copy| copy.evidence);
            }
            Ok(Some(facts))
        })
        .await
    }

    /// A cluster's rules end with the membership.
    async fn forget(&self) -> io::Result<()> {
        if !self.stale.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let dir = self.dir.clone();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clear();
        blocking(move || match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }
}

fn read(path: &Path) -> io::Result<Option<AdmissionFacts>> {
    let Some(content) = files::read(path, MAX_COPY)? else { return Ok(None) };
    AdmissionFacts::decode(content.as_slice()).map(Some).map_err(io::Error::other)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
