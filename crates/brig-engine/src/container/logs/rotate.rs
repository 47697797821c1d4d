//! Keeping logs at their size: `max-size`, `max-file` and `compress`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::part;
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
    /// Rotated files are compressed.
    compress: bool,
}

/// Options that every driver has: how a container waits for its log. It never does here.
const COMMON_OPTIONS: [&str; 2] = ["mode", "max-buffer-size"];
/// Options of `json-file` and `local`.
const FILE_OPTIONS: [&str; 8] =
    ["max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag"];
/// What `local` keeps unless told otherwise.
const LOCAL_DEFAULTS: LogLimits = LogLimits { max_size: 20 << 20, max_files: 5, compress: true };

/// Checks a driver's options, and gives its limits. Docker's texts.
pub(crate) fn check(
    driver: &str,
    options: &BTreeMap<String, String>,
) -> Result<Option<LogLimits>, EngineError> {
    let invalid = |text: String| Err(EngineError::Invalid(text));
    if driver == "none" {
        return Ok(None);
    }
    let known = |key: &&String| {
        COMMON_OPTIONS.contains(&key.as_str()) || FILE_OPTIONS.contains(&key.as_str())
    };
    if let Some(key) = options.keys().find(|key| !known(key)) {
        return invalid(format!("unknown log opt '{key}' for {driver} log driver"));
    }
    let mode = options.get("mode").map_or("", String::as_str);
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return invalid(format!("logger: logging mode not supported: {mode}"));
    }
    if options.contains_key("max-buffer-size") && mode != "non-blocking" {
        return invalid(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'".to_owned(),
        );
    }
    if let Some(size) = options.get("max-buffer-size")
        && bytes(size).is_none()
    {
        return invalid(format!("error parsing option max-buffer-size: invalid size: '{size}'"));
    }
    for key in ["labels-regex", "env-regex"] {
        if let Some(pattern) = options.get(key)
            && regex::Regex::new(pattern).is_err()
        {
            return invalid(format!("invalid regex pattern for {key}: {pattern}"));
        }
    }
    let compress = match options.get("compress").map(String::as_str) {
        None => driver == "local",
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => true,
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => false,
        Some(other) => return invalid(format!("invalid value for compress: {other}")),
    };
    let limits = if driver == "local" {
        let mut options = options.clone();
        let size = || LOCAL_DEFAULTS.max_size.to_string();
        options.entry("max-size".to_owned()).or_insert_with(size);
        options
            .entry("max-file".to_owned())
            .or_insert_with(|| LOCAL_DEFAULTS.max_files.to_string());
        LogLimits::parse(&options)?
    } else {
        LogLimits::parse(options)?
    };
    let rotates = limits.is_some_and(|limits| limits.max_files > 1);
    if compress && !rotates && options.contains_key("compress") {
        return invalid(
            "compress cannot be true when max-file is less than 2 or max-size is not set"
                .to_owned(),
        );
    }
    Ok(limits.map(|limits| LogLimits { compress: compress && rotates, ..limits }))
}

impl LogLimits {
    /// Reads log options; `None` without `max-size`: one file without limit, as docker's default.
    fn parse(options: &BTreeMap<String, String>) -> Result<Option<Self>, EngineError> {
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
                // COMPAT: how many files there would be means nothing then, and docker takes it.
                Ok(None)
            }
            Some(text) => {
                let max_size = bytes(text).filter(|size| *size > 0);
                let max_size = max_size.ok_or_else(|| invalid("max-size", text))?;
                Ok(Some(Self { max_size, max_files, compress: false }))
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
    // What an earlier run left.
    let mut pending = limits.compress;
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = cancel.cancelled() => return,
        }
        // The monitor has its new file: it does not write to the one before any more.
        if pending && path.exists() {
            let log = path.clone();
            let packing =
                tokio::task::spawn_blocking(move || part::compress(&log, limits.max_files));
            if let Ok(Err(error)) = packing.await {
                tracing::warn!(log = %path.display(), %error, "a log cannot be compressed");
            }
            pending = false;
        }
        let too_large = std::fs::metadata(&path).is_ok_and(|meta| meta.len() > limits.max_size);
        if !too_large {
            continue;
        }
        if let Err(error) = part::shift(&path, limits.max_files) {
            tracing::warn!(log = %path.display(), %error, "a log cannot be rotated");
            continue;
        }
        pending = limits.compress;
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
            Ok(Some(LogLimits { max_size: 10 << 20, max_files: 3, compress: false }))
        );
        assert_eq!(bytes("1.5k"), Some(1024 + 510));
        for bad in ["x", "10x", "-5", "0"] {
            assert!(limits(&[("max-size", bad)]).is_err(), "{bad}");
        }
        assert_eq!(limits(&[("max-file", "2")]), Ok(None));
    }

    #[test]
    fn drivers() {
        let check = |driver: &str, pairs: &[(&str, &str)]| {
            let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            check(driver, &map).map_err(|error| error.to_string())
        };
        assert_eq!(check("json-file", &[("labels", "a"), ("mode", "non-blocking")]), Ok(None));
        assert_eq!(check("local", &[]), Ok(Some(LOCAL_DEFAULTS)));
        assert_eq!(
            check("local", &[("max-size", "1m"), ("compress", "true")]),
            Ok(Some(LogLimits { max_size: 1 << 20, max_files: 5, compress: true }))
        );
        for (options, compress) in [
            (&[("max-file", "1")][..], false),
            (&[("compress", "false")], false),
            (&[("max-file", "2")], true),
        ] {
            assert_eq!(check("local", options).unwrap().unwrap().compress, compress);
        }
        assert!(check("local", &[("max-file", "1"), ("compress", "true")]).is_err());
        assert_eq!(
            check("json-file", &[("bogus", "1")]).unwrap_err(),
            "unknown log opt 'bogus' for json-file log driver"
        );
        let buffer = |size| check("local", &[("mode", "non-blocking"), ("max-buffer-size", size)]);
        assert!(buffer("4m").is_ok());
        assert_eq!(
            buffer("much").unwrap_err(),
            "error parsing option max-buffer-size: invalid size: 'much'"
        );
        for bad in [
            ("mode", "x"),
            ("max-buffer-size", "1m"),
            ("compress", "true"),
            ("compress", "x"),
            ("env-regex", "("),
        ] {
            assert!(check("json-file", &[bad]).is_err(), "{bad:?}");
        }
    }
}
