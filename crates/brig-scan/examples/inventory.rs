//! Writes the inventory of a file or directory, read in the sandbox:
//! `inventory PATH [list|cyclonedx|spdx|json|here|trusting]`; `here` reads it in this process,
//! `trusting` does not compare layers with their diff ids.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use brig_scan::inventory::{Options, Verify, read_path};
use brig_scan::sandbox::{self, Sandbox};
use brig_scan::sbom::{cyclonedx, spdx};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    if sandbox::is_reader(std::env::args_os()) {
        return Ok(sandbox::reader());
    }
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("which file or directory?")?;
    let format = arguments.next().unwrap_or_default();
    let mut options = Options::default();
    if format == "trusting" {
        options.verify = Verify::AlreadyDone;
    }
    let inventory = if format == "here" {
        read_path(Path::new(&path), &options)?
    } else {
        Sandbox::default().read_path(Path::new(&path), &options)?
    };
    let mut out = std::io::stdout().lock();
    match format.as_str() {
        "cyclonedx" => out.write_all(&cyclonedx::write(&inventory))?,
        "spdx" => out.write_all(&spdx::write(&inventory))?,
        "json" => serde_json::to_writer(&mut out, &inventory)?,
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
    Ok(ExitCode::SUCCESS)
}
