//! `images` / `image ls`.

use brig_api::image::ImageSummary;
use clap::Args;
use time::OffsetDateTime;

use crate::cli::leaf;
use crate::client::Call;
use crate::commands::filters;
use crate::context::Context;
use crate::error::Result;
use crate::output::human::{short_id, since_unix, size, timestamp};
use crate::output::list::{Listing, Row};

leaf!(IMAGES, "images", "[OPTIONS] [REPOSITORY[:TAG]]", "List images", ImagesArgs, images);
leaf!(LS, "ls" | "list", "[OPTIONS] [REPOSITORY[:TAG]]", "List images", ImagesArgs, images);

const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "SIZE"),
];
const NONE: &str = "<none>";

#[derive(Args, Debug)]
struct ImagesArgs {
    /// Show all images (default hides intermediate images)
    #[arg(long, short = 'a')]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output based on conditions provided
    #[arg(long, short = 'f')]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(long, short = 'q')]
    quiet: bool,
    #[arg(hide = true)]
    reference: Option<String>,
}

async fn images(context: &Context, args: ImagesArgs) -> Result<()> {
    let mut filters = filters(&args.filter)?;
    if let Some(reference) = &args.reference {
        filters.add("reference", reference);
    }
    let call = Call::get("/images/json").query_if("all", args.all).filters(&filters);
    let mut images: Vec<ImageSummary> = context.client.json(call).await?;
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    let format = args
        .format
        .clone()
        .or_else(|| context.config.text("imagesFormat").filter(|_| !args.quiet).map(str::to_owned));
    let shows_digests = args.digests || format.as_deref().is_some_and(|f| f.contains(".Digest"));
    let now = brig_api::time::now();
    let rows: Vec<Row> =
        images.iter().flat_map(|image| rows(image, shows_digests, !args.no_trunc, now)).collect();
    let digest = if args.digests { "{{.Digest}}\t" } else { "" };
    let table = format!(
        "{{{{.Repository}}}}\t{{{{.Tag}}}}\t{digest}{{{{.ID}}}}\t{{{{.CreatedSince}}}}\t{{{{.Size}}}}"
    );
    Listing { table: &table, headers: HEADERS, id: "ID" }.print(
        &rows,
        format.as_deref(),
        args.quiet,
    )
}

/// The rows of `system df -v`.
pub(crate) fn image_rows(image: &ImageSummary, now: OffsetDateTime) -> Vec<Row> {
    rows(image, false, true, now)
}

/// A row for each tag; where digests are shown, for each tag and digest of a repository.
fn rows(image: &ImageSummary, digests: bool, trunc: bool, now: OffsetDateTime) -> Vec<Row> {
    let id = if trunc { short_id(&image.id) } else { &image.id };
    let row = |repository: &str, tag: &str, digest: &str| {
        let number = |n: i64| if n < 0 { "N/A".to_owned() } else { n.to_string() };
        let bytes = |n: i64| if n < 0 { "N/A".to_owned() } else { size(n) };
        let unique = if image.shared_size < 0 { -1 } else { image.size - image.shared_size };
        Row::new()
            .with("ID", id)
            .with("Repository", repository)
            .with("Tag", tag)
            .with("Digest", digest)
            .with(
                "CreatedSince",
                if image.created == 0 { "N/A".to_owned() } else { since_unix(image.created, now) },
            )
            .with("CreatedAt", timestamp(image.created))
            .with("Size", size(image.size))
            .with("VirtualSize", size(image.size))
            .with("Containers", number(image.containers))
            .with("SharedSize", bytes(image.shared_size))
            .with("UniqueSize", bytes(unique))
    };
    let digests_of = |repository: &str| -> Vec<&str> {
        let own = image
            .repo_digests
            .iter()
            .filter_map(|d| d.split_once('@'))
            .filter(|(name, _)| *name == repository);
        own.map(|(_, digest)| digest).collect()
    };
    let tags: Vec<(&str, &str)> = image
        .repo_tags
        .iter()
        .filter_map(|tag| tag.rsplit_once(':'))
        .filter(|(name, _)| *name != NONE)
        .collect();
    if tags.is_empty() {
        let mut repositories: Vec<(&str, &str)> = image
            .repo_digests
            .iter()
            .filter_map(|d| d.split_once('@'))
            .filter(|(name, _)| *name != NONE)
            .collect();
        if repositories.is_empty() {
            return vec![row(NONE, NONE, NONE)];
        }
        if !digests {
            repositories.dedup_by_key(|(name, _)| *name);
        }
        return repositories.into_iter().map(|(name, digest)| row(name, NONE, digest)).collect();
    }
    let mut rows = Vec::new();
    for (repository, tag) in tags {
        let own = digests_of(repository);
        match (digests, own.as_slice()) {
            (true, [_, ..]) => rows.extend(own.iter().map(|digest| row(repository, tag, digest))),
            (_, own) => rows.push(row(repository, tag, own.first().copied().unwrap_or(NONE))),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tag_is_a_row() {
        let now = OffsetDateTime::from_unix_timestamp(86_400 * 14).unwrap();
        let image = ImageSummary {
            id: "sha256:0123456789abcdef".into(),
            created: 1,
            size: 4_261_574,
            repo_tags: vec!["h:5000/bb:1".into(), "bb:2".into()],
            repo_digests: vec!["bb@sha256:1".into()],
            shared_size: -1,
            ..ImageSummary::default()
        };
        let listing = Listing { table: "", headers: HEADERS, id: "ID" };
        let format = "{{.Repository}} {{.Tag}} {{.ID}} {{.CreatedSince}} {{.Size}} {{.Digest}} {{.SharedSize}}";
        assert_eq!(
            listing.render(&rows(&image, false, true, now), format).unwrap(),
            "h:5000/bb 1 0123456789ab 2 weeks ago 4.26MB <none> N/A\nbb 2 0123456789ab 2 weeks ago 4.26MB sha256:1 N/A\n"
        );
        let bare = ImageSummary { repo_tags: Vec::new(), repo_digests: Vec::new(), ..image };
        assert_eq!(
            listing.render(&rows(&bare, true, true, now), "{{.Repository}}:{{.Tag}}").unwrap(),
            "<none>:<none>\n"
        );
    }
}
