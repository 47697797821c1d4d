//! Finding an image by what people type, by docker's rules.

use std::sync::Arc;

use brig_types::digest::Digest;
use brig_types::reference::Reference;

use super::state::State;
use super::{Image, ImageStore};
use crate::error::ImageError;

impl ImageStore {
    /// Finds an image by `name[:tag][@digest]`, by id, or by a prefix of an id that no other image
    /// shares. A name that fits wins over an id.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], also for an ambiguous prefix, or [`ImageError::Reference`].
    pub fn resolve(&self, name: &str) -> Result<Arc<Image>, ImageError> {
        let state = self.shared.state();
        let id = find(&state, name)?;
        state.image(&id).map(Arc::new).ok_or_else(|| ImageError::NotFound(name.to_owned()))
    }

    /// The image that has exactly this name.
    #[must_use]
    pub fn by_tag(&self, tag: &Reference) -> Option<Arc<Image>> {
        let state = self.shared.state();
        state.tags.get(tag).and_then(|id| state.image(id)).map(Arc::new)
    }

    /// All tags of a repository, in order.
    #[must_use]
    pub fn tags_of(&self, repository: &Reference) -> Vec<(Reference, Arc<Image>)> {
        let state = self.shared.state();
        let name = repository.name();
        let tags = state.tags.iter().filter(|(tag, _)| tag.name() == name);
        tags.filter_map(|(tag, id)| Some((tag.clone(), Arc::new(state.image(id)?)))).collect()
    }
}

/// The id of the image that `name` means.
pub(super) fn find(state: &State, name: &str) -> Result<Digest, ImageError> {
    let not_found = |text: String| Err(ImageError::NotFound(text));
    let whole = if name.contains(':') { name.to_owned() } else { format!("sha256:{name}") };
    if let Ok(id) = Digest::parse(&whole) {
        return if state.records.contains_key(&id) {
            Ok(id)
        } else {
            not_found(id.as_str().to_owned())
        };
    }
    let reference = match Reference::parse(name) {
        Ok(reference) => reference,
        // `sha256:` and a prefix need not be a reference.
        Err(error) => return by_prefix(state, name).ok_or(ImageError::Reference(error)),
    };
    if let Some(id) = by_name(state, &reference) {
        return Ok(id);
    }
    if let Some(id) = by_prefix(state, name) {
        return Ok(id);
    }
    not_found(reference.with_default_tag().familiar())
}

/// The id that a reference with its default tag stands for.
pub(super) fn by_name(state: &State, reference: &Reference) -> Option<Digest> {
    let reference = lookup_name(reference);
    state.digests.get(&reference).or_else(|| state.tags.get(&reference)).cloned()
}

/// The form in which names are kept: with both tag and digest, only the digest counts.
pub(super) fn lookup_name(reference: &Reference) -> Reference {
    match reference.digest() {
        Some(digest) => reference.repository().with_digest(digest.clone()),
        None => reference.clone().with_default_tag(),
    }
}

/// Whether what was typed is an id or a prefix of it rather than a name.
pub(super) fn is_id_prefix(id: &Digest, typed: &str) -> bool {
    id.as_str().starts_with(typed) || id.hex().starts_with(typed)
}

fn by_prefix(state: &State, typed: &str) -> Option<Digest> {
    let hex = typed.strip_prefix("sha256:").unwrap_or(typed);
    if hex.is_empty() || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut fits = state.records.keys().filter(|id| id.hex().starts_with(hex));
    match (fits.next(), fits.next()) {
        (Some(id), None) => Some(id.clone()),
        _ => None,
    }
}
