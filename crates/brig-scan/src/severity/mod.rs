//! How bad a vulnerability is: bands, and scores from CVSS vectors of versions 2, 3 and 4.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A band of severity, least first.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nobody says.
    #[default]
    Unknown,
    /// A bug without weight for security in this build (Debian's "unimportant").
    Negligible,
    /// CVSS 0.1 to 3.9.
    Low,
    /// CVSS 4.0 to 6.9.
    Medium,
    /// CVSS 7.0 to 8.9.
    High,
    /// CVSS 9.0 to 10.
    Critical,
}

impl Severity {
    /// Every band, least first; the place is its number in the index.
    pub const ALL: [Self; 6] =
        [Self::Unknown, Self::Negligible, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The band of a CVSS v3 or v4 score.
    #[must_use]
    pub fn of_score(score: f64) -> Self {
        if score >= 9.0 {
            Self::Critical
        } else if score >= 7.0 {
            Self::High
        } else if score >= 4.0 {
            Self::Medium
        } else if score > 0.0 {
            Self::Low
        } else {
            Self::Negligible
        }
    }

    /// The band of a word that a publisher uses.
    #[must_use]
    pub fn of_word(word: &str) -> Self {
        match word.trim().to_ascii_lowercase().as_str() {
            "critical" => Self::Critical,
            "high" | "important" => Self::High,
            "medium" | "moderate" => Self::Medium,
            "low" | "minor" => Self::Low,
            "negligible" | "unimportant" | "none" => Self::Negligible,
            _ => Self::Unknown,
        }
    }

    /// The band in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Negligible => "negligible",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|band| band.as_str().eq_ignore_ascii_case(text.trim()))
            .ok_or_else(|| {
                format!("unknown severity {text:?}: use unknown, negligible, low, medium, high, critical")
            })
    }
}

/// Longest vector that is read, in bytes.
const MAX_VECTOR: usize = 512;

/// The base score of a CVSS vector of any version, and its band; none for what is no vector.
#[must_use]
pub fn score(vector: &str) -> Option<(f64, Severity)> {
    let vector = vector.trim();
    if vector.len() > MAX_VECTOR || !vector.is_ascii() {
        return None;
    }
    let parsed = cvss::Cvss::from_str(vector).ok()?;
    let required: &[&str] = match parsed {
        cvss::Cvss::CvssV20(_) => &["AV", "AC", "Au", "C", "I", "A"],
        cvss::Cvss::CvssV30(_) | cvss::Cvss::CvssV31(_) => {
            &["AV", "AC", "PR", "UI", "S", "C", "I", "A"]
        }
        _ => &["AV", "AC", "AT", "PR", "UI", "VC", "VI", "VA", "SC", "SI", "SA"],
    };
    let has = |metric: &&str| vector.split('/').any(|part| part.split(':').next() == Some(metric));
    if !required.iter().all(has) {
        return None;
    }
    let score = parsed.score();
    if !(0.0..=10.0).contains(&score) {
        return None;
    }
    let band = match parsed {
        // Version 2 has no critical.
        cvss::Cvss::CvssV20(_) => Severity::of_score(score).min(Severity::High),
        _ => Severity::of_score(score),
    };
    Some((score, band))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(vector: &str) -> f64 {
        score(vector).unwrap().0
    }

    /// Vectors and scores of FIRST's specifications and example documents.
    #[test]
    fn scores_of_published_vectors() {
        for (vector, expected) in [
            // v3.1 examples
            ("CVSS:3.1/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1),
            ("CVSS:3.0/AV:N/AC:L/PR:L/UI:N/S:C/C:L/I:L/A:N", 6.4),
            ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N", 7.5),
            ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0),
            ("CVSS:3.1/AV:L/AC:L/PR:H/UI:N/S:U/C:L/I:L/A:L", 4.2),
            ("CVSS:3.1/AV:A/AC:L/PR:N/UI:N/S:C/C:H/I:N/A:H", 9.3),
            ("CVSS:3.1/AV:P/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 6.8),
            ("CVSS:3.0/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N", 3.1),
            ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0.0),
            // v4.0 examples
            ("CVSS:4.0/AV:L/AC:L/AT:P/PR:L/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", 7.3),
            ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:P/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", 8.7),
            ("CVSS:4.0/AV:N/AC:L/AT:P/PR:N/UI:P/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", 7.7),
            ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:L/VA:L/SC:N/SI:N/SA:N", 8.8),
            ("CVSS:4.0/AV:N/AC:L/AT:P/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:H", 9.5),
            ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:H/SI:H/SA:H", 10.0),
            ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:N/VI:N/VA:N/SC:N/SI:N/SA:N", 0.0),
            ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", 9.3),
            ("CVSS:4.0/AV:P/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N", 7.0),
            ("CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:N/VA:N/SC:N/SI:N/SA:N/E:U", 6.6),
            // v2
            ("AV:N/AC:L/Au:N/C:N/I:N/A:C", 7.8),
            ("AV:N/AC:L/Au:N/C:C/I:C/A:C", 10.0),
            ("AV:L/AC:H/Au:N/C:C/I:C/A:C", 6.2),
        ] {
            assert!(
                (points(vector) - expected).abs() < 0.05,
                "{vector}: {} and not {expected}",
                points(vector)
            );
        }
        assert_eq!(score("AV:N/AC:L/Au:N/C:C/I:C/A:C").unwrap().1, Severity::High);
    }

    #[test]
    fn what_is_no_vector_has_no_score() {
        for text in ["", "CVSS:3.1", "CVSS:9.0/AV:N", "CVSS:3.1/AV:N/AC:L", "7.5", "é"] {
            assert!(score(text).is_none(), "{text}");
        }
    }

    #[test]
    fn words() {
        assert_eq!("HIGH".parse::<Severity>(), Ok(Severity::High));
        assert_eq!(Severity::of_word("Important"), Severity::High);
        assert!("severe".parse::<Severity>().is_err());
    }
}
