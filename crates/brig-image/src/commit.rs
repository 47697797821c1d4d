//! Making an image of a container: its image's layers and what it changed on top of them.

use std::io::{self, Write};
use std::sync::Arc;

use brig_pki::hash::sha256;
use brig_types::digest::Digest;
use brig_types::id::ContainerId;
use brig_types::reference::Reference;
use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;

use crate::config::{HistoryItem, ImageConfig, RootFs, RunConfig};
use crate::error::ImageError;
use crate::store::layers::StagedLayer;
use crate::store::{ImageStore, Shared};
use crate::unpack::Expected;
use crate::unpack::stream::{ChannelReader, Chunk};
use crate::upper::write_changes;

const PIECE: usize = 128 << 10;

/// What the new image says besides its files.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommitOptions {
    /// Its name, if it gets one; `latest` if it has no tag.
    pub reference: Option<Reference>,
    /// Who made it.
    pub author: String,
    /// Comment.
    pub message: String,
    /// What ran in the container.
    pub created_by: String,
    /// How containers of it run.
    pub config: RunConfig,
    /// Paths, without leading slash, that the runtime only mounts something on.
    pub placeholders: Vec<String>,
}

impl ImageStore {
    /// Makes an image of a container that was made from `base`. What writes into the container
    /// meanwhile may end up half in the image.
    ///
    /// # Errors
    /// [`ImageError`]; nothing is kept then.
    pub async fn commit_container(
        &self,
        container: &ContainerId,
        base: &Digest,
        options: CommitOptions,
    ) -> Result<Digest, ImageError> {
        if options.reference.as_ref().is_some_and(|r| r.digest().is_some()) {
            return Err(ImageError::TagWithDigest);
        }
        let base = self.resolve(base.as_str())?;
        let _pin = self.shared.layers.pin(&base.layers);
        let shared = Arc::clone(&self.shared);
        let (id, placeholders) = (container.clone(), options.placeholders.clone());
        let staged = tokio::task::spawn_blocking(move || stage(&shared, &id, &placeholders))
            .await
            .map_err(ImageError::Task)??;
        // As for docker, a step without changes makes no layer.
        let staged = Some(staged).filter(|staged| staged.meta.entries > 0);

        let created = OffsetDateTime::now_utc().format(&Rfc3339).ok();
        let mut diff_ids = base.layers.clone();
        diff_ids.extend(staged.as_ref().map(|staged| staged.meta.diff_id.clone()));
        let mut history = base.config.history.clone();
        history.push(HistoryItem {
            created: created.clone(),
            created_by: options.created_by,
            author: options.author.clone(),
            comment: options.message.clone(),
            empty_layer: staged.is_none(),
        });
        let config = ImageConfig {
            architecture: base.config.architecture.clone(),
            variant: base.config.variant.clone(),
            os: base.os().to_owned(),
            author: options.author,
            comment: options.message,
            created,
            docker_version: String::new(),
            config: options.config,
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
            history,
        };
        let staged = staged.into_iter().collect();
        let (id, _) = self.commit_made(config, options.reference, staged).await?;
        Ok(id)
    }
}

/// Packs the container's changes on one thread and unpacks them as a layer on another.
fn stage(
    shared: &Shared,
    container: &ContainerId,
    placeholders: &[String],
) -> Result<StagedLayer, ImageError> {
    let upper = shared.snapshots().upper_dir(container);
    let (sink, reader) = ChannelReader::channel();
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| {
            let writer = ChunkWriter { sink, buffer: Vec::with_capacity(PIECE) };
            let mut writer = io::BufWriter::with_capacity(PIECE, writer);
            write_changes(&upper, placeholders, &mut writer)?;
            writer.into_inner().map_err(io::IntoInnerError::into_error)?.end()
        });
        let staged = shared.layers.stage(reader, Expected::default(), &shared.limits);
        let packed = packing.join().unwrap_or_else(|_| Err(io::Error::other("packing ended")));
        match (packed, staged) {
            (Ok(()), Ok(staged)) => Ok(staged),
            // A full disk ends the packing too; the unpacker says it better.
            (Err(error), Err(_)) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(ImageError::io("reading", &upper)(error))
            }
            (_, Err(error)) => Err(error.into_image_error(&Digest::from_sha256(sha256(b"commit")))),
            (Err(error), Ok(_)) => Err(ImageError::io("reading", &upper)(error)),
        }
    })
}

struct ChunkWriter {
    sink: mpsc::Sender<Chunk>,
    buffer: Vec<u8>,
}

impl ChunkWriter {
    fn send(&self, chunk: Chunk) -> io::Result<()> {
        self.sink.blocking_send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn end(mut self) -> io::Result<()> {
        self.flush()?;
        self.send(Chunk::End)
    }
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.send(Chunk::Data(Bytes::from(piece)))
    }
}
