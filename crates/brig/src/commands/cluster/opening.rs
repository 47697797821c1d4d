//! What opens a backup, from where it must not be seen: files and the terminal, never arguments.

use std::path::{Path, PathBuf};

use brig_api::cluster::{BackupOpening, MAX_OPENING};
use brig_api::data::SecretText;
use brig_types::secret::SecretBytes;
use clap::Args;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::error::{Error, Result, message};
use crate::terminal::{secret, stdin_is_terminal};

/// Largest file with keys or a passphrase, in bytes.
const MAX_FILE: u64 = 32 << 10;

/// Where what opens a backup comes from.
#[derive(Args, Debug)]
pub(super) struct OpeningFlags {
    /// File with the age identities that open the backup
    #[arg(long, short = 'i', value_name = "file")]
    identity: Option<PathBuf>,
    /// File with the passphrase of the backup (default: ask for it)
    #[arg(long, value_name = "file")]
    pub(super) passphrase_file: Option<PathBuf>,
}

impl OpeningFlags {
    fn read(&self) -> Result<BackupOpening> {
        match (&self.identity, &self.passphrase_file) {
            (Some(_), Some(_)) => Err(message(
                "a backup is opened with --identity or with a passphrase, not with both",
            )),
            (Some(path), None) => {
                Ok(BackupOpening { identities: file(path)?, ..BackupOpening::default() })
            }
            (None, path) => Ok(BackupOpening {
                passphrase: match path {
                    Some(path) => passphrase_file(path)?,
                    None => secret::ask("Passphrase of the backup: ")?,
                },
                ..BackupOpening::default()
            }),
        }
    }

    /// The body of a request: what opens the backup, and the backup.
    pub(super) async fn body(&self, backup: &Path) -> Result<impl AsyncRead + Send + Sync + use<>> {
        let failed = |source| Error::io(format!("open {}", backup.display()), source);
        let backup = tokio::fs::File::open(backup).await.map_err(failed)?;
        let opening = self.read()?;
        // Room for all of it, so that growing leaves no copies behind.
        let mut bytes = Vec::with_capacity(MAX_OPENING + 4);
        bytes.extend_from_slice(&[0; 4]);
        serde_json::to_writer(&mut bytes, &opening)
            .map_err(|_| message("what opens the backup is no text"))?;
        let length = bytes.len() - 4;
        if length > MAX_OPENING {
            return Err(message("what opens the backup is too long"));
        }
        let length = u32::try_from(length).unwrap_or_default().to_be_bytes();
        for (to, from) in bytes.iter_mut().zip(length) {
            *to = from;
        }
        Ok(std::io::Cursor::new(Wiped(SecretBytes::new(bytes))).chain(backup))
    }
}

/// A new passphrase: from a file, or asked for, on a terminal twice.
pub(super) fn new_passphrase(path: Option<&Path>) -> Result<SecretText> {
    if let Some(path) = path {
        return passphrase_file(path);
    }
    let first = secret::ask("Passphrase for the backup: ")?;
    if stdin_is_terminal() && secret::ask("The same once more: ")? != first {
        return Err(message("the passphrases are not the same"));
    }
    Ok(first)
}

fn passphrase_file(path: &Path) -> Result<SecretText> {
    let text = file(path)?;
    Ok(SecretText::from(text.expose_secret().trim_end_matches(['\r', '\n']).to_owned()))
}

fn file(path: &Path) -> Result<SecretText> {
    use std::io::Read as _;
    let failed = |source| Error::io(format!("read {}", path.display()), source);
    let opened = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::with_capacity(MAX_FILE as usize + 1);
    let read = opened.take(MAX_FILE + 1).read_to_string(&mut text);
    let text = SecretText::from(text);
    read.map_err(failed)?;
    if text.expose_secret().len() as u64 > MAX_FILE {
        return Err(message(format!("{} is too large", path.display())));
    }
    Ok(text)
}

struct Wiped(SecretBytes);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        self.0.expose_secret()
    }
}
