//! `diff` and `export`.

use brig_api::container::ChangeItem;
use clap::Args;
use tokio::io::AsyncWriteExt as _;

use crate::cli::leaf;
use crate::client::Call;
use crate::commands::checked;
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::output::{print, print_bytes};
use crate::terminal::stdout_is_terminal;

leaf!(
    DIFF,
    "diff",
    "CONTAINER",
    "Inspect changes to files or directories on a container's filesystem",
    DiffArgs,
    diff
);
leaf!(
    EXPORT,
    "export",
    "[OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    ExportArgs,
    export
);

#[derive(Args, Debug)]
struct DiffArgs {
    #[arg(hide = true)]
    container: String,
}

async fn diff(context: &Context, args: DiffArgs) -> Result<()> {
    let name = checked("container", &args.container)?;
    let call = Call::get(format!("/containers/{name}/changes"));
    let changes: Option<Vec<ChangeItem>> = context.client.json(call).await?;
    let lines = changes.unwrap_or_default().into_iter().map(|change| {
        let letter = match change.kind {
            1 => 'A',
            2 => 'D',
            _ => 'C',
        };
        format!("{letter} {}\n", change.path)
    });
    print(&lines.collect::<String>())
}

#[derive(Args, Debug)]
struct ExportArgs {
    /// Write to a file, instead of STDOUT
    #[arg(long, short = 'o')]
    output: Option<String>,
    #[arg(hide = true)]
    container: String,
}

async fn export(context: &Context, args: ExportArgs) -> Result<()> {
    let name = checked("container", &args.container)?;
    if args.output.is_none() && stdout_is_terminal() {
        return Err(message(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        ));
    }
    let call = Call::get(format!("/containers/{name}/export"));
    let mut answer = context.client.send(call).await?;
    let Some(path) = args.output.filter(|path| path != "-") else {
        while let Some(piece) = answer.chunk().await? {
            print_bytes(&piece)?;
        }
        return Ok(());
    };
    // Whole or not at all: an archive that was cut off looks like one.
    let temporary = format!("{path}.{}.tmp", std::process::id());
    let failed = |source| Error::io(format!("failed to export container: write {path}"), source);
    let written = async {
        let mut file = tokio::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .await
            .map_err(failed)?;
        while let Some(piece) = answer.chunk().await? {
            file.write_all(&piece).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        tokio::fs::rename(&temporary, &path).await.map_err(failed)
    };
    let written = written.await;
    if written.is_err() {
        // The other error is the one to tell.
        let _ = tokio::fs::remove_file(&temporary).await;
    }
    written
}
