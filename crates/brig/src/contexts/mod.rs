//! Contexts: docker's own files at docker's own place, so that both CLIs know the same ones.
//!
//! A context is a folder named by the SHA-256 of its name: what it is in `meta`, its certificates
//! and keys in `tls`. Fields that are not used here are kept as they are.

pub(crate) mod archive;
mod renewal;
mod resolve;
mod tls;
mod zip;

use std::io::{self};
use std::path::{Path, PathBuf};

use brig_files::Durability;
use brig_types::secret::SecretBytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use archive::{Archive, MAX_ARCHIVE};
pub(crate) use renewal::{RENEWS, if_due};
pub(crate) use resolve::{CURRENT_HOST, current, default_context, endpoint, host_variable};
pub(crate) use tls::TlsFiles;

use crate::error::{Error, Result, message};

/// The context that is not stored: flags and variables.
pub(crate) const DEFAULT: &str = "default";
/// The one kind of endpoint there is.
pub(crate) const DOCKER: &str = "docker";
/// Names of TLS files, in docker's order.
pub(crate) const TLS_NAMES: [&str; 3] = ["ca.pem", "cert.pem", "key.pem"];
/// Largest description of a context and largest TLS file that are read, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Contexts that are listed at most.
const MAX_CONTEXTS: usize = 10_000;
const META_FILE: &str = "meta.json";

/// What a context is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Meta {
    /// Its name.
    pub(crate) name: String,
    /// The description, and whatever other versions of docker keep there.
    pub(crate) metadata: Map<String, Value>,
    /// Where its daemons are, by kind.
    pub(crate) endpoints: Map<String, Value>,
}

impl Meta {
    /// A text about it, or nothing.
    pub(crate) fn description(&self) -> &str {
        self.metadata.get("Description").and_then(Value::as_str).unwrap_or_default()
    }

    /// Sets the description.
    pub(crate) fn describe(&mut self, text: &str) {
        self.metadata.insert("Description".to_owned(), text.into());
    }

    /// The daemon's address; empty for the default one.
    pub(crate) fn host(&self) -> &str {
        let docker = self.endpoints.get(DOCKER);
        docker.and_then(|d| d.get("Host")).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether the server's certificate is not checked.
    pub(crate) fn skips_verification(&self) -> bool {
        let docker = self.endpoints.get(DOCKER);
        docker.and_then(|d| d.get("SkipTLSVerify")).and_then(Value::as_bool).unwrap_or_default()
    }

    /// Sets where the daemon is.
    pub(crate) fn set_endpoint(&mut self, host: &str, skip_verification: bool) {
        let endpoint = serde_json::json!({ "Host": host, "SkipTLSVerify": skip_verification });
        self.endpoints.insert(DOCKER.to_owned(), endpoint);
    }
}

/// One file of a context's TLS material.
#[derive(Clone, Debug)]
pub(crate) struct TlsFile {
    /// The kind of endpoint that it is for.
    pub(crate) endpoint: String,
    /// Its name.
    pub(crate) name: String,
    /// Its content; may be a key.
    pub(crate) content: SecretBytes,
}

/// The folder of the contexts.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

impl Store {
    /// The contexts beside a `config.json`.
    pub(crate) fn in_config(dir: &Path) -> Self {
        Self { root: dir.join("contexts") }
    }

    /// Where a context's description is.
    pub(crate) fn meta_dir(&self, name: &str) -> PathBuf {
        self.root.join("meta").join(folder(name))
    }

    /// Where a context's TLS files are.
    pub(crate) fn tls_dir(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(folder(name))
    }

    /// What a context is; docker's text when there is none.
    pub(crate) fn meta(&self, name: &str) -> Result<Meta> {
        let path = self.meta_dir(name).join(META_FILE);
        match read_meta(&path) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(message(format!(
                    "context {name:?}: context not found: open {}: no such file or directory",
                    path.display()
                )))
            }
            result => result,
        }
    }

    /// Whether there is such a context.
    pub(crate) fn exists(&self, name: &str) -> bool {
        self.meta_dir(name).join(META_FILE).exists()
    }

    /// All contexts, in no order. What cannot be read is left out, with a warning.
    pub(crate) fn list(&self) -> Result<Vec<Meta>> {
        let dir = self.root.join("meta");
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(failed("open", &dir)(source)),
        };
        let mut found = Vec::new();
        for entry in entries.take(MAX_CONTEXTS) {
            let path = entry.map_err(failed("read", &dir))?.path().join(META_FILE);
            match read_meta(&path) {
                Ok(meta) => found.push(meta),
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => crate::output::warn(&format!(
                    "WARNING: {} is not a context: {}",
                    path.display(),
                    error.text()
                )),
            }
        }
        Ok(found)
    }

    /// Keeps a context's description.
    pub(crate) fn put_meta(&self, meta: &Meta) -> Result<()> {
        let dir = self.meta_dir(&meta.name);
        make_dir(&dir, 0o755)?;
        let json = serde_json::to_vec(meta)
            .map_err(|source| Error::Answer { path: dir.display().to_string(), source })?;
        write(&dir.join(META_FILE), &json, 0o644)
    }

    /// Replaces a context's TLS files.
    pub(crate) fn put_tls(&self, name: &str, files: &[TlsFile]) -> Result<()> {
        let dir = self.tls_dir(name);
        remove(&dir)?;
        for file in files {
            let dir = dir.join(&file.endpoint);
            make_dir(&dir, 0o700)?;
            write(&dir.join(&file.name), file.content.expose_secret(), 0o600)?;
        }
        Ok(())
    }

    /// Replaces a context's certificate, and nothing else.
    pub(crate) fn put_certificate(&self, name: &str, pem: &[u8]) -> Result<()> {
        write(&self.tls_dir(name).join(DOCKER).join("cert.pem"), pem, 0o600)
    }

    /// A context's TLS files, sorted.
    pub(crate) fn tls(&self, name: &str) -> Result<Vec<TlsFile>> {
        let root = self.tls_dir(name);
        let mut files = Vec::new();
        for endpoint in names(&root)? {
            for name in names(&root.join(&endpoint))? {
                let path = root.join(&endpoint).join(&name);
                let content = crate::parse::env::read_limited(&path, MAX_FILE)?;
                let endpoint = endpoint.clone();
                files.push(TlsFile { endpoint, name, content: SecretBytes::new(content) });
            }
        }
        Ok(files)
    }

    /// Takes a context away.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        remove(&self.meta_dir(name))?;
        remove(&self.tls_dir(name))
    }
}

/// Docker's rule for names of contexts.
pub(crate) fn validate_name(name: &str) -> Result<()> {
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'+' | b'-');
    if name.is_empty() {
        return Err(message("context name cannot be empty"));
    }
    if name == DEFAULT {
        return Err(message(format!("{DEFAULT:?} is a reserved context name")));
    }
    let starts_well = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    if name.len() > 1 && starts_well && name.bytes().all(fits) {
        return Ok(());
    }
    Err(message(format!(
        "context name {name:?} is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\""
    )))
}

fn folder(name: &str) -> String {
    brig_pki::hash::sha256(name.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_meta(path: &Path) -> Result<Meta> {
    let text = crate::parse::env::read_limited(path, MAX_FILE)?;
    serde_json::from_slice(&text)
        .map_err(|source| Error::Answer { path: path.display().to_string(), source })
}

/// The names in a folder, sorted; none if there is no such folder.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("open", dir)(source)),
    };
    let mut names = Vec::new();
    for entry in entries.take(MAX_CONTEXTS) {
        let entry = entry.map_err(failed("read", dir))?;
        // Whatever is no text was not put there by docker or by us.
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn failed<'a>(what: &str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + use<'a> {
    let what = format!("{what} {}", path.display());
    move |source| Error::io(what, source)
}

fn make_dir(dir: &Path, mode: u32) -> Result<()> {
    brig_files::make_folder(dir, mode).map_err(failed("mkdir", dir))
}

fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", dir)(error)),
        _ => Ok(()),
    }
}

/// Writes beside the file and puts it into place, with its final mode from the start.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    brig_files::replace(path, content, mode, Durability::Synced).map_err(failed("write", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn names_follow_dockers_rule() {
        for name in ["aa", "my-remote.1", "a+b_c"] {
            assert!(validate_name(name).is_ok(), "{name}");
        }
        for name in ["", "a", "default", "-aa", "a/b", "..", "a b"] {
            assert!(validate_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn files_lie_where_docker_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::in_config(dir.path());
        assert!(store.list().unwrap().is_empty());
        let mut meta = Meta { name: "tlsctx".to_owned(), ..Meta::default() };
        meta.set_endpoint("tcp://127.0.0.1:2376", false);
        store.put_meta(&meta).unwrap();
        let file = |name: &str| TlsFile {
            endpoint: DOCKER.to_owned(),
            name: name.to_owned(),
            content: SecretBytes::new(b"x".to_vec()),
        };
        store.put_tls("tlsctx", &[file("key.pem"), file("ca.pem")]).unwrap();

        // printf %s tlsctx | sha256sum
        let hash = folder("tlsctx");
        assert_eq!(hash.len(), 64);
        let meta_file = dir.path().join("contexts/meta").join(&hash).join("meta.json");
        assert_eq!(
            std::fs::read_to_string(&meta_file).unwrap(),
            r#"{"Name":"tlsctx","Metadata":{},"Endpoints":{"docker":{"Host":"tcp://127.0.0.1:2376","SkipTLSVerify":false}}}"#
        );
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let tls = dir.path().join("contexts/tls").join(&hash).join("docker");
        assert_eq!(mode(&meta_file), 0o644);
        assert_eq!((mode(&tls), mode(&tls.join("key.pem"))), (0o700, 0o600));
        let names: Vec<_> = store.tls("tlsctx").unwrap().into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["ca.pem", "key.pem"]);
        assert_eq!(store.list().unwrap(), [meta]);
        store.put_tls("tlsctx", &[]).unwrap();
        assert!(!tls.exists());
        store.remove("tlsctx").unwrap();
        let error = store.meta("tlsctx").unwrap_err().text();
        assert!(error.starts_with("context \"tlsctx\": context not found: open /"), "{error}");
    }

    #[test]
    fn unknown_fields_are_kept() {
        let text = r#"{"Name":"x","Metadata":{"Description":"d","StackOrchestrator":"swarm"},"Endpoints":{"docker":{"Host":"unix:///x","SkipTLSVerify":true},"kubernetes":{"a":1}}}"#;
        let meta: Meta = serde_json::from_str(text).unwrap();
        assert_eq!((meta.description(), meta.host()), ("d", "unix:///x"));
        assert!(meta.skips_verification());
        assert_eq!(serde_json::to_string(&meta).unwrap(), text);
    }
}
