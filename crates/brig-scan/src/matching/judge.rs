//! The join itself.

use std::collections::BTreeMap;

use super::{
    Database, Doubt, Evidence, Finding, Options, Report, Status, Verdict, days_between, doubt,
};
use crate::db::{DbError, Index, IndexRow, Interval, Space, State, language_space, os_spaces};
use crate::package::{Ecosystem, Inventory, Package};
use crate::purl::Purl;
use crate::severity::Severity;
use crate::version::source_version;

/// Holds an inventory against a database.
///
/// # Errors
/// [`DbError::Damaged`] when the database is.
pub fn judge(index: &Index, inventory: &Inventory, options: &Options) -> Result<Report, DbError> {
    let mut run = Run {
        index,
        inventory,
        options,
        findings: Vec::new(),
        doubts: Vec::new(),
        judged: 0,
        unjudged: 0,
        without_version: Vec::new(),
        third_party: Vec::new(),
    };
    run.operating_system()?;
    run.languages()?;
    run.finish()
}

struct Run<'a> {
    index: &'a Index,
    inventory: &'a Inventory,
    options: &'a Options,
    findings: Vec<Finding>,
    doubts: Vec<Doubt>,
    judged: usize,
    unjudged: usize,
    without_version: Vec<String>,
    third_party: Vec<String>,
}

/// A package and the name and version by which advisories know it.
struct Asked<'a> {
    package: usize,
    name: &'a str,
    version: &'a str,
}

impl<'a> Run<'a> {
    fn operating_system(&mut self) -> Result<(), DbError> {
        let inventory = self.inventory;
        let os: Vec<(usize, &Package)> = inventory
            .packages
            .iter()
            .enumerate()
            .filter(|(_, package)| package.ecosystem.is_os())
            .collect();
        if os.is_empty() {
            return Ok(());
        }
        let Some(distribution) = &inventory.distribution else {
            self.unjudged += os.len();
            self.doubts.push(Doubt::NoDistribution { packages: os.len() });
            return Ok(());
        };
        let shown = distribution
            .pretty_name
            .clone()
            .unwrap_or_else(|| distribution.qualifier().replacen('-', " ", 1));
        let names = os_spaces(distribution);
        let mut spaces = Vec::new();
        for name in &names {
            spaces.extend(self.index.space(name)?);
        }
        if let Some(end) = names
            .first()
            .and_then(|name| doubt::end_of_life(self.index, name, &shown, &self.options.today))
        {
            self.doubts.push(end);
        }
        if spaces.is_empty() {
            self.unjudged += os.len();
            self.doubts
                .push(Doubt::UnsupportedDistribution { distribution: shown, packages: os.len() });
            return Ok(());
        }
        let mut asked = Vec::new();
        for (at, package) in os {
            if is_foreign(package, &distribution.id) {
                self.third_party.push(package.name.clone());
                self.unjudged += 1;
                continue;
            }
            if package.version.is_empty() {
                self.without_version.push(package.name.clone());
                self.unjudged += 1;
                continue;
            }
            self.judged += 1;
            asked.extend(os_names(at, package));
        }
        self.support_ended(names.first().map_or("", String::as_str), &asked);
        let mut of_space: Vec<Vec<Finding>> = Vec::new();
        for space in &spaces {
            of_space.push(self.join(space, &mut asked)?);
        }
        self.put_together(&spaces, of_space)
    }

    /// Ubuntu's advisories for subscribers count where those for everybody know no fix.
    fn put_together(
        &mut self,
        spaces: &[Space<'a>],
        of_space: Vec<Vec<Finding>>,
    ) -> Result<(), DbError> {
        let mut first: Option<Space<'a>> = None;
        let mut found: BTreeMap<(usize, String), Finding> = BTreeMap::new();
        for (space, findings) in spaces.iter().zip(of_space) {
            let subscribers = space.name.starts_with("ubuntu-pro:");
            for mut finding in findings {
                let key = (finding.package, finding.id.clone());
                if !subscribers {
                    found.entry(key).or_insert(finding);
                    continue;
                }
                finding.subscription = finding.fixed.is_some();
                let known = found.get(&key);
                let settled = match (known, first) {
                    (Some(known), _) => known.fixed.is_some(),
                    // Everybody's advisories speak about it and do not call this version affected.
                    (None, Some(first)) => self.speaks(&first, &finding)?,
                    (None, None) => false,
                };
                if !settled {
                    found.insert(key, finding);
                }
            }
            first = first.or(Some(*space));
        }
        self.findings.extend(found.into_values());
        Ok(())
    }

    fn speaks(&self, space: &Space<'a>, finding: &Finding) -> Result<bool, DbError> {
        let Some(flaw) = self.index.find(&finding.id)? else { return Ok(false) };
        Ok(space.rows(&finding.evidence.matched, &mut 0)?.iter().any(|row| row.flaw == flaw))
    }

    fn languages(&mut self) -> Result<(), DbError> {
        let inventory = self.inventory;
        let mut by_space: BTreeMap<&str, Vec<Asked<'a>>> = BTreeMap::new();
        let mut no_rule = 0;
        for (at, package) in inventory.packages.iter().enumerate() {
            // The distribution judges what it built, whatever version its upstream calls it.
            if package.ecosystem.is_os() || package.owned_by.is_some() {
                continue;
            }
            match language_space(package.ecosystem) {
                Some(space) => by_space.entry(space).or_default().push(Asked {
                    package: at,
                    name: &package.name,
                    version: &package.version,
                }),
                None => no_rule += 1,
            }
        }
        if no_rule > 0 {
            self.unjudged += no_rule;
            self.doubts.push(Doubt::NoData {
                ecosystem: "other ecosystems".to_owned(),
                packages: no_rule,
            });
        }
        for (name, mut asked) in by_space {
            let Some(space) = self.index.space(name)? else {
                self.unjudged += asked.len();
                self.doubts
                    .push(Doubt::NoData { ecosystem: name.to_owned(), packages: asked.len() });
                continue;
            };
            // A version that says nothing is a doubt where any version has a flaw.
            let (comparable, vague): (Vec<_>, Vec<_>) =
                asked.into_iter().partition(|asked| space.scheme.is_comparable(asked.version));
            for asked in vague {
                if space.rows(asked.name, &mut 0)?.is_empty() {
                    self.judged += 1;
                } else {
                    self.without_version.push(asked.name.to_owned());
                    self.unjudged += 1;
                }
            }
            asked = comparable;
            self.judged += asked.len();
            let findings = self.join(&space, &mut asked)?;
            self.findings.extend(findings);
        }
        Ok(())
    }

    /// Joins names with a space's packages; both are in order.
    fn join(&self, space: &Space<'a>, asked: &mut [Asked<'a>]) -> Result<Vec<Finding>, DbError> {
        asked.sort_by(|a, b| (a.name, a.version).cmp(&(b.name, b.version)));
        let mut findings = Vec::new();
        let mut hint = 0;
        let mut last: Option<(&str, Vec<IndexRow<'a>>)> = None;
        for asked in asked.iter() {
            if last.as_ref().is_none_or(|(name, _)| *name != asked.name) {
                last = Some((asked.name, space.rows(asked.name, &mut hint)?));
            }
            let rows = last.as_ref().map_or(&[][..], |(_, rows)| rows);
            // A flaw's statements stand together.
            for group in rows.chunk_by(|a, b| a.flaw == b.flaw) {
                findings.extend(self.weigh(space, asked, group)?);
            }
        }
        Ok(findings)
    }

    fn weigh(
        &self,
        space: &Space<'a>,
        asked: &Asked<'a>,
        rows: &[IndexRow<'a>],
    ) -> Result<Option<Finding>, DbError> {
        let Some(package) = self.inventory.packages.get(asked.package) else { return Ok(None) };
        let mut hits: Vec<(&IndexRow<'a>, Interval<'a>)> = Vec::new();
        for row in rows {
            if row.state == State::NotAffected {
                continue;
            }
            for interval in self.index.intervals(row)? {
                if same_module(package, row, &interval)
                    && interval.contains(asked.version, space.scheme)
                {
                    hits.push((row, interval));
                    break;
                }
            }
        }
        let Some(hit) = hits.first().copied() else { return Ok(None) };
        let first = hit.0;
        // All that speak about it must be satisfied.
        let deciding = hits
            .iter()
            .filter_map(|(_, interval)| interval.fixed().map(|fixed| (fixed, interval)))
            .max_by(|(a, _), (b, _)| space.scheme.compare(a, b));
        let flaw = self.index.vulnerability(first.flaw)?;
        let (status, rule) = match deciding {
            Some((fixed, _)) => (
                Status::Fixed,
                format!("{} < {fixed} by {} order", asked.version, space.scheme.name()),
            ),
            None => {
                let (row, interval) = hits.iter().min_by_key(|(row, _)| row.state).unwrap_or(&hit);
                let rule = match interval.end {
                    Some((end, _)) if end == interval.from => {
                        format!("{} is listed as affected", asked.version)
                    }
                    Some((end, _)) => {
                        format!("{} <= {end} by {} order", asked.version, space.scheme.name())
                    }
                    None if interval.from.is_empty() => "every version is affected".to_owned(),
                    None => format!(
                        "{} >= {} by {} order",
                        asked.version,
                        interval.from,
                        space.scheme.name()
                    ),
                };
                let status = match row.state {
                    State::Affected | State::NotAffected => Status::Affected,
                    State::UnderInvestigation => Status::UnderInvestigation,
                    State::Deferred => Status::FixDeferred,
                    State::WontFix => Status::WillNotFix,
                    State::EndOfLife => Status::EndOfLife,
                };
                (status, rule)
            }
        };
        let own = hits.iter().map(|(row, _)| row.severity).max().unwrap_or_default();
        let (severity, source) = match own {
            Severity::Unknown => (flaw.severity, flaw.severity_source.to_owned()),
            own => (own, space.name.split(':').next().unwrap_or(space.name).to_owned()),
        };
        let mut advisories: Vec<String> =
            hits.iter().map(|(row, _)| row.advisory.to_owned()).collect();
        advisories.sort_unstable();
        advisories.dedup();
        let mut feeds: Vec<String> = hits
            .iter()
            .filter_map(|(row, _)| Some(self.index.feeds().get(row.feed)?.name.clone()))
            .collect();
        feeds.sort_unstable();
        feeds.dedup();
        Ok(Some(Finding {
            package: asked.package,
            id: flaw.id.to_owned(),
            aliases: flaw.aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            advisories,
            summary: flaw.summary.to_owned(),
            published: flaw.published.to_owned(),
            severity,
            severity_source: source,
            score: flaw.score,
            vectors: flaw
                .vectors
                .iter()
                .filter(|v| !v.is_empty())
                .map(|v| (*v).to_owned())
                .collect(),
            status,
            fixed: deciding.map(|(fixed, _)| fixed.to_owned()),
            subscription: false,
            note: hits
                .iter()
                .map(|(row, _)| row.note)
                .find(|note| !note.is_empty())
                .unwrap_or_default()
                .to_owned(),
            exploited: flaw.kev.map(|kev| kev.added.to_owned()),
            ransomware: flaw.kev.is_some_and(|kev| kev.ransomware),
            epss: flaw.epss.map(|(probability, _)| probability),
            malicious: hits.iter().any(|(row, _)| row.malicious),
            evidence: Evidence {
                space: space.name.to_owned(),
                matched: asked.name.to_owned(),
                version: asked.version.to_owned(),
                rule,
                feeds,
            },
            suppressed: None,
        }))
    }

    fn support_ended(&mut self, space: &str, asked: &[Asked<'a>]) {
        let mut ended: Vec<String> = Vec::new();
        for entry in self.index.support().iter().filter(|entry| entry.space == space) {
            let over = entry.ended.as_deref().is_some_and(|day| {
                days_between(day, &self.options.today).is_some_and(|days| days >= 0)
            });
            if over && asked.iter().any(|asked| asked.name == entry.package) {
                ended.push(entry.package.clone());
            }
        }
        if !ended.is_empty() {
            ended.dedup();
            self.doubts.push(Doubt::SupportEnded { packages: ended });
        }
    }

    fn finish(mut self) -> Result<Report, DbError> {
        for (names, doubt) in [
            (
                &mut self.without_version,
                (|packages| Doubt::NoVersion { packages }) as fn(Vec<String>) -> Doubt,
            ),
            (&mut self.third_party, |packages| Doubt::ThirdParty { packages }),
        ] {
            names.sort_unstable();
            names.dedup();
            if !names.is_empty() {
                self.doubts.push(doubt(std::mem::take(names)));
            }
        }
        for unread in &self.inventory.unread {
            self.doubts
                .push(Doubt::Unread { path: unread.path.clone(), why: unread.reason.clone() });
        }
        if self.inventory.packages.is_empty() {
            self.doubts.push(Doubt::NothingFound);
        }
        let newest =
            self.index.feeds().iter().map(|feed| feed.newest.as_str()).max().unwrap_or_default();
        if let (Some(limit), Some(days)) =
            (self.options.max_age, days_between(newest, &self.options.today))
            && days > i64::from(limit)
        {
            self.doubts.push(Doubt::StaleData { newest: newest.to_owned(), days });
        }
        for finding in &mut self.findings {
            let Some(package) = self.inventory.packages.get(finding.package) else { continue };
            finding.suppressed =
                self.options.ignore.suppresses(finding, package, &self.options.today);
            if finding.suppressed.is_none() && !self.options.vex.is_empty() {
                let purl = Purl::of(package, self.inventory.distribution.as_ref());
                finding.suppressed =
                    self.options.vex.suppresses(finding, &purl, &self.inventory.image);
            }
        }
        let inventory = self.inventory;
        let name = |finding: &Finding| {
            inventory
                .packages
                .get(finding.package)
                .map(|package| (package.name.as_str(), package.version.as_str()))
        };
        self.findings.sort_by(|a, b| {
            urgency(a)
                .cmp(&urgency(b))
                .then_with(|| (name(a), &a.id, a.package).cmp(&(name(b), &b.id, b.package)))
        });
        let mut undetermined: Vec<String> = self
            .findings
            .iter()
            .filter(|f| {
                f.status == Status::UnderInvestigation && f.suppressed.is_none() && !f.is_minor()
            })
            .map(|finding| finding.id.clone())
            .collect();
        if !undetermined.is_empty() {
            undetermined.sort_unstable();
            undetermined.dedup();
            self.doubts.push(Doubt::Undetermined { ids: undetermined });
        }
        let verdict = if self.findings.iter().any(Finding::counts) {
            Verdict::Vulnerable
        } else if self.doubts.is_empty() {
            Verdict::Clean
        } else {
            Verdict::Unknown
        };
        Ok(Report {
            verdict,
            doubts: self.doubts,
            findings: self.findings,
            judged: self.judged,
            unjudged: self.unjudged,
            expired: self.options.ignore.expired(&self.options.today),
            today: self.options.today.clone(),
            database: Database {
                digest: self.index.digest().to_owned(),
                created: self.index.created().to_owned(),
                newest: newest.to_owned(),
            },
        })
    }
}

/// What is exploited first, then what is bad and can be fixed by how likely it is, then the rest by
/// how bad it is.
fn urgency(finding: &Finding) -> impl Ord + use<> {
    let likely = finding.epss.unwrap_or(0.0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 1,000,000
    let likely = (likely.clamp(0.0, 1.0) * 1e6) as u32;
    let pressing = finding.severity >= Severity::High && finding.fixable();
    (
        finding.exploited.is_none() && !finding.malicious,
        !pressing,
        std::cmp::Reverse(if pressing { likely } else { 0 }),
        std::cmp::Reverse(finding.severity),
        std::cmp::Reverse(likely),
    )
}

/// The names by which a distribution's advisories know a package.
fn os_names(at: usize, package: &Package) -> Vec<Asked<'_>> {
    let own = Asked { package: at, name: &package.name, version: &package.version };
    match (package.ecosystem, &package.source) {
        (Ecosystem::Deb, Some(source)) => {
            vec![Asked { package: at, name: unsigned(&source.name), version: &source.version }]
        }
        (Ecosystem::Deb, None) => {
            vec![Asked {
                package: at,
                name: unsigned(&package.name),
                version: source_version(&package.version),
            }]
        }
        // Alpine speaks of origins, Wolfi and its relatives of both.
        (Ecosystem::Apk, Some(source)) if source.name != package.name => {
            vec![Asked { package: at, name: &source.name, version: &package.version }, own]
        }
        _ => vec![own],
    }
}

/// Signed kernels are filed under the kernel that was signed.
fn unsigned(source: &str) -> &str {
    match source {
        "linux-signed" | "linux-meta" | "linux-signed-amd64" | "linux-signed-arm64"
        | "linux-signed-i386" => "linux",
        source => source,
    }
}

/// Whether an rpm was built by somebody else than the distribution: its advisories compare versions
/// that have nothing to do with it.
fn is_foreign(package: &Package, distribution: &str) -> bool {
    if package.ecosystem == Ecosystem::Deb {
        return has_foreign_mark(&package.version, distribution);
    }
    let (Ecosystem::Rpm, Some(vendor)) = (package.ecosystem, &package.vendor) else { return false };
    let own: &[&str] = match distribution {
        "rhel" => &["red hat"],
        "centos" => &["centos", "red hat"],
        "almalinux" => &["almalinux"],
        "rocky" => &["rocky"],
        "ol" | "oracle" => &["oracle"],
        "amzn" => &["amazon"],
        "fedora" => &["fedora"],
        "photon" => &["vmware", "broadcom"],
        "mariner" | "azurelinux" => &["microsoft"],
        id if id.contains("suse") || id == "sles" => &["suse"],
        _ => return false,
    };
    let vendor = vendor.to_ascii_lowercase();
    !own.iter().any(|word| vendor.contains(word))
}

/// Whether a deb's version has the mark of one of the repositories that people add to Debian and
/// Ubuntu: their names, or the release that it was built for (`1.25.3-1~bookworm`), which Debian
/// itself writes as a number. Ubuntu does write its releases' names (`5.1.6~rc2-0ubuntu1~xenial3.1`),
/// so there it takes more (`~ubuntu.22.04~jammy`). Names and maintainers tell nothing.
fn has_foreign_mark(version: &str, distribution: &str) -> bool {
    const NAMES: [&str; 6] = ["nodesource", ".pgdg", "sury.org", "dotdeb", "~ppa", ".gbp"];
    const RELEASES: [&str; 13] = [
        "stretch", "buster", "bullseye", "bookworm", "trixie", "forky", "xenial", "bionic",
        "focal", "jammy", "noble", "plucky", "questing",
    ];
    let last = version.rsplit('~').next().unwrap_or_default();
    let word = last.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let marked = distribution != "ubuntu" || version.contains("~ubuntu.");
    NAMES.iter().any(|name| version.contains(name)) || (marked && RELEASES.contains(&word))
}

/// Modular rpms are compared within their stream only.
fn same_module(package: &Package, row: &IndexRow<'_>, interval: &Interval<'_>) -> bool {
    if package.ecosystem != Ecosystem::Rpm {
        return true;
    }
    let modular = |version: &str| version.contains(".module");
    let stated = !row.module.is_empty() && interval.fixed().is_none_or(modular);
    match (&package.module, stated || interval.fixed().is_some_and(modular)) {
        (_, false) => package.module.is_none() && !modular(&package.version),
        (None, true) => modular(&package.version),
        (Some(own), true) => {
            let mut own = own.split(':');
            let (name, stream) = (own.next(), own.next());
            match row.module.split_once(':') {
                // One announcement can be about several modules and its title names the first.
                Some((stated, wanted)) if Some(stated) == name => stream == Some(wanted),
                _ => true,
            }
        }
    }
}
