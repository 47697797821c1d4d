//! The port through which somebody else says whether an image may be run here. Every container
//! passes it: once when it is created, and again at its first start.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use brig_types::digest::Digest;
use brig_types::reference::Reference;

/// For whom a container is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Somebody asked this node for it.
    #[default]
    Client,
    /// A task of the cluster's.
    Task {
        /// Of this service.
        service: String,
        /// The task.
        task: String,
    },
}

/// When somebody is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Occasion {
    /// The container is to be made.
    #[default]
    Create,
    /// The container was judged when it was made, and is to start for the first time.
    FirstStart,
}

/// An image that is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionRequest {
    /// As the caller wrote it: a name, or an id.
    pub asked: String,
    /// The image that this is here.
    pub image: Digest,
    /// Names that it was pulled or pushed by, with the digest of its manifest.
    pub repo_digests: Vec<Reference>,
    /// Names that it has here; anybody can give it some.
    pub tags: Vec<Reference>,
    /// For whom.
    pub origin: Origin,
    /// When.
    pub occasion: Occasion,
}

/// Why an image is not run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// For whoever asked.
    pub message: String,
    /// For the event: which policy, why.
    pub attributes: BTreeMap<String, String>,
}

/// What comes of a question: warnings, or a refusal.
pub type Admitted<'a> = Pin<Box<dyn Future<Output = Result<Vec<String>, Refusal>> + Send + 'a>>;

/// Says whether images may be run.
pub trait Admission: fmt::Debug + Send + Sync + 'static {
    /// Judges one.
    fn admit<'a>(&'a self, request: &'a AdmissionRequest) -> Admitted<'a>;
}
