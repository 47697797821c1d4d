//! `save` and `push`.

use std::path::{Path, PathBuf};

use brig_api::progress::JsonMessage;
use brig_types::reference::{DEFAULT_TAG, Reference};
use clap::Args;
use tokio::io::AsyncWriteExt as _;

use super::archive::platform_json;
use crate::cli::leaf;
use crate::client::{Answer, Call, registry_auth};
use crate::commands::trust::{ContentTrust, Pushed, sign_pushed};
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::output::progress::{Display, Target};
use crate::terminal::stdout_is_terminal;

leaf!(
    SAVE,
    "save",
    "[OPTIONS] IMAGE [IMAGE...]",
    "Save one or more images to a tar archive (streamed to STDOUT by default)",
    SaveArgs,
    save
);
leaf!(PUSH, "push", "[OPTIONS] NAME[:TAG]", "Upload an image to a registry", PushArgs, push);

#[derive(Args, Debug)]
struct SaveArgs {
    /// Write to a file, instead of STDOUT
    #[arg(long, short = 'o')]
    output: Option<String>,
    /// Save only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")
    #[arg(long)]
    platform: Option<String>,
    #[arg(required = true, hide = true)]
    images: Vec<String>,
}

async fn save(context: &Context, args: SaveArgs) -> Result<()> {
    if args.output.is_none() && stdout_is_terminal() {
        return Err(message(
            "cowardly refusing to save to a terminal. Use the -o flag or redirect",
        ));
    }
    let target = args.output.as_deref().map(Path::new).map(checked_output).transpose()?;
    let mut call = Call::get("/images/get");
    for image in &args.images {
        call = call.query("names", image);
    }
    if let Some(platform) = &args.platform {
        call = call.query("platform", platform_json(platform));
    }
    let answer = context.client.send(call).await?;
    match target {
        Some(target) => write_file(answer, &target).await,
        None => {
            let mut answer = answer;
            while let Some(chunk) = answer.chunk().await? {
                crate::output::print_bytes(&chunk)?;
            }
            Ok(())
        }
    }
}

fn checked_output(path: &Path) -> Result<PathBuf> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if !parent.is_dir() {
        return Err(message(format!(
            "failed to save image: invalid output path: directory {:?} does not exist",
            parent.display().to_string()
        )));
    }
    if path.is_dir() {
        return Err(message(format!(
            "failed to save image: invalid output path: {:?} must not be a directory",
            path.display().to_string()
        )));
    }
    Ok(path.to_owned())
}

/// Writes an answer to a file that is there whole or not at all. Devices are written to as they are.
pub(crate) async fn write_file(mut answer: Answer<'_>, target: &Path) -> Result<()> {
    let failed = |source| Error::io(format!("writing {}", target.display()), source);
    let special = std::fs::metadata(target).is_ok_and(|found| !found.is_file());
    let name =
        format!(".{}.{}", target.file_name().unwrap_or_default().display(), std::process::id());
    let place = if special { target.to_owned() } else { target.with_file_name(name) };
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).mode(0o600);
    if special {
        options.create(false);
    } else {
        options.create_new(true);
    }
    let mut file = options.open(&place).await.map_err(failed)?;
    let copied = async {
        while let Some(chunk) = answer.chunk().await? {
            file.write_all(&chunk).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)
    }
    .await;
    if special {
        return copied;
    }
    if copied.is_err() {
        let _ = tokio::fs::remove_file(&place).await;
        return copied;
    }
    tokio::fs::rename(&place, target).await.map_err(failed)
}

#[derive(Args, Debug)]
struct PushArgs {
    /// Push all tags of an image to the repository
    #[arg(long, short = 'a')]
    all_tags: bool,
    #[command(flatten)]
    trust: ContentTrust,
    /// Push a platform-specific manifest as a single-platform image to the registry
    #[arg(long)]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(hide = true)]
    name: String,
}

async fn push(context: &Context, args: PushArgs) -> Result<()> {
    let reference = Reference::parse(&args.name).map_err(|e| message(e.to_string()))?;
    if reference.digest().is_some() {
        return Err(message("cannot push a digest reference"));
    }
    if args.all_tags && reference.tag().is_some() {
        return Err(message("tag can't be used with --all-tags/-a"));
    }
    let reference = if args.all_tags {
        reference
    } else {
        if reference.tag().is_none() && !args.quiet {
            crate::output::line(&format!("Using default tag: {DEFAULT_TAG}"))?;
        }
        reference.with_default_tag()
    };
    let pushed = upload(context, &reference, args.platform.as_deref(), args.quiet).await?;
    if args.quiet {
        crate::output::line(&reference.to_string())?;
    }
    if !args.trust.enabled {
        return Ok(());
    }
    if args.all_tags {
        return crate::output::line("No tag specified, skipping trust metadata push");
    }
    sign_pushed(context, &reference, the_one(pushed)?).await
}

/// Pushes what is going to be signed, and says what the registry has now.
pub(crate) async fn push_for_signing(context: &Context, reference: &Reference) -> Result<Pushed> {
    the_one(upload(context, reference, None, false).await?)
}

/// What is signed must be the one thing that was pushed.
fn the_one(pushed: Vec<Pushed>) -> Result<Pushed> {
    match <[Pushed; 1]>::try_from(pushed) {
        Ok([pushed]) => Ok(pushed),
        Err(all) if all.is_empty() => {
            Err(message("no targets found, please provide a specific tag in order to sign it"))
        }
        Err(_) => Err(message("internal error: only one call to handleTarget expected")),
    }
}

/// Pushes, shows how it goes, and gives what the daemon says of it.
async fn upload(
    context: &Context,
    reference: &Reference,
    platform: Option<&str>,
    quiet: bool,
) -> Result<Vec<Pushed>> {
    let auth = registry_auth::for_image(&context.config, &reference.name()).await;
    let mut call = Call::post(format!("/images/{}/push", reference.name()))
        .query_opt("tag", reference.tag())
        .registry_auth(&auth);
    if let Some(platform) = platform {
        call = call.query("platform", platform_json(platform));
    }
    let mut answer = context.client.send(call).await?;
    let mut display = Display::new(Target::Stdout, stdout_is_terminal());
    let mut pushed = Vec::new();
    let mut take = |display: &mut Display, message: &JsonMessage| {
        pushed.extend(message.aux.as_ref().and_then(of_push));
        // What comes beside the lines is not one of them.
        if quiet || message.aux.is_some() { display.check(message) } else { display.show(message) }
    };
    while let Some(chunk) = answer.chunk().await? {
        display.read(&chunk, &mut take)?;
    }
    display.read(b"\n", &mut take)?;
    Ok(pushed)
}

fn of_push(aux: &serde_json::Value) -> Option<Pushed> {
    let text = |name: &str| aux.get(name)?.as_str().map(str::to_owned);
    Some(Pushed { tag: text("Tag")?, digest: text("Digest")?, size: aux.get("Size")?.as_u64()? })
}
