//! Layers that are unpacked while their archive still comes in.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use brig_types::digest::Digest;
use bytes::Bytes;

use super::spool::Taking;
use crate::error::{ImageError, UnpackError};
use crate::limits::Limits;
use crate::store::layers::{Layers, StageError, StagedLayer};
use crate::unpack::Expected;
use crate::unpack::compression::is_compressed;
use crate::unpack::path::display;
use crate::unpack::stream::{ChannelReader, Chunk};

/// Bytes that are handed on at a time.
const PIECE: u64 = 128 << 10;
/// Pieces that wait for a layer's thread: while it makes many small files, the archive goes on.
const PIECES: usize = 64;
/// Where an OCI layout has its layers.
const BLOBS: &[u8] = b"blobs/sha256/";

type Outcome = Result<StagedLayer, StageError>;

/// Unpacks layers on threads of `'scope`.
pub(crate) struct Staging<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    layers: Arc<Layers>,
    limits: Limits,
    /// Most threads.
    at_once: usize,
    /// With the entry's name.
    running: VecDeque<(String, ScopedJoinHandle<'scope, Outcome>)>,
    done: Vec<Outcome>,
}

impl<'scope, 'env> Staging<'scope, 'env> {
    pub(crate) fn new(
        scope: &'scope Scope<'scope, 'env>,
        layers: Arc<Layers>,
        limits: Limits,
        at_once: usize,
    ) -> Self {
        let (running, done) = (VecDeque::new(), Vec::new());
        Self { scope, layers, limits, at_once, running, done }
    }

    /// Waits for all of them.
    pub(crate) fn finish(mut self) -> Result<Staged, ImageError> {
        self.keep(0)?;
        Ok(Staged { slots: self.done.into_iter().map(Slot::Here).collect() })
    }

    /// Waits until no more than so many are under way.
    fn keep(&mut self, running: usize) -> Result<(), ImageError> {
        while self.running.len() > running
            && let Some((layer, oldest)) = self.running.pop_front()
        {
            let outcome = oldest.join().unwrap_or_else(|_| {
                let ended = io::Error::other("unpacking ended");
                Err(UnpackError::Read(ended).into())
            });
            match outcome {
                // Nothing that follows would fit either.
                Err(StageError::Unpack(source @ UnpackError::NoSpace { .. })) => {
                    return Err(ImageError::Layer { layer, source });
                }
                Err(StageError::Store(error @ ImageError::NoSpace { .. })) => return Err(error),
                outcome => self.done.push(outcome),
            }
        }
        Ok(())
    }
}

impl Taking for Staging<'_, '_> {
    fn wants(&self, name: &[u8], head: &[u8]) -> bool {
        let known = name
            .strip_prefix(BLOBS)
            .and_then(|hex| Digest::parse(&format!("sha256:{}", str::from_utf8(hex).ok()?)).ok())
            .is_some_and(|digest| self.layers.contains(&digest));
        !known && (is_compressed(head) || begins_tar(head))
    }

    fn take(&mut self, name: &[u8], data: &mut dyn Read) -> Result<usize, ImageError> {
        self.keep(self.at_once.saturating_sub(1))?;
        let number = self.done.len() + self.running.len();
        let (sink, source) = ChannelReader::with_depth(PIECES);
        let (layers, limits) = (Arc::clone(&self.layers), self.limits);
        let thread = Builder::new()
            .name("unpack".to_owned())
            .spawn_scoped(self.scope, move || layers.stage(source, Expected::default(), &limits))
            .map_err(ImageError::ArchiveRead)?;
        self.running.push_back((display(name), thread));
        loop {
            let mut piece = Vec::with_capacity(usize::try_from(PIECE).unwrap_or_default());
            data.take(PIECE).read_to_end(&mut piece).map_err(ImageError::ArchiveRead)?;
            let next = if piece.is_empty() { Chunk::End } else { Chunk::Data(Bytes::from(piece)) };
            let ended = matches!(next, Chunk::End);
            // A thread that does not listen any more has found something that it will say.
            if sink.blocking_send(next).is_err() || ended {
                return Ok(number);
            }
        }
    }
}

/// Whether bytes are a tar's first header.
fn begins_tar(head: &[u8]) -> bool {
    let Ok(block) = <[u8; 512]>::try_from(head) else { return false };
    let header = tar::Header::from_byte_slice(&block);
    // The sum is made with spaces in its own place.
    let sum: u32 = block.iter().enumerate().fold(0, |sum, (at, byte)| {
        sum + u32::from(if (148..156).contains(&at) { b' ' } else { *byte })
    });
    header.cksum().is_ok_and(|noted| noted == sum)
}

/// What was unpacked of an archive, by number. What nobody claims is deleted.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    slots: Vec<Slot>,
}

#[derive(Debug)]
enum Slot {
    Here(Outcome),
    Claimed,
}

impl Staged {
    /// The layer of that number, if it is what is expected. It can be had once.
    pub(crate) fn claim(
        &mut self,
        number: usize,
        expected: Expected<'_>,
    ) -> Result<StagedLayer, StageError> {
        let gone = || {
            let id = expected.diff_id.map(Digest::short).unwrap_or_default();
            StageError::Store(ImageError::LayerGone(id.to_owned()))
        };
        let slot = self.slots.get_mut(number).ok_or_else(gone)?;
        let Slot::Here(outcome) = std::mem::replace(slot, Slot::Claimed) else {
            return Err(gone());
        };
        let layer = outcome?;
        let (digest, size) = &layer.blob;
        expected.check((digest, *size), &layer.meta.diff_id)?;
        Ok(layer)
    }
}
