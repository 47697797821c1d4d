//! Ruby gems: `specifications/*.gemspec`. They are Ruby programs; RubyGems writes them in one shape,
//! from which name, version and platform are taken by pattern.

use crate::package::{Ecosystem, EvidenceKind, Package};

use super::{ParseError, Parsed, licenses};

/// How much of a specification is looked at.
pub const MAX_SPECIFICATION: usize = 256 << 10;

/// Reads a specification.
///
/// # Errors
/// [`ParseError::Malformed`] when neither it nor its file's name says a name and a version.
pub fn specification(bytes: &[u8], path: &str) -> Result<Parsed, ParseError> {
    let text = String::from_utf8_lossy(bytes.get(..MAX_SPECIFICATION).unwrap_or(bytes));
    let (mut name, mut version) = (None, None);
    let mut names: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        let Some((left, right)) = line.split_once('=') else { continue };
        let Some((_, attribute)) = left.trim().rsplit_once('.') else { continue };
        match attribute.trim() {
            "name" => name = name.or_else(|| literal(right)),
            "version" => version = version.or_else(|| literal(right)),
            "licenses" | "license" if names.is_empty() => {
                names = literals(right);
            }
            _ => {}
        }
    }
    let base = path.rsplit('/').next().unwrap_or(path);
    let stem = base.strip_suffix(".gemspec").unwrap_or(base);
    if (name.is_none() || version.is_none())
        && let Some((from_name, from_version)) = name_and_version(stem)
    {
        name = name.or_else(|| Some(from_name.to_owned()));
        version = version.or_else(|| Some(from_version.to_owned()));
    }
    let (Some(name), Some(version)) = (name, version) else {
        return Err(ParseError::malformed("it has no name or no version"));
    };
    let mut parsed = Parsed::default();
    let mut found = Package::new(Ecosystem::Gem, name, version, path, EvidenceKind::Installed);
    found.licenses = licenses(names.iter().map(String::as_str));
    parsed.push(found)?;
    Ok(parsed)
}

/// `NAME-VERSION[-PLATFORM]`: the version begins at the first part that begins with a digit.
fn name_and_version(stem: &str) -> Option<(&str, &str)> {
    let (at, _) = stem.match_indices('-').find(|(at, _)| {
        stem.get(at + 1..).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })?;
    let rest = stem.get(at + 1..)?;
    Some((stem.get(..at)?, rest.split('-').next()?))
}

/// The first string of an expression, as `"1.2".freeze`, `'1.2'` or `Gem::Version.new("1.2")`; none
/// when it is computed.
fn literal(expression: &str) -> Option<String> {
    literals(expression).into_iter().next()
}

fn literals(expression: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(['"', '\'']) {
        let Some(quote) = rest.get(start..start + 1) else { break };
        let Some(inner) = rest.get(start + 1..) else { break };
        let Some(end) = inner.find(quote) else { break };
        let text = inner.get(..end).unwrap_or_default();
        if !text.contains("#{") {
            found.push(text.to_owned());
        }
        rest = inner.get(end + 1..).unwrap_or_default();
        if found.len() > 32 {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::names;
    use super::*;

    #[test]
    fn what_rubygems_writes_is_read() {
        let text = b"# -*- encoding: utf-8 -*-\n# stub: nokogiri 1.13.6 x86_64-linux lib\n\nGem::Specification.new do |s|\n  s.name = \"nokogiri\".freeze\n  s.version = \"1.13.6\"\n  s.platform = \"x86_64-linux\".freeze\n  s.licenses = [\"MIT\".freeze, \"X\"]\nend\n";
        let parsed = specification(text, "specifications/nokogiri-1.13.6-x86_64-linux.gemspec");
        let parsed = parsed.unwrap();
        assert_eq!(names(&parsed), ["nokogiri 1.13.6"]);
        assert_eq!(parsed.packages[0].licenses, ["MIT", "X"]);
    }

    #[test]
    fn the_file_name_helps_out() {
        let text =
            b"Gem::Specification.new do |s|\n  s.name = \"rake\"\n  s.version = Rake::VERSION\nend";
        let parsed = specification(text, "specifications/rake-13.0.6.gemspec").unwrap();
        assert_eq!(names(&parsed), ["rake 13.0.6"]);
        assert_eq!(name_and_version("net-http-0.2.1-java"), Some(("net-http", "0.2.1")));
        assert!(specification(b"x", "a.gemspec").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_end(text in ".{0,200}") {
            let _ = specification(text.as_bytes(), &text);
        }
    }
}
