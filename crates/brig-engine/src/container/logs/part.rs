//! The files of a rotated log: `NAME` is written, `NAME.1` the one before, older ones have higher
//! numbers. With `compress` the older ones are gzip, `NAME.1.gz`.
//!
//! A reader knows the file it is in by inode and birth, over renames. A compressed file is another
//! one, so it carries in its header what the file was that it was made of.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use flate2::bufread::MultiGzDecoder;
use flate2::{Compression, GzBuilder};

/// The subfield of gzip's extra field (RFC 1952, 2.3.1.1) that holds an [`Identity`].
const SUBFIELD: [u8; 4] = [b'B', b'R', 16, 0];
const PACKED: &str = "gz";
/// A compressed file that is not ready.
const UNFINISHED: &str = "gz.tmp";

/// Which file it is, or was before it was compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    inode: u64,
    /// Nanoseconds since 1970; inodes are used again.
    born: u64,
}

impl Identity {
    fn of(meta: &Metadata) -> Self {
        let born = meta.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|age| u64::try_from(age.as_nanos()).ok()).unwrap_or_default();
        Self { inode: meta.ino(), born }
    }

    fn to_extra(self) -> Vec<u8> {
        [&SUBFIELD[..], &self.inode.to_le_bytes(), &self.born.to_le_bytes()].concat()
    }

    fn from_extra(extra: &[u8]) -> Option<Self> {
        let fields = extra.strip_prefix(&SUBFIELD)?;
        let (inode, born) = fields.split_first_chunk::<8>()?;
        let born = born.first_chunk::<8>()?;
        Some(Self { inode: u64::from_le_bytes(*inode), born: u64::from_le_bytes(*born) })
    }
}

/// The path of a rotated log: 0 is the current one, 1 the one before.
pub(super) fn rotated(path: &Path, index: u32) -> PathBuf {
    if index == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{index}"));
    PathBuf::from(name)
}

fn with(path: PathBuf, ending: &str) -> PathBuf {
    path.with_added_extension(ending)
}

/// An open file of a log.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    packed: bool,
    identity: Identity,
}

impl Part {
    /// Opens the file of that number, whether compressed or not.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub(super) fn open(path: &Path, index: u32) -> io::Result<Self> {
        let plain = rotated(path, index);
        match File::open(&plain) {
            Ok(file) => {
                let identity = Identity::of(&file.metadata()?);
                return Ok(Self { file, packed: false, identity });
            }
            Err(error) if index == 0 || error.kind() != io::ErrorKind::NotFound => {
                return Err(error);
            }
            Err(_) => {}
        }
        let mut file = File::open(with(plain, PACKED))?;
        let decoder = MultiGzDecoder::new(BufReader::new(&file));
        let said = decoder.header().and_then(|header| Identity::from_extra(header.extra()?));
        let identity = match said {
            Some(identity) => identity,
            None => Identity::of(&file.metadata()?),
        };
        drop(decoder);
        file.seek(SeekFrom::Start(0))?;
        Ok(Self { file, packed: true, identity })
    }

    pub(super) const fn identity(&self) -> Identity {
        self.identity
    }

    /// The file's text. What is compressed comes to a nameless file in `dir` first.
    pub(super) fn plain(&mut self, dir: &Path) -> io::Result<&mut File> {
        if self.packed {
            let flags = i32::try_from(rustix::fs::OFlags::TMPFILE.bits()).unwrap_or_default();
            let mut open = OpenOptions::new();
            open.read(true).write(true).mode(0o600).custom_flags(flags);
            let mut text = open.open(dir)?;
            io::copy(&mut MultiGzDecoder::new(BufReader::new(&self.file)), &mut text)?;
            text.seek(SeekFrom::Start(0))?;
            (self.file, self.packed) = (text, false);
        }
        Ok(&mut self.file)
    }
}

/// Renames `log` to `log.1`, `log.1` to `log.2` and so on; the oldest goes.
pub(super) fn shift(path: &Path, max_files: u32) -> io::Result<()> {
    let last = max_files.saturating_sub(1);
    if last == 0 {
        // Only one file is kept: the monitor truncates what it reopens, so take it away.
        return std::fs::remove_file(path);
    }
    for index in (0..last).rev() {
        let (from, to) = (rotated(path, index), rotated(path, index + 1));
        let missing = |done: io::Result<()>| match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        let (packed, new) = (with(from.clone(), PACKED), with(to.clone(), PACKED));
        for oldest in [&to, &new] {
            missing(std::fs::remove_file(oldest))?;
        }
        missing(std::fs::rename(from, to))?;
        if index > 0 {
            missing(std::fs::rename(packed, new))?;
        }
    }
    Ok(())
}

/// Compresses what was rotated and is not compressed yet. Nothing may write to it any more.
pub(super) fn compress(path: &Path, max_files: u32) -> io::Result<()> {
    for index in 1..max_files {
        let plain = rotated(path, index);
        let file = match File::open(&plain) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let (unfinished, packed) = (with(plain.clone(), UNFINISHED), with(plain.clone(), PACKED));
        let meta = file.metadata()?;
        let written = || {
            let mut open = OpenOptions::new();
            let out = open.write(true).create(true).truncate(true).mode(meta.mode() & 0o777);
            let mut encoder = GzBuilder::new()
                .extra(Identity::of(&meta).to_extra())
                .write(BufWriter::new(out.open(&unfinished)?), Compression::default());
            io::copy(&mut BufReader::new(&file), &mut encoder)?;
            encoder.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?.flush()?;
            // The text goes only when what takes its place is on the disk.
            std::fs::rename(&unfinished, &packed)?;
            File::open(&packed)?.sync_data()?;
            std::fs::remove_file(&plain)
        };
        if let Err(error) = written() {
            let _ = std::fs::remove_file(&unfinished);
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        for n in 0..5 {
            std::fs::write(&path, n.to_string()).unwrap();
            shift(&path, 3).unwrap();
        }
        let read = |index| std::fs::read_to_string(rotated(&path, index)).ok();
        assert_eq!(
            [read(0), read(1), read(2), read(3)],
            [None, Some("4".to_owned()), Some("3".to_owned()), None]
        );
    }

    #[test]
    fn compressed_files_are_the_same_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        let mut known = Vec::new();
        for n in 0..5 {
            std::fs::write(&path, n.to_string()).unwrap();
            known.push(Part::open(&path, 0).unwrap().identity());
            shift(&path, 4).unwrap();
            compress(&path, 4).unwrap();
        }
        let mut names: Vec<_> =
            std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["c.log.1.gz", "c.log.2.gz", "c.log.3.gz"]);
        for (index, n) in [(1, 4), (2, 3), (3, 2)] {
            let mut part = Part::open(&path, index).unwrap();
            assert_eq!(part.identity(), known[n]);
            let text = io::read_to_string(part.plain(dir.path()).unwrap()).unwrap();
            assert_eq!(text, n.to_string());
        }
        assert!(Part::open(&path, 4).is_err());
        // Anybody's gzip reads them.
        let packed = File::open(dir.path().join("c.log.1.gz")).unwrap();
        let unpacked = std::process::Command::new("gzip").arg("-dc").stdin(packed).output();
        assert_eq!(unpacked.unwrap().stdout, b"4");
        // One that came between, not compressed before the next rotation, and one that is half
        // made.
        std::fs::write(&path, "5").unwrap();
        shift(&path, 4).unwrap();
        std::fs::write(rotated(&path, 1).with_added_extension(UNFINISHED), "x").unwrap();
        let read = |index| {
            let mut part = Part::open(&path, index).unwrap();
            io::read_to_string(part.plain(dir.path()).unwrap()).unwrap()
        };
        assert_eq!([read(1), read(2), read(3)], ["5", "4", "3"]);
        compress(&path, 4).unwrap();
        assert_eq!([read(1), read(2), read(3)], ["5", "4", "3"]);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 3);
    }
}
