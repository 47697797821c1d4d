//! What is known about flaws beyond packages: exploited ones (KEV), probabilities (EPSS), scores.

use serde::Deserialize;

use super::day;
use crate::db::collect::Exploited;
use crate::db::{Collector, Flaw};

#[derive(Debug, Deserialize)]
struct Catalogue {
    #[serde(rename = "dateReleased", default)]
    released: String,
    vulnerabilities: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "cveID")]
    id: String,
    #[serde(rename = "dateAdded", default)]
    added: String,
    #[serde(rename = "dueDate", default)]
    due: String,
    #[serde(rename = "knownRansomwareCampaignUse", default)]
    ransomware: String,
}

pub(super) fn kev(into: &mut Collector, bytes: &[u8]) -> Result<(), String> {
    let catalogue: Catalogue = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    into.enriches();
    for entry in catalogue.vulnerabilities {
        into.counted(day(&catalogue.released));
        into.exploited.insert(
            entry.id,
            Exploited {
                added: entry.added,
                due: entry.due,
                ransomware: entry.ransomware == "Known",
            },
        );
    }
    Ok(())
}

pub(super) fn epss(into: &mut Collector, text: &str) -> Result<(), String> {
    into.enriches();
    let date = text
        .lines()
        .next()
        .and_then(|line| line.split("score_date:").nth(1))
        .map(|date| day(date.trim()).to_owned())
        .unwrap_or_default();
    for line in text.lines().filter(|line| line.starts_with("CVE-")) {
        let mut fields = line.split(',');
        let (Some(id), Some(score), Some(percentile)) =
            (fields.next(), fields.next(), fields.next())
        else {
            into.skipped(|| format!("not three fields: {line}"));
            continue;
        };
        let (Some(score), Some(percentile)) = (millionths(score), millionths(percentile)) else {
            into.skipped(|| format!("not a probability: {line}"));
            continue;
        };
        into.epss.insert(id.to_owned(), (score, percentile));
        into.counted(&date);
    }
    Ok(())
}

pub(super) fn base_scores(into: &mut Collector, text: &str) -> Result<(), String> {
    for line in text.lines().filter(|line| line.starts_with("CVE-")) {
        let Some((id, score)) = line.split_once(',') else { continue };
        let tenths = millionths(score)
            .and_then(|m| u8::try_from(m / 100_000).ok())
            .filter(|tenths| *tenths <= 100);
        match tenths {
            Some(tenths) => {
                into.flaw(id, Flaw { base_score: Some(tenths), ..Flaw::default() });
                into.counted("");
            }
            None => into.skipped(|| format!("not a score: {line}")),
        }
    }
    Ok(())
}

/// A decimal number as millionths, without going through floats.
fn millionths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let whole: u32 = whole.parse().ok().filter(|whole| *whole <= 10)?;
    let mut digits: String = fraction.chars().take(6).collect();
    while digits.len() < 6 {
        digits.push('0');
    }
    Some(whole * 1_000_000 + digits.parse::<u32>().ok()?)
}
