//! Rules about source files that no lint knows.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Longer files are hard to read at a sitting.
const MAX_LINES: usize = 800;

/// The one crate that may hold unsafe code.
const UNSAFE_CRATE: &str = "crates/brig-sys/";

/// Every broken rule, one line each.
pub(crate) fn broken_rules(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for folder in ["crates", "tests", "xtask"] {
        rust_files(&root.join(folder), &mut files)?;
    }
    let mut broken = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("reading {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        broken.extend(broken_in(&name, &text));
        if name.contains("tests/") && name.ends_with("/main.rs") {
            broken.extend(lost_modules(&file, &name, &text)?);
        }
    }
    Ok(broken)
}

fn broken_in(name: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        broken
            .push(format!("{name}: {lines} lines; split it by what it does (at most {MAX_LINES})"));
    }
    let allows_unsafe = concat!("allow(", "unsafe_code)");
    if !name.starts_with(UNSAFE_CRATE) && text.contains(allows_unsafe) {
        broken.push(format!("{name}: unsafe code belongs to brig-sys"));
    }
    // Tests beside the code say what they are by their name.
    let tests = name.contains("/tests/") || name.ends_with("tests.rs");
    if !text.starts_with("//!") && !tests {
        broken.push(format!("{name}: starts without a module doc (//!)"));
    }
    broken
}

/// Files and folders beside a test program's `main.rs` that it does not name: their tests would
/// never run, and nobody would notice.
fn lost_modules(main: &Path, name: &str, text: &str) -> Result<Vec<String>> {
    let folder = main.parent().unwrap_or(main);
    let entries = std::fs::read_dir(folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .collect::<std::io::Result<Vec<_>>>()?;
    let mut lost = Vec::new();
    for path in entries.iter().map(std::fs::DirEntry::path) {
        let is_module = path.extension().is_some_and(|extension| extension == "rs")
            || path.join("mod.rs").is_file();
        let module = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if is_module && module != "main" && !text.contains(&format!("mod {module};")) {
            lost.push(format!("{name}: does not name `mod {module};`, which is never tested"));
        }
    }
    lost.sort();
    Ok(lost)
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", folder.display())),
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_that_no_test_program_names_are_lost() {
        let main = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs");
        let lost = lost_modules(&main, "x/main.rs", "mod architecture;").unwrap();
        assert!(lost.iter().any(|line| line.contains("`mod sources;`")), "{lost:?}");
        assert!(!lost.iter().any(|line| line.contains("architecture")), "{lost:?}");
    }

    #[test]
    fn long_undocumented_and_unsafe_files_are_named() {
        let long = format!("//! doc\n{}", "\n".repeat(MAX_LINES + 1));
        assert_eq!(broken_in("crates/x/src/a.rs", &long).len(), 1);
        assert_eq!(broken_in("crates/x/src/a.rs", "fn main() {}").len(), 1);
        let unsafe_file = concat!("//! doc\n#![allow(", "unsafe_code)]\n");
        assert_eq!(broken_in("crates/x/src/a.rs", unsafe_file).len(), 1);
        assert!(broken_in("crates/brig-sys/src/lib.rs", unsafe_file).is_empty());
    }
}
