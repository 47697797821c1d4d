//! Key pairs: `trust cosign generate-key-pair` and `import-key-pair`.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use brig_trust::cosign::{
    KeyFileError, KeyPair, MAX_KEY_FILE, PrivateKeyFile, PublicKey, public_keys,
};
use brig_types::error::chain;
use brig_types::secret::{SecretBytes, SecretString};
use clap::Args;

use crate::cli::leaf;
use crate::context::Context;
use crate::error::{Error, Result, message};

leaf!(
    GENERATE,
    "generate-key-pair",
    "[OPTIONS]",
    "Generate a key pair for signing with cosign's signatures",
    GenerateArgs,
    generate
);
leaf!(
    IMPORT,
    "import-key-pair",
    "[OPTIONS] --key FILE",
    "Make a key pair of a private key in PEM",
    ImportArgs,
    import
);

/// Where cosign takes a private key's password from.
const PASSWORD_VARIABLE: &str = "COSIGN_PASSWORD";
/// How often a password is asked for.
const MAX_ATTEMPTS: usize = 3;
const PRIVATE_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;

#[derive(Args, Debug)]
struct GenerateArgs {
    /// Name of the files, without .key and .pub
    #[arg(long, value_name = "prefix", default_value = "cosign")]
    output_key_prefix: String,
}

async fn generate(_: &Context, args: GenerateArgs) -> Result<()> {
    let files = Files::named(&args.output_key_prefix)?;
    let pair = KeyPair::generate().map_err(|e| message(chain(&e)))?;
    files.write(&pair)
}

#[derive(Args, Debug)]
struct ImportArgs {
    /// Private key: ECDSA or RSA, in PEM
    #[arg(long, value_name = "file")]
    key: Option<PathBuf>,
    /// Name of the files, without .key and .pub
    #[arg(long, value_name = "prefix", default_value = "import-cosign")]
    output_key_prefix: String,
}

async fn import(_: &Context, args: ImportArgs) -> Result<()> {
    let key = args.key.ok_or_else(|| message("name the private key: --key FILE"))?;
    let files = Files::named(&args.output_key_prefix)?;
    let pair = private(&key)?;
    files.write(&pair)
}

/// The two files of a new pair. Nothing is overwritten.
struct Files {
    private: PathBuf,
    public: PathBuf,
}

impl Files {
    fn named(prefix: &str) -> Result<Self> {
        let files = Self {
            private: PathBuf::from(format!("{prefix}.key")),
            public: PathBuf::from(format!("{prefix}.pub")),
        };
        for path in [&files.private, &files.public] {
            if path.symlink_metadata().is_ok() {
                return Err(message(format!(
                    "{} exists already: move it away, or name other files with --output-key-prefix",
                    path.display()
                )));
            }
        }
        Ok(files)
    }

    fn write(&self, pair: &KeyPair) -> Result<()> {
        let password = new_password()?;
        let private = pair
            .to_encrypted_pem(password.expose_secret().as_bytes())
            .map_err(|e| message(chain(&e)))?;
        write_new(&self.private, private.expose_secret(), PRIVATE_MODE)?;
        crate::output::warn(&format!("Private key written to {}", self.private.display()));
        write_new(&self.public, pair.public().to_pem().as_bytes(), PUBLIC_MODE)?;
        crate::output::warn(&format!("Public key written to {}", self.public.display()));
        Ok(())
    }
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(content).and_then(|()| file.sync_all()).inspect_err(|_| {
            let _ = std::fs::remove_file(path);
        })
    };
    write().map_err(|source| Error::io(format!("writing {}", path.display()), source))
}

fn new_password() -> Result<SecretString> {
    let given = crate::parse::env::process_env(PASSWORD_VARIABLE).map(SecretString::new);
    let password = match given {
        Some(given) => given,
        None => {
            let first = ask("Enter password for private key: ")?;
            // Who is not at a terminal has written it down already.
            if crate::terminal::stdin_is_terminal()
                && ask("Enter password for private key again: ")?.expose_secret()
                    != first.expose_secret()
            {
                return Err(message("the passwords do not match"));
            }
            first
        }
    };
    if password.is_empty() {
        crate::output::warn("WARNING: the private key has no password: its file is all it takes.");
    }
    Ok(password)
}

fn ask(prompt: &str) -> Result<SecretString> {
    if !crate::terminal::stdin_is_terminal() {
        crate::output::warn_raw(prompt);
    }
    let answer = crate::terminal::secret::ask(prompt)?;
    if !crate::terminal::stdin_is_terminal() {
        crate::output::warn("");
    }
    Ok(SecretString::new(answer.expose_secret().to_owned()))
}

fn refused(path: &Path, error: &KeyFileError) -> Error {
    message(format!("{}: {}", path.display(), chain(error)))
}

fn content(path: &Path) -> Result<SecretBytes> {
    crate::parse::env::read_limited(path, MAX_KEY_FILE as u64).map(SecretBytes::new)
}

/// Opens a private key, asking for its password where it has one.
pub(super) fn private(path: &Path) -> Result<KeyPair> {
    opened(path, &content(path)?)
}

fn opened(path: &Path, content: &SecretBytes) -> Result<KeyPair> {
    let file =
        PrivateKeyFile::parse(content.expose_secret()).map_err(|error| refused(path, &error))?;
    if !file.is_encrypted() {
        return file.open(b"").map_err(|error| refused(path, &error));
    }
    if let Some(given) = crate::parse::env::process_env(PASSWORD_VARIABLE) {
        let given = SecretString::new(given);
        return file.open(given.expose_secret().as_bytes()).map_err(|error| refused(path, &error));
    }
    for attempt in 1.. {
        let password = ask("Enter password for private key: ")?;
        match file.open(password.expose_secret().as_bytes()) {
            Err(KeyFileError::Passphrase)
                if attempt < MAX_ATTEMPTS && crate::terminal::stdin_is_terminal() =>
            {
                crate::output::warn("The password is wrong. Please retry.");
            }
            opened => return opened.map_err(|error| refused(path, &error)),
        }
    }
    Err(refused(path, &KeyFileError::Passphrase))
}

/// The public keys of files.
pub(super) fn public(paths: &[PathBuf]) -> Result<Vec<PublicKey>> {
    let mut keys = Vec::new();
    for path in paths {
        let content = content(path)?;
        keys.extend(public_keys(content.expose_secret()).map_err(|error| refused(path, &error))?);
    }
    Ok(keys)
}
