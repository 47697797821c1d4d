//! Images in files: archives of `docker save`, OCI archives and OCI layouts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use brig_pki::hash::{Sha256, sha256};
use brig_types::digest::Digest;
use serde::Deserialize;

use super::decompress::{self, Compression, PlaceReader};
use super::layer::{self, LayerInventory, Place};
use super::merge::merge;
use super::tar::{FileStream, Kind, ReadStream, Stream, Walker};
use super::{Limits, Options, ScanError, Verify, tree};
use crate::package::{ImageFacts, Inventory, Layer};
use crate::parse::exact;

/// Largest manifest, index or configuration, in bytes.
const MAX_JSON: u64 = 8 << 20;
/// Most bytes of such files that are kept of a compressed archive.
const MAX_KEPT: usize = 64 << 20;
/// Most layers of an image.
const MAX_LAYERS: usize = 1000;
/// Most images of an archive.
const MAX_IMAGES: usize = 1000;
/// How deep indexes may lie in indexes, and links in links.
const MAX_DEPTH: usize = 8;
/// Most threads.
const MAX_THREADS: usize = 4;

/// Where the parts of an image come from.
trait Store: Sync {
    /// A small part as a whole.
    fn small(&self, name: &str) -> Result<Option<Vec<u8>>, ScanError>;
    /// Reads these layers, in the order of the names.
    fn layers(
        &self,
        wanted: &[Wanted],
        options: &Options,
    ) -> Result<Vec<LayerInventory>, ScanError>;
}

/// A layer and its digest.
struct Wanted {
    name: String,
    diff_id: Digest,
}

/// Reads an archive.
pub(super) fn read_archive(
    file: &File,
    size: u64,
    options: &Options,
) -> Result<Inventory, ScanError> {
    let mut head = [0_u8; 8];
    let read = file.read_at(&mut head, 0).map_err(ScanError::Read)?;
    let compression = decompress::compression(head.get(..read).unwrap_or_default())?;
    if compression == Compression::Plain {
        let mut walker = Walker::new(FileStream::new(file, 0, size));
        let mut members = BTreeMap::new();
        index(&mut walker, &options.limits, &mut |name, walker, size| {
            if let Some((_, offset)) = walker.place() {
                members.insert(name, Member::Content { offset, size });
            }
            Ok(())
        })
        .map(|links| members.extend(links))?;
        read_image(&Plain { file, members }, options)
    } else {
        let mut kept = HashMap::new();
        let mut bytes = 0_usize;
        let place = Place { file, offset: 0, size };
        let links = thread::scope(|scope| {
            let source = PlaceReader::new(place);
            let pieces = decompress::start(scope, source, compression, options.limits, size)?;
            let mut walker = Walker::new(ReadStream::new(pieces));
            index(&mut walker, &options.limits, &mut |name, walker, size| {
                if size <= MAX_JSON && looks_small(&name) {
                    let content = walker.content(size)?;
                    if content.trim_ascii_start().first().is_some_and(|b| matches!(b, b'{' | b'['))
                    {
                        bytes += content.len();
                        if bytes > MAX_KEPT {
                            return Err(ScanError::Limit {
                                what: "bytes of manifests",
                                limit: MAX_KEPT as u64,
                            });
                        }
                        kept.insert(name, content);
                    }
                }
                Ok(())
            })
        })
        .map_err(decompress::explain)?;
        read_image(&Packed { place, compression, kept, links }, options)
    }
}

fn looks_small(name: &str) -> bool {
    name.starts_with("blobs/") || name.ends_with(".json") || !name.contains('/')
}

/// Reads an OCI layout that is a directory.
pub(super) fn read_layout(dir: &File, options: &Options) -> Result<Inventory, ScanError> {
    read_image(&Layout { dir }, options)
}

type Links = BTreeMap<String, Member>;
/// What is done with a member: its name, the walker that stands before its content, its size.
type EachMember<'e, S> = dyn FnMut(String, &mut Walker<S>, u64) -> Result<(), ScanError> + 'e;

/// A member of a plain archive.
enum Member {
    Content { offset: u64, size: u64 },
    Link(String),
}

/// Goes through an archive's members, calls `each` with those that have a content, and gives its
/// links.
fn index<S: Stream>(
    walker: &mut Walker<S>,
    limits: &Limits,
    each: &mut EachMember<'_, S>,
) -> Result<Links, ScanError> {
    let mut links = Links::new();
    let mut entries = 0_u64;
    while let Some(entry) = walker.next()? {
        entries += 1;
        if entries > limits.entries {
            return Err(ScanError::Limit { what: "entries", limit: limits.entries });
        }
        if entry.escapes {
            continue;
        }
        match entry.kind {
            Kind::File if !entry.sparse => each(entry.path, walker, entry.size)?,
            Kind::Symlink => {
                // `../ID/layer.tar`, as older archives name a layer that is there already.
                let folder = entry.path.rsplit_once('/').map_or("", |(folder, _)| folder);
                let (target, escapes) =
                    super::tar::clean(format!("{folder}/{}", entry.link).as_bytes());
                if !escapes {
                    links.insert(entry.path, Member::Link(target));
                }
            }
            Kind::HardLink => {
                let (target, _) = super::tar::clean(entry.link.as_bytes());
                links.insert(entry.path, Member::Link(target));
            }
            _ => {}
        }
    }
    Ok(links)
}

struct Plain<'a> {
    file: &'a File,
    members: BTreeMap<String, Member>,
}

impl<'a> Plain<'a> {
    fn place(&self, name: &str) -> Option<Place<'a>> {
        let mut name = name;
        for _ in 0..MAX_DEPTH {
            match self.members.get(name)? {
                Member::Content { offset, size } => {
                    return Some(Place { file: self.file, offset: *offset, size: *size });
                }
                Member::Link(target) => name = target,
            }
        }
        None
    }
}

impl Store for Plain<'_> {
    fn small(&self, name: &str) -> Result<Option<Vec<u8>>, ScanError> {
        self.place(name).map(small_at).transpose()
    }

    fn layers(
        &self,
        wanted: &[Wanted],
        options: &Options,
    ) -> Result<Vec<LayerInventory>, ScanError> {
        let places = wanted
            .iter()
            .map(|layer| {
                self.place(&layer.name)
                    .ok_or_else(|| missing(&layer.name))
                    .map(|place| (place, layer))
            })
            .collect::<Result<Vec<_>, _>>()?;
        read_places(&places, options)
    }
}

fn missing(name: &str) -> ScanError {
    ScanError::Image(format!("{:?} is not in it", name.chars().take(200).collect::<String>()))
}

fn small_at(place: Place<'_>) -> Result<Vec<u8>, ScanError> {
    if place.size > MAX_JSON {
        return Err(ScanError::Limit { what: "bytes in a manifest", limit: MAX_JSON });
    }
    exact(&place, 0, usize::try_from(place.size).unwrap_or(usize::MAX))
        .map_err(|error| ScanError::Image(error.line()))
}

struct Layout<'a> {
    dir: &'a File,
}

impl Layout<'_> {
    fn open(&self, name: &str) -> Result<Option<(File, u64)>, ScanError> {
        // Only names that this module made: `index.json` and `blobs/sha256/HEX`.
        let mut dir = self.dir.try_clone().map_err(ScanError::Read)?;
        let mut parts = name.split('/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return match tree::open(&dir, OsStr::new(part)) {
                    Ok(file) => {
                        let size = file.metadata().map_err(ScanError::Read)?.len();
                        Ok(Some((file, size)))
                    }
                    Err(rustix::io::Errno::NOENT) => Ok(None),
                    Err(error) => Err(ScanError::Read(error.into())),
                };
            }
            let flags = rustix::fs::OFlags::RDONLY
                | rustix::fs::OFlags::DIRECTORY
                | rustix::fs::OFlags::NOFOLLOW
                | rustix::fs::OFlags::CLOEXEC;
            match rustix::fs::openat(&dir, part, flags, rustix::fs::Mode::empty()) {
                Ok(next) => dir = File::from(next),
                Err(rustix::io::Errno::NOENT) => return Ok(None),
                Err(error) => return Err(ScanError::Read(error.into())),
            }
        }
        Ok(None)
    }
}

impl Store for Layout<'_> {
    fn small(&self, name: &str) -> Result<Option<Vec<u8>>, ScanError> {
        match self.open(name)? {
            Some((file, size)) => small_at(Place { file: &file, offset: 0, size }).map(Some),
            None => Ok(None),
        }
    }

    fn layers(
        &self,
        wanted: &[Wanted],
        options: &Options,
    ) -> Result<Vec<LayerInventory>, ScanError> {
        let files = wanted
            .iter()
            .map(|layer| self.open(&layer.name)?.ok_or_else(|| missing(&layer.name)))
            .collect::<Result<Vec<_>, _>>()?;
        let places: Vec<(Place<'_>, &Wanted)> = files
            .iter()
            .zip(wanted)
            .map(|((file, size), layer)| (Place { file, offset: 0, size: *size }, layer))
            .collect();
        read_places(&places, options)
    }
}

/// What is to be done for one layer.
#[derive(Clone, Copy)]
enum Step {
    /// Read it, and hash it where that is one go.
    Read(usize),
    /// Hash a layer that is not compressed, beside reading it.
    Hash(usize),
}

/// Reads layers that lie in files, on several threads, the largest first.
fn read_places(
    places: &[(Place<'_>, &Wanted)],
    options: &Options,
) -> Result<Vec<LayerInventory>, ScanError> {
    let mut steps = Vec::new();
    let mut kinds = Vec::new();
    for (index, (place, _)) in places.iter().enumerate() {
        let head = exact(place, 0, usize::try_from(place.size.min(8)).unwrap_or(8))
            .map_err(|error| ScanError::Image(error.line()))?;
        let kind = decompress::compression(&head)?;
        kinds.push(kind);
        steps.push((place.size, Step::Read(index)));
        if kind == Compression::Plain && options.verify == Verify::DiffIds {
            steps.push((place.size, Step::Hash(index)));
        }
    }
    steps.sort_by_key(|(size, step)| (std::cmp::Reverse(*size), matches!(step, Step::Read(_))));
    let found: Vec<Mutex<Option<LayerInventory>>> =
        places.iter().map(|_| Mutex::new(None)).collect();
    let failed: Mutex<Option<ScanError>> = Mutex::new(None);
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((_, step)) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.lock().is_ok_and(|failed| failed.is_some()) {
                return;
            }
            let result = match *step {
                Step::Read(index) => read_one(places, &kinds, index, options).map(|layer| {
                    if let Some(Ok(mut slot)) = found.get(index).map(Mutex::lock) {
                        *slot = Some(layer);
                    }
                }),
                Step::Hash(index) => hash_one(places, index),
            };
            if let (Err(error), Ok(mut failed)) = (result, failed.lock()) {
                failed.get_or_insert(error);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    thread::scope(|scope| {
        // This thread works too.
        for _ in 1..threads.min(steps.len()) {
            if thread::Builder::new()
                .name("brig-scan".to_owned())
                .spawn_scoped(scope, work)
                .is_err()
            {
                break;
            }
        }
        work();
    });
    if let Some(error) = failed.into_inner().unwrap_or_default() {
        return Err(error);
    }
    found
        .into_iter()
        .map(|slot| {
            let layer = slot.into_inner().ok().flatten();
            layer.ok_or_else(|| ScanError::Image("a layer was not read".to_owned()))
        })
        .collect()
}

fn read_one(
    places: &[(Place<'_>, &Wanted)],
    kinds: &[Compression],
    index: usize,
    options: &Options,
) -> Result<LayerInventory, ScanError> {
    let (Some((place, wanted)), Some(&kind)) = (places.get(index), kinds.get(index)) else {
        return Err(ScanError::Image("a layer is missing".to_owned()));
    };
    let mut found = if kind == Compression::Plain {
        if place.size > options.limits.layer_bytes {
            return Err(ScanError::Limit {
                what: "bytes in a layer",
                limit: options.limits.layer_bytes,
            });
        }
        let mut walker = Walker::new(FileStream::new(place.file, place.offset, place.size));
        let mut found = layer::walk(&mut walker, &options.limits)?;
        found.size = place.size;
        found
    } else {
        thread::scope(|scope| {
            let source = PlaceReader::new(*place);
            let pieces = decompress::start(scope, source, kind, options.limits, place.size)?;
            read_checked(pieces, index, &wanted.diff_id, options)
        })?
    };
    found.diff_id = Some(wanted.diff_id.clone());
    Ok(found)
}

/// Reads a decompressed layer and compares it with its diff id.
fn read_checked(
    source: impl Read,
    index: usize,
    expected: &Digest,
    options: &Options,
) -> Result<LayerInventory, ScanError> {
    let hash = (options.verify == Verify::DiffIds).then(Sha256::new);
    let mut metered = Metered { source, hash, count: 0 };
    let found = layer::read_layer(&mut metered, &options.limits);
    let mut found = found.map_err(decompress::explain)?;
    found.size = metered.count;
    if let Some(hash) = metered.hash {
        compare(index, expected, hash)?;
    }
    Ok(found)
}

struct Metered<R> {
    source: R,
    hash: Option<Sha256>,
    count: u64,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buf)?;
        self.count += read as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(buf.get(..read).unwrap_or_default());
        }
        Ok(read)
    }
}

fn compare(index: usize, expected: &Digest, hash: Sha256) -> Result<(), ScanError> {
    let actual = Digest::from_sha256(hash.finish());
    if actual == *expected {
        return Ok(());
    }
    Err(ScanError::WrongDiffId { index: index + 1, expected: expected.clone(), actual })
}

fn hash_one(places: &[(Place<'_>, &Wanted)], index: usize) -> Result<(), ScanError> {
    let Some((place, wanted)) = places.get(index) else { return Ok(()) };
    let mut reader = PlaceReader::new(*place);
    let mut hash = Sha256::new();
    let mut buffer = vec![0_u8; 128 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return compare(index, &wanted.diff_id, hash),
            Ok(count) => hash.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ScanError::Read(error)),
        }
    }
}

/// A compressed archive: its small members are kept from the first pass, its layers read in a
/// second one.
struct Packed<'a> {
    place: Place<'a>,
    compression: Compression,
    kept: HashMap<String, Vec<u8>>,
    links: Links,
}

impl Packed<'_> {
    fn real<'n>(&'n self, mut name: &'n str) -> &'n str {
        for _ in 0..MAX_DEPTH {
            match self.links.get(name) {
                Some(Member::Link(target)) => name = target,
                _ => break,
            }
        }
        name
    }
}

impl Store for Packed<'_> {
    fn small(&self, name: &str) -> Result<Option<Vec<u8>>, ScanError> {
        Ok(self.kept.get(self.real(name)).cloned())
    }

    fn layers(
        &self,
        wanted: &[Wanted],
        options: &Options,
    ) -> Result<Vec<LayerInventory>, ScanError> {
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, layer) in wanted.iter().enumerate() {
            places.entry(self.real(&layer.name)).or_default().push(index);
        }
        let mut found: Vec<Option<LayerInventory>> = wanted.iter().map(|_| None).collect();
        thread::scope(|scope| {
            let source = PlaceReader::new(self.place);
            let size = self.place.size;
            let pieces = decompress::start(scope, source, self.compression, options.limits, size)?;
            let mut walker = Walker::new(ReadStream::new(pieces));
            index(&mut walker, &options.limits, &mut |name, walker, size| {
                for &at in places.get(name.as_str()).into_iter().flatten().take(1) {
                    let Some(layer) = wanted.get(at) else { continue };
                    let content = Content { walker, left: size };
                    let head = &mut [0_u8; 8];
                    let mut content = content;
                    let read = fill(&mut content, head).map_err(ScanError::Read)?;
                    let head = head.get(..read).unwrap_or_default();
                    let kind = decompress::compression(head)?;
                    let whole = io::Cursor::new(head.to_vec()).chain(content);
                    let plain = decompress::decoder(whole, kind).map_err(ScanError::Read)?;
                    let bounded = plain.take(options.limits.layer_bytes);
                    let mut layer_found = read_checked(bounded, at, &layer.diff_id, options)?;
                    layer_found.diff_id = Some(layer.diff_id.clone());
                    for &same in places.get(name.as_str()).into_iter().flatten() {
                        if let Some(slot) = found.get_mut(same) {
                            *slot = Some(layer_found.clone());
                        }
                    }
                }
                Ok(())
            })
        })
        .map_err(decompress::explain)?;
        found
            .into_iter()
            .zip(wanted)
            .map(|(found, layer)| found.ok_or_else(|| missing(&layer.name)))
            .collect()
    }
}

/// The content of an archive's current member as a reader.
struct Content<'w, S> {
    walker: &'w mut Walker<S>,
    left: u64,
}

impl<S: Stream> Read for Content<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = self.left.min(buf.len() as u64);
        let target = buf.get_mut(..usize::try_from(most).unwrap_or(0)).unwrap_or_default();
        if target.is_empty() {
            return Ok(0);
        }
        let read = self.walker.read(target).map_err(io::Error::other)?;
        self.left -= read as u64;
        Ok(read)
    }
}

fn fill(reader: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest)? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

/// What is to be read of an image, whichever form its archive has.
struct Image {
    config: Vec<u8>,
    config_digest: Digest,
    manifest: Option<Digest>,
    names: Vec<String>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

impl Platform {
    fn fits(&self, wanted: &str) -> bool {
        let mut parts = wanted.split('/');
        parts.next() == Some(self.os.as_str())
            && parts.next() == Some(self.architecture.as_str())
            && parts.next().is_none_or(|variant| variant == self.variant)
    }

    fn name(&self) -> String {
        let mut name = format!("{}/{}", self.os, self.architecture);
        if !self.variant.is_empty() {
            name.push('/');
            name.push_str(&self.variant);
        }
        name
    }
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
    #[serde(default)]
    config: Option<RunConfig>,
    #[serde(default)]
    rootfs: RootFs,
    #[serde(default)]
    history: Option<Vec<HistoryStep>>,
}

#[derive(Default, Deserialize)]
struct RunConfig {
    #[serde(default, rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

/// One step of an image's history.
#[derive(Default, Deserialize)]
struct HistoryStep {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    created_by: Option<String>,
    #[serde(default)]
    empty_layer: bool,
}

fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &str) -> Result<T, ScanError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ScanError::Image(format!("its {what} cannot be read: {error}")))
}

fn read_image(store: &dyn Store, options: &Options) -> Result<Inventory, ScanError> {
    let image = if let Some(manifest) = store.small("manifest.json")? {
        docker_image(store, &manifest, options)?
    } else if let Some(index) = store.small("index.json")? {
        oci_image(store, &index, options)?
    } else {
        return Err(ScanError::Unknown("it has neither manifest.json nor index.json"));
    };
    let config: Config = json(&image.config, "configuration")?;
    let diff_ids = config.rootfs.diff_ids;
    if diff_ids.len() != image.layers.len() {
        return Err(ScanError::Image(format!(
            "its configuration has {} layers, its manifest {}",
            diff_ids.len(),
            image.layers.len()
        )));
    }
    if diff_ids.len() > MAX_LAYERS {
        return Err(ScanError::Limit { what: "layers", limit: MAX_LAYERS as u64 });
    }
    let wanted: Vec<Wanted> = image
        .layers
        .into_iter()
        .zip(diff_ids)
        .map(|(name, diff_id)| Wanted { name, diff_id })
        .collect();
    let found = store.layers(&wanted, options)?;
    let history = config.history.unwrap_or_default();
    let mut steps = history.iter().filter(|step| !step.empty_layer);
    let layers: Vec<(Layer, &LayerInventory)> = wanted
        .iter()
        .zip(&found)
        .map(|(wanted, found)| {
            let step = steps.next();
            let layer = Layer {
                diff_id: wanted.diff_id.clone(),
                created_by: step.and_then(|step| step.created_by.clone()),
                created: step.and_then(|step| step.created.clone()),
                size: found.size,
            };
            (layer, found)
        })
        .collect();
    let platform =
        Platform { os: config.os, architecture: config.architecture, variant: config.variant };
    let facts = ImageFacts {
        id: Some(image.config_digest),
        manifest: image.manifest,
        names: image.names,
        platform: Some(platform.name()).filter(|name| name.len() > 1),
        labels: config.config.and_then(|config| config.labels).unwrap_or_default(),
        history: history.iter().map(|step| step.created_by.clone().unwrap_or_default()).collect(),
    };
    let inventory = merge(&layers, facts);
    if inventory.packages.len() > options.limits.packages {
        return Err(ScanError::Limit { what: "packages", limit: options.limits.packages as u64 });
    }
    Ok(inventory)
}

fn docker_image(store: &dyn Store, manifest: &[u8], options: &Options) -> Result<Image, ScanError> {
    let images: Vec<DockerImage> = json(manifest, "manifest.json")?;
    if images.len() > MAX_IMAGES {
        return Err(ScanError::Limit { what: "images", limit: MAX_IMAGES as u64 });
    }
    let names = |image: &DockerImage| image.repo_tags.clone().unwrap_or_default();
    let chosen = choose(images, options, |image| {
        let mut all = names(image);
        all.push(image.config.trim_start_matches("blobs/sha256/").to_owned());
        all
    })?;
    let config = store.small(&chosen.config)?.ok_or_else(|| missing(&chosen.config))?;
    let config_digest = Digest::from_sha256(sha256(&config));
    // The file is named by its digest: `HEX.json` or `blobs/sha256/HEX`.
    let base = chosen.config.rsplit('/').next().unwrap_or_default();
    let named = base.strip_suffix(".json").unwrap_or(base);
    if let Ok(expected) = Digest::parse(&format!("sha256:{named}"))
        && expected != config_digest
    {
        return Err(ScanError::WrongDigest {
            what: "the image's configuration",
            expected,
            actual: config_digest,
        });
    }
    let names = names(&chosen);
    let layers = chosen.layers.unwrap_or_default();
    Ok(Image { config, config_digest, manifest: None, names, layers })
}

/// The one image, or the one that was asked for.
fn choose<T>(
    mut images: Vec<T>,
    options: &Options,
    names: impl Fn(&T) -> Vec<String>,
) -> Result<T, ScanError> {
    if let Some(wanted) = &options.image {
        let id = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        images.retain(|image| {
            names(image).iter().any(|name| {
                name == wanted
                    || name.strip_suffix(":latest") == Some(wanted.as_str())
                    || (id.len() >= 4 && name.starts_with(id))
            })
        });
    }
    if images.len() > 1 {
        let all: BTreeSet<String> =
            images.iter().filter_map(|image| names(image).into_iter().next()).collect();
        let names: Vec<String> = all.into_iter().take(10).collect();
        return Err(ScanError::Choice { names: names.join(", ") });
    }
    images.pop().ok_or_else(|| match &options.image {
        Some(wanted) => ScanError::Image(format!("it has no image {wanted:?}")),
        None => ScanError::Image("it has no image".to_owned()),
    })
}

fn oci_image(store: &dyn Store, index: &[u8], options: &Options) -> Result<Image, ScanError> {
    let index: Document = json(index, "index.json")?;
    if index.manifests.len() > MAX_IMAGES {
        return Err(ScanError::Limit { what: "images", limit: MAX_IMAGES as u64 });
    }
    let names = |descriptor: &Descriptor| -> Vec<String> {
        let annotations = descriptor.annotations.iter().flatten();
        annotations
            .filter(|(key, _)| {
                matches!(
                    key.as_str(),
                    "io.containerd.image.name" | "org.opencontainers.image.ref.name"
                )
            })
            .map(|(_, name)| name.clone())
            .collect()
    };
    // Several platforms of one image may lie beside each other.
    let mut candidates = index.manifests;
    candidates.retain(is_image);
    let platform = wanted_platform(options);
    if candidates.len() > 1 && candidates.iter().any(|d| fits(d, &platform)) {
        candidates.retain(|descriptor| {
            descriptor.platform.as_ref().is_none_or(|known| known.fits(&platform))
        });
    }
    let mut chosen = choose(candidates, options, |descriptor| {
        let mut all = names(descriptor);
        all.push(descriptor.digest.hex().to_owned());
        all
    })?;
    let image_names = names(&chosen);
    for _ in 0..MAX_DEPTH {
        let bytes = blob(store, &chosen.digest, "a manifest")?;
        let document: Document = json(&bytes, "manifest")?;
        let Some(config) = document.config else {
            let all = document.manifests.into_iter().filter(is_image);
            let found: Vec<Descriptor> = all.collect();
            let only = found.len() == 1;
            chosen = found
                .into_iter()
                .find(|descriptor| only || fits(descriptor, &platform))
                .ok_or_else(|| ScanError::Image(format!("it has nothing for {platform}")))?;
            continue;
        };
        if document.media_type.contains("artifact") || config.media_type.contains("empty") {
            return Err(ScanError::Unknown("it is an artifact and no image"));
        }
        return Ok(Image {
            config: blob(store, &config.digest, "the image's configuration")?,
            config_digest: config.digest,
            manifest: Some(chosen.digest),
            names: image_names,
            layers: document.layers.iter().map(|layer| blob_name(&layer.digest)).collect(),
        });
    }
    Err(ScanError::Image("its indexes lie too deep in each other".to_owned()))
}

/// Attestations lie beside images as manifests for no platform.
fn is_image(descriptor: &Descriptor) -> bool {
    descriptor.platform.as_ref().is_none_or(|platform| platform.os != "unknown")
        && !descriptor.media_type.contains("artifact")
}

fn fits(descriptor: &Descriptor, platform: &str) -> bool {
    descriptor.platform.as_ref().is_some_and(|known| known.fits(platform))
}

fn wanted_platform(options: &Options) -> String {
    options.platform.clone().unwrap_or_else(|| {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        format!("linux/{architecture}")
    })
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn blob(store: &dyn Store, digest: &Digest, what: &'static str) -> Result<Vec<u8>, ScanError> {
    let name = blob_name(digest);
    let bytes = store.small(&name)?.ok_or_else(|| missing(&name))?;
    let actual = Digest::from_sha256(sha256(&bytes));
    if actual != *digest {
        return Err(ScanError::WrongDigest { what, expected: digest.clone(), actual });
    }
    Ok(bytes)
}
