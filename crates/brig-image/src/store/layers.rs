//! Unpacked layers by diff id.
//!
//! `layers/<hex>/diff` is the tree, `layer.json` beside it its description, `split.zst` and `attic`
//! what it takes to put the layer's archive together again. A layer is made in `tmp/<random>`, synced with
//! the whole file system, and renamed; so a name below `layers` always is a whole layer. Layers do not depend on each other and are shared by every image that names
//! them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brig_types::digest::Digest;
use brig_types::id::random_hex;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;

use super::files::{self, Durability};
use super::trash::Trash;
use crate::error::{ImageError, UnpackError};
use crate::limits::Limits;
use crate::unpack::{Expected, LayerTar, Notes, Unpacked, unpack};

const DIFF: &str = "diff";
const META: &str = "layer.json";
const SPLIT: &str = "split.zst";
const ATTIC: &str = "attic";
const MAX_META: u64 = 4 << 10;

/// What is known of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LayerMeta {
    pub(crate) diff_id: Digest,
    /// Sum of the files' sizes, in bytes.
    pub(crate) size: u64,
    pub(crate) entries: u64,
    /// Size of the uncompressed archive; absent if it cannot be put together again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) archive: Option<u64>,
    /// Things in the attic.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) replaced: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[derive(Debug, Default)]
struct Inner {
    layers: BTreeMap<Digest, LayerMeta>,
    /// How many running operations and containers need a layer that no image may name.
    pins: HashMap<Digest, usize>,
}

/// All layers of the node.
#[derive(Debug)]
pub(crate) struct Layers {
    dir: PathBuf,
    tmp: PathBuf,
    empty: PathBuf,
    trash: Arc<Trash>,
    inner: Mutex<Inner>,
    locks: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
}

/// A layer that is unpacked but not published; dropped, it is deleted.
#[derive(Debug)]
pub(crate) struct StagedLayer {
    dir: StagingDir,
    pub(crate) meta: LayerMeta,
    /// Digest and size of the bytes that it came as.
    pub(crate) blob: (Digest, u64),
}

#[derive(Debug)]
struct StagingDir {
    path: PathBuf,
    trash: Arc<Trash>,
    keep: bool,
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.trash.put(&self.path)
        {
            tracing::warn!(error = %brig_types::error::chain(&error), "unfinished layer stays");
        }
    }
}

/// Keeps layers from being removed.
#[derive(Debug)]
pub(crate) struct Pin {
    layers: Arc<Layers>,
    ids: Vec<Digest>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut inner = self.layers.inner();
        for id in &self.ids {
            if let Some(count) = inner.pins.get_mut(id) {
                *count -= 1;
                if *count == 0 {
                    inner.pins.remove(id);
                }
            }
        }
    }
}

impl Layers {
    pub(crate) fn open(root: &Path, trash: Arc<Trash>) -> Result<Self, ImageError> {
        let (dir, tmp, empty) = (root.join("layers"), root.join("tmp"), root.join("empty"));
        for dir in [&dir, &tmp, &empty] {
            files::make_dir(dir)?;
        }
        files::spread(&tmp);
        for name in files::names(&tmp)? {
            trash.put(&tmp.join(name))?;
        }
        let mut layers = BTreeMap::new();
        for name in files::names(&dir)? {
            let path = dir.join(&name);
            let meta = files::read(&path.join(META), MAX_META)?
                .and_then(|bytes| serde_json::from_slice::<LayerMeta>(&bytes).ok())
                .filter(|meta| meta.diff_id.hex() == name && path.join(DIFF).is_dir());
            match meta {
                Some(meta) => {
                    layers.insert(meta.diff_id.clone(), meta);
                }
                None => {
                    tracing::warn!(path = %path.display(), "removing a damaged layer");
                    trash.put(&path)?;
                }
            }
        }
        let inner = Mutex::new(Inner { layers, pins: HashMap::new() });
        Ok(Self { dir, tmp, empty, trash, inner, locks: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change of the maps is a single call, so a panic elsewhere leaves them sound.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where files of unfinished work go.
    pub(crate) fn tmp(&self) -> &Path {
        &self.tmp
    }

    /// An empty directory, for images without layers: overlayfs wants something below.
    pub(crate) fn empty_dir(&self) -> PathBuf {
        self.empty.clone()
    }

    /// A published layer's tree.
    pub(crate) fn diff_dir(&self, id: &Digest) -> PathBuf {
        self.dir.join(id.hex()).join(DIFF)
    }

    pub(crate) fn get(&self, id: &Digest) -> Option<LayerMeta> {
        self.inner().layers.get(id).cloned()
    }

    pub(crate) fn contains(&self, id: &Digest) -> bool {
        self.inner().layers.contains_key(id)
    }

    /// Sum of all layers' sizes, in bytes.
    pub(crate) fn total_size(&self) -> u64 {
        self.inner().layers.values().map(|meta| meta.size).sum()
    }

    /// Keeps layers, whether here already or not yet, until the pin is dropped.
    pub(crate) fn pin(self: &Arc<Self>, ids: &[Digest]) -> Pin {
        let mut inner = self.inner();
        for id in ids {
            *inner.pins.entry(id.clone()).or_default() += 1;
        }
        Pin { layers: Arc::clone(self), ids: ids.to_vec() }
    }

    /// Waits until nobody else makes any of these layers. In one order, so nobody waits in a ring.
    pub(crate) async fn lock(&self, ids: &[Digest]) -> Vec<OwnedMutexGuard<()>> {
        let ids: BTreeSet<&Digest> = ids.iter().collect();
        let mut guards = Vec::with_capacity(ids.len());
        for id in ids {
            let lock = {
                let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
                locks.retain(|_, lock| Arc::strong_count(lock) > 1);
                Arc::clone(locks.entry(id.clone()).or_default())
            };
            guards.push(lock.lock_owned().await);
        }
        guards
    }

    /// Unpacks a layer without publishing it. Blocks. After an error nothing is left.
    pub(crate) fn stage<R: Read>(
        &self,
        source: R,
        expected: Expected<'_>,
        limits: &Limits,
    ) -> Result<StagedLayer, StageError> {
        let name = random_hex();
        let path = self.tmp.join(name.get(..16).unwrap_or(&name));
        files::make_dir(&path)?;
        let mut staging = StagingDir { path, trash: Arc::clone(&self.trash), keep: false };
        match self.fill(&staging.path, source, expected, limits) {
            Ok((meta, blob)) => Ok(StagedLayer { dir: staging, meta, blob }),
            Err(error) => {
                // Here and now rather than by the trash: the disk may be full.
                staging.keep = brig_sys::remove::remove_tree(&staging.path).is_ok();
                Err(error)
            }
        }
    }

    fn fill<R: Read>(
        &self,
        path: &Path,
        source: R,
        expected: Expected<'_>,
        limits: &Limits,
    ) -> Result<(LayerMeta, (Digest, u64)), StageError> {
        use std::os::fd::AsFd as _;
        use std::os::unix::fs::PermissionsExt as _;
        let diff = path.join(DIFF);
        let root = || -> std::io::Result<File> {
            std::fs::create_dir(&diff)?;
            std::fs::set_permissions(&diff, std::fs::Permissions::from_mode(0o755))?;
            File::open(&diff)
        };
        let root = root().map_err(ImageError::io("creating", &diff))?;
        let (split, attic) = (path.join(SPLIT), path.join(ATTIC));
        let log = File::create_new(&split).map_err(ImageError::io("creating", &split))?;
        files::make_dir(&attic)?;
        let attic_dir = File::open(&attic).map_err(ImageError::io("opening", &attic))?;
        let notes = Notes { log, attic: attic_dir.as_fd() };
        let unpacked = unpack(source, root.as_fd(), expected, limits, Some(notes))?;
        let Unpacked { digest, compressed, diff_id, size, entries, archive, replaced } = unpacked;
        if replaced == 0 {
            std::fs::remove_dir(&attic).map_err(ImageError::io("removing", &attic))?;
        }
        let meta = LayerMeta { diff_id, size, entries, archive: Some(archive), replaced };
        let json = serde_json::to_vec(&meta).map_err(|source| {
            StageError::Store(ImageError::Damaged { path: path.join(META), source })
        })?;
        files::replace(&path.join(META), &json, Durability::Cached)?;
        Ok((meta, (digest, compressed)))
    }

    /// Publishes layers that are durable already. A layer that somebody else published meanwhile
    /// is dropped.
    pub(crate) fn publish(&self, staged: Vec<StagedLayer>) -> Result<(), ImageError> {
        if staged.is_empty() {
            return Ok(());
        }
        for mut layer in staged {
            let target = self.dir.join(layer.meta.diff_id.hex());
            if self.contains(&layer.meta.diff_id) {
                continue;
            }
            std::fs::rename(&layer.dir.path, &target)
                .map_err(ImageError::io("publishing", &target))?;
            layer.dir.keep = true;
            self.inner().layers.insert(layer.meta.diff_id.clone(), layer.meta.clone());
        }
        files::sync_dir(&self.dir)
    }

    /// The archive of a published layer, and its size. Blocks. Pin the layer as long as it is read.
    pub(crate) fn archive(&self, id: &Digest) -> Result<(LayerTar, u64), ImageError> {
        let path = self.dir.join(id.hex());
        let meta = self.get(id).ok_or_else(|| ImageError::LayerGone(id.short().to_owned()))?;
        let size = meta.archive.ok_or_else(|| ImageError::NoArchive(id.short().to_owned()))?;
        let attic = path.join(ATTIC);
        let attic = (meta.replaced > 0).then_some(attic.as_path());
        let tar = LayerTar::open(&path.join(SPLIT), &path.join(DIFF), attic, id.clone())
            .map_err(ImageError::io("opening", &path))?;
        Ok((tar, size))
    }

    /// Removes every layer that is neither in `keep` nor pinned; returns what went.
    pub(crate) fn collect(&self, keep: &BTreeSet<&Digest>) -> Result<Vec<Digest>, ImageError> {
        let gone: Vec<Digest> = {
            let mut inner = self.inner();
            let gone: Vec<Digest> = inner
                .layers
                .keys()
                .filter(|id| !keep.contains(id) && !inner.pins.contains_key(*id))
                .cloned()
                .collect();
            for id in &gone {
                inner.layers.remove(id);
                // Under the lock: a pin that comes after must not find the layer half gone.
                self.trash.put(&self.dir.join(id.hex()))?;
            }
            gone
        };
        if !gone.is_empty() {
            files::sync_dir(&self.dir)?;
        }
        Ok(gone)
    }
}

/// Why a layer could not be staged.
#[derive(Debug)]
pub(crate) enum StageError {
    Unpack(UnpackError),
    Store(ImageError),
}

impl From<UnpackError> for StageError {
    fn from(error: UnpackError) -> Self {
        Self::Unpack(error)
    }
}

impl From<ImageError> for StageError {
    fn from(error: ImageError) -> Self {
        Self::Store(error)
    }
}

impl StageError {
    pub(crate) fn into_image_error(self, layer: &Digest) -> ImageError {
        match self {
            Self::Unpack(error) => ImageError::layer(layer)(error),
            Self::Store(error) => error,
        }
    }
}
