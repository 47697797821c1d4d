//! Which reader wants which file, by its path alone.

use serde::{Deserialize, Serialize};

use crate::parse::{java, node, release};

/// A reader of one kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reader {
    /// A file that tells the distribution.
    Sign,
    /// dpkg's `status`.
    Dpkg,
    /// A file of dpkg's `status.d`.
    DpkgSingle,
    /// A list of the files of a Debian package.
    DpkgFiles,
    /// apk's `installed`.
    Apk,
    /// rpm's database in SQLite.
    RpmSqlite,
    /// The write-ahead log beside it.
    RpmLog,
    /// rpm's database in ndb.
    RpmNdb,
    /// rpm's database in Berkeley DB.
    RpmBdb,
    /// The list of images without rpm's database.
    RpmManifest,
    /// Core metadata of a Python package.
    Python,
    /// A Python package in a zip archive.
    PythonEgg,
    /// A Node package.
    Node,
    /// A Java archive.
    Java,
    /// A gem.
    Gem,
    /// Composer's list.
    Composer,
    /// A .NET program's libraries.
    DotNet,
    /// A program that may carry build information.
    Program,
    /// A lock file.
    Lock,
}

impl Reader {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sign => "distribution",
            Self::Dpkg | Self::DpkgSingle | Self::DpkgFiles => "dpkg",
            Self::Apk => "apk",
            Self::RpmSqlite | Self::RpmLog | Self::RpmNdb | Self::RpmBdb | Self::RpmManifest => {
                "rpm"
            }
            Self::Python | Self::PythonEgg => "python",
            Self::Node => "node",
            Self::Java => "java",
            Self::Gem => "gem",
            Self::Composer => "composer",
            Self::DotNet => "dotnet",
            Self::Program => "program",
            Self::Lock => "lock file",
        }
    }

    /// The largest file that it reads, in bytes.
    #[must_use]
    pub const fn limit(self) -> u64 {
        match self {
            Self::Sign => release::MAX_SIGN as u64,
            Self::DpkgSingle | Self::Node => 4 << 20,
            Self::DpkgFiles | Self::DotNet | Self::Lock => 32 << 20,
            Self::Composer => 16 << 20,
            Self::Dpkg | Self::Apk | Self::RpmManifest | Self::RpmLog | Self::PythonEgg => {
                128 << 20
            }
            Self::RpmSqlite | Self::RpmNdb | Self::RpmBdb => 512 << 20,
            // Only the beginning is looked at.
            Self::Python | Self::Gem => u64::MAX,
            Self::Java | Self::Program => 2 << 30,
        }
    }

    /// How much of a file from its beginning is enough.
    #[must_use]
    pub const fn head(self) -> Option<u64> {
        match self {
            Self::Python | Self::Gem => Some(256 << 10),
            _ => None,
        }
    }

    /// Whether it reads at any place, so that a large file need not be in memory as a whole.
    #[must_use]
    pub const fn reads_anywhere(self) -> bool {
        matches!(
            self,
            Self::RpmSqlite
                | Self::RpmNdb
                | Self::RpmBdb
                | Self::Java
                | Self::Program
                | Self::PythonEgg
        )
    }

    /// Whether nothing is known of a whole system when its file cannot be read.
    #[must_use]
    pub const fn is_system(self) -> bool {
        matches!(
            self,
            Self::Sign
                | Self::Dpkg
                | Self::DpkgSingle
                | Self::Apk
                | Self::RpmSqlite
                | Self::RpmNdb
                | Self::RpmBdb
                | Self::RpmManifest
        )
    }
}

const RPM_FOLDERS: &[&str] = &["var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"];

/// The reader of an installed system's file.
#[must_use]
pub fn reader(path: &str) -> Option<Reader> {
    system_reader(path).or_else(|| language_reader(path))
}

fn system_reader(path: &str) -> Option<Reader> {
    let (folder, base) = path.rsplit_once('/')?;
    match folder {
        "var/lib/dpkg" if base == "status" => Some(Reader::Dpkg),
        "var/lib/dpkg/status.d" if base.ends_with(".md5sums") => Some(Reader::DpkgFiles),
        "var/lib/dpkg/status.d" => Some(Reader::DpkgSingle),
        "var/lib/dpkg/info" if base.ends_with(".list") => Some(Reader::DpkgFiles),
        "lib/apk/db" | "usr/lib/apk/db" if base == "installed" => Some(Reader::Apk),
        "var/lib/rpmmanifest" if base == "container-manifest-2" => Some(Reader::RpmManifest),
        folder if RPM_FOLDERS.contains(&folder) => match base {
            "rpmdb.sqlite" => Some(Reader::RpmSqlite),
            "rpmdb.sqlite-wal" => Some(Reader::RpmLog),
            "Packages.db" => Some(Reader::RpmNdb),
            "Packages" => Some(Reader::RpmBdb),
            _ => None,
        },
        "etc" | "usr/lib" if release::SIGNS.contains(&path) => Some(Reader::Sign),
        _ => None,
    }
}

/// The reader of a language's file.
#[must_use]
pub fn language_reader(path: &str) -> Option<Reader> {
    let (folder, base) = path.rsplit_once('/').unwrap_or(("", path));
    match base {
        "METADATA" if folder.ends_with(".dist-info") => return Some(Reader::Python),
        "PKG-INFO" if folder.ends_with(".egg-info") || folder.ends_with("EGG-INFO") => {
            return Some(Reader::Python);
        }
        "package.json" if node::is_package_root(path) => return Some(Reader::Node),
        "installed.json" if folder == "composer" || folder.ends_with("/composer") => {
            return Some(Reader::Composer);
        }
        _ => {}
    }
    let at = base.rfind('.')?;
    match base.get(at..)? {
        ".egg-info" => Some(Reader::Python),
        ".egg" => Some(Reader::PythonEgg),
        ".gemspec" if is_specification(folder) => Some(Reader::Gem),
        ".json" if base.ends_with(".deps.json") => Some(Reader::DotNet),
        _ if java::is_archive(base) => Some(Reader::Java),
        _ => None,
    }
}

fn is_specification(folder: &str) -> bool {
    let folder = folder.strip_suffix("/default").unwrap_or(folder);
    folder == "specifications" || folder.ends_with("/specifications")
}

/// Whether a path is that of a lock file.
#[must_use]
pub fn is_lock(path: &str) -> bool {
    let base = path.rsplit('/').next().unwrap_or(path);
    matches!(
        base,
        "package-lock.json"
            | "Cargo.lock"
            | "poetry.lock"
            | "pdm.lock"
            | "uv.lock"
            | "requirements.txt"
            | "Pipfile.lock"
            | "Gemfile.lock"
            | "go.mod"
            | "composer.lock"
            | "packages.lock.json"
    ) && !path.contains("node_modules/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_reader() {
        for (path, wanted) in [
            ("var/lib/dpkg/status", Some(Reader::Dpkg)),
            ("var/lib/dpkg/status-old", None),
            ("var/lib/dpkg/status.d/tzdata", Some(Reader::DpkgSingle)),
            ("var/lib/dpkg/status.d/tzdata.md5sums", Some(Reader::DpkgFiles)),
            ("var/lib/dpkg/info/libc6:amd64.list", Some(Reader::DpkgFiles)),
            ("backup/var/lib/dpkg/status", None),
            ("lib/apk/db/installed", Some(Reader::Apk)),
            ("usr/lib/sysimage/rpm/Packages.db", Some(Reader::RpmNdb)),
            ("var/lib/rpm/rpmdb.sqlite", Some(Reader::RpmSqlite)),
            ("etc/os-release", Some(Reader::Sign)),
            ("etc/passwd", None),
            ("usr/lib/python3/dist-packages/a-1.dist-info/METADATA", Some(Reader::Python)),
            ("x/a.egg-info/PKG-INFO", Some(Reader::Python)),
            ("x/a-1.egg-info", Some(Reader::Python)),
            ("x/a-1-py3.egg", Some(Reader::PythonEgg)),
            ("app/node_modules/a/package.json", Some(Reader::Node)),
            ("app/package.json", None),
            ("usr/share/java/a.jar", Some(Reader::Java)),
            ("var/lib/gems/3.1.0/specifications/default/a-1.gemspec", Some(Reader::Gem)),
            ("src/a.gemspec", None),
            ("app/vendor/composer/installed.json", Some(Reader::Composer)),
            ("app/App.deps.json", Some(Reader::DotNet)),
            ("METADATA", None),
            ("", None),
        ] {
            assert_eq!(reader(path), wanted, "{path}");
        }
        assert!(is_lock("Cargo.lock") && is_lock("a/go.mod"));
        assert!(!is_lock("a/node_modules/b/package-lock.json") && !is_lock("x.lock"));
    }
}
