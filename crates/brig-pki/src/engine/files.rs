//! The operator's files, and when they change.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use brig_types::secret::SecretBytes;

use super::EngineTlsError;
use crate::files::MAX_FILE;

/// Permissions of others than the owner.
const OTHERS: u32 = 0o077;

/// Where the daemon's TLS files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineFiles {
    /// Authority of the clients' certificates, PEM; `None` for those of the access authority alone.
    pub ca: Option<PathBuf>,
    /// The daemon's certificate and what leads to its authority, PEM.
    pub cert: PathBuf,
    /// The daemon's private key, PEM.
    pub key: PathBuf,
    /// Certificates that count no more, see [`super::Revocations`].
    pub revoked: Option<PathBuf>,
}

/// What the file system says about the files: differs as soon as one of them is another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamps(Vec<Option<[i64; 7]>>);

/// The files' contents.
pub(super) struct Contents {
    pub(super) ca: Option<Vec<u8>>,
    pub(super) cert: Vec<u8>,
    pub(super) key: SecretBytes,
    pub(super) revoked: Option<Vec<u8>>,
}

impl EngineFiles {
    /// The files as the file system knows them now.
    #[must_use]
    pub fn stamps(&self) -> Stamps {
        let paths = [&self.cert, &self.key].into_iter().chain(&self.ca).chain(&self.revoked);
        Stamps(paths.map(|path| stamp(path)).collect())
    }

    /// Reads all of them.
    pub(super) fn read(&self) -> Result<Contents, EngineTlsError> {
        Ok(Contents {
            ca: match &self.ca {
                Some(path) => Some(public("CA certificate", path, "tlscacert")?),
                None => None,
            },
            cert: public("server certificate", &self.cert, "tlscert")?,
            key: private(&self.key)?,
            revoked: match &self.revoked {
                Some(path) => Some(public("list of revoked certificates", path, "tlsrevoked")?),
                None => None,
            },
        })
    }
}

fn stamp(path: &Path) -> Option<[i64; 7]> {
    let found = std::fs::metadata(path).ok()?;
    Some([
        found.dev().cast_signed(),
        found.ino().cast_signed(),
        found.size().cast_signed(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ])
}

fn public(what: &'static str, path: &Path, flag: &'static str) -> Result<Vec<u8>, EngineTlsError> {
    content(open(what, path, flag)?, what, path)
}

fn private(path: &Path) -> Result<SecretBytes, EngineTlsError> {
    const WHAT: &str = "private key";
    let file = open(WHAT, path, "tlskey")?;
    let failed = |source| EngineTlsError::Read { what: WHAT, path: path.to_owned(), source };
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(EngineTlsError::Exposed { path: path.to_owned(), mode });
    }
    content(file, WHAT, path).map(SecretBytes::new)
}

fn open(what: &'static str, path: &Path, flag: &'static str) -> Result<File, EngineTlsError> {
    File::open(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => EngineTlsError::Missing { what, path: path.to_owned(), flag },
        _ => EngineTlsError::Read { what, path: path.to_owned(), source },
    })
}

fn content(file: File, what: &'static str, path: &Path) -> Result<Vec<u8>, EngineTlsError> {
    let failed = |source| EngineTlsError::Read { what, path: path.to_owned(), source };
    // Room for all of it at once, so that growing leaves no copies of a key behind.
    let size = file.metadata().map_err(failed)?.size().min(MAX_FILE);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed(std::io::Error::new(ErrorKind::FileTooLarge, "larger than 1 MiB")));
    }
    Ok(bytes)
}
