//! Reading the configuration file and laying flags over it.
//!
//! dockerd's rules hold: an unknown key is an error, and so is a key given both as a flag and in
//! the file. Each error names the key and the file.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::directives::Directives;

/// Where the configuration is looked for unless `--config-file` says otherwise.
pub const DEFAULT_CONFIG_FILE: &str = "/etc/brig/brigd.json";
/// Largest configuration file that is read.
const MAX_CONFIG_FILE: u64 = 1 << 20;

/// Keys of docker's `daemon.json` that mean nothing here, with the reason.
const WITHOUT_MEANING: &[(&str, &str)] = &[
    ("storage-driver", "layers are always stacked with overlayfs"),
    ("storage-opts", "layers are always stacked with overlayfs"),
    ("graph", "the key is data-root now"),
    ("exec-opts", "the cgroup driver is found by itself"),
    ("iptables", "the packet filter is an nftables table of brig's own"),
    ("ip6tables", "the packet filter is an nftables table of brig's own"),
    ("userland-proxy", "ports are published by the packet filter"),
    ("userland-proxy-path", "ports are published by the packet filter"),
    ("experimental", "there are no experimental features"),
    ("features", "there are no optional features"),
    ("containerd", "there is no containerd"),
    ("seccomp-profile", "the default profile is built in; containers may bring their own"),
    ("builder", "images are built with buildah, which has no such settings"),
];

/// A configuration file that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file can't be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than any sensible configuration.
    #[error("the configuration file {} is larger than 1 MiB", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file isn't a JSON object.
    #[error("the configuration file {} is not a JSON object", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The decoder's word.
        #[source]
        source: serde_json::Error,
    },
    /// There are keys nobody knows.
    #[error(
        "the following directives in {} don't match any configuration option: {}",
        path.display(),
        keys.join(", ")
    )]
    UnknownKeys {
        /// The file.
        path: PathBuf,
        /// The keys.
        keys: Vec<String>,
    },
    /// The key is docker's, but there is nothing here that it could set.
    #[error("{key:?} in {} has no meaning here: {reason}; remove it", path.display())]
    Meaningless {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Why.
        reason: &'static str,
    },
    /// The value has the wrong type.
    #[error("{key:?} in {} cannot be used", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with the value.
        #[source]
        source: serde_json::Error,
    },
    /// The same key as a flag and in the file.
    #[error(
        "the following directives are specified both as a flag and in the configuration file {}: {}",
        path.display(),
        conflicts.join(", ")
    )]
    Conflict {
        /// The file.
        path: PathBuf,
        /// `key: (from flag: …, from file: …)`.
        conflicts: Vec<String>,
    },
    /// The flags can't be told as directives; only non-UTF-8 paths do that.
    #[error("a flag holds a value that is not UTF-8 text")]
    Flags(#[source] serde_json::Error),
}

/// Reads the file and lays the flags over it.
///
/// A missing file counts as an empty one unless `must_exist`.
///
/// # Errors
/// [`FileError`].
pub(super) fn merged(
    flags: &Directives,
    path: &Path,
    must_exist: bool,
) -> Result<Directives, FileError> {
    let file = match read(path) {
        Ok(text) => parse(&text, path)?,
        Err(FileError::Read { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound && !must_exist =>
        {
            Map::new()
        }
        Err(error) => return Err(error),
    };
    let flags = match serde_json::to_value(flags).map_err(FileError::Flags)? {
        Value::Object(map) => map,
        _ => Map::new(),
    };
    lay_over(flags, file, path)
}

fn read(path: &Path) -> Result<String, FileError> {
    let error = |source| FileError::Read { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(error)?;
    let mut text = String::new();
    file.take(MAX_CONFIG_FILE + 1).read_to_string(&mut text).map_err(error)?;
    if text.len() as u64 > MAX_CONFIG_FILE {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

fn parse(text: &str, path: &Path) -> Result<Map<String, Value>, FileError> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let map: Map<String, Value> = serde_json::from_str(text)
        .map_err(|source| FileError::Syntax { path: path.to_owned(), source })?;
    let mut unknown = Vec::new();
    for (key, value) in &map {
        if let Some((_, reason)) = WITHOUT_MEANING.iter().find(|(known, _)| known == key) {
            return Err(FileError::Meaningless { path: path.to_owned(), key: key.clone(), reason });
        }
        // Decoded one by one, so that an error can name its key.
        let alone = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
        match serde_json::from_value::<Directives>(alone) {
            Ok(_) => {}
            Err(_) if !is_known(key) => unknown.push(key.clone()),
            Err(source) => {
                return Err(FileError::Value { path: path.to_owned(), key: key.clone(), source });
            }
        }
    }
    if unknown.is_empty() {
        Ok(map)
    } else {
        Err(FileError::UnknownKeys { path: path.to_owned(), keys: unknown })
    }
}

/// A known key takes `null` (all are optional); an unknown one is refused whatever its value.
fn is_known(key: &str) -> bool {
    let null = Value::Object(Map::from_iter([(key.to_owned(), Value::Null)]));
    serde_json::from_value::<Directives>(null).is_ok()
}

fn lay_over(
    flags: Map<String, Value>,
    mut file: Map<String, Value>,
    path: &Path,
) -> Result<Directives, FileError> {
    let mut conflicts = Vec::new();
    for (key, flag) in flags {
        if let Some(in_file) = file.get(&key) {
            conflicts.push(format!("{key}: (from flag: {flag}, from file: {in_file})"));
        } else {
            file.insert(key, flag);
        }
    }
    if !conflicts.is_empty() {
        return Err(FileError::Conflict { path: path.to_owned(), conflicts });
    }
    serde_json::from_value(Value::Object(file))
        .map_err(|source| FileError::Syntax { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, flags: &Directives) -> Result<Directives, FileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("brigd.json");
        std::fs::write(&path, text).unwrap();
        merged(flags, &path, true)
    }

    #[test]
    fn dockers_keys_are_read() {
        let text = r#"{"data-root":"/d","hosts":["unix:///x"],"debug":true,
            "default-address-pools":[{"base":"10.0.0.0/8","size":24}],
            "default-ulimits":{"nofile":{"Name":"nofile","Hard":20,"Soft":10}},
            "log-opts":{"max-size":"1m"},"runtimes":{"mine":{"path":"/bin/mine"}},
            "live-restore":true,"shutdown-timeout":5}"#;
        let directives = load(text, &Directives::default()).unwrap();
        assert_eq!(directives.data_root, Some("/d".into()));
        assert_eq!(directives.default_address_pools.unwrap()[0].size, 24);
        assert_eq!(directives.default_ulimits.unwrap()["nofile"].hard, 20);
        assert_eq!(directives.shutdown_timeout, Some(5));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_file() {
        let error = load(r#"{"debug":true,"debgu":true,"zz":1}"#, &Directives::default());
        let text = error.unwrap_err().to_string();
        assert!(text.ends_with("don't match any configuration option: debgu, zz"), "{text}");
        assert!(text.contains("/brigd.json"), "{text}");
    }

    #[test]
    fn a_wrong_type_names_its_key() {
        let error = load(r#"{"debug":"yes"}"#, &Directives::default()).unwrap_err();
        assert!(brig_types::error::chain(&error).starts_with("\"debug\" in /"), "{error}");
        assert!(brig_types::error::chain(&error).contains("expected a boolean"));
    }

    #[test]
    fn a_key_of_docker_without_meaning_says_why() {
        let error = load(r#"{"storage-driver":"overlay2"}"#, &Directives::default()).unwrap_err();
        assert!(error.to_string().contains("overlayfs"), "{error}");
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        let flags = Directives { debug: Some(true), ..Directives::default() };
        let error = load(r#"{"debug":false,"init":true}"#, &flags).unwrap_err().to_string();
        assert!(error.contains("debug: (from flag: true, from file: false)"), "{error}");
        assert!(!error.contains("init"), "{error}");
        let merged = load(r#"{"init":true}"#, &flags).unwrap();
        assert_eq!((merged.debug, merged.init), (Some(true), Some(true)));
    }

    #[test]
    fn a_missing_file_is_fine_unless_it_was_asked_for() {
        let flags = Directives { init: Some(true), ..Directives::default() };
        let nowhere = Path::new("/nonexistent/brigd.json");
        assert_eq!(merged(&flags, nowhere, false).unwrap(), flags);
        assert!(matches!(merged(&flags, nowhere, true), Err(FileError::Read { .. })));
        assert_eq!(load("", &flags).unwrap(), flags);
        assert!(matches!(load("[]", &flags), Err(FileError::Syntax { .. })));
    }
}
