//! Keeping logs at their size: `max-size` and `max-file`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::reader::rotated;
use crate::error::EngineError;

/// How often sizes are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Limits of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogLimits {
    /// A file that is larger, in bytes, is rotated.
    max_size: u64,
    /// Files kept, the current one among them.
    max_files: u32,
}

impl LogLimits {
    /// Reads log options; `None` without `max-size`: one file without limit, as docker's default.
    pub(crate) fn parse(options: &BTreeMap<String, String>) -> Result<Option<Self>, EngineError> {
        let invalid = |key: &str, value: &str| {
            EngineError::Invalid(format!("invalid value for {key}: {value}"))
        };
        let max_files = match options.get("max-file").map(String::as_str) {
            None => 1,
            Some(text) => text
                .parse()
                .ok()
                .filter(|count| (1..=999).contains(count))
                .ok_or_else(|| invalid("max-file", text))?,
        };
        match options.get("max-size").map(String::as_str) {
            None | Some("" | "-1") => {
                if max_files > 1 {
                    return Err(EngineError::Invalid(
                        "max-file cannot be set without max-size".to_owned(),
                    ));
                }
                Ok(None)
            }
            Some(text) => {
                let max_size = bytes(text).filter(|size| *size > 0);
                let max_size = max_size.ok_or_else(|| invalid("max-size", text))?;
                Ok(Some(Self { max_size, max_files }))
            }
        }
    }
}

/// A size with an optional unit of 1024: `10m`, `1.5GiB`.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at_checked(split)?;
    let factor: u64 = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    let tenths: u64 = match fraction.get(..1) {
        Some(digit) => digit.parse().ok()?,
        None => 0,
    };
    whole.checked_mul(factor)?.checked_add(factor / 10 * tenths)
}

/// Rotates a container's log whenever it is too large, until cancelled.
pub(crate) async fn keep_within(
    path: PathBuf,
    bundle: PathBuf,
    limits: LogLimits,
    cancel: CancellationToken,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = cancel.cancelled() => return,
        }
        let too_large = std::fs::metadata(&path).is_ok_and(|meta| meta.len() > limits.max_size);
        if !too_large {
            continue;
        }
        if let Err(error) = shift(&path, limits.max_files) {
            tracing::warn!(log = %path.display(), %error, "a log cannot be rotated");
            continue;
        }
        // The monitor goes on with the renamed file until it is told; no line is lost.
        if let Err(error) = reopen(&bundle) {
            tracing::warn!(log = %path.display(), %error, "the monitor does not reopen its log");
        }
    }
}

/// Tells conmon to open its log anew: `2 0 0` on its control pipe. Never waits.
fn reopen(bundle: &Path) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let mut control = std::fs::OpenOptions::new()
        .write(true)
        .custom_flags(i32::try_from(flags).unwrap_or_default())
        .open(bundle.join("ctl"))?;
    control.write_all(b"2 0 0\n")
}

/// Renames `log` to `log.1`, `log.1` to `log.2` and so on; the oldest goes.
fn shift(path: &Path, max_files: u32) -> io::Result<()> {
    let last = max_files.saturating_sub(1);
    if last == 0 {
        // Only one file is kept: the monitor truncates what it reopens, so take it away.
        return std::fs::remove_file(path);
    }
    for index in (0..last).rev() {
        match std::fs::rename(rotated(path, index), rotated(path, index + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(pairs: &[(&str, &str)]) -> Result<Option<LogLimits>, String> {
        let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        LogLimits::parse(&map).map_err(|error| error.to_string())
    }

    #[test]
    fn options() {
        assert_eq!(limits(&[]), Ok(None));
        assert_eq!(
            limits(&[("max-size", "10m"), ("max-file", "3")]),
            Ok(Some(LogLimits { max_size: 10 << 20, max_files: 3 }))
        );
        assert_eq!(bytes("1.5k"), Some(1024 + 510));
        for bad in ["x", "10x", "-5", "0"] {
            assert!(limits(&[("max-size", bad)]).is_err(), "{bad}");
        }
        assert!(limits(&[("max-file", "2")]).is_err());
    }

    #[test]
    fn the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.log");
        for n in 0..5 {
            std::fs::write(&path, n.to_string()).unwrap();
            shift(&path, 3).unwrap();
        }
        let read = |index| std::fs::read_to_string(rotated(&path, index)).ok();
        assert_eq!(
            [read(0), read(1), read(2), read(3)],
            [None, Some("4".to_owned()), Some("3".to_owned()), None]
        );
    }
}
