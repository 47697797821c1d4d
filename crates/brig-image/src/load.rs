//! Loading image archives.

use std::collections::HashSet;
use std::sync::Arc;

use brig_types::digest::Digest;
use brig_types::reference::Reference;
use bytes::BytesMut;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::archive::{ArchivedImage, ArchivedLayer, Spool, Staged, Staging, read_images};
use crate::error::ImageError;
use crate::platform::Platform;
use crate::progress::{LayerState, Progress, ProgressSink};
use crate::store::layers::StagedLayer;
use crate::store::{ImageStore, NewImage};
use crate::unpack::Expected;
use crate::unpack::stream::{ChannelReader, Chunk};

const READ_BUFFER: usize = 128 << 10;

/// One name, or one nameless image, that a load brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The name, if the archive had one.
    pub reference: Option<Reference>,
    /// The image.
    pub id: Digest,
}

impl ImageStore {
    /// Loads every image of an archive that `docker save` or an OCI tool made, compressed or not.
    /// Images are published one by one, each of them whole.
    ///
    /// # Errors
    /// [`ImageError`]; images before the broken one stay.
    pub async fn load(
        &self,
        archive: impl AsyncRead + Send + Unpin,
        progress: &ProgressSink,
    ) -> Result<Vec<Loaded>, ImageError> {
        self.load_for(archive, None, progress).await
    }

    /// [`ImageStore::load`] of the images for a platform; without one, of those for this machine
    /// where there is a choice.
    ///
    /// # Errors
    /// [`ImageError`]; images before the broken one stay. An archive with an image for another
    /// platform only is refused as a whole.
    pub async fn load_for(
        &self,
        archive: impl AsyncRead + Send + Unpin,
        platform: Option<Platform>,
        progress: &ProgressSink,
    ) -> Result<Vec<Loaded>, ImageError> {
        let (images, mut unpacked) = self.spool(archive, platform.clone()).await?;
        for image in &images {
            let actual = image.config.platform();
            if let Some(wanted) = &platform
                && wanted.accepts(&actual).is_none()
            {
                let name = image.tags.first().map(Reference::familiar);
                return Err(ImageError::WrongPlatform {
                    reference: name.unwrap_or_else(|| image.id.short().to_owned()),
                    wanted: wanted.to_string(),
                    actual: actual.to_string(),
                });
            }
        }
        let mut loaded = Vec::new();
        for image in images {
            self.load_image(image, &mut unpacked, progress, &mut loaded).await?;
        }
        Ok(loaded)
    }

    async fn spool(
        &self,
        archive: impl AsyncRead + Send + Unpin,
        platform: Option<Platform>,
    ) -> Result<(Vec<ArchivedImage>, Staged), ImageError> {
        let wanted = platform.unwrap_or_else(Platform::host);
        let shared = Arc::clone(&self.shared);
        through_thread(archive, move |source| {
            let layers = Arc::clone(&shared.layers);
            let at_once = shared.registry.settings().concurrent_downloads.max(1);
            std::thread::scope(|scope| {
                let mut staging = Staging::new(scope, layers, shared.limits, at_once);
                let tmp = shared.layers.tmp();
                let spool = Spool::fill_but(source, tmp, &shared.limits, Some(&mut staging))?;
                Ok((read_images(&spool, &wanted)?, staging.finish()?))
            })
        })
        .await
    }

    async fn load_image(
        &self,
        image: ArchivedImage,
        unpacked: &mut Staged,
        progress: &ProgressSink,
        loaded: &mut Vec<Loaded>,
    ) -> Result<(), ImageError> {
        let layers = &self.shared.layers;
        let diff_ids = image.config.rootfs.diff_ids.clone();
        let _pin = layers.pin(&diff_ids);
        let absent: Vec<Digest> =
            diff_ids.iter().filter(|id| !layers.contains(id)).cloned().collect();
        let _locks = layers.lock(&absent).await;
        let mut seen = HashSet::new();
        let mut staged = Vec::new();
        let mut missing = Vec::new();
        for (layer, diff_id) in image.layers.into_iter().zip(diff_ids) {
            if layers.contains(&diff_id) || !seen.insert(diff_id.clone()) {
                continue;
            }
            let Some(number) = layer.section.taken() else {
                missing.push((layer, diff_id));
                continue;
            };
            report(progress, &diff_id, 0, layer.section.len());
            let claimed = unpacked.claim(number, layer.expected(&diff_id));
            staged.push(claimed.map_err(|error| error.into_image_error(&diff_id))?);
            report(progress, &diff_id, layer.section.len(), layer.section.len());
        }
        let at_once = self.shared.registry.settings().concurrent_downloads.max(1);
        let unpacking =
            missing.into_iter().map(|(layer, diff_id)| self.load_layer(layer, diff_id, progress));
        let others: Vec<StagedLayer> =
            futures_util::stream::iter(unpacking).buffered(at_once).try_collect().await?;
        staged.extend(others);

        let new = NewImage {
            id: image.id.clone(),
            config: image.config,
            raw: image.raw,
            manifests: Vec::new(),
            tags: image.tags.clone(),
            repo_digests: Vec::new(),
            sources: Vec::new(),
        };
        for (reference, old) in self.commit(new, staged).await? {
            progress(Progress::Renamed { reference, old });
        }
        if image.tags.is_empty() {
            loaded.push(Loaded { reference: None, id: image.id });
        } else {
            let named = image.tags.into_iter();
            loaded.extend(named.map(|tag| Loaded { reference: Some(tag), id: image.id.clone() }));
        }
        Ok(())
    }

    async fn load_layer(
        &self,
        layer: ArchivedLayer,
        diff_id: Digest,
        progress: &ProgressSink,
    ) -> Result<StagedLayer, ImageError> {
        let total = layer.section.len();
        report(progress, &diff_id, 0, total);
        let shared = Arc::clone(&self.shared);
        let wanted = diff_id.clone();
        let staged = tokio::task::spawn_blocking(move || {
            let expected = layer.expected(&wanted);
            shared
                .layers
                .stage(layer.section.clone(), expected, &shared.limits)
                .map_err(|error| error.into_image_error(&wanted))
        })
        .await
        .map_err(ImageError::Task)??;
        report(progress, &diff_id, total, total);
        Ok(staged)
    }
}

impl ArchivedLayer {
    fn expected<'a>(&'a self, diff_id: &'a Digest) -> Expected<'a> {
        let blob = self.blob.as_ref().map(|(digest, size)| (digest, *size));
        Expected { blob, diff_id: Some(diff_id) }
    }
}

fn report(progress: &ProgressSink, diff_id: &Digest, current: u64, total: u64) {
    let state = LayerState::Loading { current, total };
    progress(Progress::Layer { id: diff_id.short().to_owned(), state });
}

/// Runs blocking work on its own thread and feeds it from an async source.
pub(crate) async fn through_thread<T, F>(
    mut source: impl AsyncRead + Send + Unpin,
    work: F,
) -> Result<T, ImageError>
where
    T: Send + 'static,
    F: FnOnce(ChannelReader) -> Result<T, ImageError> + Send + 'static,
{
    let (sink, reader) = ChannelReader::channel();
    let working = tokio::task::spawn_blocking(move || work(reader));
    let mut buffer = BytesMut::new();
    let fed = loop {
        buffer.reserve(READ_BUFFER);
        match source.read_buf(&mut buffer).await {
            Ok(0) => {
                let _ = sink.send(Chunk::End).await;
                break Ok(());
            }
            // A closed sink: the worker failed and says why below.
            Ok(_) if sink.send(Chunk::Data(buffer.split().freeze())).await.is_err() => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(ImageError::ArchiveRead(error)),
        }
    };
    drop(sink);
    let done = working.await.map_err(ImageError::Task)?;
    fed?;
    done
}
