//! How long distributions and their packages are supported: distro-info's tables and Debian's lists
//! of packages whose support ended or is limited.

use super::one_line;
use crate::db::{Collector, Release, Support};

pub(super) fn releases(into: &mut Collector, name: &str, text: &str) -> Result<(), String> {
    let family = name.split('.').next().unwrap_or(name);
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |name: &str| {
            let at = columns.iter().position(|column| *column == name)?;
            fields.get(at).map(|field| field.trim()).filter(|field| !field.is_empty())
        };
        let Some(series) = field("series") else { continue };
        let version =
            field("version").and_then(|version| version.split(' ').next()).unwrap_or(series);
        let date = |name: &str| field(name).map(str::to_owned);
        into.releases.push(Release {
            space: format!("{family}:{version}"),
            codename: series.to_owned(),
            end: date("eol-server").max(date("eol")),
            end_lts: date("eol-lts"),
            end_paid: date("eol-elts").or_else(|| date("eol-esm")),
        });
        into.counted("");
    }
    Ok(())
}

pub(super) fn security_support(into: &mut Collector, name: &str, text: &str) -> Result<(), String> {
    let release = name.strip_prefix("security-support-ended.deb");
    if release.is_none() && name != "security-support-limited" {
        return Err("neither of packages with ended nor with limited support".to_owned());
    }
    for line in
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let mut words = line.split_whitespace();
        let Some(package) = words.next() else { continue };
        let mut entry = Support { package: package.to_owned(), ..Support::default() };
        if let Some(release) = release {
            entry.space = format!("debian:{release}");
            let _last_supported = words.next();
            entry.ended = words.next().map(str::to_owned);
        }
        entry.note = one_line(&words.collect::<Vec<_>>().join(" "));
        into.support.push(entry);
        into.counted("");
    }
    Ok(())
}
