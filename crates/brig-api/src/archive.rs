//! What a path in a container is: the header of the archive routes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The header that carries a [`PathStat`].
pub const HEADER: &str = "x-docker-container-path-stat";

/// A path in a container, as `lstat` sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathStat {
    /// Its last name.
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Go's file mode; see [`mode`].
    pub mode: u32,
    /// RFC 3339.
    pub mtime: String,
    /// Where a symbolic link leads inside of the container; else empty.
    pub link_target: String,
}

impl PathStat {
    /// The header's value.
    #[must_use]
    pub fn to_header(&self) -> String {
        STANDARD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a header's value; `None` when it is none.
    #[must_use]
    pub fn from_header(text: &str) -> Option<Self> {
        serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()
    }

    /// Whether it is a directory.
    #[must_use]
    pub const fn is_dir(&self) -> bool {
        self.mode & mode::DIR != 0
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub const fn is_symlink(&self) -> bool {
        self.mode & mode::SYMLINK != 0
    }

    /// Whether it is a regular file.
    #[must_use]
    pub const fn is_regular(&self) -> bool {
        self.mode & mode::TYPE == 0
    }
}

/// The bits of Go's `os.FileMode`, which docker's API speaks.
pub mod mode {
    /// A directory.
    pub const DIR: u32 = 1 << 31;
    /// A symbolic link.
    pub const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const NAMED_PIPE: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const CHAR_DEVICE: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;
    /// All bits that say what it is; none of them is a regular file.
    pub const TYPE: u32 = DIR | SYMLINK | DEVICE | NAMED_PIPE | SOCKET | CHAR_DEVICE;

    /// The mode of `stat(2)` in Go's bits.
    #[must_use]
    pub const fn of_unix(mode: u32) -> u32 {
        let kind = match mode & 0o170_000 {
            0o040_000 => DIR,
            0o120_000 => SYMLINK,
            0o060_000 => DEVICE,
            0o020_000 => DEVICE | CHAR_DEVICE,
            0o010_000 => NAMED_PIPE,
            0o140_000 => SOCKET,
            _ => 0,
        };
        let mut bits = kind | (mode & 0o777);
        if mode & 0o4000 != 0 {
            bits |= SETUID;
        }
        if mode & 0o2000 != 0 {
            bits |= SETGID;
        }
        if mode & 0o1000 != 0 {
            bits |= STICKY;
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_base64_of_json() {
        let stat = PathStat {
            name: "x".into(),
            size: 5,
            mode: mode::of_unix(0o100_644),
            mtime: "2026-11-21T19:37:12Z".into(),
            link_target: String::new(),
        };
        assert_eq!(stat.mode, 420);
        let header = stat.to_header();
        let json = String::from_utf8(STANDARD.decode(&header).unwrap()).unwrap();
        assert_eq!(
            json,
            r#"{"name":"x","size":5,"mode":420,"mtime":"2026-11-21T19:37:12Z","linkTarget":""}"#
        );
        assert_eq!(PathStat::from_header(&header), Some(stat));
        assert_eq!(PathStat::from_header("!"), None);
    }

    #[test]
    fn modes_are_gos() {
        assert_eq!(mode::of_unix(0o040_755), 2_147_484_141);
        assert_eq!(mode::of_unix(0o041_777), 2_148_532_735);
        assert_eq!(mode::of_unix(0o120_777) & mode::TYPE, mode::SYMLINK);
        assert_eq!(mode::of_unix(0o104_755), (1 << 23) | 0o755);
    }
}
