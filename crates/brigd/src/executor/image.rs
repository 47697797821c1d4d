//! Getting a task's image.
//!
//! A tag is looked up in its registry for each task, so that a new task runs the newest image; an
//! image given by digest that is here is not asked for again. When the registry cannot be reached
//! and there is an image of that name, it is used. What the policies refuse is not fetched.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use brig_api::auth::RegistryAuth;
use brig_engine::{Engine, Origin};
use brig_image::Progress;
use brig_proto::swarm::ContainerSpec;
use brig_swarm::TaskError;
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::admission::hook::Hook;
use crate::admission::tasks::Fetch;

/// How long a registry may take to answer while there is an image to use instead.
const CONTACT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a registry that did not answer is left alone while there is an image to use instead.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(60);
/// Failures that are remembered.
const MAX_REMEMBERED: usize = 256;

/// Remembers which pulls failed lately, for all tasks of the node.
#[derive(Debug, Default)]
pub(super) struct Pulls(Mutex<BTreeMap<String, Instant>>);

impl Pulls {
    fn failed_lately(&self, name: &str) -> bool {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(name).is_some_and(|at| at.elapsed() < PAUSE_AFTER_FAILURE)
    }

    fn note(&self, name: &str, failed: bool) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(name);
        if failed {
            failures.retain(|_, at| at.elapsed() < PAUSE_AFTER_FAILURE);
            if failures.len() < MAX_REMEMBERED {
                failures.insert(name.to_owned(), Instant::now());
            }
        }
    }
}

/// Makes sure that the image of `spec` is here for a task.
pub(super) async fn ensure(
    engine: &Engine,
    admission: &Hook,
    pulls: &Pulls,
    spec: &ContainerSpec,
    origin: &Origin,
) -> Result<(), TaskError> {
    let images = engine.images();
    let present = images.resolve(&spec.image).is_ok();
    // An image id names no registry.
    if present && spec.image.starts_with("sha256:") {
        return Ok(());
    }
    let reference = Reference::parse(&spec.image)
        .map_err(|error| TaskError::fatal(error.to_string()))?
        .with_default_tag();
    let pinned = reference.digest().is_some();
    if present && (pinned || pulls.failed_lately(&spec.image)) {
        return Ok(());
    }
    let auth = auth(spec)?;
    let wanted = Fetch {
        asked: &spec.image,
        reference: &reference,
        origin,
        auth: auth.as_ref(),
        can_do_without: present,
    };
    let meant = match admission.judge_fetch(&wanted).await {
        // SECURITY: what was judged is what is fetched, wherever the tag leads by now.
        Ok(digest) => digest.filter(|_| !pinned),
        Err(refusal) if present => {
            let (image, reason) = (&spec.image, refusal.message);
            tracing::warn!(image, reason, "not pulled; the image that is here is judged");
            return Ok(());
        }
        Err(refusal) => {
            let error = engine.refuse(&spec.image, refusal);
            return Err(TaskError::fatal(brig_types::error::chain(&error)));
        }
    };
    let source = match &meant {
        Some(digest) => reference.with_digest(digest.clone()),
        None => reference.clone(),
    };
    let credentials = auth.as_ref().map(crate::api::image_transfer::credentials_of);
    let contacted = Arc::new(Notify::new());
    let progress = {
        let contacted = Arc::clone(&contacted);
        move |step: Progress| {
            // The first step is reported before anybody is asked.
            if !matches!(step, Progress::PullingFrom { .. }) {
                contacted.notify_one();
            }
        }
    };
    let pull = images.pull(&source, None, credentials, &progress);
    tokio::pin!(pull);
    let silence = async {
        let answered = tokio::time::timeout(CONTACT_TIMEOUT, contacted.notified()).await;
        if !present || answered.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let failure = tokio::select! {
        outcome = &mut pull => match outcome {
            Ok(pulled) if meant.is_some() => name(engine, &pulled.id, &reference).await.err(),
            Ok(_) => None,
            Err(error) => Some(brig_types::error::chain(&error)),
        },
        () = silence => Some("the registry does not answer".to_owned()),
    };
    pulls.note(&spec.image, failure.is_some());
    match failure {
        None => Ok(()),
        Some(error) if present => {
            tracing::warn!(
                image = spec.image,
                error,
                "cannot pull; the image that is here is used"
            );
            Ok(())
        }
        Some(error) => {
            let familiar = reference.familiar();
            Err(TaskError::fatal(format!("No such image: {familiar}: {error}")))
        }
    }
}

/// Gives an image that was pulled by its digest the name that the task asks for.
async fn name(engine: &Engine, id: &Digest, reference: &Reference) -> Result<(), String> {
    let (images, id, reference) = (engine.images().clone(), id.to_string(), reference.clone());
    let named = tokio::task::spawn_blocking(move || images.tag(&id, &reference)).await;
    match named {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(brig_types::error::chain(&error)),
        Err(error) => Err(error.to_string()),
    }
}

fn auth(spec: &ContainerSpec) -> Result<Option<RegistryAuth>, TaskError> {
    let text = spec.pull_options.as_ref().map_or("", |options| options.registry_auth.as_str());
    if text.is_empty() {
        return Ok(None);
    }
    let auth = RegistryAuth::from_header(text)
        .map_err(|error| TaskError::fatal(format!("invalid registry credentials: {error}")))?;
    Ok((!auth.is_anonymous()).then_some(auth))
}

#[cfg(test)]
mod tests {
    use brig_proto::swarm::container_spec::PullOptions;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_are_remembered_for_a_while() {
        let pulls = Pulls::default();
        assert!(!pulls.failed_lately("a"));
        pulls.note("a", true);
        assert!(pulls.failed_lately("a"));
        assert!(!pulls.failed_lately("b"));
        tokio::time::advance(PAUSE_AFTER_FAILURE).await;
        assert!(!pulls.failed_lately("a"));
        pulls.note("a", true);
        pulls.note("a", false);
        assert!(!pulls.failed_lately("a"));
    }

    #[test]
    fn credentials_come_with_the_task() {
        let with = |text: &str| ContainerSpec {
            pull_options: Some(PullOptions { registry_auth: text.to_owned() }),
            ..ContainerSpec::default()
        };
        assert!(auth(&ContainerSpec::default()).unwrap().is_none());
        assert!(auth(&with("e30=")).unwrap().is_none());
        // {"username":"u","password":"pw"}
        let found = auth(&with("eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InB3In0=")).unwrap();
        let found = found.unwrap();
        assert_eq!((found.username.as_str(), found.password.expose_secret()), ("u", "pw"));
        assert!(auth(&with("!")).is_err());
    }
}
