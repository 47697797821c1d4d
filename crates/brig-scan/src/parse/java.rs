//! Java archives and the archives inside them.
//!
//! `pom.properties` is what Maven wrote while building, so it names packages exactly; shaded
//! archives hold several. Without one the manifest and the file's name have to do.

use std::io::{self, Read};

use rawzip::{CompressionMethod, ZipArchive, ZipLocator};

use crate::package::{Ecosystem, EvidenceKind, Package};

use super::{ParseError, Parsed, ReadAt, read_part};

/// How deep archives may lie in archives.
const MAX_DEPTH: usize = 6;
/// Most entries of all archives in one file.
const MAX_ENTRIES: u64 = 1_000_000;
/// Largest properties file or manifest, in bytes.
const MAX_TEXT: u64 = 1 << 20;
/// Largest archive inside an archive, in bytes.
const MAX_NESTED: u64 = 128 << 20;
/// Most bytes that all archives in one file may expand to while they are looked through.
const MAX_EXPANDED: u64 = 512 << 20;

/// Endings of Java archives.
pub const ENDINGS: &[&str] = &[".jar", ".war", ".ear", ".par", ".jpi", ".hpi", ".nar"];

/// Whether a path is that of a Java archive.
#[must_use]
pub fn is_archive(path: &str) -> bool {
    path.len() > 4
        && ENDINGS.iter().any(|ending| {
            path.len()
                .checked_sub(ending.len())
                .and_then(|at| path.get(at..))
                .is_some_and(|end| end.eq_ignore_ascii_case(ending))
        })
}

/// Reads a Java archive and those inside.
///
/// # Errors
/// [`ParseError`] when the outermost is no archive, or a bound was passed.
pub fn archive(file: &dyn ReadAt, path: &str) -> Result<Parsed, ParseError> {
    let mut parsed = Parsed::default();
    let mut budget = Budget::full();
    walk(file, path, 0, &mut budget, &mut parsed)?;
    Ok(parsed)
}

struct Budget {
    entries: u64,
    bytes: u64,
}

impl Budget {
    const fn full() -> Self {
        Self { entries: MAX_ENTRIES, bytes: MAX_EXPANDED }
    }

    fn take_entry(&mut self) -> Result<(), ParseError> {
        let left = self.entries.checked_sub(1);
        self.entries =
            left.ok_or(ParseError::Limit { what: "entries in an archive", limit: MAX_ENTRIES })?;
        Ok(())
    }
}

fn broken(error: rawzip::Error) -> ParseError {
    ParseError::malformed(format!("it is no sound archive: {error}"))
}

fn open<'a>(file: &'a dyn ReadAt, buffer: &mut [u8]) -> Result<ZipArchive<Part<'a>>, ParseError> {
    let size = file.size();
    ZipLocator::new()
        .locate_in_reader(Part { file, offset: 0, size }, buffer, size)
        .map_err(|(_, error)| broken(error))
}

/// The content of one member of a zip archive.
///
/// # Errors
/// [`ParseError`] when it is no archive, or the member is too large.
pub fn member(file: &dyn ReadAt, wanted: &str) -> Result<Option<Vec<u8>>, ParseError> {
    let mut budget = Budget::full();
    let mut buffer = vec![0_u8; rawzip::RECOMMENDED_BUFFER_SIZE];
    let archive = open(file, &mut buffer)?;
    let mut found = None;
    let mut entries = archive.entries(&mut buffer);
    while let Some(entry) = entries.next_entry().map_err(broken)? {
        budget.take_entry()?;
        if entry.file_path().as_bytes() == wanted.as_bytes() {
            found = Some((entry.wayfinder(), entry.compression_method()));
        }
    }
    match found {
        Some((wayfinder, method)) => {
            let entry = archive.get_entry(wayfinder).map_err(broken)?;
            inflate(entry.reader(), method, MAX_TEXT, &mut budget)
        }
        None => Ok(None),
    }
}

/// A part of what can be read anywhere.
struct Part<'a> {
    file: &'a dyn ReadAt,
    offset: u64,
    size: u64,
}

impl ReadAt for Part<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_part(self.offset, self.size, buf, offset, |buf, at| self.file.read_at(buf, at))
    }
}

impl rawzip::ReaderAt for Part<'_> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        ReadAt::read_at(self, buf, offset)
    }
}

#[derive(Debug, Default)]
struct Names {
    properties: Vec<Artifact>,
    manifest: Option<Manifest>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Artifact {
    group: String,
    name: String,
    version: String,
}

fn walk(
    file: &dyn ReadAt,
    path: &str,
    depth: usize,
    budget: &mut Budget,
    parsed: &mut Parsed,
) -> Result<(), ParseError> {
    let mut buffer = vec![0_u8; rawzip::RECOMMENDED_BUFFER_SIZE];
    let archive = open(file, &mut buffer)?;
    let mut names = Names::default();
    let mut nested = Vec::new();
    let mut texts = Vec::new();
    let mut entries = archive.entries(&mut buffer);
    while let Some(entry) = entries.next_entry().map_err(broken)? {
        budget.take_entry()?;
        let raw = entry.file_path();
        let Ok(name) = std::str::from_utf8(raw.as_bytes()) else { continue };
        let properties = name.starts_with("META-INF/maven/") && name.ends_with("/pom.properties");
        if properties || name == "META-INF/MANIFEST.MF" {
            texts.push((properties, entry.wayfinder(), entry.compression_method()));
        } else if is_archive(name) && !entry.is_dir() {
            nested.push((name.to_owned(), entry.wayfinder(), entry.compression_method()));
        }
    }
    for (properties, wayfinder, method) in texts {
        let entry = archive.get_entry(wayfinder).map_err(broken)?;
        let Some(text) = inflate(entry.reader(), method, MAX_TEXT, budget)? else {
            parsed.problem("a file inside cannot be decompressed");
            continue;
        };
        let text = super::lossy(&text);
        if properties {
            names.properties.extend(pom_properties(&text));
        } else {
            names.manifest = Some(manifest(&text));
        }
    }
    for artifact in identify(&names, path) {
        let name = if artifact.group.is_empty() {
            artifact.name
        } else {
            format!("{}:{}", artifact.group, artifact.name)
        };
        parsed.push(Package::new(
            Ecosystem::Maven,
            name,
            artifact.version,
            path,
            EvidenceKind::Binary,
        ))?;
    }
    for (name, wayfinder, method) in nested {
        let inner = format!("{path}!/{name}");
        if depth + 1 >= MAX_DEPTH {
            parsed.problem(format!("{} lies too deep", bounded(&inner)));
            continue;
        }
        let entry = archive.get_entry(wayfinder).map_err(broken)?;
        let result = if method == CompressionMethod::STORE {
            // No need of a copy.
            let (start, end) = entry.compressed_data_range();
            let part = Part { file, offset: start, size: end.saturating_sub(start) };
            walk(&part, &inner, depth + 1, budget, parsed)
        } else {
            match inflate(entry.reader(), method, MAX_NESTED, budget)? {
                Some(bytes) => walk(&bytes, &inner, depth + 1, budget, parsed),
                None => Err(ParseError::malformed("it cannot be decompressed")),
            }
        };
        match result {
            Err(error @ ParseError::Limit { .. }) => return Err(error),
            Err(error) => parsed.problem(format!("{}: {}", bounded(&inner), error.line())),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// The entry's content; `None` when it is damaged or of a method that Java does not know.
fn inflate(
    reader: impl Read,
    method: CompressionMethod,
    limit: u64,
    budget: &mut Budget,
) -> Result<Option<Vec<u8>>, ParseError> {
    let most = limit.min(budget.bytes);
    let mut bytes = Vec::new();
    let read = if method == CompressionMethod::STORE {
        reader.take(most + 1).read_to_end(&mut bytes)
    } else if method == CompressionMethod::DEFLATE {
        flate2::read::DeflateDecoder::new(reader).take(most + 1).read_to_end(&mut bytes)
    } else {
        return Ok(None);
    };
    if bytes.len() as u64 > most {
        return Err(ParseError::Limit { what: "bytes inside an archive", limit: most });
    }
    budget.bytes -= bytes.len() as u64;
    Ok(read.ok().map(|_| bytes))
}

fn bounded(path: &str) -> String {
    path.chars().take(300).collect()
}

fn pom_properties(text: &str) -> Option<Artifact> {
    let mut artifact =
        Artifact { group: String::new(), name: String::new(), version: String::new() };
    for line in text.lines() {
        let Some((key, value)) = line.split_once(['=', ':']) else { continue };
        let value = value.trim().to_owned();
        match key.trim() {
            "groupId" => artifact.group = value,
            "artifactId" => artifact.name = value,
            "version" => artifact.version = value,
            _ => {}
        }
    }
    let whole =
        [&artifact.group, &artifact.name, &artifact.version].iter().all(|field| !field.is_empty());
    // A template that Maven did not fill in.
    (whole && !artifact.version.contains("${")).then_some(artifact)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Manifest {
    title: String,
    version: String,
    vendor: String,
    bundle: String,
    bundle_version: String,
}

/// The main section of a manifest; lines of 72 bytes are continued after a space (JAR File
/// Specification).
fn manifest(text: &str) -> Manifest {
    let mut found = Manifest::default();
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix(' '), lines.last_mut()) {
            (Some(rest), Some(last)) => last.push_str(rest),
            _ if line.is_empty() => break,
            _ => lines.push(line.to_owned()),
        }
    }
    for line in lines {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim().to_owned();
        match key {
            "Implementation-Title" => found.title = value,
            "Implementation-Version" => found.version = value,
            "Implementation-Vendor-Id" => found.vendor = value,
            "Bundle-SymbolicName" => {
                found.bundle = value.split(';').next().unwrap_or_default().trim().to_owned();
            }
            "Bundle-Version" => found.bundle_version = value,
            _ => {}
        }
    }
    found
}

/// Which packages an archive is.
fn identify(names: &Names, path: &str) -> Vec<Artifact> {
    if !names.properties.is_empty() {
        let mut all = names.properties.clone();
        all.dedup();
        return all;
    }
    let base = path.rsplit('/').next().unwrap_or(path);
    let stem = base.rsplit_once('.').map_or(base, |(stem, _)| stem);
    let (file_name, file_version) = name_and_version(stem);
    let none = Manifest::default();
    let manifest = names.manifest.as_ref().unwrap_or(&none);
    let plain = |text: &str| !text.is_empty() && !text.contains([' ', '$']);
    let version = [file_version, &manifest.version, &manifest.bundle_version]
        .into_iter()
        .find(|version| plain(version) && version.starts_with(|c: char| c.is_ascii_digit()));
    let Some(version) = version else { return Vec::new() };
    let name = if file_version.is_empty() && plain(&manifest.title) && !manifest.title.contains('.')
    {
        manifest.title.as_str()
    } else {
        file_name
    };
    let group = if plain(&manifest.vendor) && manifest.vendor.contains('.') {
        manifest.vendor.clone()
    } else {
        bundle_group(&manifest.bundle, name)
    };
    if name.is_empty() || (names.manifest.is_none() && group.is_empty() && file_version.is_empty())
    {
        return Vec::new();
    }
    vec![Artifact { group, name: name.to_owned(), version: version.to_owned() }]
}

/// `org.x.y` of the bundle `org.x.y.name` or `org.x.y`.
fn bundle_group(bundle: &str, name: &str) -> String {
    if !bundle.contains('.') || bundle.contains([' ', '$']) {
        return String::new();
    }
    match bundle.strip_suffix(name).and_then(|rest| rest.strip_suffix('.')) {
        Some(group) => group.to_owned(),
        None => bundle.to_owned(),
    }
}

/// `name-1.2.3`: the version begins at the first part that begins with a digit.
fn name_and_version(stem: &str) -> (&str, &str) {
    stem.match_indices('-')
        .find(|(at, _)| {
            stem.get(at + 1..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .and_then(|(at, _)| Some((stem.get(..at)?, stem.get(at + 1..)?)))
        .unwrap_or((stem, ""))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::super::names;
    use super::*;

    fn zip(files: &[(&str, &[u8])], deflate: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut archive = rawzip::ZipArchiveWriter::new(&mut out);
        for (name, bytes) in files {
            let method =
                if deflate { CompressionMethod::DEFLATE } else { CompressionMethod::STORE };
            let (mut entry, config) =
                archive.new_file(name).compression_method(method).start().unwrap();
            if deflate {
                let encoder =
                    flate2::write::DeflateEncoder::new(&mut entry, flate2::Compression::best());
                let mut writer = config.wrap(encoder);
                writer.write_all(bytes).unwrap();
                let (encoder, descriptor) = writer.finish().unwrap();
                encoder.finish().unwrap();
                entry.finish(descriptor).unwrap();
            } else {
                let mut writer = config.wrap(&mut entry);
                writer.write_all(bytes).unwrap();
                let (_, descriptor) = writer.finish().unwrap();
                entry.finish(descriptor).unwrap();
            }
        }
        archive.finish().unwrap();
        out
    }

    const POM: &[u8] =
        b"#Generated\nversion=2.14.1\ngroupId=org.apache.logging.log4j\nartifactId=log4j-core\n";
    const POM_PATH: &str = "META-INF/maven/org.apache.logging.log4j/log4j-core/pom.properties";

    fn read(bytes: Vec<u8>, path: &str) -> Result<Parsed, ParseError> {
        archive(&bytes, path)
    }

    #[test]
    fn archives_in_archives_are_found() {
        for deflate in [false, true] {
            let inner = zip(&[(POM_PATH, POM), ("a.class", b"x")], deflate);
            let outer = zip(&[("BOOT-INF/lib/log4j-core-2.14.1.jar", &inner)], deflate);
            let parsed = read(outer, "app/app.jar").unwrap();
            assert_eq!(names(&parsed), ["org.apache.logging.log4j:log4j-core 2.14.1"]);
            assert_eq!(
                parsed.packages[0].evidence.path,
                "app/app.jar!/BOOT-INF/lib/log4j-core-2.14.1.jar"
            );
        }
    }

    #[test]
    fn a_manifest_and_a_name_have_to_do() {
        let text = b"Manifest-Version: 1.0\r\nImplementation-Version: 3.12.0\r\nBundle-SymbolicName: org.apache.comm\r\n ons.lang3\r\nImplementation-Vendor-Id: org.apache\r\n\r\nName: x\r\n";
        let jar = zip(&[("META-INF/MANIFEST.MF", text)], true);
        let parsed = read(jar.clone(), "lib/commons-lang3-3.12.0.jar").unwrap();
        assert_eq!(names(&parsed), ["org.apache:commons-lang3 3.12.0"]);
        assert_eq!(manifest(std::str::from_utf8(text).unwrap()).bundle, "org.apache.commons.lang3");
        assert_eq!(names(&read(jar, "lib/lang.jar").unwrap()), ["org.apache:lang 3.12.0"]);
        let bare = zip(&[("a.class", b"x")], false);
        assert!(read(bare.clone(), "lib/app.jar").unwrap().packages.is_empty());
        assert_eq!(names(&read(bare, "lib/guava-31.1-jre.jar").unwrap()), ["guava 31.1-jre"]);
        assert_eq!(bundle_group("org.x.name", "name"), "org.x");
    }

    #[test]
    fn hostile_archives_end() {
        let mut deep = zip(&[(POM_PATH, POM)], true);
        for _ in 0..20 {
            deep = zip(&[("x.jar", &deep)], true);
        }
        let parsed = read(deep, "a.jar").unwrap();
        assert!(parsed.problems.iter().any(|problem| problem.contains("too deep")));
        let bomb = zip(&[("x.jar", &vec![0_u8; 130 << 20])], true);
        assert!(bomb.len() < 1 << 20);
        assert!(matches!(read(bomb, "a.jar"), Err(ParseError::Limit { .. })));
        assert!(read(b"PK".to_vec(), "a.jar").is_err());
    }

    #[test]
    fn endings() {
        assert!(is_archive("a/b.JAR") && is_archive("x.war"));
        assert!(!is_archive(".jar") && !is_archive("jar") && !is_archive("x.jar.txt"));
    }

    proptest! {
        #[test]
        fn damaged_archives_end(at in 0_usize..400, byte: u8) {
            let mut bytes = zip(&[(POM_PATH, POM), ("b.jar", b"PK")], true);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            let _ = read(bytes, "a.jar");
        }

        #[test]
        fn any_text_ends(text in ".{0,100}") {
            let _ = manifest(&text);
            let _ = pom_properties(&text);
            let _ = name_and_version(&text);
        }
    }
}
