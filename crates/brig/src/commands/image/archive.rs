//! `load` and `import`.

use std::os::fd::AsFd as _;

use clap::Args;
use tokio::io::AsyncRead;

use crate::cli::leaf;
use crate::client::Call;
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::output::progress::{Display, Target};
use crate::terminal::{stdin_is_terminal, stdout_is_terminal};

leaf!(LOAD, "load", "[OPTIONS]", "Load an image from a tar archive or STDIN", LoadArgs, load);
leaf!(
    IMPORT,
    "import",
    "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    ImportArgs,
    import
);

#[derive(Args, Debug)]
struct LoadArgs {
    /// Read from tar archive file, instead of STDIN
    #[arg(long, short = 'i')]
    input: Option<String>,
    /// Load only the given platform variant, formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")
    #[arg(long)]
    platform: Option<String>,
    /// Suppress the load output
    #[arg(long, short = 'q')]
    quiet: bool,
}

async fn open(path: &str) -> Result<tokio::fs::File> {
    tokio::fs::File::open(path).await.map_err(|source| Error::io(format!("open {path}"), source))
}

/// Stdin as a body.
fn stdin() -> Result<impl AsyncRead + Send + Sync + 'static> {
    let fd = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| Error::io("opening stdin", source))?;
    Ok(tokio::fs::File::from_std(fd.into()))
}

async fn load(context: &Context, args: LoadArgs) -> Result<()> {
    let terminal = stdout_is_terminal();
    let quiet = args.quiet || !terminal;
    let mut call = Call::post("/images/load").query("quiet", if quiet { "1" } else { "0" });
    if let Some(platform) = &args.platform {
        call = call.query("platform", platform_json(platform));
    }
    let call = match &args.input {
        Some(path) => call.stream("application/x-tar", open(path).await?),
        None if stdin_is_terminal() => {
            return Err(message("requested load from stdin, but stdin is empty"));
        }
        None => call.stream("application/x-tar", stdin()?),
    };
    let mut answer = context.client.send(call).await?;
    let is_json = answer.header("Content-Type").is_some_and(|t| t.starts_with("application/json"));
    let mut display = Display::new(Target::Stdout, terminal);
    while let Some(chunk) = answer.chunk().await? {
        if is_json {
            display.feed(&chunk)?;
        } else {
            crate::output::print_bytes(&chunk)?;
        }
    }
    display.finish()
}

/// `os/arch/variant` as the API takes it.
pub(crate) fn platform_json(platform: &str) -> String {
    let mut parts = platform.split('/');
    let mut object = serde_json::Map::new();
    for name in ["os", "architecture", "variant"] {
        if let Some(part) = parts.next() {
            object.insert(name.to_owned(), part.into());
        }
    }
    object.sort_keys();
    serde_json::Value::Object(object).to_string()
}

#[derive(Args, Debug)]
struct ImportArgs {
    /// Apply Dockerfile instruction to the created image
    #[arg(long, short = 'c')]
    change: Vec<String>,
    /// Set commit message for imported image
    #[arg(long, short = 'm')]
    message: Option<String>,
    /// Set platform if server is multi-platform capable
    #[arg(long)]
    platform: Option<String>,
    #[arg(hide = true)]
    source: String,
    #[arg(hide = true)]
    reference: Option<String>,
}

async fn import(context: &Context, args: ImportArgs) -> Result<()> {
    let is_url = args.source.starts_with("http://") || args.source.starts_with("https://");
    let mut call = Call::post("/images/create")
        .query("fromSrc", if is_url { args.source.as_str() } else { "-" })
        .query_opt("repo", args.reference.as_deref())
        .query_opt("message", args.message.as_deref())
        .query_opt("platform", args.platform.as_deref().map(str::to_ascii_lowercase));
    for change in &args.change {
        call = call.query("changes", change);
    }
    let call = match args.source.as_str() {
        _ if is_url => call,
        "-" => call.stream("text/plain", stdin()?),
        path => call.stream("text/plain", open(path).await?),
    };
    let mut answer = context.client.send(call).await?;
    let mut display = Display::new(Target::Stdout, stdout_is_terminal());
    while let Some(chunk) = answer.chunk().await? {
        display.feed(&chunk)?;
    }
    display.finish()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_platform_is_an_object() {
        assert_eq!(
            super::platform_json("linux/arm64/v8"),
            r#"{"architecture":"arm64","os":"linux","variant":"v8"}"#
        );
    }
}
