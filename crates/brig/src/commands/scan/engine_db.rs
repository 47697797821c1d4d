//! `scan db … --engine`: the database by which an engine, or a swarm, judges.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use brig_api::scan::ScanDatabase;
use brig_scan::db::{Collector, Index};
use tokio::io::AsyncRead;

use super::{db, failed};
use crate::client::Call;
use crate::context::Context;
use crate::error::{Error, Result};

const ROUTE: &str = "/brig/scan/database";

pub(super) async fn status(context: &Context, json: bool) -> Result<()> {
    let database: ScanDatabase = context.client.json(Call::get(ROUTE)).await?;
    if json {
        return crate::output::line(&serde_json::to_string(&database).unwrap_or_default());
    }
    let mut text = format!(
        "made {}, received {}, {} vulnerabilities, {} packages, {} bytes, {}{}\n",
        database.created,
        database.received,
        database.vulnerabilities,
        database.packages,
        database.size,
        database.digest,
        if database.shared { ", on all managers of the swarm" } else { "" },
    );
    if !database.awaited.is_empty() {
        text.push_str(&format!(
            "the swarm has another one, which is on its way: {}\n",
            database.awaited
        ));
    }
    if let Some(fetch) = &database.fetch {
        let or_never = |time: &String| if time.is_empty() { "never" } else { time }.to_owned();
        text.push_str(&format!(
            "fetched from {} every {}s: tried {}, worked {}, again {}\n",
            fetch.url,
            fetch.interval,
            or_never(&fetch.attempted),
            or_never(&fetch.succeeded),
            if fetch.next.is_empty() { "now" } else { &fetch.next },
        ));
        if !fetch.error.is_empty() {
            text.push_str(&format!("the last attempt failed: {}\n", fetch.error));
        }
    }
    text.push('\n');
    text.push_str(&db::table(database.feeds));
    text.push_str(&db::covered(database.coverage));
    crate::output::print(&text)
}

/// Gives the engine what was collected here.
pub(super) async fn give(context: &Context, into: Collector) -> Result<()> {
    let bytes = into.to_bytes(&db::now()).map_err(failed)?;
    send(context, std::io::Cursor::new(bytes)).await
}

pub(super) async fn import(context: &Context, path: &Path) -> Result<()> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|source| Error::io(format!("reading {}", path.display()), source))?;
    send(context, file).await
}

async fn send(context: &Context, source: impl AsyncRead + Send + Sync + 'static) -> Result<()> {
    let call = Call::post(ROUTE).stream("application/octet-stream", source);
    let taken: ScanDatabase = context.client.json(call).await?;
    for warning in &taken.warnings {
        crate::output::warn(&format!("WARNING: {warning}"));
    }
    crate::output::line(&format!(
        "the engine took it: made {}, {} vulnerabilities in {} packages, {} bytes, {}",
        taken.created, taken.vulnerabilities, taken.packages, taken.size, taken.digest
    ))
}

pub(super) async fn export(context: &Context, path: &Path) -> Result<()> {
    let io = |source| Error::io(format!("writing {}", path.display()), source);
    let mut answer = context.client.send(Call::get(format!("{ROUTE}/file"))).await?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let temporary = path.with_file_name(name);
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&temporary)
        .map_err(io)?;
    let written: Result<Index> = async {
        while let Some(chunk) = answer.chunk().await? {
            file.write_all(&chunk).map_err(io)?;
        }
        file.sync_all().map_err(io)?;
        let index = Index::open(&temporary).map_err(failed)?;
        index.verify().map_err(failed)?;
        fs::rename(&temporary, path).map_err(io)?;
        Ok(index)
    }
    .await;
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    crate::output::line(&format!("{}: sha256:{}", path.display(), written?.digest()))
}
