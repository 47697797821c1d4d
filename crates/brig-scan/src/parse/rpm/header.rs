//! A package's header as rpm's database keeps it: an index of tags and their data.

use crate::package::{Ecosystem, EvidenceKind, Package, Source};
use crate::purl::source_rpm;

use super::super::{MAX_FIELD, ParseError, Parsed, licenses, may_hold_package, path_key};
use super::{some, u32_at};

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const VENDOR: u32 = 1011;
const LICENSE: u32 = 1014;
const ARCH: u32 = 1022;
const SOURCE_RPM: u32 = 1044;
const DIR_INDEXES: u32 = 1116;
const BASE_NAMES: u32 = 1117;
const DIR_NAMES: u32 = 1118;
const MODULE: u32 = 5096;

/// Most index entries of a header.
const MAX_ENTRIES: usize = 4096;
/// Most files of a package.
const MAX_FILES: usize = 2_000_000;
const ENTRY: usize = 16;

struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

impl<'a> Header<'a> {
    fn parse(blob: &'a [u8]) -> Option<Self> {
        let entries = usize::try_from(u32_at(blob, 0, true)?).ok()?;
        let data = usize::try_from(u32_at(blob, 4, true)?).ok()?;
        if entries == 0 || entries > MAX_ENTRIES {
            return None;
        }
        let start = 8_usize.checked_add(entries.checked_mul(ENTRY)?)?;
        Some(Self { index: blob.get(8..start)?, data: blob.get(start..start.checked_add(data)?)? })
    }

    /// Where a tag's values begin, and how many there are.
    fn tag(&self, wanted: u32) -> Option<(&'a [u8], usize)> {
        self.index.chunks_exact(ENTRY).find_map(|entry| {
            if u32_at(entry, 0, true)? != wanted {
                return None;
            }
            let offset = usize::try_from(u32_at(entry, 8, true)?).ok()?;
            let count = usize::try_from(u32_at(entry, 12, true)?).ok()?;
            Some((self.data.get(offset..)?, count))
        })
    }

    fn text(&self, tag: u32) -> Option<&'a str> {
        let (data, _) = self.tag(tag)?;
        std::str::from_utf8(until_nul(data)?).ok()
    }

    fn number(&self, tag: u32) -> Option<u32> {
        u32_at(self.tag(tag)?.0, 0, true)
    }

    fn texts(&self, tag: u32) -> Vec<&'a [u8]> {
        let Some((mut data, count)) = self.tag(tag) else { return Vec::new() };
        let mut texts = Vec::new();
        while texts.len() < count.min(MAX_FILES) {
            let Some(text) = until_nul(data) else { break };
            data = data.get(text.len() + 1..).unwrap_or_default();
            texts.push(text);
        }
        texts
    }
}

fn until_nul(data: &[u8]) -> Option<&[u8]> {
    data.get(..memchr::memchr(0, data)?)
}

/// Adds the package of a header blob. One that cannot be read is noted; the others still count.
pub(super) fn add(blob: &[u8], path: &str, parsed: &mut Parsed) -> Result<(), ParseError> {
    let Some(header) = Header::parse(blob) else {
        parsed.problem("a package's header is damaged");
        return Ok(());
    };
    let (Some(name), Some(version)) = (header.text(NAME), header.text(VERSION)) else {
        parsed.problem("a package's header has no name or no version");
        return Ok(());
    };
    // Keys that were imported are kept as if they were packages.
    if name == "gpg-pubkey" {
        return Ok(());
    }
    let epoch = header.number(EPOCH).unwrap_or(0);
    let mut full = String::new();
    if epoch != 0 {
        full.push_str(&format!("{epoch}:"));
    }
    full.push_str(version);
    if let Some(release) = header.text(RELEASE).filter(|release| !release.is_empty()) {
        full.push('-');
        full.push_str(release);
    }
    let mut found = Package::new(Ecosystem::Rpm, name, full, path, EvidenceKind::Database);
    found.arch = header.text(ARCH).and_then(some);
    found.vendor = header.text(VENDOR).and_then(some);
    found.module = header.text(MODULE).and_then(some);
    found.licenses = licenses(header.text(LICENSE));
    found.source = header.text(SOURCE_RPM).and_then(|file| source(file, epoch));
    if name.len() <= MAX_FIELD {
        own_files(&header, name, parsed);
    }
    parsed.push(found)
}

/// The source package of `name-version-release.src.rpm`; its epoch is the binary's.
pub(super) fn source(file: &str, epoch: u32) -> Option<Source> {
    let (name, version) = source_rpm(file)?;
    if name.len() > MAX_FIELD || version.len() > MAX_FIELD {
        return None;
    }
    let version = if epoch == 0 { version.to_owned() } else { format!("{epoch}:{version}") };
    Some(Source { name: name.to_owned(), version })
}

fn own_files(header: &Header<'_>, name: &str, parsed: &mut Parsed) {
    let folders = header.texts(DIR_NAMES);
    let Some((indexes, _)) = header.tag(DIR_INDEXES) else { return };
    let mut file = String::new();
    let mut keys = Vec::new();
    for (at, base) in header.texts(BASE_NAMES).into_iter().enumerate() {
        let folder = u32_at(indexes, at * 4, true)
            .and_then(|index| folders.get(usize::try_from(index).ok()?));
        let (Some(folder), Ok(base)) = (folder, std::str::from_utf8(base)) else { continue };
        let Ok(folder) = std::str::from_utf8(folder) else { continue };
        file.clear();
        file.push_str(folder.trim_start_matches('/'));
        file.push_str(base);
        if may_hold_package(&file) {
            keys.push(path_key(&file));
        }
    }
    if !keys.is_empty() {
        parsed.owned.entry(name.to_owned()).or_default().extend(keys);
    }
}
