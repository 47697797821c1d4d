//! A context as one file: docker's tar, written and read here without more of tar than it needs,
//! and the zip that docker reads as well ([`zip`]).
//!
//! Docker writes neither the padding of the last member nor the blocks that end an archive, so
//! the reader takes the end of data for the end. The writer ends archives as every tar does.

use brig_types::secret::SecretBytes;

use super::{DOCKER, META_FILE, Meta, TLS_NAMES, TlsFile, zip};
use crate::error::{Error, Result, message};

/// Docker's limit, in bytes.
pub(crate) const MAX_ARCHIVE: u64 = 10 << 20;
/// Files that an archive may hold.
const MAX_FILES: usize = 64;
const BLOCK: usize = 512;
const MAGIC: &[u8] = b"ustar";

/// A context with its files.
#[derive(Debug)]
pub(crate) struct Archive {
    /// What it is.
    pub(crate) meta: Meta,
    /// Its TLS files.
    pub(crate) tls: Vec<TlsFile>,
}

impl Archive {
    /// The tar.
    pub(crate) fn to_tar(&self) -> Result<SecretBytes> {
        let json = serde_json::to_vec(&self.meta)
            .map_err(|source| Error::Answer { path: META_FILE.to_owned(), source })?;
        // Room for everything, so that growing leaves no copies of keys behind.
        let size = |content: usize| BLOCK + content.next_multiple_of(BLOCK);
        let files: usize = self.tls.iter().map(|f| size(f.content.expose_secret().len())).sum();
        let mut tar = Vec::with_capacity(size(json.len()) + files + 16 * BLOCK);
        member(&mut tar, META_FILE, 0o644, Some(&json))?;
        member(&mut tar, "tls", 0o700, None)?;
        let mut last = "";
        for file in &self.tls {
            if last != file.endpoint {
                last = &file.endpoint;
                member(&mut tar, &format!("tls/{last}"), 0o700, None)?;
            }
            let path = format!("tls/{}/{}", file.endpoint, file.name);
            member(&mut tar, &path, 0o600, Some(file.content.expose_secret()))?;
        }
        tar.resize(tar.len() + 2 * BLOCK, 0);
        Ok(SecretBytes::new(tar))
    }

    /// Reads a tar or a zip of a context.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self> {
        let mut members = Members::default();
        if bytes.starts_with(zip::MAGIC) {
            zip::members(bytes, &mut members)?;
        } else {
            Self::tar_members(bytes, &mut members)?;
        }
        let Members { meta, tls } = members;
        let meta = meta.ok_or_else(|| message("invalid context: no metadata found"))?;
        Ok(Self { meta, tls })
    }

    fn tar_members(bytes: &[u8], members: &mut Members) -> Result<()> {
        let mut rest = bytes;
        while let Some(head) = rest.get(..BLOCK).filter(|head| head.iter().any(|b| *b != 0)) {
            let Header { name, size, is_dir } = Header::read(head)?;
            let content = rest
                .get(BLOCK..BLOCK.saturating_add(size))
                .ok_or_else(|| message("unexpected EOF"))?;
            rest = rest.get(BLOCK + size.next_multiple_of(BLOCK)..).unwrap_or_default();
            if is_dir {
                continue;
            }
            members.take(&name, content)?;
        }
        Ok(())
    }
}

/// What an archive held so far.
#[derive(Debug, Default)]
pub(super) struct Members {
    meta: Option<Meta>,
    tls: Vec<TlsFile>,
}

impl Members {
    /// A file of the archive.
    pub(super) fn take(&mut self, name: &str, content: &[u8]) -> Result<()> {
        check_path(name)?;
        if name == META_FILE {
            let meta = serde_json::from_slice(content)
                .map_err(|source| Error::Answer { path: META_FILE.to_owned(), source })?;
            self.meta = Some(meta);
            return Ok(());
        }
        self.tls.push(tls_file(name, content)?);
        if self.tls.len() > MAX_FILES {
            return Err(message("the archive holds too many files"));
        }
        Ok(())
    }
}

struct Header {
    name: String,
    size: usize,
    is_dir: bool,
}

impl Header {
    fn read(head: &[u8]) -> Result<Self> {
        let invalid = || message("archive/tar: invalid tar header");
        let field = |from: usize, len: usize| head.get(from..from + len).unwrap_or_default();
        let sum = octal(field(148, 8)).ok_or_else(invalid)?;
        if sum != checksum(head) {
            return Err(invalid());
        }
        let name = text(field(0, 100)).ok_or_else(invalid)?;
        let prefix = if field(257, 5) == MAGIC { text(field(345, 155)) } else { Some("") };
        let name = match prefix.ok_or_else(invalid)? {
            "" => name.to_owned(),
            prefix => format!("{prefix}/{name}"),
        };
        let size = octal(field(124, 12)).ok_or_else(invalid)?;
        let is_dir = match head.get(156) {
            Some(b'5') => true,
            // Old tars mark a folder by its name alone.
            Some(b'0' | 0) => name.ends_with('/'),
            _ => return Err(message(format!("{name}: unexpected context file"))),
        };
        Ok(Self { name, size: if is_dir { 0 } else { size }, is_dir })
    }
}

/// Docker's rules for what a context's archive may hold.
fn check_path(name: &str) -> Result<()> {
    let refuse = |why: &str| Err(message(format!("{name}: {why}")));
    if name != META_FILE && !name.starts_with("tls/") {
        return refuse("unexpected context file");
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refuse("unexpected path format");
    }
    if name.contains('\\') {
        return refuse(r"unexpected '\' in path");
    }
    Ok(())
}

fn tls_file(name: &str, content: &[u8]) -> Result<TlsFile> {
    let parts: Vec<&str> = name.split('/').collect();
    let ["tls", endpoint, file] = parts.as_slice() else {
        return Err(message("archive format is invalid"));
    };
    if *endpoint == DOCKER && !TLS_NAMES.contains(file) {
        return Err(message(format!("{name}: unexpected context file")));
    }
    Ok(TlsFile {
        endpoint: (*endpoint).to_owned(),
        name: (*file).to_owned(),
        content: SecretBytes::new(content.to_vec()),
    })
}

/// Text up to the first zero byte.
fn text(field: &[u8]) -> Option<&str> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    std::str::from_utf8(field.get(..end)?).ok()
}

fn octal(field: &[u8]) -> Option<usize> {
    let digits = text(field)?.trim_matches(' ');
    if digits.is_empty() {
        return Some(0);
    }
    usize::from_str_radix(digits, 8).ok()
}

/// The sum of all bytes, those of the sum itself as spaces.
fn checksum(head: &[u8]) -> usize {
    let byte =
        |(at, byte): (usize, &u8)| usize::from(if (148..156).contains(&at) { b' ' } else { *byte });
    head.iter().enumerate().map(byte).sum()
}

fn member(tar: &mut Vec<u8>, name: &str, mode: u32, content: Option<&[u8]>) -> Result<()> {
    let size = content.map_or(0, <[u8]>::len);
    let mut head = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(field) = head.get_mut(at..at + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    if name.len() > 100 {
        return Err(message(format!("{name}: the name is too long for an archive")));
    }
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, b"00000000000");
    put(156, if content.is_some() { b"0" } else { b"5" });
    put(257, b"ustar\x0000");
    put(329, b"0000000");
    put(337, b"0000000");
    let sum = checksum(&head);
    if let Some(field) = head.get_mut(148..156) {
        field.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar.extend_from_slice(&head);
    tar.extend_from_slice(content.unwrap_or_default());
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Archive {
        let mut meta = Meta { name: "x".to_owned(), ..Meta::default() };
        meta.set_endpoint("tcp://h:2376", false);
        let tls = ["ca.pem", "key.pem"].map(|name| TlsFile {
            endpoint: DOCKER.to_owned(),
            name: name.to_owned(),
            content: SecretBytes::new(name.as_bytes().repeat(100)),
        });
        Archive { meta, tls: tls.into() }
    }

    fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
        let mut tar = Vec::new();
        member(&mut tar, META_FILE, 0o644, Some(b"{}")).unwrap();
        member(&mut tar, name, 0o600, Some(content)).unwrap();
        tar
    }

    #[test]
    fn archives_come_back_also_without_their_end() {
        let written = archive();
        let tar = written.to_tar().unwrap();
        let tar = tar.expose_secret();
        // With its end, without it, and without the last member's padding: as docker writes them.
        let last = tar.len() - 2 * BLOCK;
        let bare = last - (BLOCK - 700 % BLOCK);
        for end in [tar.len(), last, bare] {
            let read = Archive::read(&tar[..end]).unwrap();
            assert_eq!(read.meta, written.meta);
            assert_eq!(read.tls.len(), 2);
            assert_eq!(read.tls[1].content.expose_secret(), b"key.pem".repeat(100));
        }
        assert!(Archive::read(&tar[..bare - 1]).unwrap_err().text().contains("unexpected EOF"));
    }

    #[test]
    fn only_a_contexts_files_are_taken() {
        for (name, part) in [
            ("other", "unexpected context file"),
            ("tls/docker/other.pem", "unexpected context file"),
            ("tls/../../x", "unexpected path format"),
            ("tls//x", "unexpected path format"),
            ("tls/docker/./x", "unexpected path format"),
            ("tls/docker/a/b", "archive format is invalid"),
            ("tls/ca.pem", "archive format is invalid"),
            (r"tls/docker\..\x/y", "unexpected '\\' in path"),
        ] {
            let error = Archive::read(&tar_of(name, b"x")).unwrap_err().text();
            assert!(error.contains(part), "{name}: {error}");
        }
        let mut link = tar_of("tls/docker/ca.pem", b"");
        link[2 * BLOCK + 156] = b'2';
        let sum = checksum(&link[2 * BLOCK..3 * BLOCK]);
        link[2 * BLOCK + 148..2 * BLOCK + 154].copy_from_slice(format!("{sum:06o}").as_bytes());
        assert!(Archive::read(&link).is_err());
        assert!(Archive::read(b"").unwrap_err().text().contains("no metadata"));
        assert!(Archive::read(&[b'x'; 600]).unwrap_err().text().contains("invalid tar header"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(at in 0usize..3000, byte in 0u8.., cut in 0usize..4000) {
            let mut tar = archive().to_tar().unwrap().expose_secret().to_vec();
            if let Some(place) = tar.get_mut(at) {
                *place = byte;
            }
            tar.truncate(cut);
            let _ = Archive::read(&tar);
        }
    }
}
