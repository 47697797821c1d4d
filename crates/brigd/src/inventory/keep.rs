//! Keeping up with the images: what came is read, what went is forgotten.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use brig_types::digest::Digest;

use super::Inventories;
use super::files::Kind;

/// How often somebody looks for what nobody needs, besides after every change.
const FORGET_EVERY: Duration = Duration::from_secs(6 * 3600);

impl Inventories {
    /// Runs until the daemon stops. Begins with everything that is here, so that a process that was
    /// killed in the middle leaves nothing undone.
    pub async fn keep(self) {
        let mut changes = self.0.images.changes();
        let stop = self.0.stop.clone();
        loop {
            changes.borrow_and_update();
            tokio::select! {
                () = self.keep_up() => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(FORGET_EVERY) => {}
                changed = changes.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Brings what is kept in line with the images that are here now.
    async fn keep_up(&self) {
        // What is found here was kept for an image that is listed below, or for one that is gone.
        let files = &self.0.files;
        let before: [(Kind, Vec<String>); 2] =
            [Kind::Layer, Kind::Image].map(|kind| (kind, files.names(kind)));
        let images = self.0.images.list();
        for image in &images {
            if files.has(Kind::Image, &image.id) {
                continue;
            }
            if let Err(error) = self.make(image).await {
                let error = brig_types::error::chain(&error);
                tracing::warn!(image = %image.id, error, "an image has no inventory");
            }
        }
        let ids: BTreeSet<&str> = images.iter().map(|image| image.id.hex()).collect();
        let layers: BTreeSet<&str> =
            images.iter().flat_map(|image| &image.layers).map(Digest::hex).collect();
        let this = self.clone();
        let gone: Vec<(Kind, String)> = before
            .into_iter()
            .flat_map(|(kind, names)| {
                let wanted = if kind == Kind::Layer { &layers } else { &ids };
                let gone = names.into_iter().filter(|name| !wanted.contains(name.as_str()));
                gone.map(|name| (kind, name)).collect::<Vec<_>>()
            })
            .collect();
        self.0
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|diff_id, _| layers.contains(diff_id.hex()));
        let removing = move || {
            this.forget_nodes_images();
            for (kind, name) in gone {
                this.0.files.remove(kind, &name);
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(removing).await {
            tracing::warn!(%error, "inventories that nobody needs stay");
        }
    }
}
