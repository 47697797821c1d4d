//! Making an image of one layer from a root file system's tar.

use std::sync::Arc;

use brig_pki::hash::sha256;
use brig_types::digest::Digest;
use brig_types::reference::Reference;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::AsyncRead;

use crate::changes;
use crate::config::{HistoryItem, ImageConfig, RootFs, RunConfig};
use crate::error::ImageError;
use crate::load::through_thread;
use crate::platform::Platform;
use crate::progress::{Progress, ProgressSink};
use crate::store::ImageStore;
use crate::unpack::Expected;

/// What the new image says besides its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Its name, if it gets one; `latest` if it has no tag.
    pub reference: Option<Reference>,
    /// Comment.
    pub message: Option<String>,
    /// Dockerfile directives, one each.
    pub changes: Vec<String>,
    /// What it runs on; this machine by default.
    pub platform: Option<Platform>,
}

impl ImageStore {
    /// Imports a tar, compressed or not, and returns the image's id.
    ///
    /// # Errors
    /// [`ImageError`]; nothing is kept then.
    pub async fn import(
        &self,
        tar: impl AsyncRead + Send + Unpin,
        options: ImportOptions,
        progress: &ProgressSink,
    ) -> Result<Digest, ImageError> {
        if options.reference.as_ref().is_some_and(|r| r.digest().is_some()) {
            return Err(ImageError::TagWithDigest);
        }
        let mut run = RunConfig::default();
        for change in &options.changes {
            changes::apply(&mut run, change)?;
        }
        let shared = Arc::clone(&self.shared);
        let staged = through_thread(tar, move |source| {
            shared
                .layers
                .stage(source, Expected::default(), &shared.limits)
                .map_err(|error| error.into_image_error(&Digest::from_sha256(sha256(b"import"))))
        })
        .await?;

        let platform = options.platform.unwrap_or_else(Platform::host);
        let created = OffsetDateTime::now_utc().format(&Rfc3339).ok();
        let comment = options
            .message
            .filter(|message| !message.is_empty())
            .unwrap_or_else(|| "Imported from -".to_owned());
        let config = ImageConfig {
            architecture: platform.architecture,
            variant: platform.variant.unwrap_or_default(),
            os: platform.os,
            comment: comment.clone(),
            created: created.clone(),
            config: run,
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids: vec![staged.meta.diff_id.clone()],
            },
            history: vec![HistoryItem { created, comment, ..HistoryItem::default() }],
            ..ImageConfig::default()
        };
        let (id, renamed) = self.commit_made(config, options.reference, vec![staged]).await?;
        for (reference, old) in renamed {
            progress(Progress::Renamed { reference, old });
        }
        Ok(id)
    }
}
