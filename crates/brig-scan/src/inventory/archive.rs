//! Images in files: archives of `docker save`, OCI archives and OCI layouts.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use brig_pki::hash::Sha256;
use brig_types::digest::Digest;

use super::decompress::{self, Compression, PlaceReader};
use super::image::read_image;
use super::layer::{self, LayerInventory, Place};
use super::tar::{FileStream, Kind, ReadStream, Stream, Walker};
use super::{Limits, Options, ScanError, Verify, tree};
use crate::package::Inventory;
use crate::parse::exact;

/// Largest manifest, index or configuration, in bytes.
const MAX_JSON: u64 = 8 << 20;
/// Most bytes of such files that are kept of a compressed archive.
const MAX_KEPT: usize = 64 << 20;
/// How deep indexes may lie in indexes, and links in links.
pub(super) const MAX_DEPTH: usize = 8;
/// Most threads.
const MAX_THREADS: usize = 4;

/// Where the parts of an image come from.
pub(super) trait Store: Sync {
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
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) diff_id: Digest,
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
        if !super::tar::is_header(file).map_err(ScanError::Read)? {
            return Err(ScanError::Unknown("it is no archive"));
        }
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

pub(super) fn missing(name: &str) -> ScanError {
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
