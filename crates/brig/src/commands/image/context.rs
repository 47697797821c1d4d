//! A build's context: the folder as a tar, without what `.dockerignore` leaves out.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// Patterns of `.dockerignore`, in order; the last one that matches decides.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ignore(Vec<Pattern>);

#[derive(Debug, PartialEq, Eq)]
struct Pattern {
    parts: Vec<String>,
    keeps: bool,
}

impl Ignore {
    /// Reads the file's text.
    pub(super) fn parse(text: &str) -> Self {
        let patterns = text
            .trim_start_matches('\u{feff}')
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .filter_map(|line| {
                let (keeps, line) = match line.strip_prefix('!') {
                    Some(rest) => (true, rest.trim()),
                    None => (false, line),
                };
                let mut parts: Vec<String> = Vec::new();
                for part in line.split('/') {
                    match part {
                        "" | "." => {}
                        ".." => {
                            parts.pop();
                        }
                        part => parts.push(part.to_owned()),
                    }
                }
                (!parts.is_empty()).then_some(Pattern { parts, keeps })
            })
            .collect();
        Self(patterns)
    }

    /// Whether a path is left out: it, or a folder above it, matches.
    fn takes_out(&self, path: &[String]) -> bool {
        let mut out = false;
        for pattern in &self.0 {
            let hit = (1..=path.len())
                .any(|end| matches(&pattern.parts, path.get(..end).unwrap_or_default()));
            if hit {
                out = !pattern.keeps;
            }
        }
        out
    }

    /// Whether something below an ignored folder may be kept all the same.
    fn has_exceptions(&self) -> bool {
        self.0.iter().any(|pattern| pattern.keeps)
    }
}

fn matches(pattern: &[String], path: &[String]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" => {
            matches(rest, path)
                || path.split_first().is_some_and(|(_, below)| matches(pattern, below))
        }
        (Some((first, rest)), Some((name, below))) => {
            let (first, name): (Vec<char>, Vec<char>) =
                (first.chars().collect(), name.chars().collect());
            matches_name(&first, &name) && matches(rest, below)
        }
        _ => false,
    }
}

/// `*`, `?`, `[a-z]` and `\` within one name.
fn matches_name(pattern: &[char], name: &[char]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some(('*', rest)) => {
            (0..=name.len()).any(|skip| matches_name(rest, name.get(skip..).unwrap_or_default()))
        }
        Some(('?', rest)) => name.split_first().is_some_and(|(_, after)| matches_name(rest, after)),
        Some(('[', rest)) => {
            let Some(end) = rest.iter().position(|c| *c == ']') else { return false };
            let (set, after) = rest.split_at(end);
            let (negated, set) = match set.split_first() {
                Some(('^', set)) => (true, set),
                _ => (false, set),
            };
            let Some((c, left)) = name.split_first() else { return false };
            let mut found = false;
            let mut at = 0;
            while let Some(low) = set.get(at) {
                match (set.get(at + 1), set.get(at + 2)) {
                    (Some('-'), Some(high)) => {
                        found |= (low..=high).contains(&c);
                        at += 3;
                    }
                    _ => {
                        found |= low == c;
                        at += 1;
                    }
                }
            }
            found != negated && matches_name(after.get(1..).unwrap_or_default(), left)
        }
        Some(('\\', rest)) => match (rest.split_first(), name.split_first()) {
            (Some((literal, rest)), Some((c, after))) => literal == c && matches_name(rest, after),
            _ => false,
        },
        Some((literal, rest)) => {
            name.split_first().is_some_and(|(c, after)| c == literal && matches_name(rest, after))
        }
    }
}

/// Writes a folder as a tar. Blocks. `always` are files that no pattern takes out.
pub(super) fn pack(
    folder: Option<&Path>,
    ignore: &Ignore,
    always: &[&str],
    extra: &[(String, Vec<u8>)],
    out: impl Write,
) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    let mut path = Vec::new();
    if let Some(folder) = folder {
        walk(&mut tar, folder, ignore, always, &mut path)?;
    }
    for (name, bytes) in extra {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        tar.append_data(&mut header, name, bytes.as_slice())?;
    }
    tar.into_inner()?.flush()
}

fn walk(
    tar: &mut tar::Builder<impl Write>,
    folder: &Path,
    ignore: &Ignore,
    always: &[&str],
    path: &mut Vec<String>,
) -> io::Result<()> {
    let mut names: Vec<_> = fs::read_dir(folder)?
        .map(|entry| entry.map(|e| e.file_name()))
        .collect::<Result<_, _>>()?;
    names.sort();
    for name in names {
        let place = folder.join(&name);
        path.push(name.to_string_lossy().into_owned());
        let inside = path.join("/");
        let out = ignore.takes_out(path) && !always.contains(&inside.as_str());
        let meta = fs::symlink_metadata(&place)?;
        let leads_on = ignore.has_exceptions()
            || always.iter().any(|kept| kept.starts_with(&format!("{inside}/")));
        if !out {
            append(tar, &place, &inside, &meta)?;
        }
        if meta.is_dir() && (!out || leads_on) {
            walk(tar, &place, ignore, always, path)?;
        }
        path.pop();
    }
    Ok(())
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    place: &Path,
    inside: &str,
    meta: &fs::Metadata,
) -> io::Result<()> {
    let kind = meta.file_type();
    let mut header = tar::Header::new_gnu();
    header.set_mode(meta.mode() & 0o7777);
    // Who owns a file here means nothing in an image.
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(meta.mtime()).unwrap_or(0));
    header.set_size(0);
    if kind.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        tar.append_data(&mut header, inside, io::empty())
    } else if kind.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        tar.append_link(&mut header, inside, fs::read_link(place)?)
    } else if kind.is_file() {
        let file = fs::File::open(place).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", place.display()))
        })?;
        let size = file.metadata()?.len();
        header.set_size(size);
        tar.append_data(&mut header, inside, io::Read::take(file, size))
    } else if kind.is_fifo() {
        header.set_entry_type(tar::EntryType::Fifo);
        tar.append_data(&mut header, inside, io::empty())
    } else {
        // Sockets and devices are nothing to build from.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn out(ignore: &str, path: &str) -> bool {
        let path: Vec<String> = path.split('/').map(str::to_owned).collect();
        Ignore::parse(ignore).takes_out(&path)
    }

    #[test]
    fn patterns_are_dockers() {
        for (ignore, path, expected) in [
            ("a", "a", true),
            ("a", "a/b", true),
            ("a", "x/a", false),
            ("**/a", "x/y/a", true),
            ("**/*.log", "x/y.log", true),
            ("*.log", "x/y.log", false),
            ("/a/b", "a/b", true),
            ("a/**/c", "a/c", true),
            ("*\n!keep", "keep", false),
            ("*\n!keep", "other", true),
            ("*\n!d/keep", "d/keep", false),
            ("# x\n\n[a-c]?", "bz", true),
            ("[^a]z", "az", false),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("!x\nx", "x", true),
            ("", "x", false),
        ] {
            assert_eq!(out(ignore, path), expected, "{ignore:?} {path}");
        }
    }

    #[test]
    fn a_folder_is_packed_without_what_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["d/keep", "d/other", "x.log", "Dockerfile"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        let ignore = Ignore::parse("*\n!d/keep");
        let mut bytes = Vec::new();
        let extra = [("extra".to_owned(), b"1".to_vec())];
        pack(Some(dir.path()), &ignore, &["Dockerfile"], &extra, &mut bytes).unwrap();
        let mut names: Vec<String> = tar::Archive::new(&bytes[..])
            .entries()
            .unwrap()
            .map(|e| e.unwrap().path().unwrap().display().to_string())
            .collect();
        names.sort();
        assert_eq!(names, ["Dockerfile", "d/keep", "extra"]);
    }

    proptest::proptest! {
        #[test]
        fn any_pattern_ends(pattern in "[a*?\\[\\]^!/\\\\-]{0,10}", path in "[a/]{1,8}") {
            let _ = out(&pattern, &path);
        }
    }
}
