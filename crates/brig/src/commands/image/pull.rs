//! `pull`, and pulling for `run`.

use brig_types::digest::Digest;
use brig_types::reference::{DEFAULT_TAG, Reference};
use clap::Args;

use crate::cli::leaf;
use crate::client::{Call, registry_auth};
use crate::commands::trust::{ContentTrust, pull_trusted, tag_trusted};
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::progress::{Display, Target};
use crate::terminal::stdout_is_terminal;

leaf!(
    PULL,
    "pull",
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    "Download an image from a registry",
    PullArgs,
    pull
);

#[derive(Args, Debug)]
struct PullArgs {
    /// Download all tagged images in the repository
    #[arg(long, short = 'a')]
    all_tags: bool,
    #[command(flatten)]
    trust: ContentTrust,
    /// Set platform if server is multi-platform capable
    #[arg(long)]
    platform: Option<String>,
    /// Suppress verbose output
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(hide = true)]
    name: String,
}

async fn pull(context: &Context, args: PullArgs) -> Result<()> {
    let reference = Reference::parse(&args.name).map_err(|e| message(e.to_string()))?;
    if args.all_tags && (reference.tag().is_some() || reference.digest().is_some()) {
        return Err(message("tag can't be used with --all-tags/-a"));
    }
    let reference = if args.all_tags {
        reference
    } else {
        if reference.tag().is_none() && reference.digest().is_none() && !args.quiet {
            crate::output::line(&format!("Using default tag: {DEFAULT_TAG}"))?;
        }
        reference.with_default_tag()
    };
    let platform = args.platform.as_deref();
    let display = || (!args.quiet).then(|| Display::new(Target::Stdout, stdout_is_terminal()));
    if args.trust.enabled && reference.digest().is_none() {
        let trusted = pull_trusted(context, &reference).await?;
        for (at, (tagged, digested)) in trusted.iter().enumerate() {
            if !args.quiet {
                crate::output::line(&format!(
                    "Pull ({} of {}): {}@{}",
                    at + 1,
                    trusted.len(),
                    tagged.familiar(),
                    digested.digest().map(Digest::as_str).unwrap_or_default()
                ))?;
            }
            stream(context, digested, platform, display()).await?;
            tag_trusted(context, digested, tagged).await?;
        }
    } else {
        stream(context, &reference, platform, display()).await?;
    }
    let pulled = if args.all_tags { reference.name() } else { full(&reference) };
    crate::output::line(&pulled)
}

/// The reference in full, as docker prints it after a pull.
fn full(reference: &Reference) -> String {
    let mut text = reference.name();
    if let Some(tag) = reference.tag() {
        text.push_str(&format!(":{tag}"));
    }
    if let Some(digest) = reference.digest() {
        text.push_str(&format!("@{digest}"));
    }
    text
}

/// Pulls what `run` and `create` need; progress goes to stderr.
pub(crate) async fn pull_for_run(
    context: &Context,
    image: &str,
    platform: Option<&str>,
    quiet: bool,
) -> Result<()> {
    let reference = Reference::parse(image).map_err(|e| message(e.to_string()))?.with_default_tag();
    let terminal = rustix::termios::isatty(std::io::stderr());
    let display = (!quiet).then(|| Display::new(Target::Stderr, terminal));
    stream(context, &reference, platform, display).await
}

async fn stream(
    context: &Context,
    reference: &Reference,
    platform: Option<&str>,
    display: Option<Display>,
) -> Result<()> {
    let auth = registry_auth::for_image(&context.config, &reference.name()).await;
    let tag = reference
        .digest()
        .map(|digest| digest.as_str().to_owned())
        .or_else(|| reference.tag().map(str::to_owned));
    let call = Call::post("/images/create")
        .query("fromImage", reference.name())
        .query_opt("tag", tag)
        .query_opt("platform", platform.map(str::to_ascii_lowercase))
        .registry_auth(&auth);
    let mut answer = context.client.send(call).await?;
    let quiet = display.is_none();
    let mut display = display.unwrap_or_else(|| Display::new(Target::Stderr, false));
    while let Some(chunk) = answer.chunk().await? {
        if quiet {
            display.feed_errors(&chunk)?;
        } else {
            display.feed(&chunk)?;
        }
    }
    if quiet { display.feed_errors(b"\n") } else { display.finish() }
}
