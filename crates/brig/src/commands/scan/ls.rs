//! `scan ls`: every image that runs, on this node or in the whole swarm, judged now from the
//! inventories that the daemon keeps. A database that changed since changes the answer at once.

use std::collections::BTreeMap;

use brig_api::inventory::{ImageUse, RunningImage};
use brig_scan::db::Index;
use brig_scan::matching::{Finding, Matcher, Report};
use brig_scan::package::Inventory;
use brig_scan::report::{Filter, Origin};
use brig_scan::severity::Severity;
use clap::Args;

use super::{JudgeArgs, check, db, failed, filter, options, source};
use crate::cli::leaf;
use crate::client::Call;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::list::{Listing, Row};

leaf!(LS, "ls", "[OPTIONS]", "Judge every image that runs, here or in the swarm", ListArgs, ls);

/// The verdict on images.
const IMAGES: Listing<'_> = Listing {
    table: "{{.Image}}\t{{.Verdict}}\t{{.Critical}}\t{{.High}}\t{{.Medium}}\t{{.Low}}\t{{.Fixable}}\t{{.KEV}}\t{{.UsedBy}}",
    headers: &[("KEV", "KEV"), ("UsedBy", "USED BY")],
    id: "ID",
};
/// Who holds one flaw.
const HOLDERS: Listing<'_> = Listing {
    table: "{{.Kind}}\t{{.Name}}\t{{.Node}}\t{{.Image}}\t{{.Package}}\t{{.Version}}\t{{.Fixed}}\t{{.Severity}}",
    headers: &[],
    id: "ID",
};
/// Names of users that a table shows.
const SHOWN: usize = 2;
const UNKNOWN: &str = "unknown";

#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    judge: JudgeArgs,
    /// Show which containers and tasks hold this vulnerability
    #[arg(long)]
    cve: Option<String>,
    /// Exit with this status when something is found or a verdict is "unknown"
    #[arg(long, default_value_t = 0)]
    exit_code: u8,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long, short = 'f')]
    format: Option<String>,
    /// Only display image IDs (with --cve: of containers and tasks)
    #[arg(long, short = 'q')]
    quiet: bool,
}

/// A running image and what is known of it.
struct Judged {
    image: RunningImage,
    known: Option<(Inventory, Report)>,
}

impl Judged {
    fn name(&self) -> &str {
        self.image.names.first().unwrap_or(&self.image.image)
    }

    fn counted<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = &'a Finding> {
        let findings = self.known.iter().flat_map(|(_, report)| &report.findings);
        findings.filter(|finding| filter.counts(finding))
    }

    fn is_complete(&self) -> bool {
        self.known.as_ref().is_some_and(|(_, report)| report.is_complete())
    }
}

async fn ls(context: &Context, args: ListArgs) -> Result<()> {
    check(&args.judge)?;
    let filter = filter(&args.judge, false)?;
    let index = Index::open(&db::path(args.judge.db.as_deref())).map_err(failed)?;
    let images: Vec<RunningImage> = context.client.json(Call::get("/brig/inventories")).await?;
    let options = options(&args.judge)?;
    let mut matcher = Matcher::new();
    let mut judged = Vec::with_capacity(images.len());
    for image in images {
        let inventory = match image.known {
            true => source::kept(context, &image.image).await?,
            false => None,
        };
        let known = match inventory {
            Some(inventory) => {
                let report = matcher.judge(&index, &inventory, &options).map_err(failed)?;
                Some((inventory, report))
            }
            None => None,
        };
        judged.push(Judged { image, known });
    }
    let (listing, rows) = match &args.cve {
        None => (IMAGES, images_of(&mut judged, &filter)),
        Some(id) => {
            if index.find(id).map_err(failed)?.is_none() {
                crate::output::warn(&format!(
                    "{id}: no feed of the database names it. Look at their age with: {} scan db status",
                    context.program
                ));
            }
            (HOLDERS, holders_of(&judged, id))
        }
    };
    listing.print(&rows, args.format.as_deref(), args.quiet)?;
    let unsure: Vec<&str> =
        judged.iter().filter(|image| !image.is_complete()).map(Judged::name).collect();
    if !unsure.is_empty() {
        crate::output::warn(&format!(
            "not everything could be judged of: {}. Why: {} scan IMAGE",
            unsure.join(", "),
            context.program
        ));
    }
    let found = match args.cve {
        Some(_) => !rows.is_empty(),
        None => judged.iter().any(|image| image.counted(&filter).next().is_some()),
    };
    if args.exit_code != 0 && (found || !unsure.is_empty()) {
        return Err(Error::Status(args.exit_code));
    }
    Ok(())
}

/// One line for each image, the most urgent first.
fn images_of(judged: &mut [Judged], filter: &Filter) -> Vec<Row> {
    let rank = |image: &Judged| {
        let counts = counts(image, filter);
        let of = |severity| counts.get(&severity).copied().unwrap_or(0);
        let exploited = image.counted(filter).filter(|f| f.exploited.is_some()).count();
        let order = (exploited, of(Severity::Critical), of(Severity::High), of(Severity::Medium));
        (std::cmp::Reverse(order), image.is_complete(), image.name().to_owned())
    };
    judged.sort_by_cached_key(rank);
    judged.iter().map(|image| image_row(image, filter)).collect()
}

fn counts(image: &Judged, filter: &Filter) -> BTreeMap<Severity, usize> {
    let mut counts = BTreeMap::new();
    for finding in image.counted(filter) {
        *counts.entry(finding.severity).or_default() += 1;
    }
    counts
}

fn image_row(image: &Judged, filter: &Filter) -> Row {
    let counts = counts(image, filter);
    let of = |severity| counts.get(&severity).copied().unwrap_or(0);
    let exploited = image.counted(filter).filter(|finding| finding.exploited.is_some()).count();
    let fixable = image.counted(filter).filter(|finding| finding.fixable()).count();
    let verdict = image.known.as_ref().map_or(UNKNOWN, |(_, report)| report.verdict.as_str());
    let uses: Vec<serde_json::Value> = image
        .image
        .uses
        .iter()
        .map(|by| {
            serde_json::json!({
                "Kind": by.kind, "ID": by.id, "Name": by.name, "Service": by.service,
                "Node": by.node,
            })
        })
        .collect();
    Row::new()
        .with("Image", image.name())
        .with("Names", image.image.names.join(","))
        .with("ID", image.image.image.as_str())
        .with("Verdict", verdict)
        .with("Complete", image.is_complete())
        .with("Critical", of(Severity::Critical))
        .with("High", of(Severity::High))
        .with("Medium", of(Severity::Medium))
        .with("Low", of(Severity::Low))
        .with("Unknown", of(Severity::Unknown))
        .with("Fixable", fixable)
        .with("KEV", exploited)
        .with("UsedBy", used_by(&image.image.uses))
        .with("Uses", uses)
}

/// The first services and containers by name, and how many more.
fn used_by(uses: &[ImageUse]) -> String {
    let mut names: Vec<&str> = uses
        .iter()
        .map(|by| if by.service.is_empty() { by.name.as_str() } else { by.service.as_str() })
        .collect();
    names.sort_unstable();
    names.dedup();
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    let shown = names.join(", ");
    if more > 0 { format!("{shown} +{more}") } else { shown }
}

/// One line for each container or task and package that holds a flaw.
fn holders_of(judged: &[Judged], id: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for image in judged {
        let Some((inventory, report)) = &image.known else { continue };
        let holds = |finding: &&Finding| finding.suppressed.is_none() && finding.is_named(id);
        for finding in report.findings.iter().filter(holds) {
            let Some(package) = report.package(inventory, finding) else { continue };
            let layer = Origin::of(inventory, package);
            for by in &image.image.uses {
                let row = Row::new()
                    .with("Kind", by.kind.as_str())
                    .with("ID", by.id.as_str())
                    .with("Name", by.name.as_str())
                    .with("Service", by.service.as_str())
                    .with("Node", by.node.as_str())
                    .with("Image", image.name())
                    .with("ImageID", image.image.image.as_str())
                    .with("Vulnerability", finding.id.as_str())
                    .with("Package", package.name.as_str())
                    .with("Version", package.version.as_str())
                    .with("Fixed", finding.fixed.as_deref().unwrap_or("-"))
                    .with("Status", finding.status.as_str())
                    .with("Severity", finding.severity.as_str())
                    .with("Layer", layer.as_ref().map_or(0, |origin| origin.layer));
                rows.push(row);
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_once_and_not_all_of_them() {
        let by = |name: &str, service: &str| ImageUse {
            name: name.to_owned(),
            service: service.to_owned(),
            ..ImageUse::default()
        };
        assert_eq!(used_by(&[]), "");
        assert_eq!(used_by(&[by("web.1.x", "web"), by("web.2.y", "web"), by("db", "")]), "db, web");
        assert_eq!(used_by(&[by("a", ""), by("b", ""), by("c", ""), by("d", "")]), "a, b +2");
    }

    #[test]
    fn an_image_that_nobody_knows_is_never_clean() {
        let image = RunningImage { names: vec!["app:1".to_owned()], ..RunningImage::default() };
        let image = Judged { image, known: None };
        let row = image_row(&image, &Filter::default());
        assert_eq!(row.text("Verdict"), "unknown");
        assert!(!image.is_complete());
    }
}
