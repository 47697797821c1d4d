//! Layers for whoever reads what is in them: their archives one by one, and word of every change.

use std::io::{self, Read};

use brig_types::digest::Digest;
use tokio::sync::watch;

use crate::error::ImageError;
use crate::store::ImageStore;
use crate::store::layers::Pin;
use crate::unpack::LayerTar;

/// The uncompressed archive of a layer, byte for byte. The layer stays as long as this does.
#[derive(Debug)]
pub struct LayerArchive {
    tar: LayerTar,
    size: u64,
    _pin: Pin,
}

impl LayerArchive {
    /// Bytes in all.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }
}

impl Read for LayerArchive {
    /// The last read fails when the bytes are not those of the layer's diff id.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.tar.read(buf)
    }
}

impl ImageStore {
    /// The archive of a layer by its diff id. Blocks.
    ///
    /// # Errors
    /// [`ImageError::LayerGone`], [`ImageError::NoArchive`], or its files cannot be opened.
    pub fn layer_archive(&self, diff_id: &Digest) -> Result<LayerArchive, ImageError> {
        let layers = &self.shared.layers;
        let pin = layers.pin(std::slice::from_ref(diff_id));
        let (tar, size) = layers.archive(diff_id)?;
        Ok(LayerArchive { tar, size, _pin: pin })
    }

    /// Changes whenever images come, go or get other names.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changes.subscribe()
    }
}
