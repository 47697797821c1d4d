//! The user's `config.json`: docker's file at docker's place, so that logins are shared.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brig_api::auth::RegistryAuth;
use brig_api::data::SecretText;
use brig_files::Durability;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::error::{Error, Result, message};

/// The key under which Docker Hub's credentials are kept.
pub(crate) const INDEX_SERVER: &str = "https://index.docker.io/v1/";
/// The largest file and the longest answer of a credential helper that are read, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// The file's content; fields that are not used here are kept.
#[derive(Debug, Default)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    root: Map<String, Value>,
}

/// What a credential helper says and takes.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HelperCredentials {
    #[serde(rename = "ServerURL")]
    server_url: String,
    username: String,
    secret: SecretText,
}

impl ConfigFile {
    /// Reads the file in `dir`; a missing one is empty, a broken one too, with a warning.
    pub(crate) fn load(dir: &Path) -> Self {
        let path = dir.join("config.json");
        let root = match crate::parse::env::read_limited(&path, MAX_FILE) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                crate::output::warn(&format!(
                    "WARNING: Error loading config file: {}: {error}",
                    path.display()
                ));
                Map::new()
            }),
            Err(_) => Map::new(),
        };
        Self { path, root }
    }

    /// A string field.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.root.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// Sets a string field, or takes it away, and writes the file.
    pub(crate) fn set_text(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        match value {
            Some(value) => self.root.insert(name.to_owned(), value.into()),
            None => self.root.remove(name),
        };
        self.save()
    }

    /// `HttpHeaders`: what the user adds to each request.
    pub(crate) fn http_headers(&self) -> BTreeMap<String, String> {
        self.root
            .get("HttpHeaders")
            .and_then(|headers| serde_json::from_value(headers.clone()).ok())
            .unwrap_or_default()
    }

    /// The helper that keeps a registry's credentials, if there is one.
    fn helper(&self, registry: &str) -> Option<String> {
        let by_registry =
            self.root.get("credHelpers").and_then(|h| h.get(registry)).and_then(Value::as_str);
        let helper = by_registry.or_else(|| self.text("credsStore"))?;
        helper
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            .then(|| format!("docker-credential-{helper}"))
    }

    /// The credentials for a registry's key; anonymous when there are none.
    pub(crate) async fn credentials(&self, registry: &str) -> RegistryAuth {
        let mut auth = match self.helper(registry) {
            Some(helper) => from_helper(&helper, registry).await.unwrap_or_default(),
            None => self.stored(registry),
        };
        if !auth.is_anonymous() {
            auth.serveraddress = registry.to_owned();
        }
        auth
    }

    /// The credentials for every registry that the file knows of, by their keys.
    pub(crate) async fn all_credentials(&self) -> BTreeMap<String, RegistryAuth> {
        let keys = |name: &str| {
            let object = self.root.get(name).and_then(Value::as_object);
            object.map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
        };
        let mut all = BTreeMap::new();
        for key in keys("auths").into_iter().chain(keys("credHelpers")) {
            let auth = self.credentials(&key).await;
            if !auth.is_anonymous() {
                all.insert(key, auth);
            }
        }
        all
    }

    fn stored(&self, registry: &str) -> RegistryAuth {
        let Some(auths) = self.root.get("auths").and_then(Value::as_object) else {
            return RegistryAuth::default();
        };
        // Older files have URLs as keys.
        let entry = auths.get(registry).or_else(|| {
            auths.iter().find(|(key, _)| host_of(key) == host_of(registry)).map(|(_, entry)| entry)
        });
        let auth: RegistryAuth =
            entry.and_then(|entry| serde_json::from_value(entry.clone()).ok()).unwrap_or_default();
        RegistryAuth { auth: SecretText::default(), ..auth.with_auth_split() }
    }

    /// Keeps credentials: in the helper if there is one, else in the file.
    pub(crate) async fn store(&mut self, registry: &str, auth: &RegistryAuth) -> Result<()> {
        if let Some(helper) = self.helper(registry) {
            let (username, secret) = if auth.identitytoken.is_empty() {
                (auth.username.clone(), auth.password.clone())
            } else {
                ("<token>".to_owned(), auth.identitytoken.clone())
            };
            let entry = HelperCredentials { server_url: registry.to_owned(), username, secret };
            let input = serde_json::to_vec(&entry)
                .map_err(|source| Error::Answer { path: helper.clone(), source })?;
            run_helper(&helper, "store", &input).await?;
            self.set_auth(registry, Value::Object(Map::new()));
            return self.save();
        }
        crate::output::warn(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this warning.\n",
            self.path.display()
        ));
        let pair = SecretText::from(format!("{}:{}", auth.username, auth.password.expose_secret()));
        let mut entry = Map::new();
        if auth.identitytoken.is_empty() {
            entry.insert("auth".into(), STANDARD.encode(pair.expose_secret()).into());
        } else {
            let user = SecretText::from(format!("{}:", auth.username));
            entry.insert("auth".into(), STANDARD.encode(user.expose_secret()).into());
            entry.insert("identitytoken".into(), auth.identitytoken.expose_secret().into());
        }
        self.set_auth(registry, Value::Object(entry));
        self.save()
    }

    /// Forgets a registry's credentials.
    pub(crate) async fn erase(&mut self, registry: &str) -> Result<()> {
        if let Some(helper) = self.helper(registry) {
            run_helper(&helper, "erase", registry.as_bytes()).await?;
        }
        if let Some(auths) = self.root.get_mut("auths").and_then(Value::as_object_mut)
            && auths.remove(registry).is_some()
        {
            return self.save();
        }
        Ok(())
    }

    fn set_auth(&mut self, registry: &str, entry: Value) {
        let auths = self.root.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(registry.to_owned(), entry);
        }
    }

    /// Writes the file beside itself and puts it into place, readable for its owner alone.
    fn save(&self) -> Result<()> {
        let failed = |source| Error::io(format!("writing {}", self.path.display()), source);
        let dir = self.path.parent().unwrap_or(Path::new("."));
        brig_files::make_folder(dir, 0o700).map_err(failed)?;
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        self.root
            .serialize(&mut serializer)
            .map_err(|source| Error::Answer { path: self.path.display().to_string(), source })?;
        brig_files::replace(&self.path, &text, 0o600, Durability::Synced).map_err(failed)
    }
}

/// The key under which a registry's credentials are kept.
pub(crate) fn registry_key(domain: &str) -> String {
    if matches!(domain, "" | "docker.io" | "index.docker.io" | "registry-1.docker.io") {
        INDEX_SERVER.to_owned()
    } else {
        domain.to_owned()
    }
}

/// The host of a key that may be a URL.
pub(crate) fn host_of(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    rest.split('/').next().unwrap_or(rest)
}

async fn from_helper(helper: &str, registry: &str) -> Result<RegistryAuth> {
    let output = run_helper(helper, "get", registry.as_bytes()).await?;
    let found: HelperCredentials = serde_json::from_slice(&output)
        .map_err(|source| Error::Answer { path: helper.to_owned(), source })?;
    Ok(if found.username == "<token>" {
        RegistryAuth { identitytoken: found.secret, ..RegistryAuth::default() }
    } else {
        RegistryAuth { username: found.username, password: found.secret, ..RegistryAuth::default() }
    })
}

/// Runs a credential helper: the action is its argument, everything else goes over its stdin.
async fn run_helper(helper: &str, action: &str, input: &[u8]) -> Result<Vec<u8>> {
    let failed = |source| Error::io(format!("running {helper}"), source);
    let mut child = tokio::process::Command::new(helper)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).await.map_err(failed)?;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(MAX_FILE).read_to_end(&mut output).await.map_err(failed)?;
    }
    let status = child.wait().await.map_err(failed)?;
    if status.success() {
        Ok(output)
    } else {
        Err(message(format!(
            "{helper} {action} failed: {}",
            String::from_utf8_lossy(&output).trim()
        )))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn logins_are_kept_as_docker_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("config.json"),
            r#"{"HttpHeaders":{"X-A":"b"},"psFormat":"x"}"#,
        )
        .unwrap();
        let mut file = ConfigFile::load(dir.path());
        assert_eq!(file.http_headers()["X-A"], "b");
        let auth = RegistryAuth {
            username: "u".into(),
            password: "p:w".to_owned().into(),
            ..RegistryAuth::default()
        };
        file.store("h:5000", &auth).await.unwrap();

        let path = dir.path().join("config.json");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("\t\t\t\"auth\": \"dTpwOnc=\""), "{text}");
        assert!(text.contains("psFormat"));

        let mut file = ConfigFile::load(dir.path());
        let read = file.credentials("h:5000").await;
        assert_eq!((read.username.as_str(), read.password.expose_secret()), ("u", "p:w"));
        assert_eq!(read.serveraddress, "h:5000");
        assert!(file.credentials("other").await.is_anonymous());
        file.erase("h:5000").await.unwrap();
        assert!(ConfigFile::load(dir.path()).credentials("h:5000").await.is_anonymous());
    }

    #[test]
    fn hub_has_its_old_key() {
        assert_eq!(registry_key("docker.io"), INDEX_SERVER);
        assert_eq!(registry_key("h:5000"), "h:5000");
        assert_eq!(host_of("https://h:5000/v1/"), "h:5000");
    }
}
