//! Go programs: the build information that the linker leaves in them (Go, debug/buildinfo).

use crate::package::{Ecosystem, EvidenceKind, Package};

use super::binary::Program;
use super::{ParseError, Parsed, ReadAt, exact};

const MAGIC: &[u8] = b"\xff Go buildinf:";
const HEAD: usize = 32;
const ALIGN: u64 = 16;
/// Longest text of modules, in bytes.
const MAX_TEXT: u64 = 16 << 20;
/// How far into a data segment the mark is looked for: the linker puts it first.
const MAX_SEARCH: u64 = 1 << 20;

/// The two texts of a Go program: the compiler's version and the modules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildInfo {
    /// `go1.22.1`.
    pub version: String,
    /// Lines of `path`, `mod`, `dep`, `=>` and `build`.
    pub modules: String,
}

/// Reads the packages of a Go program; nothing when it is none.
///
/// # Errors
/// [`ParseError`] when its information is damaged.
pub fn program<R: ReadAt + ?Sized>(
    file: &R,
    program: &Program,
    path: &str,
) -> Result<Parsed, ParseError> {
    match build_info(file, program)? {
        Some(info) => packages(&info, path),
        None => Ok(Parsed::default()),
    }
}

fn build_info<R: ReadAt + ?Sized>(
    file: &R,
    program: &Program,
) -> Result<Option<BuildInfo>, ParseError> {
    let named = program.section(".go.buildinfo").or_else(|| program.section("__go_buildinfo"));
    let places: Vec<(u64, u64)> = match named {
        Some(section) => vec![(section.offset, section.size)],
        // Stripped of its sections, or Windows: the data segment begins with it.
        None if program.sections.is_empty() || program.section(".rdata").is_some() => program
            .segments
            .iter()
            .filter(|segment| segment.writable)
            .map(|segment| (segment.offset, segment.size.min(MAX_SEARCH)))
            .collect(),
        None => Vec::new(),
    };
    for (offset, size) in places {
        if let Some(at) = search(file, offset, size)? {
            return read(file, program, at).map(Some);
        }
    }
    Ok(None)
}

/// The mark lies at a multiple of sixteen bytes.
fn search<R: ReadAt + ?Sized>(file: &R, offset: u64, size: u64) -> Result<Option<u64>, ParseError> {
    let end = offset.saturating_add(size.min(MAX_SEARCH)).min(file.size());
    let length = usize::try_from(end.saturating_sub(offset)).unwrap_or(0);
    if length < MAGIC.len() {
        return Ok(None);
    }
    let bytes = exact(file, offset, length)?;
    Ok(memchr::memmem::find_iter(&bytes, MAGIC)
        .map(|at| offset + at as u64)
        .find(|at| (at - offset).is_multiple_of(ALIGN)))
}

fn read<R: ReadAt + ?Sized>(file: &R, program: &Program, at: u64) -> Result<BuildInfo, ParseError> {
    let head = exact(file, at, HEAD)?;
    let pointer = usize::from(head.get(14).copied().unwrap_or(0));
    let flags = head.get(15).copied().unwrap_or(0);
    let (version, modules) = if flags & 2 != 0 {
        let (version, next) = inline(file, at + HEAD as u64)?;
        let (modules, _) = inline(file, next)?;
        (version, modules)
    } else {
        if pointer != 4 && pointer != 8 {
            return Err(ParseError::malformed("its build information is damaged"));
        }
        let big = flags & 1 != 0;
        (
            pointed(file, program, &head, 16, pointer, big)?,
            pointed(file, program, &head, 16 + pointer, pointer, big)?,
        )
    };
    Ok(BuildInfo { version: super::lossy(&version), modules: framed(&modules) })
}

/// The text of modules lies between two marks of sixteen bytes.
fn framed(modules: &[u8]) -> String {
    match modules.len().checked_sub(32) {
        Some(inner) if modules.get(modules.len() - 17) == Some(&b'\n') => {
            super::lossy(modules.get(16..16 + inner).unwrap_or_default())
        }
        _ => String::new(),
    }
}

/// A length and as many bytes; the place after them.
fn inline<R: ReadAt + ?Sized>(file: &R, at: u64) -> Result<(Vec<u8>, u64), ParseError> {
    let damaged = || ParseError::malformed("its build information is damaged");
    let mut head = [0_u8; 10];
    let read = file.read_at(&mut head, at).map_err(ParseError::Read)?;
    let (mut length, mut used) = (0_u64, None);
    for (index, &byte) in head.get(..read).unwrap_or_default().iter().enumerate().take(9) {
        length |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            used = Some(index as u64 + 1);
            break;
        }
    }
    let used = used.ok_or_else(damaged)?;
    if length > MAX_TEXT {
        return Err(ParseError::Limit { what: "bytes of build information", limit: MAX_TEXT });
    }
    let start = at.checked_add(used).ok_or_else(damaged)?;
    let bytes = exact(file, start, usize::try_from(length).map_err(|_| damaged())?)?;
    Ok((bytes, start + length))
}

/// The string whose header a pointer of the head points to (Go before 1.18).
fn pointed<R: ReadAt + ?Sized>(
    file: &R,
    program: &Program,
    head: &[u8],
    at: usize,
    size: usize,
    big: bool,
) -> Result<Vec<u8>, ParseError> {
    let damaged = || ParseError::malformed("its build information is damaged");
    let number = |bytes: &[u8], at: usize| -> Option<u64> {
        let bytes = bytes.get(at..at + size)?;
        let join = |number: u64, byte: &u8| (number << 8) | u64::from(*byte);
        Some(if big { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) })
    };
    let header = number(head, at).ok_or_else(damaged)?;
    if header == 0 {
        return Ok(Vec::new());
    }
    let (place, _) = program.place(header).ok_or_else(damaged)?;
    let header = exact(file, place, size * 2)?;
    let (data, length) = number(&header, 0).zip(number(&header, size)).ok_or_else(damaged)?;
    if length == 0 {
        return Ok(Vec::new());
    }
    let (place, left) = program.place(data).ok_or_else(damaged)?;
    if length > left || length > MAX_TEXT {
        return Err(damaged());
    }
    exact(file, place, usize::try_from(length).map_err(|_| damaged())?)
}

/// The packages that the texts name: the standard library, the main module where it has a version,
/// and the modules it was linked with, as they were replaced.
///
/// # Errors
/// [`ParseError`] when there are too many.
pub fn packages(info: &BuildInfo, path: &str) -> Result<Parsed, ParseError> {
    let mut parsed = Parsed::default();
    if let Some(version) = release(&info.version) {
        parsed.push(Package::new(Ecosystem::Go, "stdlib", version, path, EvidenceKind::Binary))?;
    }
    let mut modules: Vec<(&str, &str)> = Vec::new();
    for line in info.modules.lines() {
        let mut fields = line.split('\t');
        let (kind, name) = (fields.next().unwrap_or_default(), fields.next());
        let version = fields.next().unwrap_or_default();
        match (kind, name) {
            ("mod" | "dep", Some(name)) => modules.push((name, version)),
            ("=>", Some(name)) => {
                if let Some(last) = modules.last_mut() {
                    *last = (name, version);
                }
            }
            _ => {}
        }
    }
    let flags = info.modules.lines().find_map(|line| line.strip_prefix("build\t-ldflags="));
    for (name, version) in modules {
        // A main module that was built from a working copy says its version in the linker's flags
        // or nowhere; a replacement by a folder has none.
        let version = match version {
            DEVEL => flags.and_then(|flags| linked_version(flags, name)).unwrap_or(DEVEL),
            version => version,
        };
        if version.is_empty() {
            continue;
        }
        parsed.push(Package::new(Ecosystem::Go, name, version, path, EvidenceKind::Binary))?;
    }
    Ok(parsed)
}

/// What a main module's version is when it was built from a working copy.
const DEVEL: &str = "(devel)";

/// The version that a release sets in a variable: `-X main.version=1.2.3`. The program's own variable
/// comes before one of its module, and that before others: they may be of a library.
fn linked_version<'a>(flags: &'a str, module: &str) -> Option<&'a str> {
    let mut words = flags.split([' ', '"', '\'', '\\']).filter(|word| !word.is_empty());
    let mut found: Option<(u8, &str)> = None;
    while let Some(word) = words.next() {
        let setting = match word {
            "-X" => words.next(),
            word => word.strip_prefix("-X="),
        };
        let Some((variable, value)) = setting.and_then(|setting| setting.split_once('=')) else {
            continue;
        };
        let (package, name) = variable.rsplit_once('.').unwrap_or(("", variable));
        let digits = value.strip_prefix('v').unwrap_or(value);
        let like_a_version =
            digits.starts_with(|c: char| c.is_ascii_digit()) && digits.contains('.');
        if !matches!(&*name.to_ascii_lowercase(), "version" | "ver") || !like_a_version {
            continue;
        }
        let below = package.strip_prefix(module);
        let rank = match below {
            _ if package == "main" => 0,
            Some(rest) if rest.is_empty() || rest.starts_with('/') => 1,
            _ => 2,
        };
        if found.is_none_or(|(best, _)| rank < best) {
            found = Some((rank, value));
        }
    }
    found.map(|(_, value)| value)
}

/// `go1.21rc2` as semantic versioning writes it: `1.21.0-rc.2`. None for a compiler between
/// releases.
#[must_use]
pub fn release(version: &str) -> Option<String> {
    let text = version.strip_prefix("go")?;
    let text = text.split([' ', '-', '+']).next()?;
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (major, rest) = text.split_once('.')?;
    let (minor, mut rest) = rest.split_at(digits(rest));
    if major.is_empty() || digits(major) != major.len() || minor.is_empty() {
        return None;
    }
    let mut patch = "0";
    if let Some(after) = rest.strip_prefix('.') {
        let (number, after) = after.split_at(digits(after));
        if number.is_empty() {
            return None;
        }
        (patch, rest) = (number, after);
    }
    let pre = match rest {
        "" => String::new(),
        rest => {
            let (word, number) = rest.split_at(rest.find(|c: char| c.is_ascii_digit())?);
            if !matches!(word, "rc" | "beta") || digits(number) != number.len() {
                return None;
            }
            format!("-{word}.{number}")
        }
    };
    Some(format!("{major}.{minor}.{patch}{pre}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::binary::{Section, Segment};
    use super::super::names;
    use super::*;

    const MODULES: &str = "path\texample.com/cmd\nmod\texample.com/app\t(devel)\t\ndep\tgolang.org/x/net\tv0.1.0\th1:x=\ndep\texample.com/old\tv1.0.0\n=>\texample.com/new\tv1.2.0\th1:y=\ndep\texample.com/here\tv1.0.0\n=>\t./here\t\t\nbuild\t-compiler=gc\n";

    fn framed_modules() -> Vec<u8> {
        [&[1_u8; 16][..], MODULES.as_bytes(), &[2_u8; 16][..]].concat()
    }

    fn varint(mut number: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while number >= 0x80 {
            out.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
            number >>= 7;
        }
        out.push(u8::try_from(number).unwrap());
        out
    }

    fn expected(parsed: &Parsed) {
        assert_eq!(
            names(parsed),
            [
                "stdlib 1.22.1",
                "example.com/app (devel)",
                "golang.org/x/net v0.1.0",
                "example.com/new v1.2.0"
            ]
        );
    }

    #[test]
    fn inline_texts() {
        let mut file = vec![0_u8; 16];
        file.extend(MAGIC);
        file.extend([8, 2]);
        file.resize(16 + HEAD, 0);
        for text in [b"go1.22.1 X:boringcrypto".to_vec(), framed_modules()] {
            file.extend(varint(text.len()));
            file.extend(text);
        }
        let size = file.len() as u64;
        let section = Section { name: ".go.buildinfo".to_owned(), offset: 16, size: size - 16 };
        let parts = Program { sections: vec![section], segments: Vec::new() };
        expected(&program(&file[..], &parts, "x").unwrap());
        assert!(
            program(
                &file[..60],
                &Program {
                    sections: vec![Section {
                        name: ".go.buildinfo".to_owned(),
                        offset: 16,
                        size: 40
                    }],
                    segments: Vec::new(),
                },
                "x"
            )
            .is_err()
        );
    }

    #[test]
    fn pointed_texts() {
        let base = 0x40_0000_u64;
        let mut file = MAGIC.to_vec();
        file.extend([8, 0]);
        file.extend((base + 32).to_le_bytes());
        file.extend((base + 48).to_le_bytes());
        let modules = framed_modules();
        let texts = [b"go1.22.1".to_vec(), modules];
        let mut at = base + 64;
        for text in &texts {
            file.extend(at.to_le_bytes());
            file.extend((text.len() as u64).to_le_bytes());
            at += text.len() as u64;
        }
        file.extend(texts.concat());
        let size = file.len() as u64;
        let segment = Segment { address: base, offset: 0, size, writable: true };
        let parts = Program { sections: Vec::new(), segments: vec![segment] };
        expected(&program(&file[..], &parts, "x").unwrap());
    }

    #[test]
    fn a_release_says_its_version_in_the_flags() {
        for (flags, version) in [
            (
                "\"-w -X a.b/c.Version=v1.0.0 -X main.version=1.18.1 -X main.commit=x\"",
                Some("1.18.1"),
            ),
            ("\"-X=a.b/c.Version=v1.0.0\"", Some("v1.0.0")),
            ("\"-X a.b/c.Version=v1.0.0 -X a.b/app/pkg/about.ver=0.59.1\"", Some("0.59.1")),
            ("\"-X a.b/application.Version=1.0.0 -X a.b/app.Version=2.0.0\"", Some("2.0.0")),
            ("\"-X 'main.version=1.0.0' -s\"", Some("1.0.0")),
            ("\"-X main.version=dev\"", None),
            ("\"-X main.goversion=1.2\"", None),
            ("-X", None),
        ] {
            assert_eq!(linked_version(flags, "a.b/app"), version, "{flags}");
        }
    }

    #[test]
    fn releases_become_semantic_versions() {
        for (text, version) in [
            ("go1.22.1", Some("1.22.1")),
            ("go1.21", Some("1.21.0")),
            ("go1.21rc2", Some("1.21.0-rc.2")),
            ("go1.18beta1", Some("1.18.0-beta.1")),
            ("go1.20.7 X:boringcrypto", Some("1.20.7")),
            ("go1.20.7-custom", Some("1.20.7")),
            ("devel go1.23-abc", None),
            ("go1.x", None),
            ("go1.2.", None),
            ("", None),
        ] {
            assert_eq!(release(text).as_deref(), version, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200), flags: u8) {
            let mut file = MAGIC.to_vec();
            file.extend([8, flags]);
            file.extend(bytes);
            let size = file.len() as u64;
            let segment = Segment { address: 0, offset: 0, size, writable: true };
            let parts = Program { sections: Vec::new(), segments: vec![segment] };
            let _ = program(&file[..], &parts, "x");
        }

        #[test]
        fn any_version_ends(text in ".{0,20}") {
            let _ = release(&text);
            let _ = release(&format!("go{text}"));
        }
    }
}
