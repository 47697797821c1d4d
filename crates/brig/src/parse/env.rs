//! Environment variables and labels, from flags and from files.

use std::path::Path;

use crate::error::{Error, Result, message};

/// The largest file of variables or labels that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Where a variable without value gets it from.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The process's environment.
pub(crate) fn process_env(name: &str) -> Option<String> {
    std::env::var_os(name).and_then(|value| value.into_string().ok())
}

/// Variables from files, then those of flags. A flag without `=` takes the CLI's own value, or
/// stays a bare name, which removes the image's variable.
pub(crate) fn variables(
    files: &[String],
    flags: &[String],
    lookup: Lookup<'_>,
) -> Result<Vec<String>> {
    let mut variables = Vec::new();
    for file in files {
        for line in lines(file)? {
            if line.contains('=') {
                variables.push(line);
            } else if let Some(value) = lookup(&line) {
                variables.push(format!("{line}={value}"));
            }
        }
    }
    for flag in flags {
        if flag.is_empty() || flag.starts_with('=') {
            return Err(message(format!("invalid environment variable: {flag}")));
        }
        if !flag.contains('=')
            && let Some(value) = lookup(flag)
        {
            variables.push(format!("{flag}={value}"));
        } else {
            variables.push(flag.clone());
        }
    }
    Ok(variables)
}

/// Labels from files, then those of flags.
pub(crate) fn labels(files: &[String], flags: &[String]) -> Result<brig_types::Labels> {
    let mut labels = brig_types::Labels::new();
    for file in files {
        labels.extend(lines(file)?.iter().map(|line| super::key_value(line)));
    }
    labels.extend(flags.iter().map(|flag| super::key_value(flag)));
    Ok(labels)
}

/// The lines of a file: leading white space cut, comments and empty lines left out.
fn lines(file: &str) -> Result<Vec<String>> {
    let text = read_limited(Path::new(file), MAX_FILE)?;
    let text = String::from_utf8(text)
        .map_err(|_| message(format!("{file}: invalid utf8 bytes in the file")))?;
    let mut lines = Vec::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() {
            return Err(message(format!("{file}: no variable name on line '{line}'")));
        }
        if name.contains([' ', '\t']) {
            return Err(message(format!("{file}: variable '{name}' contains whitespaces")));
        }
        lines.push(line.to_owned());
    }
    Ok(lines)
}

/// Reads a whole file of at most `limit` bytes.
pub(crate) fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let failed = |source| Error::io(format!("open {}", path.display()), source);
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(message(format!("{} is larger than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn files_come_first_and_bare_names_are_looked_up() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "# comment\n\n  A=1\nHOME\nUNSET\nB=x=y").unwrap();
        let files = [file.path().display().to_string()];
        let flags = ["A=2".to_owned(), "HOME".to_owned(), "GONE".to_owned()];
        let lookup = |name: &str| (name == "HOME").then(|| "/root".to_owned());
        assert_eq!(
            variables(&files, &flags, &lookup).unwrap(),
            ["A=1", "HOME=/root", "B=x=y", "A=2", "HOME=/root", "GONE"]
        );
        assert!(variables(&[], &["=x".to_owned()], &lookup).is_err());
        assert!(variables(&["/nonexistent".to_owned()], &[], &lookup).is_err());
    }

    #[test]
    fn names_with_spaces_are_refused() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "A B=1").unwrap();
        let error = labels(&[file.path().display().to_string()], &[]).unwrap_err();
        assert!(error.text().contains("contains whitespaces"), "{error}");
        assert_eq!(labels(&[], &["a".to_owned(), "b=c=d".to_owned()]).unwrap()["b"], "c=d");
    }
}
