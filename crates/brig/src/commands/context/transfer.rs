//! `context export`, `import`.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use brig_types::secret::SecretBytes;
use clap::Args;

use super::change::existing;
use super::store;
use crate::cli::leaf;
use crate::context::Context;
use crate::contexts::{self, Archive, MAX_ARCHIVE};
use crate::error::{Error, Result, message};
use crate::output::{line, print_bytes, warn};

leaf!(
    EXPORT,
    "export",
    "[OPTIONS] CONTEXT [FILE|-]",
    "Export a context to a tar archive FILE or a tar stream on STDOUT.",
    ExportArgs,
    export
);
leaf!(IMPORT, "import", "CONTEXT FILE|-", "Import a context from a tar file", ImportArgs, import);

#[derive(Args, Debug)]
struct ExportArgs {
    #[arg(hide = true)]
    context: String,
    #[arg(hide = true)]
    file: Option<String>,
}

async fn export(context: &Context, args: ExportArgs) -> Result<()> {
    let (meta, tls) = existing(context, &store(context), &args.context)?;
    let tar = Archive { meta, tls }.to_tar()?;
    let path = args.file.unwrap_or_else(|| format!("{}.dockercontext", args.context));
    if path == "-" {
        if std::io::stdout().is_terminal() {
            return Err(message("cowardly refusing to export to a terminal, specify a file path"));
        }
        return print_bytes(tar.expose_secret());
    }
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let mut file = opened.map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => message(format!("open {path}: file exists")),
        _ => Error::io(format!("open {path}"), source),
    })?;
    file.write_all(tar.expose_secret())
        .and_then(|()| file.sync_all())
        .map_err(|source| Error::io(format!("write {path}"), source))?;
    warn(&format!("Written file {path:?}"));
    Ok(())
}

#[derive(Args, Debug)]
struct ImportArgs {
    #[arg(hide = true)]
    context: String,
    #[arg(hide = true)]
    file: String,
}

async fn import(context: &Context, args: ImportArgs) -> Result<()> {
    let store = store(context);
    contexts::validate_name(&args.context)?;
    if store.exists(&args.context) {
        return Err(message(format!("context {:?} already exists", args.context)));
    }
    let Archive { mut meta, tls } = Archive::read(read(&args.file)?.expose_secret())?;
    meta.name.clone_from(&args.context);
    store.put_tls(&meta.name, &tls)?;
    store.put_meta(&meta)?;
    line(&args.context)?;
    warn(&format!("Successfully imported context {:?}", args.context));
    Ok(())
}

fn read(path: &str) -> Result<SecretBytes> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => message(format!("open {path}: no such file or directory")),
        _ => Error::io(format!("open {path}"), source),
    };
    let mut bytes = Vec::new();
    let read = match path {
        "-" => std::io::stdin().lock().take(MAX_ARCHIVE + 1).read_to_end(&mut bytes),
        path => {
            let file = std::fs::File::open(path).map_err(failed)?;
            file.take(MAX_ARCHIVE + 1).read_to_end(&mut bytes)
        }
    };
    read.map_err(failed)?;
    let bytes = SecretBytes::new(bytes);
    if bytes.expose_secret().len() as u64 > MAX_ARCHIVE {
        return Err(message("read exceeds the defined limit"));
    }
    Ok(bytes)
}
