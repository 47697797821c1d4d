//! `system df`.

use brig_api::image::ImageSummary;
use brig_api::progress::human_size;
use brig_api::system::DiskUsage;
use clap::Args;
use serde_json::Value;
use time::OffsetDateTime;

use crate::cli::leaf;
use crate::client::Call;
use crate::commands::container::summary_row;
use crate::commands::image::image_rows;
use crate::context::Context;
use crate::error::{Result, message};
use crate::output::human::since;
use crate::output::list::{Listing, Row};
use crate::output::print;

leaf!(DF, "df", "[OPTIONS]", "Show brig disk usage", DfArgs, df);

#[derive(Args, Debug)]
struct DfArgs {
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Show detailed information on space usage
    #[arg(long, short = 'v')]
    verbose: bool,
}

const SUMMARY: Listing<'_> = Listing {
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    headers: &[("TotalCount", "TOTAL")],
    id: "Type",
};
const IMAGES: Listing<'_> = Listing {
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    headers: &[
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
    ],
    id: "ID",
};
const CONTAINERS: Listing<'_> = Listing {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
    headers: &[
        ("ID", "CONTAINER ID"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("RunningFor", "CREATED"),
    ],
    id: "ID",
};
const VOLUMES: Listing<'_> = Listing {
    table: "{{.Name}}\t{{.Links}}\t{{.Size}}",
    headers: &[("Name", "VOLUME NAME")],
    id: "Name",
};
const CACHE: Listing<'_> = Listing {
    table: "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
    headers: &[
        ("ID", "CACHE ID"),
        ("CacheType", "CACHE TYPE"),
        ("CreatedSince", "CREATED"),
        ("LastUsedSince", "LAST USED"),
        ("UsageCount", "USAGE"),
    ],
    id: "ID",
};

async fn df(context: &Context, args: DfArgs) -> Result<()> {
    let usage: DiskUsage = context.client.json(Call::get("/system/df")).await?;
    if args.verbose {
        return match args.format.as_deref() {
            None | Some("" | "table") => verbose(&usage, brig_api::time::now()),
            Some("json") => {
                let text = serde_json::json!({
                    "Images": usage.images, "Containers": usage.containers,
                    "Volumes": usage.volumes, "BuildCache": usage.build_cache,
                });
                print(&format!("{text}\n"))
            }
            Some(_) => Err(message("--format with --verbose takes only 'table' and 'json'")),
        };
    }
    SUMMARY.print(&summary(&usage), args.format.as_deref(), false)
}

/// A line of the summary: how many, how many of them in use, bytes, bytes that would come back.
fn line(kind: &str, total: usize, active: usize, size: u64, free: u64, percent: bool) -> Row {
    let mut reclaimable = human_size(free);
    if percent && size > 0 {
        reclaimable.push_str(&format!(" ({}%)", u128::from(free) * 100 / u128::from(size)));
    }
    Row::new()
        .with("Type", kind)
        .with("TotalCount", total.to_string())
        .with("Active", active.to_string())
        .with("Size", human_size(size))
        .with("Reclaimable", reclaimable)
}

fn count(bytes: i64) -> u64 {
    u64::try_from(bytes).unwrap_or(0)
}

fn summary(usage: &DiskUsage) -> Vec<Row> {
    let in_use: Vec<&ImageSummary> =
        usage.images.iter().filter(|image| image.containers > 0).collect();
    let used: u64 = in_use
        .iter()
        .filter(|image| image.size >= 0 && image.shared_size >= 0)
        .map(|image| count(image.size - image.shared_size))
        .sum();
    let layers = count(usage.layers_size);
    let images =
        line("Images", usage.images.len(), in_use.len(), layers, layers.saturating_sub(used), true);

    let is_active = |state: &str| matches!(state, "running" | "paused" | "restarting");
    let (active, idle): (Vec<_>, Vec<_>) =
        usage.containers.iter().partition(|container| is_active(&container.state));
    let sum = |list: &[&brig_api::container::ContainerSummary]| -> u64 {
        list.iter().map(|one| count(one.size_rw.unwrap_or_default())).sum()
    };
    let free = sum(&idle);
    let containers =
        line("Containers", usage.containers.len(), active.len(), sum(&active) + free, free, true);

    let (mut active, mut all, mut free) = (0, 0, 0);
    for volume in &usage.volumes {
        let Some(usage) = &volume.usage_data else { continue };
        let bytes = count(usage.size);
        all += bytes;
        if usage.ref_count > 0 {
            active += 1;
        } else {
            free += bytes;
        }
    }
    let volumes = line("Local Volumes", usage.volumes.len(), active, all, free, true);

    let flag = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_bool).unwrap_or(false);
    let bytes = |entry: &Value| entry.get("Size").and_then(Value::as_u64).unwrap_or(0);
    let active = usage.build_cache.iter().filter(|entry| flag(entry, "InUse")).count();
    let own = usage.build_cache.iter().filter(|entry| !flag(entry, "Shared"));
    let all: u64 = own.clone().map(bytes).sum();
    let free: u64 = own.filter(|entry| !flag(entry, "InUse")).map(bytes).sum();
    let cache = line("Build Cache", usage.build_cache.len(), active, all, free, false);
    vec![images, containers, volumes, cache]
}

fn verbose(usage: &DiskUsage, now: OffsetDateTime) -> Result<()> {
    let images: Vec<Row> = usage.images.iter().flat_map(|image| image_rows(image, now)).collect();
    let containers: Vec<Row> =
        usage.containers.iter().map(|container| summary_row(container, now)).collect();
    let volumes: Vec<Row> = usage
        .volumes
        .iter()
        .map(|volume| {
            let (links, size) = match &volume.usage_data {
                Some(usage) => (usage.ref_count.to_string(), human_size(count(usage.size))),
                None => ("N/A".to_owned(), "N/A".to_owned()),
            };
            Row::new().with("Name", volume.name.as_str()).with("Links", links).with("Size", size)
        })
        .collect();
    let cache: Vec<Row> = usage
        .build_cache
        .iter()
        .map(|entry| {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
            let number = |key: &str| entry.get(key).and_then(Value::as_u64).unwrap_or(0);
            let shared = entry.get("Shared").and_then(Value::as_bool).unwrap_or(false);
            Row::new()
                .with("ID", text("ID").chars().take(12).collect::<String>())
                .with("CacheType", text("Type"))
                .with("Size", human_size(number("Size")))
                .with("CreatedSince", since(text("CreatedAt"), now))
                .with("LastUsedSince", since(text("LastUsedAt"), now))
                .with("UsageCount", number("UsageCount").to_string())
                .with("Shared", shared.to_string())
        })
        .collect();
    let total: u64 =
        usage.build_cache.iter().filter_map(|e| e.get("Size").and_then(Value::as_u64)).sum();
    print(&format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}\nBuild cache usage: {}\n\n{}",
        IMAGES.render(&images, "")?,
        CONTAINERS.render(&containers, "")?,
        VOLUMES.render(&volumes, "")?,
        human_size(total),
        CACHE.render(&cache, "")?,
    ))
}

#[cfg(test)]
mod tests {
    use brig_api::container::ContainerSummary;

    use super::*;

    #[test]
    fn the_summary_adds_up() {
        let image = |containers, size, shared_size| ImageSummary {
            containers,
            size,
            shared_size,
            ..ImageSummary::default()
        };
        let container = |state: &str, size| ContainerSummary {
            state: state.to_owned(),
            size_rw: Some(size),
            ..ContainerSummary::default()
        };
        let usage = DiskUsage {
            layers_size: 4_000_000,
            images: vec![image(1, 3_000_000, 0), image(0, 1_000_000, 0)],
            containers: vec![container("running", 10), container("exited", 30)],
            ..DiskUsage::default()
        };
        let text = SUMMARY.render(&summary(&usage), "").unwrap();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").filter(|c| !c.is_empty()).map(str::trim).collect())
            .collect();
        assert_eq!(lines[0], ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
        assert_eq!(lines[1], ["Images", "2", "1", "4MB", "1MB (25%)"]);
        assert_eq!(lines[2], ["Containers", "2", "1", "40B", "30B (75%)"]);
        assert_eq!(lines[3], ["Local Volumes", "0", "0", "0B", "0B"]);
        assert_eq!(lines[4], ["Build Cache", "0", "0", "0B", "0B"]);
    }
}
