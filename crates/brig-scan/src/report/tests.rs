use super::*;
use crate::db::{Collector, Feed, Index, import};
use crate::distribution::Distribution;
use crate::matching::{IgnoreFile, Options, judge};
use crate::package::{Ecosystem, EvidenceKind, Layer, Package, Source};

const TRACKER: &str = r#"{"perl":{
  "CVE-2026-1":{"description":"<b>one</b> \u001b[31m","releases":{"bookworm":{"status":"resolved","fixed_version":"5.36.0-7+deb12u4","urgency":"high"}}},
  "CVE-2026-2":{"releases":{"bookworm":{"status":"resolved","fixed_version":"5.36.0-7+deb12u10","urgency":"low"}}},
  "CVE-2026-3":{"releases":{"bookworm":{"status":"open","urgency":"unimportant"}}},
  "CVE-2026-4":{"releases":{"bookworm":{"status":"open","urgency":"medium","nodsa":"Minor issue","nodsa_reason":"ignored"}}},
  "CVE-2026-5":{"releases":{"bookworm":{"status":"resolved","fixed_version":"0","urgency":"medium"}}}}}"#;
const NODE: &str = r#"{"id":"GHSA-1","modified":"2026-01-02T00:00:00Z","aliases":["CVE-2026-9"],"summary":"s",
  "severity":[{"type":"CVSS_V4","score":"CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"}],
  "affected":[{"package":{"ecosystem":"npm","name":"left-pad"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.3.0"}]}]}]}"#;
const KEV: &str = r#"{"catalogVersion":"1","dateReleased":"2026-01-05T00:00:00Z","vulnerabilities":[{"cveID":"CVE-2026-9","dateAdded":"2026-01-03","dueDate":"2026-02-03","knownRansomwareCampaignUse":"Known"}]}"#;

fn index() -> Index {
    let mut into = Collector::new();
    into.feed(Feed { name: "feed".to_owned(), ..Feed::default() });
    for (path, text) in [("t.json", TRACKER), ("n.json", NODE), ("k.json", KEV)] {
        assert!(import::import_document(&mut into, path, text.as_bytes()).unwrap());
    }
    Index::from_bytes(into.to_bytes("2026-01-06T00:00:00Z").unwrap()).unwrap()
}

fn inventory(perl: &str) -> Inventory {
    let layer = |at: u8| {
        format!("sha256:{}", hex::encode([at; 32])).parse::<brig_types::digest::Digest>().unwrap()
    };
    let package = |ecosystem, name: &str, version: &str, at| Package {
        layer: Some(layer(at)),
        ..Package::new(ecosystem, name, version, format!("path of/{name}"), EvidenceKind::Database)
    };
    let mut base = package(Ecosystem::Deb, "perl-base", perl, 1);
    base.source = Some(Source { name: "perl".to_owned(), version: perl.to_owned() });
    let mut modules = package(Ecosystem::Deb, "perl-modules-5.36", perl, 1);
    modules.source.clone_from(&base.source);
    let mut inventory = Inventory::empty();
    inventory.packages = vec![base, modules, package(Ecosystem::Npm, "left-pad", "1.2.0", 2)];
    inventory.sort();
    inventory.distribution = Some(Distribution {
        pretty_name: Some("Debian 12".to_owned()),
        ..Distribution::new("debian", Some("12"))
    });
    let steps = ["ADD rootfs.tar / # buildkit", "CMD [\"bash\"]", "RUN npm ci"];
    for (at, step) in [(1, steps[0]), (2, steps[2])] {
        inventory.layers.push(Layer {
            diff_id: layer(at),
            created_by: Some(step.to_owned()),
            created: None,
            size: 0,
        });
    }
    inventory.image.history = steps.map(str::to_owned).to_vec();
    inventory
}

fn report(inventory: &Inventory) -> Report {
    let ignore = IgnoreFile::parse(
        "[[ignore]]\nid = \"CVE-2026-4\"\nreason = \"not reached\"\nowner = \"ann\"\nexpires = \"2026-12-31\"\n",
    )
    .unwrap();
    judge(
        &index(),
        inventory,
        &Options { today: "2026-01-10".to_owned(), ignore, ..Options::default() },
    )
    .unwrap()
}

fn written(format: Format, filter: &Filter) -> String {
    let inventory = inventory("5.36.0-7");
    let report = report(&inventory);
    write(Subject { name: "img:1", inventory: &inventory, report: &report }, filter, format)
}

#[test]
fn the_table_says_what_to_upgrade_and_who_brought_it() {
    assert_eq!(
        written(Format::Table, &Filter::default()),
        "img:1  (Debian 12, 3 packages)\n\
         VULNERABLE: 1 critical, 2 high, 2 low, 5 with a fix, 1 known to be exploited (2 suppressed, 2 negligible)\n\
         \n\
         PACKAGE    INSTALLED   FIXED IN            SEVERITY   LAYER    VULNERABILITIES\n\
         left-pad   1.2.0       1.3.0               critical   2        CVE-2026-9 (exploited, ransomware)\n\
         perl       5.36.0-7    5.36.0-7+deb12u10   high       1 base   CVE-2026-1, CVE-2026-2\n\
         \n\
         Build on a newer base image (1 upgrades are in its 1 layers), or upgrade in a step of your own.\n\
         Layer 2 (RUN npm ci): upgrade to left-pad 1.3.0\n\
         The distribution's fixes come with: apt-get update && apt-get upgrade\n\
         Why: brig scan explain CVE-2026-9 img:1\n"
    );
    let low = Filter { severities: [Severity::Low].into(), ..Filter::default() };
    let text = written(Format::Table, &low);
    assert!(
        text.contains("2 low")
            && text.contains("left out by the flags")
            && !text.contains("left-pad"),
        "{text}"
    );
}

#[test]
fn json_has_the_evidence() {
    let value: serde_json::Value =
        serde_json::from_str(&written(Format::Json, &Filter::default())).unwrap();
    assert_eq!(value["verdict"], "vulnerable");
    assert_eq!(value["findings"].as_array().unwrap().len(), 5);
    let first = &value["findings"][0];
    assert_eq!(first["id"], "CVE-2026-9");
    assert_eq!(first["package"]["purl"], "pkg:npm/left-pad@1.2.0");
    assert_eq!(first["evidence"]["rule"], "1.2.0 < 1.3.0 by semver order");
    assert_eq!(
        (first["package"]["layer_number"].as_u64(), first["package"]["base_image"].as_bool()),
        (Some(2), Some(false))
    );
}

#[test]
fn sarif_has_no_empty_title() {
    let text = written(Format::Sarif, &Filter { all: true, ..Filter::default() });
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let run = &value["runs"][0];
    let messages: Vec<&str> = run["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["message"]["text"].as_str().unwrap())
        .collect();
    assert!(
        messages.contains(&"perl-base 5.36.0-7 has CVE-2026-2 (upgrade to 5.36.0-7+deb12u10)"),
        "{messages:?}"
    );
    assert!(messages.iter().all(|text| !text.contains(":  ")), "{messages:?}");
    for rule in run["tool"]["driver"]["rules"].as_array().unwrap() {
        assert_ne!(rule["shortDescription"]["text"], "", "{rule}");
    }
}

#[test]
fn sarif_has_a_rule_an_id_and_a_result_a_package() {
    let all = Filter { all: true, ..Filter::default() };
    let value: serde_json::Value = serde_json::from_str(&written(Format::Sarif, &all)).unwrap();
    let run = &value["runs"][0];
    assert_eq!(run["tool"]["driver"]["rules"].as_array().unwrap().len(), 5);
    assert_eq!(run["results"].as_array().unwrap().len(), 9);
    assert_eq!(run["tool"]["driver"]["rules"][4]["properties"]["security-severity"], "9.3");
    assert_eq!(
        run["results"][1]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"],
        "path%20of/perl-base"
    );
    assert!(
        run["results"].as_array().unwrap().iter().any(|result| result["suppressions"].is_array())
    );
}

#[test]
fn cyclonedx_has_vulnerabilities_that_point_at_components() {
    let value: serde_json::Value =
        serde_json::from_str(&written(Format::CycloneDx, &Filter::default())).unwrap();
    let references: Vec<&str> = value["components"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|component| component["bom-ref"].as_str())
        .collect();
    let vulnerabilities = value["vulnerabilities"].as_array().unwrap();
    assert_eq!(vulnerabilities.len(), 5);
    for vulnerability in vulnerabilities {
        for affected in vulnerability["affects"].as_array().unwrap() {
            assert!(references.contains(&affected["ref"].as_str().unwrap()), "{affected}");
        }
    }
    assert_eq!(
        vulnerabilities[3]["analysis"]["detail"],
        "exception of ann until 2026-12-31: not reached"
    );
    assert!(written(Format::Spdx, &Filter::default()).contains("SPDX-2.3"));
}

#[test]
fn foreign_text_is_harmless() {
    let page = written(Format::Html, &Filter::default());
    assert!(
        page.contains("&lt;b&gt;one") && !page.contains("<b>one") && !page.contains('\u{1b}'),
        "{page}"
    );
    assert!(!plain("a\u{1b}[2Jb\n").contains(char::is_control));
}

#[test]
fn the_same_report_gives_the_same_bytes() {
    for format in
        [Format::Table, Format::Json, Format::Sarif, Format::CycloneDx, Format::Spdx, Format::Html]
    {
        assert_eq!(written(format, &Filter::default()), written(format, &Filter::default()));
    }
}

#[test]
fn differences_are_new_gone_and_what_stays() {
    let (old, new) = (inventory("5.36.0-7+deb12u4"), inventory("5.36.0-7+deb12u10"));
    let (before, after) = (report(&old), report(&new));
    let subject = |name, inventory, report| Subject { name, inventory, report };
    let (text, more) =
        diff(subject("a", &old, &before), subject("b", &new, &after), &Filter::default());
    assert!(
        text.starts_with("a → b: 0 new, 1 gone, 1 stay; vulnerable → vulnerable\n\nGONE"),
        "{text}"
    );
    assert!(!more && text.contains("CVE-2026-2"));
    assert!(diff(subject("b", &new, &after), subject("a", &old, &before), &Filter::default()).1);
}

#[test]
fn explanations_name_file_layer_rule_and_the_reason_of_a_silence() {
    let inventory = inventory("5.36.0-7");
    let report = report(&inventory);
    let index = index();
    let explained = |id| {
        explain(&index, Subject { name: "img", inventory: &inventory, report: &report }, id)
            .unwrap()
    };
    let text = explained("CVE-2026-1");
    for part in [
        "path of/perl-base",
        "layer 1 (base image): ADD rootfs.tar /",
        "5.36.0-7 < 5.36.0-7+deb12u4 by dpkg order",
        "upgrade to 5.36.0-7+deb12u4",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(
        explained("CVE-2026-4").contains("not counted until 2026-12-31: not reached (owner ann)")
    );
    assert!(explained("CVE-2026-5").contains("debian:12 says it is not affected"));
    assert!(explained("GHSA-1").contains("Exploited: in CISA's catalogue since 2026-01-03"));
    assert!(explained("CVE-0").contains("no feed of the database names it"));
}
