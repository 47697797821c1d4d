//! Ready filters.
//!
//! Compiling a profile costs more than the rest of creating a container. crun leaves the compiled
//! filter beside the container's state and takes one ready-made through an annotation, so the
//! first container with a profile pays and the others don't. A filter is only reused for exactly
//! the same rules, compiled by exactly the same crun and libseccomp. The annotation is experimental
//! in crun; the caller checks after every create that crun took it.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use brig_files::Durability;
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};

/// First bytes of a cache file; the number is the format's version.
const MAGIC: &[u8] = b"brig seccomp 1\n";
/// The kernel's `BPF_MAXINSNS`, 8 bytes each.
const MAX_FILTER: usize = 4096 * 8;
/// A cache file larger than this is not one of ours: the filter and the largest profile.
const MAX_FILE: u64 = 2 << 20;
/// Filters kept in memory.
const MAX_KEPT: usize = 128;

/// What a filter depends on: the rules, and the programs that compile them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FilterKey(String);

/// Compiled filters, in memory and on disk.
#[derive(Debug)]
pub(crate) struct FilterCache {
    dir: PathBuf,
    compiler: String,
    kept: Mutex<HashMap<FilterKey, Arc<[u8]>>>,
    off: AtomicBool,
}

impl FilterCache {
    /// A cache in `dir`, which exists and is private. `compiler` names the programs that compile,
    /// down to their build.
    pub(crate) fn new(dir: PathBuf, compiler: String) -> Self {
        Self { dir, compiler, kept: Mutex::default(), off: AtomicBool::new(false) }
    }

    /// The key for these rules; `None` when a ready filter cannot stand for them.
    pub(crate) fn key(&self, rules: &LinuxSeccomp) -> Option<FilterKey> {
        let special = rules.flags().as_ref().is_some_and(|flags| !flags.is_empty())
            || rules.listener_path().is_some()
            || rules.default_action() == LinuxSeccompAction::ScmpActNotify
            || rules.syscalls().as_ref().is_some_and(|list| {
                list.iter().any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify)
            });
        if special || self.off.load(Ordering::Relaxed) {
            return None;
        }
        let rules = serde_json::to_string(rules).ok()?;
        Some(FilterKey(format!("{}\n{rules}", self.compiler)))
    }

    /// The filter for a key. Reads a file the first time.
    pub(crate) fn get(&self, key: &FilterKey) -> Option<Arc<[u8]>> {
        if let Some(filter) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(key) {
            return Some(Arc::clone(filter));
        }
        match self.read(key) {
            Ok(filter) => Some(self.keep(key, filter.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, dir = %self.dir.display(), "a cached filter is not usable");
                None
            }
        }
    }

    /// Keeps a filter that was compiled for a key. Does nothing with one that cannot be right.
    ///
    /// # Errors
    /// When the file cannot be written; the filter is in use all the same.
    pub(crate) fn put(&self, key: &FilterKey, filter: &[u8]) -> io::Result<()> {
        if !plausible(filter) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a filter program"));
        }
        self.keep(key, filter.into());
        self.write(key, filter)
    }

    /// Forgets all filters and makes no more keys: they turned out not to work.
    pub(crate) fn turn_off(&self) {
        self.off.store(true, Ordering::Relaxed);
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn keep(&self, key: &FilterKey, filter: Arc<[u8]>) -> Arc<[u8]> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(key.clone(), Arc::clone(&filter));
        filter
    }

    fn path(&self, key: &FilterKey) -> PathBuf {
        self.dir.join(format!("{:032x}.bpf", checksum(key.0.as_bytes())))
    }

    fn read(&self, key: &FilterKey) -> io::Result<Vec<u8>> {
        let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(self.path(key))?;
        let meta = file.metadata()?;
        // SECURITY: whoever can write here decides what containers may do.
        if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
            return Err(bad("others than the daemon may write the filter's file"));
        }
        let mut content = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut content)?;
        decode(&content, key).map(<[u8]>::to_vec).ok_or_else(|| bad("the filter's file is damaged"))
    }

    fn write(&self, key: &FilterKey, filter: &[u8]) -> io::Result<()> {
        brig_files::replace(&self.path(key), &encode(key, filter), 0o600, Durability::Synced)
    }
}

/// Magic, the key and its length, the filter and its length, checksum of all that.
fn encode(key: &FilterKey, filter: &[u8]) -> Vec<u8> {
    let mut content = MAGIC.to_vec();
    for part in [key.0.as_bytes(), filter] {
        content.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        content.extend_from_slice(part);
    }
    let sum = checksum(&content);
    content.extend_from_slice(&sum.to_le_bytes());
    content
}

fn decode<'a>(content: &'a [u8], key: &FilterKey) -> Option<&'a [u8]> {
    let (body, sum) = content.split_last_chunk::<16>()?;
    if checksum(body).to_le_bytes() != *sum {
        return None;
    }
    let rest = body.strip_prefix(MAGIC)?;
    let (written_for, rest) = part(rest)?;
    let (filter, rest) = part(rest)?;
    // The file's name is only a hash of the key.
    (written_for == key.0.as_bytes() && rest.is_empty() && plausible(filter)).then_some(filter)
}

fn part(content: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = content.split_first_chunk::<8>()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

/// Whether it looks like what libseccomp compiles: whole instructions, first loading the
/// architecture, last returning.
fn plausible(filter: &[u8]) -> bool {
    // linux/bpf_common.h, linux/seccomp.h: `ld [offsetof(struct seccomp_data, arch)]`.
    const LOAD_ABSOLUTE: u16 = 0x20;
    const ARCH_OFFSET: u32 = 4;
    const RETURN: u16 = 0x06;
    let instruction = |bytes: &[u8]| -> Option<(u16, u32)> {
        let code = u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?);
        let operand = u32::from_ne_bytes(bytes.get(4..8)?.try_into().ok()?);
        Some((code, operand))
    };
    filter.len().is_multiple_of(8)
        && filter.len() <= MAX_FILTER
        && instruction(filter) == Some((LOAD_ABSOLUTE, ARCH_OFFSET))
        && filter
            .last_chunk::<8>()
            .and_then(|bytes| instruction(bytes))
            .is_some_and(|(code, _)| code == RETURN)
}

/// FNV-1a, 128 bits: against torn and mixed-up files, not against people (the folder is private).
fn checksum(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |sum, byte| (sum ^ u128::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use oci_spec::runtime::LinuxSeccompBuilder;

    fn filter() -> Vec<u8> {
        let mut bytes = vec![0x20, 0, 0, 0, 4, 0, 0, 0];
        bytes.extend_from_slice(&[0x06, 0, 0, 0, 0, 0, 0xff, 0x7f]);
        bytes
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn kept_on_disk_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let open = |compiler: &str| FilterCache::new(dir.path().to_owned(), compiler.to_owned());
        let rules = LinuxSeccompBuilder::default().build().unwrap();
        let cache = open("a");
        let key = cache.key(&rules).unwrap();
        assert_eq!(cache.get(&key), None);
        assert!(cache.put(&key, b"not a filter").is_err());
        cache.put(&key, &filter()).unwrap();
        assert_eq!(cache.get(&key).as_deref(), Some(&filter()[..]));
        // Another process finds it; another compiler does not.
        assert_eq!(open("a").get(&key).as_deref(), Some(&filter()[..]));
        let other = open("b");
        assert_eq!(other.get(&other.key(&rules).unwrap()), None);

        let path = cache.path(&key);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let whole = fs::read(&path).unwrap();
        for damage in 0..whole.len() {
            let mut content = whole.clone();
            content[damage] ^= 1;
            assert_eq!(decode(&content, &key), None, "byte {damage}");
            assert_eq!(decode(&whole[..damage], &key), None, "cut at {damage}");
        }
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        assert_eq!(open("a").get(&key), None);

        cache.turn_off();
        assert_eq!(cache.key(&rules), None);
    }

    #[test]
    fn filters_that_need_more_are_compiled_every_time() {
        let cache = FilterCache::new(PathBuf::from("/nonexistent"), String::new());
        let mut rules = LinuxSeccompBuilder::default().build().unwrap();
        rules.set_default_action(LinuxSeccompAction::ScmpActNotify);
        assert_eq!(cache.key(&rules), None);
    }
}
