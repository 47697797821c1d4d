//! Where the database's data comes from when nobody says otherwise.

/// A feed's name and address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FeedSource {
    pub(super) name: String,
    pub(super) address: String,
}

/// Ecosystems of OSV's bulk files.
const OSV: [&str; 12] = [
    "AlmaLinux",
    "Alpine",
    "Go",
    "Maven",
    "NuGet",
    "Packagist",
    "PyPI",
    "Rocky Linux",
    "RubyGems",
    "Ubuntu",
    "crates.io",
    "npm",
];

/// Feeds with one address each.
const SINGLE: [(&str, &str); 3] = [
    ("debian-tracker", "https://security-tracker.debian.org/tracker/data/json"),
    ("kev", "https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json"),
    ("epss", "https://epss.empiricalsecurity.com/epss_scores-current.csv.gz"),
];

/// What `scan db update` reads without flags.
pub(super) fn defaults() -> Vec<FeedSource> {
    let osv = OSV.into_iter().map(|ecosystem| FeedSource {
        name: format!("osv-{}", ecosystem.to_ascii_lowercase().replace([' ', '.'], "-")),
        address: format!(
            "https://osv-vulnerabilities.storage.googleapis.com/{}/all.zip",
            ecosystem.replace(' ', "%20")
        ),
    });
    let single = SINGLE
        .into_iter()
        .map(|(name, address)| FeedSource { name: name.to_owned(), address: address.to_owned() });
    osv.chain(single).collect()
}

impl FeedSource {
    /// `NAME=ADDRESS`, or an address or a path alone, which names itself.
    pub(super) fn parse(text: &str) -> Self {
        match text.split_once('=') {
            Some((name, address))
                if !name.is_empty()
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) =>
            {
                Self { name: name.to_owned(), address: address.to_owned() }
            }
            _ => Self { name: name_of(text), address: text.to_owned() },
        }
    }

    /// Whether it is fetched.
    pub(super) fn is_remote(&self) -> bool {
        self.address.contains("://")
    }
}

/// The last part of a path without what says how it is packed.
pub(super) fn name_of(path: &str) -> String {
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
    let mut name = last.split(['?', '#']).next().unwrap_or(last);
    for ending in [".zst", ".gz", ".tar", ".tgz", ".zip", ".jsonl", ".json", ".csv", ".yaml"] {
        name = name.strip_suffix(ending).unwrap_or(name);
    }
    if name.is_empty() { "feed".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feeds_have_names() {
        let parsed = |text: &str| {
            let feed = FeedSource::parse(text);
            (feed.name, feed.address)
        };
        let pair = |name: &str, address: &str| (name.to_owned(), address.to_owned());
        assert_eq!(parsed("/a/osv-go.tar.zst"), pair("osv-go", "/a/osv-go.tar.zst"));
        assert_eq!(parsed("x=https://h/a.json?b=c"), pair("x", "https://h/a.json?b=c"));
        assert_eq!(parsed("https://h/a.json?b=c"), pair("a", "https://h/a.json?b=c"));
        assert!(
            defaults().iter().all(|feed| feed.is_remote() && feed.address.starts_with("https://"))
        );
    }
}
