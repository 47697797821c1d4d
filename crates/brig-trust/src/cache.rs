//! What was verified last, on disk where docker's clients keep it: `tuf/GUN/metadata`.
//!
//! The root in it is the pin: whoever has it takes only roots that follow from it. The other
//! files' versions are the floor below which nothing is accepted.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::canonical::MAX_FILE;
use crate::files;
use crate::name::{Gun, Role};

/// How deep below `metadata` delegations are looked for.
const MAX_NESTING: usize = 16;

/// The metadata of many repositories in one folder.
#[derive(Clone, Debug)]
pub struct Cache {
    base: PathBuf,
}

/// A repository's files as they are on disk: believed once, and checked again before use.
pub type CachedFiles = BTreeMap<Role, Vec<u8>>;

/// The cache could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct CacheError {
    /// What was being done.
    pub action: &'static str,
    /// With which file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl Cache {
    /// The cache in a trust folder, such as `~/.docker/trust`.
    #[must_use]
    pub fn new(trust_dir: &Path) -> Self {
        Self { base: trust_dir.join("tuf") }
    }

    fn dir(&self, gun: &Gun) -> PathBuf {
        self.base.join(gun.as_str()).join("metadata")
    }

    fn path(&self, gun: &Gun, role: &Role) -> PathBuf {
        self.dir(gun).join(format!("{role}.json"))
    }

    /// All files of a repository. Blocks.
    ///
    /// # Errors
    /// [`CacheError`]; files that are not there are none.
    pub fn load(&self, gun: &Gun) -> Result<CachedFiles, CacheError> {
        let mut found = CachedFiles::new();
        for role in Role::BASE {
            self.load_one(gun, role, &mut found)?;
        }
        self.load_below(gun, "targets", MAX_NESTING, &mut found)?;
        Ok(found)
    }

    fn load_one(&self, gun: &Gun, role: Role, found: &mut CachedFiles) -> Result<(), CacheError> {
        let path = self.path(gun, &role);
        let content = files::read(&path, MAX_FILE).map_err(|source| CacheError {
            action: "read",
            path,
            source,
        })?;
        if let Some(content) = content {
            found.insert(role, content);
        }
        Ok(())
    }

    fn load_below(
        &self,
        gun: &Gun,
        parent: &str,
        depth: usize,
        found: &mut CachedFiles,
    ) -> Result<(), CacheError> {
        let dir = self.dir(gun).join(parent);
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(());
            }
            Err(source) => return Err(CacheError { action: "read", path: dir, source }),
        };
        for entry in entries.filter_map(Result::ok) {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if let Some(role) = name.strip_suffix(".json") {
                if let Ok(role) = Role::parse(&format!("{parent}/{role}")) {
                    self.load_one(gun, role, found)?;
                }
            } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.load_below(gun, &format!("{parent}/{name}"), depth - 1, found)?;
            }
        }
        Ok(())
    }

    /// Remembers a file that was verified. Blocks.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn store(&self, gun: &Gun, role: &Role, content: &[u8]) -> Result<(), CacheError> {
        let path = self.path(gun, role);
        // A root that is lost is a pin that is lost; the others come again.
        let keep =
            if *role == Role::Root { files::Durability::Synced } else { files::Durability::Cached };
        files::replace(&path, content, keep).map_err(|source| CacheError {
            action: "write",
            path,
            source,
        })
    }

    /// Forgets a repository: the next root that is seen is taken for its first. Blocks.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn forget(&self, gun: &Gun) -> Result<(), CacheError> {
        let path = self.dir(gun);
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(CacheError { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let gun = Gun::parse("r:5000/a").unwrap();
        let inner = Gun::parse("r:5000/a/b").unwrap();
        assert!(cache.load(&gun).unwrap().is_empty());
        let roles =
            [Role::Root, Role::Targets, Role::releases(), Role::parse("targets/a/b").unwrap()];
        for role in &roles {
            cache.store(&gun, role, role.as_str().as_bytes()).unwrap();
        }
        cache.store(&inner, &Role::Root, b"inner").unwrap();
        std::fs::write(dir.path().join("tuf/r:5000/a/metadata/targets/BAD NAME.json"), "x")
            .unwrap();
        let found = cache.load(&gun).unwrap();
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            roles.iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
        );
        assert_eq!(found[&Role::releases()], b"targets/releases");
        cache.forget(&gun).unwrap();
        assert!(cache.load(&gun).unwrap().is_empty());
        assert_eq!(cache.load(&inner).unwrap()[&Role::Root], b"inner");
    }
}
