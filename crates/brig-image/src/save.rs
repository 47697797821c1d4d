//! Saving images: one tar that is both what `docker save` of 25 and later writes (`manifest.json`,
//! `repositories`) and an OCI image layout (`index.json`), so that every engine and tool reads it.
//!
//! The same images give the same bytes: no time of the machine, no random order is in it.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};
use std::sync::Arc;

use brig_pki::hash::sha256;
use brig_types::digest::Digest;
use brig_types::reference::{DEFAULT_TAG, Reference};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::error::ImageError;
use crate::manifest::{OCI_CONFIG, OCI_LAYER_TAR, OCI_MANIFEST};
use crate::store::layers::Pin;
use crate::store::{Image, ImageStore};

/// Size of the pieces that are sent.
const PIECE: usize = 128 << 10;
/// Pieces that wait for a slow reader.
const PIECES: usize = 8;

/// Images that were chosen to be saved; what they need stays until they are.
#[derive(Debug)]
pub struct Save {
    store: ImageStore,
    images: Vec<Chosen>,
    _pins: Vec<Pin>,
}

#[derive(Debug)]
struct Chosen {
    image: Arc<Image>,
    tags: Vec<Reference>,
}

/// An image and the name it was chosen by.
type Named = (Arc<Image>, Option<Reference>);

/// The archive's pieces, in order; an error is the last one.
pub type Pieces = mpsc::Receiver<io::Result<Bytes>>;

impl ImageStore {
    /// Chooses images by docker's rules: a name without tag means all tags of the repository, an id
    /// an image without its names.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::NoReference`]; a layer without archive.
    pub fn save(&self, names: &[String]) -> Result<Save, ImageError> {
        let mut images: Vec<Chosen> = Vec::new();
        for name in names {
            for (image, tag) in self.chosen(name)? {
                let at = match images.iter().position(|known| known.image.id == image.id) {
                    Some(at) => at,
                    None => {
                        images.push(Chosen { image, tags: Vec::new() });
                        images.len() - 1
                    }
                };
                if let (Some(tag), Some(known)) = (tag, images.get_mut(at))
                    && !known.tags.contains(&tag)
                {
                    known.tags.push(tag);
                }
            }
        }
        let layers = &self.shared.layers;
        let pins = images.iter().map(|chosen| layers.pin(&chosen.image.layers)).collect();
        for chosen in &mut images {
            chosen.tags.sort();
            for layer in &chosen.image.layers {
                layers.archive(layer)?;
            }
        }
        Ok(Save { store: self.clone(), images, _pins: pins })
    }

    fn chosen(&self, name: &str) -> Result<Vec<Named>, ImageError> {
        let reference = Reference::parse(name).ok().filter(|r| r.familiar_name() != "sha256");
        let Some(reference) = reference else {
            return Ok(vec![(self.resolve(name)?, None)]);
        };
        if reference.digest().is_some() {
            return Ok(vec![(self.resolve(name)?, None)]);
        }
        if reference.tag().is_some() {
            let image = self.by_tag(&reference).ok_or(ImageError::NoReference)?;
            return Ok(vec![(image, Some(reference))]);
        }
        let all = self.tags_of(&reference);
        if all.is_empty() {
            return Ok(vec![(self.resolve(name)?, None)]);
        }
        Ok(all.into_iter().map(|(tag, image)| (image, Some(tag))).collect())
    }
}

impl Save {
    /// What is saved: ids with their names.
    pub fn images(&self) -> impl Iterator<Item = (&Digest, &[Reference])> {
        self.images.iter().map(|chosen| (&chosen.image.id, chosen.tags.as_slice()))
    }

    /// Writes the archive on a thread of its own; dropping the receiver ends it.
    #[must_use]
    pub fn stream(self) -> Pieces {
        let (sender, pieces) = mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || {
            let writer = PieceWriter { sender: sender.clone(), buffer: Vec::with_capacity(PIECE) };
            if let Err(error) = self.write(writer) {
                let _ = sender.blocking_send(Err(error));
            }
        });
        pieces
    }

    /// Writes the archive. Blocks.
    ///
    /// # Errors
    /// The writer's, and those of reading the layers.
    pub fn write(&self, writer: impl Write) -> io::Result<()> {
        let plan = self.plan()?;
        let mut tar = tar::Builder::new(BufWriter::with_capacity(PIECE, writer));
        directory(&mut tar, "blobs/")?;
        directory(&mut tar, "blobs/sha256/")?;
        for (digest, blob) in &plan.blobs {
            let name = blob_name(digest);
            match blob {
                Blob::Bytes(bytes) => file(&mut tar, &name, bytes)?,
                Blob::Layer => {
                    let (source, size) =
                        self.store.shared.layers.archive(digest).map_err(io::Error::other)?;
                    tar.append(&header(&name, size)?, Exact { source, left: size })?;
                }
            }
        }
        file(&mut tar, "index.json", &plan.index)?;
        file(&mut tar, "manifest.json", &plan.manifest)?;
        file(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        if let Some(repositories) = &plan.repositories {
            file(&mut tar, "repositories", repositories)?;
        }
        tar.into_inner()?.flush()
    }

    fn plan(&self) -> io::Result<Plan> {
        let mut blobs = BTreeMap::new();
        let (mut index, mut entries) = (Vec::new(), Vec::new());
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for Chosen { image, tags } in &self.images {
            let mut layers: Vec<Value> = Vec::new();
            let mut sources = serde_json::Map::new();
            for id in &image.layers {
                let meta = self.store.shared.layers.get(id);
                let size = meta.and_then(|meta| meta.archive).unwrap_or_default();
                blobs.insert(id.clone(), Blob::Layer);
                let descriptor =
                    json!({"mediaType": OCI_LAYER_TAR, "size": size, "digest": id.as_str()});
                sources.insert(id.as_str().to_owned(), descriptor.clone());
                layers.push(descriptor);
            }
            blobs.insert(image.id.clone(), Blob::Bytes(image.raw.to_vec()));
            let manifest = serde_json::to_vec(&json!({
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {
                    "mediaType": OCI_CONFIG, "size": image.raw.len(), "digest": image.id.as_str(),
                },
                "layers": layers,
            }))?;
            let digest = Digest::from_sha256(sha256(&manifest));
            let platform = image.config.platform();
            let descriptor = |name: Option<&Reference>| {
                let mut descriptor = json!({
                    "mediaType": OCI_MANIFEST, "digest": digest.as_str(), "size": manifest.len(),
                    "platform": platform,
                });
                if let (Some(name), Some(object)) = (name, descriptor.as_object_mut()) {
                    object.insert(
                        "annotations".to_owned(),
                        json!({
                            "io.containerd.image.name": name.to_string(),
                            "org.opencontainers.image.ref.name": name.tag().unwrap_or(DEFAULT_TAG),
                        }),
                    );
                }
                descriptor
            };
            if tags.is_empty() {
                index.push(descriptor(None));
            }
            index.extend(tags.iter().map(|tag| descriptor(Some(tag))));
            let top = image.layers.last().unwrap_or(&image.id);
            for tag in tags {
                repositories
                    .entry(tag.familiar_name())
                    .or_default()
                    .insert(tag.tag().unwrap_or(DEFAULT_TAG).to_owned(), top.hex().to_owned());
            }
            let names: Vec<String> = tags.iter().map(Reference::familiar).collect();
            entries.push(json!({
                "Config": blob_name(&image.id),
                "RepoTags": if names.is_empty() { Value::Null } else { json!(names) },
                "Layers": image.layers.iter().map(blob_name).collect::<Vec<_>>(),
                "LayerSources": sources,
            }));
            blobs.insert(digest.clone(), Blob::Bytes(manifest));
        }
        let repositories =
            (!repositories.is_empty()).then(|| serde_json::to_vec(&repositories)).transpose()?;
        Ok(Plan {
            blobs,
            index: serde_json::to_vec(&json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": index,
            }))?,
            manifest: serde_json::to_vec(&entries)?,
            repositories,
        })
    }
}

struct Plan {
    blobs: BTreeMap<Digest, Blob>,
    index: Vec<u8>,
    manifest: Vec<u8>,
    repositories: Option<Vec<u8>>,
}

enum Blob {
    Bytes(Vec<u8>),
    Layer,
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn header(name: &str, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}

fn directory(tar: &mut tar::Builder<impl Write>, name: &str) -> io::Result<()> {
    let mut header = header(name, 0)?;
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_cksum();
    tar.append(&header, io::empty())
}

fn file(tar: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    tar.append(&header(name, u64::try_from(bytes.len()).map_err(io::Error::other)?)?, bytes)
}

/// Reads to the end of the source, where a layer's archive is verified, and refuses another size.
struct Exact<R> {
    source: R,
    left: u64,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buf)?;
        let length = u64::try_from(read).map_err(io::Error::other)?;
        match self.left.checked_sub(length) {
            Some(left) if read > 0 || left == 0 => self.left = left,
            _ => return Err(io::Error::other("a layer does not have its size")),
        }
        Ok(read)
    }
}

struct PieceWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for PieceWriter {
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
        self.sender
            .blocking_send(Ok(piece.into()))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}
