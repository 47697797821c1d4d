//! Services: judged when they are created or changed, and pinned to what was judged.
//!
//! A change that leaves the image as it is, pinned, is not judged again: a service can be scaled
//! whatever became of its image's signatures since.

use brig_api::auth::RegistryAuth;
use brig_engine::{Occasion, Origin};
use brig_proto::swarm::task_spec::Runtime;
use brig_proto::swarm::{ContainerSpec, ServiceSpec};
use brig_types::error::chain;
use brig_types::reference::Reference;

use super::gate::Subject;
use super::{Admission, Refused};

/// Label of a stack's services.
const STACK_LABEL: &str = "com.docker.stack.namespace";

impl Admission {
    /// Judges the image of a service that is to be, and pins it in its spec. `current` is the spec
    /// that it replaces. Warnings are for whoever asked.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn judge_service(
        &self,
        spec: &mut ServiceSpec,
        current: Option<&ServiceSpec>,
        auth: Option<&RegistryAuth>,
    ) -> Result<Vec<String>, Refused> {
        let asked = image_of(spec).to_owned();
        let gates = self.in_force().await?;
        if gates.is_empty() || asked.is_empty() {
            return Ok(Vec::new());
        }
        // What cannot be read as a name is refused by whoever reads the spec next.
        let Ok(reference) = Reference::parse(&asked).map(Reference::with_default_tag) else {
            return Ok(Vec::new());
        };
        if reference.digest().is_some() && current.map(image_of) == Some(asked.as_str()) {
            return Ok(Vec::new());
        }
        let (service, stack) = names(spec);
        let mut subject = Subject {
            asked: &asked,
            digest: reference.digest().cloned(),
            reference: Some(reference.clone()),
            local: None,
            origin: &Origin::Client,
            occasion: Occasion::Create,
            auth,
            service: &service,
            stack: &stack,
        };
        // The first gate may say which manifest is meant; else the registry does, before the
        // second one is asked about it.
        let (first, rest) = gates.split_at(usize::from(
            gates.first().is_some_and(|(gate, _)| gate.name() == self.trust.name()),
        ));
        let mut admitted = self.judge_by(first, subject.clone()).await?;
        if admitted.digest.is_none() {
            let credentials = auth.map(crate::api::image_transfer::credentials_of);
            match self.images.distribution(&reference, credentials).await {
                Ok(found) => admitted.digest = Some(found.digest),
                Err(error) => admitted.warnings.push(format!(
                    "image {asked} could not be accessed on a registry to record its digest: {}. Each node will access {asked} independently, possibly leading to different nodes running different versions of the image.",
                    chain(&error)
                )),
            }
        }
        subject.digest.clone_from(&admitted.digest);
        let last = self.judge_by(rest, subject.clone()).await?;
        admitted.warnings.extend(last.warnings);
        let Some(digest) = admitted.digest else { return Ok(admitted.warnings) };
        let pinned = reference.with_digest(digest).familiar();
        for (gate, policy) in &gates {
            gate.keep_evidence(policy, &subject, &pinned).await;
        }
        if let Some(container) = container_mut(spec) {
            container.image = pinned;
        }
        Ok(admitted.warnings)
    }
}

/// The image of a service's containers.
#[must_use]
pub fn image_of(spec: &ServiceSpec) -> &str {
    match spec.task.as_ref().and_then(|task| task.runtime.as_ref()) {
        Some(Runtime::Container(container)) => &container.image,
        _ => "",
    }
}

/// The names of a service and of its stack.
#[must_use]
pub fn names(spec: &ServiceSpec) -> (String, String) {
    let annotations = spec.annotations.as_ref();
    let stack = annotations.and_then(|a| a.labels.get(STACK_LABEL).cloned());
    (annotations.map(|a| a.name.clone()).unwrap_or_default(), stack.unwrap_or_default())
}

fn container_mut(spec: &mut ServiceSpec) -> Option<&mut ContainerSpec> {
    match spec.task.as_mut()?.runtime.as_mut()? {
        Runtime::Container(container) => Some(container),
        _ => None,
    }
}
