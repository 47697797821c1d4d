//! Where the runtime's programs and folders are.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::RuntimeError;

/// How to set up a [`crate::Runtime`].
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Folder on a memory file system (`/run/brig`): the OCI runtime's state, exit files. It must
    /// be the same after a restart of the daemon and empty after a restart of the machine.
    pub exec_root: PathBuf,
    /// Folder on a disk for what is only worth remembering: compiled filters.
    pub cache_dir: PathBuf,
    /// Control group that containers are put below, for example `/brig`.
    pub cgroup_parent: String,
    /// OCI runtime; `None` looks for crun, then runc.
    pub runtime: Option<PathBuf>,
    /// conmon; `None` looks for it.
    pub conmon: Option<PathBuf>,
    /// Static init for `--init`; `None` looks for one, and without any `--init` is refused.
    pub init: Option<PathBuf>,
}

/// Where programs are looked for, whatever the daemon's own PATH is.
const SEARCH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Which OCI runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// crun.
    Crun,
    /// runc, or one that behaves like it.
    Runc,
}

/// The programs that were found.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) runtime: PathBuf,
    pub(crate) flavor: Flavor,
    pub(crate) conmon: PathBuf,
    pub(crate) init: Option<PathBuf>,
}

impl Programs {
    pub(crate) fn find(config: &RuntimeConfig) -> Result<Self, RuntimeError> {
        let runtime = choose(config.runtime.as_deref(), "OCI runtime", &["crun", "runc"])?
            .ok_or(RuntimeError::Missing { program: "crun", package: "crun" })?;
        let conmon = choose(config.conmon.as_deref(), "container monitor", &["conmon"])?
            .ok_or(RuntimeError::Missing { program: "conmon", package: "conmon" })?;
        let init = choose(
            config.init.as_deref(),
            "container init",
            &["docker-init", "tini-static", "catatonit"],
        )?;
        let name = runtime.file_name().unwrap_or_default().to_string_lossy();
        let flavor = if name.contains("crun") { Flavor::Crun } else { Flavor::Runc };
        Ok(Self { runtime, flavor, conmon, init })
    }
}

fn choose(
    configured: Option<&Path>,
    purpose: &'static str,
    names: &[&str],
) -> Result<Option<PathBuf>, RuntimeError> {
    if let Some(path) = configured {
        return match usable(path) {
            Ok(()) => Ok(Some(path.to_owned())),
            Err(source) => Err(RuntimeError::Program { purpose, path: path.to_owned(), source }),
        };
    }
    Ok(names
        .iter()
        .flat_map(|name| SEARCH.iter().map(move |dir| Path::new(dir).join(name)))
        .find(|path| usable(path).is_ok()))
}

fn usable(path: &Path) -> io::Result<()> {
    if !path.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute"));
    }
    let meta = fs::metadata(path)?;
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is not executable"));
    }
    Ok(())
}

/// The folders below `exec_root`.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// `--root` of the OCI runtime.
    pub(crate) state: PathBuf,
    /// conmon's exit files, named by container.
    pub(crate) exits: PathBuf,
    /// conmon's links to bundles; only used while it makes its socket.
    pub(crate) sockets: PathBuf,
    /// One folder per running exec.
    pub(crate) execs: PathBuf,
    /// Compiled filters.
    pub(crate) filters: PathBuf,
}

impl Layout {
    pub(crate) fn create(config: &RuntimeConfig) -> Result<Self, RuntimeError> {
        let exec = &config.exec_root;
        let layout = Self {
            state: exec.join("oci"),
            exits: exec.join("exits"),
            sockets: exec.join("sockets"),
            execs: exec.join("execs"),
            filters: config.cache_dir.join("seccomp"),
        };
        for dir in [&layout.state, &layout.exits, &layout.sockets, &layout.execs, &layout.filters] {
            create_private_dir(dir)?;
        }
        layout.forget_execs()?;
        Ok(layout)
    }

    /// Nobody can wait any more for processes that an earlier daemon ran in containers.
    fn forget_execs(&self) -> Result<(), RuntimeError> {
        let failed = |source| RuntimeError::file("clearing", &self.execs, source);
        for entry in fs::read_dir(&self.execs).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            fs::remove_dir_all(entry.path()).map_err(failed)?;
            match fs::remove_file(self.sockets.join(entry.file_name())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Makes a folder and what is missing above it, for the daemon's user alone.
pub(crate) fn create_private_dir(dir: &Path) -> Result<(), RuntimeError> {
    let failed = |source| RuntimeError::file("creating", dir, source);
    if !dir.is_absolute() {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the path is not absolute",
        )));
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)
}

/// What tells one build of a program from another without running it.
pub(crate) fn build_of(path: &Path) -> io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let real = path.canonicalize()?;
    let meta = fs::metadata(&real)?;
    Ok(format!("{} {} {}.{}", real.display(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

/// The build of the libseccomp that crun is linked to, as far as it can be found.
pub(crate) fn libseccomp_build() -> String {
    const NAME: &str = "libseccomp.so.2";
    let mut found = Vec::new();
    for dir in ["/usr/lib", "/lib", "/usr/lib64", "/lib64", "/usr/local/lib"] {
        let dir = Path::new(dir);
        let below = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().contains("-linux-"));
        for dir in below.chain([dir.to_owned()]) {
            found.extend(build_of(&dir.join(NAME)));
        }
    }
    found.sort();
    found.dedup();
    found.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_programs_are_checked() {
        assert!(choose(Some(Path::new("/nonexistent")), "x", &[]).is_err());
        assert!(choose(Some(Path::new("/etc/passwd")), "x", &[]).is_err());
        assert!(choose(Some(Path::new("true")), "x", &[]).is_err());
        assert_eq!(choose(None, "x", &["surely-no-such-program"]).unwrap(), None);
        let shell = choose(None, "x", &["surely-no-such-program", "sh"]).unwrap().unwrap();
        assert!(shell.ends_with("sh"));
    }

    #[test]
    fn what_is_missing_names_its_package() {
        let error = RuntimeError::Missing { program: "conmon", package: "conmon" };
        assert_eq!(error.to_string(), "conmon is not installed: install the package conmon");
    }
}
