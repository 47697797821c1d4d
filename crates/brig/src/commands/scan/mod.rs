//! `scan …`: what is in an image, what is wrong with it. Works on files without a daemon.

mod db;
mod engine_db;
mod exception;
mod feeds;
mod ls;
mod policy;
mod source;

use std::collections::BTreeSet;
use std::path::PathBuf;

use brig_scan::db::Index;
use brig_scan::inventory::{self, Verify};
use brig_scan::matching::{IgnoreFile, Options, Report, Verdict, Vex, is_day, judge};
use brig_scan::package::Inventory;
use brig_scan::report::{self, Filter, Format, Subject};
use brig_scan::severity::Severity;
use clap::Args;

use crate::cli::{Leaf, leaf};
use crate::context::Context;
use crate::error::{Error, Result, message};

leaf!(
    SCAN,
    "scan",
    "[OPTIONS] IMAGE | --input FILE|DIRECTORY|-",
    "Look for vulnerabilities in an image",
    ScanArgs,
    scan
);
leaf!(
    DIFF,
    "diff",
    "[OPTIONS] OLD NEW",
    "Show which vulnerabilities a newer image brings and which it ends",
    DiffArgs,
    diff
);
leaf!(
    EXPLAIN,
    "explain",
    "[OPTIONS] VULNERABILITY IMAGE",
    "Show why an image has a vulnerability, or why it has not",
    ExplainArgs,
    explain
);

/// Commands below `scan`, by the words that choose them.
pub(crate) const BELOW: &[(&[&str], &Leaf)] = &[
    (&["diff"], &DIFF),
    (&["explain"], &EXPLAIN),
    (&["ls"], &ls::LS),
    (&["db"], &db::STATUS),
    (&["db", "status"], &db::STATUS),
    (&["db", "update"], &db::UPDATE),
    (&["db", "build"], &db::BUILD),
    (&["db", "export"], &db::EXPORT),
    (&["db", "import"], &db::IMPORT),
    (&["policy"], &policy::INSPECT),
    (&["policy", "inspect"], &policy::INSPECT),
    (&["policy", "set"], &policy::SET),
    (&["policy", "rm"], &policy::REMOVE),
    (&["policy", "test"], &policy::TEST),
    (&["exception"], &exception::LIST),
    (&["exception", "ls"], &exception::LIST),
    (&["exception", "add"], &exception::ADD),
    (&["exception", "rm"], &exception::REMOVE),
];

/// What those of [`BELOW`] are for that have further ones below them.
pub(crate) const BELOW_ABOUT: &[(&str, &str)] = &[
    ("db", "Manage the database of vulnerabilities"),
    ("policy", "Manage which vulnerabilities an image may have when it starts"),
    ("exception", "Manage exceptions to the policy"),
];

/// The ignore file that is read when none is named and this one is there.
const IGNORE_FILE: &str = ".brigignore.toml";
/// Largest file of exceptions or statements that is read, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// What all that judge have in common.
#[derive(Args, Debug)]
struct JudgeArgs {
    /// Database file (default: BRIG_SCAN_DB, or the system's or the user's own)
    #[arg(long)]
    db: Option<PathBuf>,
    /// Show these severities only (unknown,negligible,low,medium,high,critical)
    #[arg(long, short = 's')]
    severity: Option<String>,
    /// Leave out what no upgrade ends
    #[arg(long)]
    ignore_unfixed: bool,
    /// Exceptions, each with reason, owner and expiry (default: .brigignore.toml if it exists)
    #[arg(long)]
    ignore_file: Option<PathBuf>,
    /// OpenVEX statements about what does not apply
    #[arg(long)]
    vex: Vec<PathBuf>,
    /// Days after which the data counts as stale (0: never)
    #[arg(long, default_value_t = 7)]
    max_age: u32,
    /// Judge as on this day (such as 2026-12-31)
    #[arg(long)]
    today: Option<String>,
    /// Platform of an image with several ("linux/arm64")
    #[arg(long)]
    platform: Option<String>,
}

#[derive(Args, Debug)]
struct ScanArgs {
    #[command(flatten)]
    judge: JudgeArgs,
    /// Scan an archive, an OCI layout, a bill of materials or a directory instead of an image (-: STDIN)
    #[arg(long, short = 'i')]
    input: Option<PathBuf>,
    /// Which image of an --input with several: a name, or the beginning of an id
    #[arg(long, requires = "input")]
    image: Option<String>,
    /// Do not compare an --input's layers with their digests: for archives that were just made here
    #[arg(long, requires = "input")]
    no_verify: bool,
    /// Exit with this status when something is found or the verdict is "unknown"
    #[arg(long, default_value_t = 0)]
    exit_code: u8,
    /// Let the verdict "unknown" pass where --exit-code is given
    #[arg(long)]
    allow_unknown: bool,
    /// Format: table, json, sarif, cyclonedx, spdx or html
    #[arg(long, short = 'f', default_value = "table")]
    format: String,
    /// Write to a file, instead of STDOUT
    #[arg(long, short = 'o')]
    output: Option<PathBuf>,
    /// Show suppressed and negligible findings as well
    #[arg(long, short = 'a')]
    all: bool,
    #[arg(hide = true)]
    name: Option<String>,
}

#[derive(Args, Debug)]
struct DiffArgs {
    #[command(flatten)]
    judge: JudgeArgs,
    /// Exit with this status when the newer image brings something
    #[arg(long, default_value_t = 0)]
    exit_code: u8,
    #[arg(hide = true, required = true)]
    old: String,
    #[arg(hide = true, required = true)]
    new: String,
}

#[derive(Args, Debug)]
struct ExplainArgs {
    #[command(flatten)]
    judge: JudgeArgs,
    #[arg(hide = true, required = true)]
    vulnerability: String,
    #[arg(hide = true, required = true)]
    image: String,
}

async fn scan(context: &Context, args: ScanArgs) -> Result<()> {
    let format: Format = args.format.parse().map_err(message)?;
    let filter = filter(&args.judge, args.all)?;
    check(&args.judge)?;
    let (name, inventory) = match (&args.input, &args.name) {
        (Some(path), None) => {
            let (image, platform) = (args.image.clone(), args.judge.platform.clone());
            let verify = if args.no_verify { Verify::AlreadyDone } else { Verify::DiffIds };
            let options = inventory::Options { image, platform, verify, ..Default::default() };
            match path.to_str() {
                Some("-") => ("stdin".to_owned(), source::stdin(options).await?),
                _ => (path.display().to_string(), source::file(path.clone(), options).await?),
            }
        }
        (None, Some(image)) => {
            (image.clone(), source::image(context, image, args.judge.platform.clone()).await?)
        }
        _ => {
            return Err(message(format!(
                "name an image or an --input; see '{} --help'",
                context.path
            )));
        }
    };
    let (_, report) = judged(&args.judge, &inventory)?;
    let subject = Subject { name: &name, inventory: &inventory, report: &report };
    let text = report::write(subject, &filter, format);
    match &args.output {
        Some(path) => std::fs::write(path, &text)
            .map_err(|source| Error::io(format!("writing {}", path.display()), source))?,
        None => crate::output::print(&text)?,
    }
    let found = report.findings.iter().any(|finding| filter.counts(finding));
    // A doubt remains a doubt beside findings that the flags leave out.
    let unknown = !args.allow_unknown && report.verdict != Verdict::Clean && !report.is_complete();
    if args.exit_code != 0 && (found || unknown) {
        return Err(Error::Status(args.exit_code));
    }
    Ok(())
}

async fn diff(context: &Context, args: DiffArgs) -> Result<()> {
    check(&args.judge)?;
    let filter = filter(&args.judge, false)?;
    let platform = || args.judge.platform.clone();
    let (old, new) = (
        source::any(context, &args.old, platform()).await?,
        source::any(context, &args.new, platform()).await?,
    );
    let (index, before) = judged(&args.judge, &old)?;
    let options = options(&args.judge)?;
    let after = judge(&index, &new, &options).map_err(failed)?;
    let (text, more) = report::diff(
        Subject { name: &args.old, inventory: &old, report: &before },
        Subject { name: &args.new, inventory: &new, report: &after },
        &filter,
    );
    crate::output::print(&text)?;
    if more && args.exit_code != 0 { Err(Error::Status(args.exit_code)) } else { Ok(()) }
}

async fn explain(context: &Context, args: ExplainArgs) -> Result<()> {
    check(&args.judge)?;
    let inventory = source::any(context, &args.image, args.judge.platform.clone()).await?;
    let (index, report) = judged(&args.judge, &inventory)?;
    let subject = Subject { name: &args.image, inventory: &inventory, report: &report };
    let text = report::explain(&index, subject, &args.vulnerability).map_err(failed)?;
    crate::output::print(&text)
}

/// What can be told to be wrong before anything is read. On what is no day nothing is stale and no
/// release at its end.
fn check(args: &JudgeArgs) -> Result<()> {
    match &args.today {
        Some(day) if !is_day(day) => {
            Err(message(format!("--today {day:?} is no day: write it as 2026-12-31")))
        }
        _ => Ok(()),
    }
}

fn judged(args: &JudgeArgs, inventory: &Inventory) -> Result<(Index, Report)> {
    let index = Index::open(&db::path(args.db.as_deref())).map_err(failed)?;
    let report = judge(&index, inventory, &options(args)?).map_err(failed)?;
    Ok((index, report))
}

fn options(args: &JudgeArgs) -> Result<Options> {
    let today = match &args.today {
        Some(day) => day.clone(),
        None => db::now().get(..10).unwrap_or_default().to_owned(),
    };
    let default = PathBuf::from(IGNORE_FILE);
    let file = args.ignore_file.clone().or_else(|| default.exists().then_some(default));
    let ignore = match file {
        Some(path) => {
            let text = read(&path)?;
            let text = String::from_utf8(text)
                .map_err(|_| message(format!("{} is not UTF-8", path.display())))?;
            IgnoreFile::parse(&text).map_err(failed)?
        }
        None => IgnoreFile::default(),
    };
    let mut vex = Vex::default();
    for path in &args.vex {
        vex.add(&read(path)?)
            .map_err(|error| message(format!("{}: {}", path.display(), failed(error).text())))?;
    }
    Ok(Options { today, max_age: (args.max_age > 0).then_some(args.max_age), ignore, vex })
}

fn filter(args: &JudgeArgs, all: bool) -> Result<Filter> {
    let mut severities = BTreeSet::new();
    for word in
        args.severity.iter().flat_map(|list| list.split(',')).filter(|word| !word.trim().is_empty())
    {
        severities.insert(word.parse::<Severity>().map_err(message)?);
    }
    // Who asks for negligible ones wants to see them.
    let all = all || severities.contains(&Severity::Negligible);
    Ok(Filter { severities, ignore_unfixed: args.ignore_unfixed, all })
}

fn read(path: &std::path::Path) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let failed = |source| Error::io(format!("reading {}", path.display()), source);
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_FILE {
        return Err(message(format!("{} is larger than {MAX_FILE} bytes", path.display())));
    }
    Ok(bytes)
}

fn failed(error: impl std::error::Error) -> Error {
    message(brig_types::error::chain(&error))
}
