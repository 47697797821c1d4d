//! `trust inspect`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use brig_trust::remote::Action;
use brig_trust::repository::is_released_by;
use brig_trust::{Repository, Role, Target, UpdateError};
use brig_types::reference::Reference;
use clap::Args;
use serde::Serialize;

use super::session::{Session, explained};
use crate::cli::leaf;
use crate::context::Context;
use crate::error::{Error, Failures, Result, message};
use crate::output::table;

leaf!(
    INSPECT,
    "inspect",
    "IMAGE[:TAG] [IMAGE[:TAG]...]",
    "Return low-level information about keys and signatures",
    InspectArgs,
    inspect
);

const REPO_ADMIN: &str = "Repo Admin";
/// Digits of a key's ID in tables.
const SHORT_ID: usize = 12;

#[derive(Args, Debug)]
struct InspectArgs {
    /// Print the information in a human friendly format
    #[arg(long)]
    pretty: bool,
    #[arg(hide = true, required = true)]
    images: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Report {
    name: String,
    signed_tags: Vec<SignedTag>,
    signers: Vec<KeyHolder>,
    administrative_keys: Vec<KeyHolder>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SignedTag {
    signed_tag: String,
    digest: String,
    signers: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyHolder {
    name: String,
    keys: Vec<KeyRef>,
}

#[derive(Debug, Serialize)]
struct KeyRef {
    #[serde(rename = "ID")]
    id: String,
}

async fn inspect(context: &Context, args: InspectArgs) -> Result<()> {
    let mut failures = Failures::default();
    if args.pretty {
        for (at, image) in args.images.iter().enumerate() {
            if at > 0 {
                crate::output::line("")?;
            }
            if let Some(report) = failures.keep(report(context, image).await)? {
                crate::output::print(&pretty(&report))?;
            }
        }
        return failures.finish();
    }
    let mut reports = Vec::new();
    for image in &args.images {
        reports.extend(failures.keep(report(context, image).await)?);
    }
    let json = serde_json::to_string(&reports)
        .map_err(|source| Error::Answer { path: "the trust data".to_owned(), source })?;
    crate::output::line(&crate::output::indent(&json, 0))?;
    failures.finish()
}

async fn report(context: &Context, image: &str) -> Result<Report> {
    let reference = Reference::parse(image).map_err(|e| message(e.to_string()))?;
    let session = Session::open(context, &reference, Action::Pull).await?;
    let repository = session.read().await.map_err(|error| {
        let text = format!("no signatures or cannot access {image}");
        match error {
            UpdateError::NoTrustData { .. } => message(text),
            error => message(format!("{text}: {}", explained(&session.gun, &error).text())),
        }
    })?;
    Ok(Report {
        name: image.to_owned(),
        signed_tags: signed_tags(&repository, reference.tag()),
        signers: signers(&repository),
        administrative_keys: administrative_keys(&repository),
    })
}

/// Who else has signed the same digest under the same tag.
pub(super) fn signers_of(repository: &Repository, target: &Target) -> Vec<String> {
    let mut signers: Vec<String> = repository
        .all_targets()
        .into_iter()
        .filter(|other| {
            other.name == target.name
                && other.meta.sha256() == target.meta.sha256()
                && !is_released_by(&other.role)
        })
        .map(|other| signer_name(&other.role))
        .collect();
    if signers.is_empty() {
        signers.push(REPO_ADMIN.to_owned());
    }
    signers.sort();
    signers
}

fn signer_name(role: &Role) -> String {
    role.as_str().trim_start_matches("targets/").to_owned()
}

fn signed_tags(repository: &Repository, tag: Option<&str>) -> Vec<SignedTag> {
    let mut rows: BTreeMap<(String, String), SignedTag> = BTreeMap::new();
    let all = repository.all_targets();
    let released = all.iter().filter(|target| target.is_released());
    for target in released.filter(|target| tag.is_none_or(|tag| target.name == tag)) {
        let digest = target.digest().unwrap_or_default();
        let digest = digest.trim_start_matches("sha256:").to_owned();
        rows.entry((target.name.clone(), digest.clone())).or_insert_with(|| SignedTag {
            signed_tag: target.name.clone(),
            digest,
            signers: signers_of(repository, target),
        });
    }
    let mut rows: Vec<SignedTag> = rows.into_values().collect();
    rows.sort_by(|a, b| natural(&a.signed_tag, &b.signed_tag));
    rows
}

fn signers(repository: &Repository) -> Vec<KeyHolder> {
    let mut signers: Vec<KeyHolder> = repository
        .delegations()
        .filter(|(_, delegation)| delegation.name != Role::releases())
        .map(|(_, delegation)| KeyHolder {
            name: signer_name(&delegation.name),
            keys: repository
                .signing_ids(&delegation.name)
                .into_iter()
                .map(|(_, id)| KeyRef { id: id.to_string() })
                .collect(),
        })
        .collect();
    signers.sort_by(|a, b| b.name.cmp(&a.name));
    signers
}

fn administrative_keys(repository: &Repository) -> Vec<KeyHolder> {
    [("Root", Role::Root), ("Repository", Role::Targets)]
        .into_iter()
        .map(|(name, role)| KeyHolder {
            name: name.to_owned(),
            keys: repository
                .root
                .document
                .roles
                .get(&role)
                .map(|spec| spec.key_ids.iter().map(|id| KeyRef { id: id.to_string() }).collect())
                .unwrap_or_default(),
        })
        .collect()
}

fn pretty(report: &Report) -> String {
    let name = &report.name;
    let mut text = String::new();
    if report.signed_tags.is_empty() {
        text.push_str(&format!("\nNo signatures for {name}\n\n"));
    } else {
        text.push_str(&format!("\nSignatures for {name}\n\n"));
        let rows = report
            .signed_tags
            .iter()
            .map(|row| format!("{}\t{}\t{}", row.signed_tag, row.digest, row.signers.join(", ")));
        text.push_str(&aligned("SIGNED TAG\tDIGEST\tSIGNERS", rows));
    }
    if !report.signers.is_empty() {
        text.push_str(&format!("\nList of signers and their keys for {name}\n\n"));
        let mut signers: Vec<&KeyHolder> = report.signers.iter().collect();
        signers.sort_by(|a, b| natural(&a.name, &b.name));
        let rows = signers.iter().map(|signer| {
            let keys: Vec<&str> =
                signer.keys.iter().map(|k| k.id.get(..SHORT_ID).unwrap_or(&k.id)).collect();
            format!("{}\t{}", signer.name, keys.join(", "))
        });
        text.push_str(&aligned("SIGNER\tKEYS", rows));
    }
    text.push_str(&format!("\nAdministrative keys for {name}\n\n"));
    for holder in report.administrative_keys.iter().rev() {
        let keys: Vec<&str> = holder.keys.iter().map(|key| key.id.as_str()).collect();
        text.push_str(&format!("  {} Key:\t{}\n", holder.name, keys.join(", ")));
    }
    text
}

fn aligned(head: &str, rows: impl Iterator<Item = String>) -> String {
    let lines: Vec<String> = std::iter::once(head.to_owned()).chain(rows).collect();
    table::align(&format!("{}\n", lines.join("\n")))
}

/// Numbers in names by their value: `v2` before `v10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (Some(x), Some(y)) = (left.chars().next(), right.chars().next()) else {
            return left.len().cmp(&right.len()).then_with(|| a.cmp(b));
        };
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let (number, rest) = left.split_at(digits(left));
            let (other, other_rest) = right.split_at(digits(right));
            let (m, n) = (number.trim_start_matches('0'), other.trim_start_matches('0'));
            let order = m.len().cmp(&n.len()).then_with(|| m.cmp(n));
            if order != Ordering::Equal {
                return order;
            }
            (left, right) = (rest, other_rest);
        } else if x == y {
            let next = x.len_utf8();
            (left, right) =
                (left.get(next..).unwrap_or_default(), right.get(next..).unwrap_or_default());
        } else {
            return x.cmp(&y);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_come_in_natural_order() {
        let mut tags = vec!["v10", "latest", "v2", "1.10", "1.9", "v2-rc", "v02", "é", "2"];
        tags.sort_by(|a, b| natural(a, b));
        assert_eq!(tags, ["1.9", "1.10", "2", "latest", "v02", "v2", "v2-rc", "v10", "é"]);
    }

    proptest! {
        #[test]
        fn the_order_is_one(mut tags in prop::collection::vec("[a-c0-3é.]{0,6}", 0..12)) {
            tags.sort_by(|a, b| natural(a, b));
            for pair in tags.windows(2) {
                prop_assert_ne!(natural(&pair[0], &pair[1]), Ordering::Greater);
                prop_assert_eq!(natural(&pair[0], &pair[1]), natural(&pair[1], &pair[0]).reverse());
            }
        }
    }
}
