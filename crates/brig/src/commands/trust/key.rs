//! `trust key generate`, `load` and `rotate`.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use brig_pki::signing::{Curve, SigningKey};
use brig_trust::keystore::{KeyInfo, KeyStore, MAX_KEY_FILE, public_key_pem};
use brig_trust::remote::Action;
use brig_trust::{Keeper, Role};
use brig_types::error::chain;
use brig_types::reference::Reference;
use brig_types::secret::SecretBytes;
use clap::Args;

use super::passphrase::Terminal;
use super::session::{Session, trust_dir};
use super::signer::is_name;
use crate::cli::leaf;
use crate::context::Context;
use crate::error::{Error, Result, message};

leaf!(GENERATE, "generate", "NAME", "Generate and load a signing key-pair", GenerateArgs, generate);
leaf!(LOAD, "load", "[OPTIONS] KEYFILE", "Load a private key file for signing", LoadArgs, load);
leaf!(
    ROTATE,
    "rotate",
    "[OPTIONS] REPOSITORY root|targets|snapshot|timestamp|server",
    "Give a role of a repository another key",
    RotateArgs,
    rotate
);

/// What others than the owner must not do.
const OTHERS: u32 = 0o077;

#[derive(Args, Debug)]
struct GenerateArgs {
    /// Directory to generate key in, defaults to current directory
    #[arg(long, default_value = "")]
    dir: String,
    #[arg(hide = true)]
    name: String,
}

async fn generate(context: &Context, args: GenerateArgs) -> Result<()> {
    check_name(&args.name)?;
    let folder = if args.dir.is_empty() {
        std::env::current_dir().map_err(|source| Error::io("finding the current folder", source))?
    } else {
        PathBuf::from(args.dir)
    };
    let path = folder.join(format!("{}.pub", args.name));
    if path.exists() {
        return Err(message(format!("public key file already exists: \"{}\"", path.display())));
    }
    crate::output::line(&format!("Generating key for {}...", args.name))?;
    let failed = |error: &dyn std::error::Error| {
        message(format!("failed to generate key for {}: {}", args.name, chain(error)))
    };
    let key = SigningKey::generate(Curve::P256).map_err(|e| failed(&e))?;
    let public = public_key_pem(&key, &args.name).map_err(|e| failed(&e))?;
    let mut keys = KeyStore::new(&trust_dir(context));
    keys.add(key, &KeyInfo::signer(&args.name), &mut Terminal).map_err(|e| failed(&e))?;
    write_new(&path, public.as_bytes())?;
    crate::output::line(&format!(
        "Successfully generated and loaded private key. Corresponding public key available: {}",
        path.display()
    ))
}

fn write_new(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .map_err(|source| Error::io(format!("writing {}", path.display()), source))
}

fn check_name(name: &str) -> Result<()> {
    if is_name(name) {
        return Ok(());
    }
    Err(message(format!(
        "key name \"{name}\" must start with lowercase alphanumeric characters and can include \"-\" or \"_\" after the first character"
    )))
}

#[derive(Args, Debug)]
struct LoadArgs {
    /// Name for the loaded key
    #[arg(long, default_value = "signer")]
    name: String,
    #[arg(hide = true)]
    file: PathBuf,
}

async fn load(context: &Context, args: LoadArgs) -> Result<()> {
    check_name(&args.name)?;
    let path = args.file.display();
    crate::output::line(&format!("Loading key from \"{path}\"..."))?;
    let refused = |why: String| message(format!("refusing to load key from {path}: {why}"));
    let metadata = std::fs::metadata(&args.file).map_err(|e| refused(e.to_string()))?;
    if metadata.permissions().mode() & OTHERS != 0 {
        return Err(refused(format!(
            "private key file {path} must not be readable or writable by others"
        )));
    }
    let content = crate::parse::env::read_limited(&args.file, MAX_KEY_FILE as u64)
        .map(SecretBytes::new)
        .map_err(|e| refused(e.text()))?;
    let mut keys = KeyStore::new(&trust_dir(context));
    keys.import(&args.file, &content, &KeyInfo::signer(&args.name), &mut Terminal)
        .map_err(|e| message(format!("error importing key from {path}: {}", chain(&e))))?;
    crate::output::line(&format!("Successfully imported key from {path}"))
}

#[derive(Args, Debug)]
struct RotateArgs {
    /// Keep the snapshot key here instead of on the trust server
    #[arg(long)]
    local: bool,
    #[arg(hide = true)]
    repository: String,
    #[arg(hide = true, value_parser = ["root", "targets", "snapshot", "timestamp", "server"])]
    role: String,
}

async fn rotate(context: &Context, args: RotateArgs) -> Result<()> {
    let reference = Reference::parse(&args.repository).map_err(|e| message(e.to_string()))?;
    if args.role == "server" {
        let mut session = Session::open(context, &reference, Action::All).await?;
        session.move_to_server().await?;
        return crate::output::line(&format!(
            "Successfully gave the snapshot and timestamp keys of repository {} to the trust server",
            session.gun
        ));
    }
    let role = Role::parse(&args.role).map_err(|e| message(e.to_string()))?;
    let keeper = match (&role, args.local) {
        (Role::Timestamp, true) => {
            return Err(message("the timestamp key is always the trust server's"));
        }
        (Role::Timestamp | Role::Snapshot, false) => Keeper::Server,
        _ => Keeper::Publisher,
    };
    let mut session = Session::open(context, &reference, Action::All).await?;
    session.rotate(&role, keeper).await?;
    crate::output::line(&format!("Successfully rotated {role} key for repository {}", session.gun))
}
