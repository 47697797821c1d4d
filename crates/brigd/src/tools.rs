//! Programs of other projects that the daemon needs, looked for once at the start so that one
//! error names all that are missing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::Config;

/// Where programs of the system are.
const SEARCH: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The programs, by absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// The OCI runtime.
    pub runtime: PathBuf,
    /// What keeps containers running without us.
    pub conmon: PathBuf,
    /// What loads the packet filter's rules.
    pub nft: PathBuf,
}

/// Programs that are not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("programs that the daemon needs are missing: {}", list(.0))]
pub struct MissingTools(Vec<(String, &'static str)>);

fn list(missing: &[(String, &'static str)]) -> String {
    let parts: Vec<String> = missing
        .iter()
        .map(|(program, package)| format!("{program} (Debian package {package})"))
        .collect();
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    format!("{}; install them with: apt-get install {}", parts.join(", "), packages.join(" "))
}

impl Tools {
    /// Looks for everything.
    ///
    /// # Errors
    /// [`MissingTools`] with all that is missing.
    pub fn find(config: &Config) -> Result<Self, MissingTools> {
        Self::find_in(config, &SEARCH.map(Path::new))
    }

    fn find_in(config: &Config, places: &[&Path]) -> Result<Self, MissingTools> {
        let runtime = match &config.containers.runtime {
            Some(path) if path.is_absolute() => usable(path)
                .then(|| path.clone())
                .ok_or_else(|| (path.display().to_string(), "crun")),
            Some(name) if name.as_os_str() == "runc" => search(places, &["runc"], "runc"),
            Some(_) => search(places, &["crun"], "crun"),
            None => search(places, &["crun", "runc"], "crun"),
        };
        let conmon = search(places, &["conmon"], "conmon");
        let nft = search(places, &["nft"], "nftables");
        match (runtime, conmon, nft) {
            (Ok(runtime), Ok(conmon), Ok(nft)) => Ok(Self { runtime, conmon, nft }),
            (runtime, conmon, nft) => Err(MissingTools(
                [runtime.err(), conmon.err(), nft.err()].into_iter().flatten().collect(),
            )),
        }
    }
}

/// A program that is only needed for some requests, by absolute path.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    SEARCH.iter().map(|place| Path::new(place).join(name)).find(|path| usable(path))
}

type Missing = (String, &'static str);

/// The first of several programs that will do.
fn search(places: &[&Path], names: &[&str], package: &'static str) -> Result<PathBuf, Missing> {
    names
        .iter()
        .flat_map(|name| places.iter().map(move |place| place.join(name)))
        .find(|path| usable(path))
        .ok_or_else(|| (names.join(" or "), package))
}

fn usable(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Directives;

    #[test]
    fn one_error_names_all_that_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::resolve(Directives::default()).unwrap();
        let error = Tools::find_in(&config, &[dir.path()]).unwrap_err().to_string();
        assert_eq!(
            error,
            "programs that the daemon needs are missing: crun or runc (Debian package crun), \
             conmon (Debian package conmon), nft (Debian package nftables); \
             install them with: apt-get install crun conmon nftables"
        );
        for name in ["runc", "conmon", "nft"] {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let tools = Tools::find_in(&config, &[dir.path()]).unwrap();
        assert_eq!(tools.runtime, dir.path().join("runc"));
        std::fs::set_permissions(&tools.nft, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = Tools::find_in(&config, &[dir.path()]).unwrap_err().to_string();
        assert!(error.contains("nft (Debian package nftables)") && !error.contains("conmon"));
    }

    #[test]
    fn a_configured_runtime_must_be_there() {
        let json = r#"{"default-runtime":"m","runtimes":{"m":{"path":"/nonexistent/m"}}}"#;
        let config = Config::resolve(serde_json::from_str(json).unwrap()).unwrap();
        let error = Tools::find(&config).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/m"), "{error}");
    }
}
