//! `cluster backup`: everything of the cluster in an encrypted file, and whether such a file is
//! good.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use brig_api::cluster::{BackupRequest, BackupSummary};
use clap::Args;

use super::opening::{OpeningFlags, new_passphrase};
use crate::cli::leaf;
use crate::client::Call;
use crate::commands::image::export::write_file;
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::output::line;

leaf!(
    BACKUP,
    "backup",
    "[OPTIONS] [verify FILE | inspect FILE]",
    "Write everything of the cluster into an encrypted file, or check such a file",
    BackupArgs,
    backup
);

/// Longest line of a backup's header, in bytes.
const MAX_LINE: u64 = 4096;
/// Largest file with recipients, in bytes.
const MAX_RECIPIENTS: u64 = 32 << 10;

#[derive(Args, Debug)]
struct BackupArgs {
    /// File to write
    #[arg(long, short = 'o', value_name = "file")]
    out: Option<PathBuf>,
    /// Who may read it, as age-keygen prints it (age1...)
    #[arg(long, short = 'r', value_name = "recipient")]
    recipient: Vec<String>,
    /// File with recipients, one a line
    #[arg(long, short = 'R', value_name = "file")]
    recipients_file: Vec<PathBuf>,
    /// Encrypt it with a passphrase, which is asked for
    #[arg(long, short = 'p')]
    passphrase: bool,
    #[command(flatten)]
    opening: OpeningFlags,
    #[arg(hide = true)]
    words: Vec<String>,
}

async fn backup(context: &Context, args: BackupArgs) -> Result<()> {
    match args.words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => write(context, &args).await,
        ["verify", file] => verify(context, &args.opening, Path::new(file)).await,
        ["inspect", file] => inspect(Path::new(file)),
        _ => Err(message("expected --out FILE, verify FILE or inspect FILE")),
    }
}

async fn write(context: &Context, args: &BackupArgs) -> Result<()> {
    let Some(out) = &args.out else {
        return Err(message("name the file to write with --out"));
    };
    let mut recipients = args.recipient.clone();
    for path in &args.recipients_file {
        recipients.extend(recipients_of(path)?);
    }
    let with_passphrase = args.passphrase || args.opening.passphrase_file.is_some();
    let request = match (recipients.is_empty(), with_passphrase) {
        (false, false) => BackupRequest { recipients, ..BackupRequest::default() },
        (true, true) => BackupRequest {
            passphrase: new_passphrase(args.opening.passphrase_file.as_deref())?,
            ..BackupRequest::default()
        },
        (false, true) => {
            return Err(message("a backup is for recipients or for a passphrase, not for both"));
        }
        (true, false) => {
            return Err(message(
                "say who may read the backup: --recipient age1... or --passphrase",
            ));
        }
    };
    let len = request.passphrase.expose_secret().len();
    let call = Call::post("/brig/cluster/backup").secret_json(&request, len)?;
    let answer = context.client.send(call).await?;
    write_file(answer, out).await?;
    let failed = |source| Error::io(format!("writing {}", out.display()), source);
    let file = std::fs::File::open(out).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    line(&format!(
        "Wrote {} ({size} bytes). Check it with: {} cluster backup verify {}",
        out.display(),
        context.program,
        out.display()
    ))
}

fn recipients_of(path: &Path) -> Result<Vec<String>> {
    let failed = |source| Error::io(format!("read {}", path.display()), source);
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(MAX_RECIPIENTS).read_to_string(&mut text).map_err(failed)?;
    let lines = text.lines().map(str::trim);
    Ok(lines.filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect())
}

async fn verify(context: &Context, opening: &OpeningFlags, file: &Path) -> Result<()> {
    let body = opening.body(file).await?;
    let call = Call::post("/brig/cluster/backup/verify").stream("application/octet-stream", body);
    let summary: BackupSummary = context.client.send(call).await?.json().await?;
    line(&format!("{} can be restored.", file.display()))?;
    print(&summary)
}

/// Says what is in a backup.
pub(super) fn print(summary: &BackupSummary) -> Result<()> {
    line(&format!("Created:  {} by brig {}", summary.created, summary.brig))?;
    line(&format!("Cluster:  {}, revision {}", summary.cluster, summary.revision))?;
    line(&format!("Autolock: {}", if summary.autolock { "on" } else { "off" }))?;
    for (kind, count) in &summary.objects {
        line(&format!("{count:>9} {}", counted(kind, *count)))?;
    }
    Ok(())
}

/// The kind in the number that goes with the count.
fn counted(kind: &str, count: u64) -> String {
    match (count, kind.strip_suffix('y')) {
        (1, _) => kind.to_owned(),
        (_, Some(stem)) => format!("{stem}ies"),
        (_, None) if kind.ends_with('s') => format!("{kind}es"),
        (_, None) => format!("{kind}s"),
    }
}

/// What a backup says of itself without being opened. None of it is protected.
fn inspect(path: &Path) -> Result<()> {
    let failed = |source| Error::io(format!("read {}", path.display()), source);
    let mut file = BufReader::new(std::fs::File::open(path).map_err(failed)?).take(2 * MAX_LINE);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    file.read_until(b'\n', &mut first).map_err(failed)?;
    file.read_until(b'\n', &mut second).map_err(failed)?;
    let header = std::str::from_utf8(&first)
        .ok()
        .and_then(|first| first.trim_end().strip_prefix("brig-cluster-backup "))
        .and_then(|format| format.parse::<u32>().ok())
        .zip(serde_json::from_slice::<serde_json::Value>(&second).ok());
    let Some((format, header)) = header else {
        return Err(message(format!("{} is no backup of a cluster", path.display())));
    };
    line(&format!("Format:     {format}"))?;
    for (name, title) in [("Brig", "Brig"), ("Created", "Created"), ("Encryption", "Encryption")] {
        let text = header.get(name).and_then(|value| value.as_str()).unwrap_or_default();
        line(&format!("{:<12}{}", format!("{title}:"), text.escape_debug()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_in_words() {
        for (kind, count, words) in [
            ("node", 1, "node"),
            ("node", 0, "nodes"),
            ("policy", 2, "policies"),
            ("access", 2, "accesses"),
            ("access", 1, "access"),
        ] {
            assert_eq!(counted(kind, count), words);
        }
    }
}
