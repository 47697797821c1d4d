//! Writes the inventory of a file or directory: `inventory PATH [list|cyclonedx|spdx|json]`.

use std::io::Write as _;
use std::path::Path;

use brig_scan::inventory::{Options, read_path};
use brig_scan::sbom::{cyclonedx, spdx};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("which file or directory?")?;
    let inventory = read_path(Path::new(&path), &Options::default())?;
    let mut out = std::io::stdout().lock();
    match arguments.next().as_deref() {
        Some("cyclonedx") => out.write_all(&cyclonedx::write(&inventory))?,
        Some("spdx") => out.write_all(&spdx::write(&inventory))?,
        Some("json") => serde_json::to_writer(&mut out, &inventory)?,
        _ => {
            for package in &inventory.packages {
                let kind = package.ecosystem.purl_type();
                let owner = package.owned_by.as_deref().unwrap_or("-");
                let path = &package.evidence.path;
                writeln!(out, "{kind}\t{}\t{}\t{owner}\t{path}", package.name, package.version)?;
            }
            for unread in &inventory.unread {
                writeln!(out, "unread\t{}\t{}\t{}", unread.reader, unread.path, unread.reason)?;
            }
        }
    }
    Ok(())
}
