//! Removing names and images, by docker's rules and with docker's texts.

use brig_pki::hash::sha256;
use brig_types::digest::Digest;
use brig_types::id::SHORT_ID_LEN;
use brig_types::reference::Reference;

use super::resolve::{find, is_id_prefix, lookup_name};
use super::state::State;
use super::{ImageStore, Shared};
use crate::error::ImageError;

/// A container that was made from an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerUse {
    /// The container's id.
    pub id: String,
    /// Whether it runs (or is paused).
    pub running: bool,
}

/// One line of what a removal did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// A name was taken away.
    Untagged(Reference),
    /// An image (by id) or layer (by chain id) was deleted.
    Deleted(Digest),
}

impl ImageStore {
    /// Removes the name `name`, and the image with it if that was the last one; or, given an id,
    /// the image if at most one repository names it. Blocks shortly: trees are deleted in the
    /// background.
    ///
    /// `force` also removes an image that several repositories name or stopped containers use.
    /// `in_use` says which containers were made from an image; it must not call this store. The images here have no parent
    /// images, so docker's `noprune` has nothing to keep and `_no_prune` changes nothing.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Conflict`], or the index cannot be written.
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        _no_prune: bool,
        in_use: &dyn Fn(&Digest) -> Vec<ContainerUse>,
    ) -> Result<Vec<Deleted>, ImageError> {
        let deleted = self.shared.update(|state| plan(state, name, force, in_use))?;
        self.shared.sweep(&deleted);
        Ok(deleted)
    }
}

impl Shared {
    /// Frees what a removal left unused. The names are gone already, so a failure here only leaves
    /// something for the next start.
    fn sweep(&self, deleted: &[Deleted]) {
        if deleted.iter().any(|line| matches!(line, Deleted::Deleted(_)))
            && let Err(error) = self.collect()
        {
            tracing::warn!(error = %brig_types::error::chain(&error), "unused layers stay");
        }
    }
}

fn plan(
    state: &mut State,
    typed: &str,
    force: bool,
    in_use: &dyn Fn(&Digest) -> Vec<ContainerUse>,
) -> Result<Vec<Deleted>, ImageError> {
    let id = find(state, typed)?;
    let mut lines = Vec::new();
    let names = state.names(&id);
    if is_id_prefix(&id, typed) {
        if is_single_repository(&names) {
            if let Some(conflict) = conflict(&id, &[], force, in_use) {
                return Err(conflict.into_error(&id));
            }
            untag(state, &names, &mut lines);
        }
        delete(state, &id, force, false, in_use, &mut lines)?;
        return Ok(lines);
    }

    if !force
        && is_single_repository(&names)
        && let Some(container) = in_use(&id).first()
    {
        return Err(ImageError::Conflict(format!(
            "conflict: unable to remove repository reference \"{typed}\" (must force) - container \
             {} is using its referenced image {}",
            short(&container.id),
            id.short()
        )));
    }
    let name = lookup_name(&Reference::parse(typed)?);
    untag(state, std::slice::from_ref(&name), &mut lines);
    let mut left = state.names(&id);
    if name.digest().is_none() {
        let repository = name.name();
        let tagged = left.iter().any(|n| n.digest().is_none() && n.name() == repository);
        if !tagged {
            // Digests of a repository without tags would keep the image for nobody.
            let (gone, stay): (Vec<_>, Vec<_>) =
                left.into_iter().partition(|n| n.digest().is_some() && n.name() == repository);
            untag(state, &gone, &mut lines);
            left = stay;
        }
    }
    if left.is_empty() {
        delete(state, &id, force, true, in_use, &mut lines)?;
    }
    Ok(lines)
}

fn untag(state: &mut State, names: &[Reference], lines: &mut Vec<Deleted>) {
    for name in names {
        if state.remove_name(name) {
            lines.push(Deleted::Untagged(name.clone()));
        }
    }
}

/// Deletes an image. `quiet`: a name was removed already, so a container that still needs the image
/// is no error; the image then stays without a name.
fn delete(
    state: &mut State,
    id: &Digest,
    force: bool,
    quiet: bool,
    in_use: &dyn Fn(&Digest) -> Vec<ContainerUse>,
    lines: &mut Vec<Deleted>,
) -> Result<(), ImageError> {
    let names = state.names(id);
    if let Some(conflict) = conflict(id, &names, force, in_use) {
        if quiet && (!names.is_empty() || conflict.used) {
            return Ok(());
        }
        return Err(conflict.into_error(id));
    }
    untag(state, &names, lines);
    let own = state.own_layers(id);
    let diff_ids =
        state.records.get(id).map(|r| r.config.rootfs.diff_ids.clone()).unwrap_or_default();
    state.records.remove(id);
    state.forget_sources();
    lines.push(Deleted::Deleted(id.clone()));
    let chain = chain_ids(&diff_ids);
    lines.extend(own.into_iter().filter_map(|at| chain.get(at).cloned()).map(Deleted::Deleted));
    Ok(())
}

struct Conflict {
    hard: bool,
    used: bool,
    message: String,
}

impl Conflict {
    fn into_error(self, id: &Digest) -> ImageError {
        let force = if self.hard { "cannot be forced" } else { "must be forced" };
        ImageError::Conflict(format!(
            "conflict: unable to delete {} ({force}) - {}",
            id.short(),
            self.message
        ))
    }
}

fn conflict(
    id: &Digest,
    names: &[Reference],
    force: bool,
    in_use: &dyn Fn(&Digest) -> Vec<ContainerUse>,
) -> Option<Conflict> {
    let users = in_use(id);
    if let Some(container) = users.iter().find(|c| c.running) {
        let message = format!("image is being used by running container {}", short(&container.id));
        return Some(Conflict { hard: true, used: true, message });
    }
    if force {
        return None;
    }
    if !names.is_empty() {
        let message = "image is referenced in multiple repositories".to_owned();
        return Some(Conflict { hard: false, used: false, message });
    }
    users.first().map(|container| Conflict {
        hard: false,
        used: true,
        message: format!("image is being used by stopped container {}", short(&container.id)),
    })
}

fn short(id: &str) -> &str {
    id.get(..SHORT_ID_LEN).unwrap_or(id)
}

/// At most one tag, and digests of no other repository.
fn is_single_repository(names: &[Reference]) -> bool {
    let mut tags = names.iter().filter(|n| n.digest().is_none());
    match (tags.next(), tags.next()) {
        (_, Some(_)) => false,
        (first, None) => match first.or_else(|| names.first()) {
            Some(only) => names.iter().all(|n| n.name() == only.name()),
            None => true,
        },
    }
}

/// Identities of the stacks that an image's layers make, bottom first (OCI image spec, "ChainID").
#[must_use]
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::from_sha256(sha256(format!("{below} {diff_id}").as_bytes())),
        };
        chain.push(next);
    }
    chain
}
