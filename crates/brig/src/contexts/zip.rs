//! Zip archives of contexts. Docker writes none but takes them, so people have them.

use std::io::Read as _;

use brig_types::secret::SecretBytes;
use rawzip::{CompressionMethod, ZipArchive};

use super::archive::{MAX_ARCHIVE, Members};
use crate::error::{Result, message};

/// How a zip archive begins.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";
/// Entries that an archive may hold, folders included.
const MAX_ENTRIES: usize = 128;

/// Gives each file of the archive to `members`, which checks its name.
pub(super) fn members(bytes: &[u8], members: &mut Members) -> Result<()> {
    let failed = |error: rawzip::Error| message(format!("zip: not a valid zip file: {error}"));
    let archive = ZipArchive::from_slice(bytes).map_err(failed)?;
    let mut entries = archive.entries();
    let (mut count, mut left) = (0_usize, MAX_ARCHIVE);
    while let Some(entry) = entries.next_entry().map_err(failed)? {
        count += 1;
        if count > MAX_ENTRIES {
            return Err(message("the archive holds too many files"));
        }
        if entry.is_dir() {
            continue;
        }
        let path = entry.file_path();
        let name = std::str::from_utf8(path.as_bytes())
            .map_err(|_| message("zip: the name of a file is not text"))?;
        if entry.mode().is_symlink() {
            return Err(message(format!("{name}: unexpected context file")));
        }
        if entry.flags().is_encrypted() {
            return Err(message(format!("{name}: the archive is encrypted: unpack it first")));
        }
        let method = entry.compression_method();
        let member = archive.get_entry(entry.wayfinder()).map_err(failed)?;
        // SECURITY: what a header says of a size is the archive's word; it counts what comes out.
        let content = match method {
            CompressionMethod::STORE => read(member.verifying_reader(member.data()), left),
            CompressionMethod::DEFLATE => {
                let inflated = flate2::bufread::DeflateDecoder::new(member.data());
                read(member.verifying_reader(inflated), left)
            }
            _ => return Err(message("zip: unsupported compression algorithm")),
        };
        let content = content.map_err(|error| message(format!("{name}: {error}")))?;
        left = left
            .checked_sub(content.expose_secret().len() as u64)
            .ok_or_else(|| message("read exceeds the defined limit"))?;
        members.take(name, content.expose_secret())?;
    }
    Ok(())
}

/// All of it, or one byte more than there may be.
fn read(reader: impl std::io::Read, limit: u64) -> std::io::Result<SecretBytes> {
    let mut content = Vec::new();
    reader.take(limit + 1).read_to_end(&mut content)?;
    Ok(SecretBytes::new(content))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::archive::Archive;
    use super::*;

    const META: &[u8] = br#"{"Name":"x","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://h:2376","SkipTLSVerify":false}}}"#;

    fn zip(files: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
        let mut out = Vec::new();
        let mut archive = rawzip::ZipArchiveWriter::new(&mut out);
        for (name, content) in files {
            let verbatim = rawzip::path::EntryPath::verbatim(name.as_bytes());
            let builder = archive.new_file(verbatim).compression_method(method);
            let (mut entry, config) = builder.start().unwrap();
            let descriptor = if method == CompressionMethod::STORE {
                let mut writer = config.wrap(&mut entry);
                writer.write_all(content).unwrap();
                writer.finish().unwrap().1
            } else {
                let level = flate2::Compression::fast();
                let mut writer = config.wrap(flate2::write::DeflateEncoder::new(&mut entry, level));
                writer.write_all(content).unwrap();
                let (encoder, descriptor) = writer.finish().unwrap();
                encoder.finish().unwrap();
                descriptor
            };
            entry.finish(descriptor).unwrap();
        }
        archive.finish().unwrap();
        out
    }

    fn refused(bytes: &[u8]) -> String {
        Archive::read(bytes).unwrap_err().text()
    }

    #[test]
    fn both_ways_of_packing_are_read() {
        for method in [CompressionMethod::STORE, CompressionMethod::DEFLATE] {
            let files =
                [("meta.json", META), ("tls/docker/ca.pem", b"ca"), ("tls/docker/key.pem", b"key")];
            let archive = Archive::read(&zip(&files, method)).unwrap();
            assert_eq!(archive.meta.name, "x");
            let tls: Vec<_> =
                archive.tls.iter().map(|f| (f.name.as_str(), f.content.expose_secret())).collect();
            assert_eq!(tls, [("ca.pem", &b"ca"[..]), ("key.pem", b"key")]);
        }
    }

    #[test]
    fn only_a_contexts_files_are_taken_and_not_too_much_of_them() {
        for (name, part) in [
            ("../x", "unexpected context file"),
            ("/etc/passwd", "unexpected context file"),
            ("tls/../../x", "unexpected path format"),
            ("tls/docker/../x", "unexpected path format"),
            (r"tls/docker\..\x/y", r"unexpected '\' in path"),
            ("tls/docker/a/b", "archive format is invalid"),
            ("tls/docker/other.pem", "unexpected context file"),
        ] {
            let text =
                refused(&zip(&[("meta.json", META), (name, b"x")], CompressionMethod::STORE));
            assert!(text.contains(part), "{name}: {text}");
        }
        let bomb = vec![0; usize::try_from(MAX_ARCHIVE).unwrap() + 1];
        let packed = zip(&[("tls/docker/ca.pem", &bomb)], CompressionMethod::DEFLATE);
        assert!(packed.len() < 1 << 20);
        assert!(refused(&packed).contains("exceeds the defined limit"));
        let half = zip(
            &[
                ("tls/docker/ca.pem", &bomb[..bomb.len() / 2]),
                ("tls/docker/key.pem", &bomb[..bomb.len() / 2 + 1]),
            ],
            CompressionMethod::DEFLATE,
        );
        assert!(refused(&half).contains("exceeds the defined limit"), "also together");
        let names: Vec<String> = (0..=MAX_ENTRIES).map(|n| format!("tls/e{n}/x")).collect();
        let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        assert!(refused(&zip(&many, CompressionMethod::STORE)).contains("too many files"));
        let none = zip(&[("tls/docker/ca.pem", b"ca")], CompressionMethod::STORE);
        assert!(refused(&none).contains("no metadata found"));
        assert!(refused(b"PK\x03\x04").contains("not a valid zip file"));
        // A changed byte is noticed.
        let mut damaged = zip(&[("meta.json", META)], CompressionMethod::STORE);
        let at = damaged.windows(4).position(|four| four == b"2376").unwrap();
        damaged[at] = b'9';
        assert!(refused(&damaged).contains("meta.json"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(at in 0usize..600, byte in 0u8.., cut in 0usize..700) {
            let files = [("meta.json", META), ("tls/docker/ca.pem", b"ca")];
            let mut bytes = zip(&files, CompressionMethod::DEFLATE);
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            bytes.truncate(cut);
            let _ = Archive::read(&bytes);
        }
    }
}
