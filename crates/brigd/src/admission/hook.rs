//! The engine's side: every container that it makes, for whomever, is judged here.

use std::sync::Arc;

use brig_api::auth::RegistryAuth;
use brig_engine::{AdmissionRequest, Admitted, Occasion, Origin, Refusal};
use brig_image::Image;
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use tokio::sync::watch;

use super::Admission;
use super::gate::{LocalImage, Subject};
use super::tasks::Fetch;

/// What the engine is given. The engine is there before the gates are, and may have tasks to start
/// by then: they wait.
#[derive(Debug)]
pub struct Hook(watch::Sender<Option<Arc<Admission>>>);

impl Default for Hook {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Hook {
    /// From now on it is known.
    pub fn set(&self, admission: Arc<Admission>) {
        self.0.send_replace(Some(admission));
    }

    /// Judges what a task wants to have fetched, and says which manifest is to be.
    ///
    /// # Errors
    /// A refusal.
    pub async fn judge_fetch(&self, wanted: &Fetch<'_>) -> Result<Option<Digest>, Refusal> {
        let admission = self.admission().await.ok_or_else(going_down)?;
        admission.judge_fetch(wanted).await.map_err(Refusal::from)
    }

    async fn admission(&self) -> Option<Arc<Admission>> {
        let mut receiver = self.0.subscribe();
        let found = receiver.wait_for(Option::is_some).await.ok()?;
        found.clone()
    }
}

impl brig_engine::Admission for Hook {
    fn admit<'a>(&'a self, request: &'a AdmissionRequest) -> Admitted<'a> {
        Box::pin(async move {
            let Some(admission) = self.admission().await else {
                return Err(going_down());
            };
            let admitted = admission.judge(subject(request, None)).await;
            Ok(admitted.map_err(Refusal::from)?.warnings)
        })
    }
}

fn going_down() -> Refusal {
    Refusal { message: "the daemon is going down".to_owned(), ..Refusal::default() }
}

/// The question that the engine would ask about an image that is here.
pub(super) fn request(asked: &str, image: &Image, origin: Origin) -> AdmissionRequest {
    AdmissionRequest {
        asked: asked.to_owned(),
        image: image.id.clone(),
        repo_digests: image.repo_digests.clone(),
        tags: image.tags.clone(),
        origin,
        occasion: Occasion::Create,
    }
}

/// What the gates are asked about an image that is here.
pub(super) fn subject<'a>(
    request: &'a AdmissionRequest,
    auth: Option<&'a RegistryAuth>,
) -> Subject<'a> {
    let reference = name_of(&request.asked, request);
    Subject {
        asked: &request.asked,
        digest: reference.as_ref().and_then(|name| name.digest().cloned()),
        reference,
        local: Some(LocalImage {
            id: &request.image,
            repo_digests: &request.repo_digests,
            tags: &request.tags,
        }),
        origin: &request.origin,
        occasion: request.occasion,
        auth,
        service: "",
        stack: "",
    }
}

/// The name that was asked for; nothing where it was an id, or the beginning of one.
fn name_of(asked: &str, request: &AdmissionRequest) -> Option<Reference> {
    if Digest::parse(asked).is_ok() {
        return None;
    }
    let reference = Reference::parse(asked).ok()?.with_default_tag();
    // As images are found: a name that fits wins over an id.
    let is_name = match reference.digest() {
        Some(digest) => {
            let known = reference.repository().with_digest(digest.clone());
            request.repo_digests.contains(&known)
        }
        None => request.tags.contains(&reference),
    };
    let typed = asked.strip_prefix("sha256:").unwrap_or(asked);
    (is_name || !request.image.hex().starts_with(typed)).then_some(reference)
}
