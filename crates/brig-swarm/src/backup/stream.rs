//! What is inside the encryption: frames of a tag, a length and so many bytes.
//!
//! | tag | content |
//! | --- | --- |
//! | 0 | the preface, JSON; the first frame |
//! | 1 to 8 | an object: node, service, task, secret, config, network, cluster, access, as protobuf |
//! | 255 | the manifest, the last frame: tag and number (8 bytes) of each kind that is in it, in this order, and the SHA-256 of everything before it |
//!
//! A kind's tag is its place in [`Kind::ALL`] and never changes: new kinds come at the end.
//!
//! Lengths are four bytes, big endian. Later versions may add tags; an unknown one is an error.

use std::io::{self, Read, Write};

use brig_pki::hash::Sha256;
use brig_store::{Kind, Object};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::BackupError;

const PREFACE: u8 = 0;
const MANIFEST: u8 = u8::MAX;
/// Largest object or preface, in bytes.
const MAX_FRAME: u32 = 16 << 20;
/// Most objects that are read.
const MAX_OBJECTS: u64 = 4_000_000;
const KINDS: usize = Kind::ALL.len();

/// What the stream is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Preface {
    /// SHA-256 of the header in the clear, hexadecimal.
    pub(super) header: String,
    /// The cluster's id.
    pub(super) cluster: String,
    /// The manager that wrote it.
    pub(super) node: String,
    /// Revision of the store.
    pub(super) revision: u64,
}

/// The tag of a kind: its place among all.
fn tag(kind: Kind) -> u8 {
    let place = Kind::ALL.iter().position(|other| *other == kind).unwrap_or(KINDS);
    u8::try_from(place + 1).unwrap_or(MANIFEST)
}

/// Writes a stream.
pub(super) struct StreamWriter<W> {
    out: W,
    digest: Sha256,
    counts: [u64; KINDS],
}

impl<W: Write> StreamWriter<W> {
    pub(super) fn begin(out: W, preface: &Preface) -> io::Result<Self> {
        let mut writer = Self { out, digest: Sha256::new(), counts: [0; KINDS] };
        writer.frame(PREFACE, &serde_json::to_vec(preface)?)?;
        Ok(writer)
    }

    pub(super) fn object(&mut self, object: &Object) -> io::Result<()> {
        let tag = tag(object.kind());
        if let Some(count) = self.counts.get_mut(usize::from(tag).saturating_sub(1)) {
            *count += 1;
        }
        self.frame(tag, &Zeroizing::new(object.encode()))
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        let manifest = manifest(self.counts, self.digest.clone());
        self.frame(MANIFEST, &manifest)?;
        Ok(self.out)
    }

    fn frame(&mut self, tag: u8, content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(content.len())
            .ok()
            .filter(|length| *length <= MAX_FRAME)
            .ok_or_else(|| io::Error::other("an object is too large for a backup"))?;
        for part in [&[tag][..], &length.to_be_bytes(), content] {
            self.digest.update(part);
            self.out.write_all(part)?;
        }
        Ok(())
    }
}

/// Reads a stream.
pub(super) struct StreamReader<R> {
    input: R,
    digest: Sha256,
    counts: [u64; KINDS],
    preface: Preface,
}

impl<R: Read> StreamReader<R> {
    pub(super) fn begin(input: R) -> Result<Self, BackupError> {
        let preface = Preface {
            header: String::new(),
            cluster: String::new(),
            node: String::new(),
            revision: 0,
        };
        let mut reader = Self { input, digest: Sha256::new(), counts: [0; KINDS], preface };
        let (tag, content, _) = reader.frame()?;
        if tag != PREFACE {
            return Err(damaged("it does not begin with its preface"));
        }
        reader.preface =
            serde_json::from_slice(&content).map_err(|_| damaged("its preface is none"))?;
        Ok(reader)
    }

    pub(super) const fn preface(&self) -> &Preface {
        &self.preface
    }

    /// The next object; `None` when the manifest said that these were all.
    pub(super) fn next(&mut self) -> Result<Option<Object>, BackupError> {
        let (tag, content, before) = self.frame()?;
        if tag == MANIFEST {
            self.check_manifest(&content, before)?;
            return Ok(None);
        }
        let place = usize::from(tag).checked_sub(1);
        let (kind, count) = place
            .and_then(|place| Some((*Kind::ALL.get(place)?, self.counts.get_mut(place)?)))
            .ok_or_else(|| damaged("it has a part of an unknown kind"))?;
        *count += 1;
        if self.counts.iter().sum::<u64>() > MAX_OBJECTS {
            return Err(damaged("it has too many objects"));
        }
        Object::decode(kind, &content)
            .map(Some)
            .map_err(|_| BackupError::Damaged(format!("a {kind} in it cannot be read")))
    }

    fn check_manifest(&mut self, content: &[u8], before: Sha256) -> Result<(), BackupError> {
        if content != manifest(self.counts, before) {
            return Err(damaged("its manifest says something else than what is in it"));
        }
        let mut rest = [0; 1];
        match self.input.read(&mut rest) {
            Ok(0) => Ok(()),
            Ok(_) => Err(damaged("something follows its end")),
            Err(error) => Err(BackupError::Broken(error)),
        }
    }

    /// A frame, and the hash of everything before it.
    fn frame(&mut self) -> Result<(u8, Zeroizing<Vec<u8>>, Sha256), BackupError> {
        let before = self.digest.clone();
        let mut head = [0; 5];
        self.input.read_exact(&mut head).map_err(BackupError::Broken)?;
        let [tag, length @ ..] = head;
        let length = u32::from_be_bytes(length);
        if length > MAX_FRAME {
            return Err(damaged("a part of it is too long"));
        }
        // Grows with what is there, not with what the length promises.
        let mut content = Zeroizing::new(Vec::new());
        let mut part = self.input.by_ref().take(u64::from(length));
        let read = part.read_to_end(&mut content).map_err(BackupError::Broken)?;
        if read as u64 != u64::from(length) {
            return Err(BackupError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        self.digest.update(&head);
        self.digest.update(&content);
        Ok((tag, content, before))
    }
}

/// What the last frame says. Kinds that are not there are left out, so that versions that know more
/// kinds read it too.
fn manifest(counts: [u64; KINDS], before: Sha256) -> Vec<u8> {
    let mut manifest = Vec::with_capacity(9 * KINDS + 32);
    for (kind, count) in Kind::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
        manifest.push(tag(kind));
        manifest.extend_from_slice(&count.to_be_bytes());
    }
    manifest.extend_from_slice(&before.finish());
    manifest
}

fn damaged(what: &str) -> BackupError {
    BackupError::Damaged(what.to_owned())
}
