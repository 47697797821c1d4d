//! `scan db …`: making, looking at and carrying the database.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use brig_api::scan::{ScanCoverage, ScanFeed};
use brig_scan::db::{Collector, Feed, Index, import};
use brig_scan::fetch::{self, Fetched, Kept};
use clap::Args;
use time::OffsetDateTime;
use time::macros::format_description;

use super::feeds::{FeedSource, defaults, name_of};
use super::{engine_db, failed};
use crate::cli::leaf;
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::output::table::align;

leaf!(
    STATUS,
    "status",
    "[OPTIONS]",
    "Show what the database knows and how old that is",
    StatusArgs,
    status
);
leaf!(
    UPDATE,
    "update",
    "[OPTIONS]",
    "Fetch all feeds and make the database anew",
    UpdateArgs,
    update
);
leaf!(
    BUILD,
    "build",
    "[OPTIONS] PATH...",
    "Make the database from files and folders",
    BuildArgs,
    build
);
leaf!(
    EXPORT,
    "export",
    "[OPTIONS] FILE",
    "Write the database into one file to carry over",
    CarryArgs,
    export
);
leaf!(
    IMPORT,
    "import",
    "[OPTIONS] FILE",
    "Take over a database that was exported",
    CarryArgs,
    take_over
);

/// Names the database in the environment.
const VARIABLE: &str = "BRIG_SCAN_DB";
/// Where root's database is.
const SYSTEM: &str = "/var/lib/brig/scan/vulnerabilities.db";
/// Largest feed that is fetched, in bytes, as it is packed.
const MAX_DOWNLOAD: u64 = 8 << 30;
/// Largest database that is taken over, in bytes.
const MAX_DATABASE: u64 = 4 << 30;

#[derive(Args, Debug)]
struct StatusArgs {
    /// Database file
    #[arg(long)]
    db: Option<PathBuf>,
    /// Read all of it and compare the checksums
    #[arg(long)]
    verify: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The engine's database, and its swarm's, instead of a file here
    #[arg(long, conflicts_with = "db")]
    engine: bool,
}

#[derive(Args, Debug)]
struct UpdateArgs {
    /// Database file
    #[arg(long)]
    db: Option<PathBuf>,
    /// Read these feeds instead of the usual ones: [NAME=]https://…, or a file or folder
    #[arg(long)]
    feed: Vec<String>,
    /// Make the database without the feeds that cannot be had
    #[arg(long)]
    allow_missing: bool,
    /// The engine's database, and its swarm's, instead of a file here
    #[arg(long, conflicts_with = "db")]
    engine: bool,
}

#[derive(Args, Debug)]
struct BuildArgs {
    /// Database file
    #[arg(long)]
    db: Option<PathBuf>,
    /// The engine's database, and its swarm's, instead of a file here
    #[arg(long, conflicts_with = "db")]
    engine: bool,
    #[arg(hide = true, required = true)]
    paths: Vec<PathBuf>,
}

#[derive(Args, Debug)]
struct CarryArgs {
    /// Database file
    #[arg(long)]
    db: Option<PathBuf>,
    /// The engine's database, and its swarm's, instead of a file here
    #[arg(long, conflicts_with = "db")]
    engine: bool,
    #[arg(hide = true, required = true)]
    file: PathBuf,
}

/// The database's file: the flag's, the environment's, root's or the user's own.
pub(super) fn path(flag: Option<&Path>) -> PathBuf {
    if let Some(path) = flag {
        return path.to_owned();
    }
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from(SYSTEM);
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    cache.map_or_else(|| PathBuf::from(SYSTEM), |cache| cache.join("brig/vulnerabilities.db"))
}

/// Now, as `2026-11-22T07:14:00Z`.
pub(super) fn now() -> String {
    OffsetDateTime::now_utc()
        .format(format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z"))
        .unwrap_or_default()
}

async fn status(context: &Context, args: StatusArgs) -> Result<()> {
    if args.engine {
        return engine_db::status(context, args.json).await;
    }
    let path = path(args.db.as_deref());
    let index = Index::open(&path).map_err(failed)?;
    if args.verify {
        index.verify().map_err(failed)?;
    }
    let coverage: Vec<ScanCoverage> = index
        .coverage()
        .unwrap_or_default()
        .into_iter()
        .map(|known| ScanCoverage {
            age: age(&known.newest),
            name: known.family,
            newest: known.newest,
            feeds: known.feeds,
        })
        .collect();
    if args.json {
        let value = serde_json::json!({
            "path": path, "digest": index.digest(), "created": index.created(), "bytes": index.size(),
            "feeds": index.feeds(), "coverage": coverage,
        });
        return crate::output::line(&value.to_string());
    }
    let (flaws, packages, rows) = index.counts();
    let mut text = format!(
        "{}: made {}, {} vulnerabilities, {} packages, {} statements, {} bytes, sha256:{}\n\n",
        path.display(),
        index.created(),
        flaws,
        packages,
        rows,
        index.size(),
        index.digest(),
    );
    let feeds = index.feeds().iter().map(|feed| ScanFeed {
        name: feed.name.clone(),
        origin: feed.origin.clone(),
        newest: feed.newest.clone(),
        age: age(&feed.newest),
        read: feed.read.clone(),
        records: feed.records,
        skipped: feed.skipped,
    });
    text.push_str(&table(feeds));
    text.push_str(&covered(coverage));
    crate::output::print(&text)
}

/// How old what a database knows about each distribution and ecosystem is.
pub(super) fn covered(coverage: Vec<ScanCoverage>) -> String {
    if coverage.is_empty() {
        return String::new();
    }
    let mut table = "ABOUT\tNEWEST\tAGE\tFEEDS\n".to_owned();
    for known in coverage {
        let (age, feeds) = (days(known.age), known.feeds.join(", "));
        let _ = writeln!(table, "{}\t{}\t{age}\t{feeds}", known.name, known.newest);
    }
    format!("\n{}", align(&table))
}

fn days(age: i64) -> String {
    if age < 0 { "-".to_owned() } else { format!("{age}d") }
}

/// What a database was made from.
pub(super) fn table(feeds: impl IntoIterator<Item = ScanFeed>) -> String {
    let mut table = "FEED\tNEWEST\tAGE\tREAD\tRECORDS\tSKIPPED\tORIGIN\n".to_owned();
    for feed in feeds {
        let newest = if feed.newest.is_empty() { "-" } else { &feed.newest };
        let age = days(feed.age);
        let _ = writeln!(
            table,
            "{}\t{newest}\t{age}\t{}\t{}\t{}\t{}",
            feed.name,
            feed.read.get(..10).unwrap_or("-"),
            feed.records,
            feed.skipped,
            feed.origin,
        );
    }
    align(&table)
}

/// Days since a day; -1 when it is none.
fn age(day: &str) -> i64 {
    let format = format_description!("[year]-[month]-[day]");
    let day = day.get(..10).and_then(|day| time::Date::parse(day, &format).ok());
    day.map_or(-1, |day| (OffsetDateTime::now_utc().date() - day).whole_days())
}

async fn update(context: &Context, args: UpdateArgs) -> Result<()> {
    let feeds: Vec<FeedSource> = if args.feed.is_empty() {
        defaults()
    } else {
        args.feed.iter().map(|text| FeedSource::parse(text)).collect()
    };
    let database = path(args.db.as_deref());
    let kept = Kept::open(&database)
        .map_err(|source| Error::io(format!("{}.feeds", database.display()), source))?;
    let mut into = Collector::new();
    let mut missing = Vec::new();
    kept.keep_only(feeds.iter().map(|feed| feed.address.as_str()));
    for feed in feeds {
        let read = if feed.is_remote() {
            fetched(&mut into, &feed, &kept).await
        } else {
            import::import_path(&mut into, described(&feed), Path::new(&feed.address))
                .map_err(failed)
        };
        match read {
            Ok(read) => told(&read),
            Err(error) => {
                crate::output::warn(&format!("{}: {}", feed.name, error.text()));
                missing.push(feed.name);
            }
        }
    }
    if !missing.is_empty() && !args.allow_missing {
        return Err(message(format!(
            "the database stays as it is: {} could not be read. Without them: --allow-missing",
            missing.join(", ")
        )));
    }
    if args.engine {
        return engine_db::give(context, into).await;
    }
    write(into, &database)
}

/// Fetches a feed and reads it.
async fn fetched(into: &mut Collector, feed: &FeedSource, kept: &Kept) -> Result<Feed> {
    let Fetched { file, unchanged } =
        fetch::fetch(&feed.address, kept, MAX_DOWNLOAD).await.map_err(failed)?;
    if unchanged {
        crate::output::warn(&format!("{}: not changed", feed.name));
    }
    let last = feed.address.rsplit('/').next().unwrap_or_default();
    let last = last.split(['?', '#']).next().unwrap_or_default();
    let read = import::import_reader(into, described(feed), last, file);
    // A page that is no feed must not be taken for one the next time because it is still the same.
    read.inspect_err(|_| kept.forget(&feed.address)).map_err(failed)
}

async fn build(context: &Context, args: BuildArgs) -> Result<()> {
    let mut into = Collector::new();
    for path in &args.paths {
        // A folder of feeds is as many feeds, so that each has its age.
        let mut feeds = vec![path.clone()];
        if path.is_dir() {
            let io = |source| Error::io(format!("reading {}", path.display()), source);
            let mut inside = std::fs::read_dir(path)
                .map_err(io)?
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<Vec<_>>>()
                .map_err(io)?;
            inside.sort();
            feeds = inside;
        }
        let several = feeds.len() > 1;
        for feed in feeds {
            let address = feed.display().to_string();
            let source = FeedSource { name: name_of(&address), address };
            match import::import_path(&mut into, described(&source), &feed) {
                Ok(read) => told(&read),
                // A folder may hold a README beside its feeds.
                Err(brig_scan::db::DbError::Unknown(_)) if several => {
                    crate::output::warn(&format!("{}: nothing that is known here", feed.display()));
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }
    if args.engine {
        return engine_db::give(context, into).await;
    }
    write(into, &path(args.db.as_deref()))
}

fn described(source: &FeedSource) -> Feed {
    Feed {
        name: source.name.clone(),
        origin: source.address.clone(),
        read: now(),
        ..Feed::default()
    }
}

fn told(feed: &Feed) {
    let skipped = match (&feed.skipped_because, feed.skipped) {
        (Some(why), skipped) => format!(", {skipped} skipped ({why})"),
        (None, _) => String::new(),
    };
    crate::output::warn(&format!("{}: {} records{skipped}", feed.name, feed.records));
}

fn write(into: Collector, path: &Path) -> Result<()> {
    into.write(path, &now()).map_err(failed)?;
    let index = Index::open(path).map_err(failed)?;
    index.verify().map_err(failed)?;
    let (flaws, packages, _) = index.counts();
    crate::output::line(&format!(
        "{}: {flaws} vulnerabilities in {packages} packages, {} bytes",
        path.display(),
        index.size()
    ))
}

async fn export(context: &Context, args: CarryArgs) -> Result<()> {
    if args.engine {
        return engine_db::export(context, &args.file).await;
    }
    let index = Index::open(&path(args.db.as_deref())).map_err(failed)?;
    index.verify().map_err(failed)?;
    index.copy_to(&args.file).map_err(failed)?;
    crate::output::line(&format!("{}: sha256:{}", args.file.display(), index.digest()))
}

async fn take_over(context: &Context, args: CarryArgs) -> Result<()> {
    if args.engine {
        return engine_db::import(context, &args.file).await;
    }
    let io = |source| Error::io(format!("reading {}", args.file.display()), source);
    let mut bytes = Vec::new();
    File::open(&args.file).map_err(io)?.take(MAX_DATABASE).read_to_end(&mut bytes).map_err(io)?;
    let index = Index::from_bytes(bytes).map_err(failed)?;
    let path = path(args.db.as_deref());
    // All of it is read and compared before it takes the other's place.
    index.copy_to(&path).map_err(failed)?;
    crate::output::line(&format!(
        "{}: of {}, sha256:{}",
        path.display(),
        index.created(),
        index.digest()
    ))
}
