//! Tasks: their node judges their image before it fetches it. What would be refused when the
//! container is made is not brought here; what is judged then is what counts.

use brig_api::auth::RegistryAuth;
use brig_engine::{Occasion, Origin};
use brig_types::digest::Digest;
use brig_types::reference::Reference;

use super::gate::Subject;
use super::{Admission, Recorded, Refused};

/// An image that a task's node is about to fetch.
#[derive(Clone, Copy, Debug)]
pub struct Fetch<'a> {
    /// As the task names it.
    pub asked: &'a str,
    /// What it says.
    pub reference: &'a Reference,
    /// The task.
    pub origin: &'a Origin,
    /// The task's credentials for the registry.
    pub auth: Option<&'a RegistryAuth>,
    /// Whether there is an image to go on with, which is judged then: it is the one that counts.
    pub can_do_without: bool,
}

impl Admission {
    /// Judges an image that is not here yet, and says which manifest was meant, where a gate
    /// settled that: a tag may lead elsewhere by the time it is pulled.
    ///
    /// # Errors
    /// [`Refused`]. What only warns is said when the container is made.
    pub async fn judge_fetch(&self, wanted: &Fetch<'_>) -> Result<Option<Digest>, Refused> {
        let gates = self.in_force().await?;
        let subject = Subject {
            asked: wanted.asked,
            reference: Some(wanted.reference.clone()),
            digest: wanted.reference.digest().cloned(),
            local: None,
            origin: wanted.origin,
            occasion: Occasion::Create,
            auth: wanted.auth,
            service: "",
            stack: "",
        };
        let recorded = match wanted.can_do_without {
            true => Recorded::Nothing,
            false => Recorded::Refusals,
        };
        Ok(self.weigh(&gates, subject, recorded).await?.digest)
    }
}
