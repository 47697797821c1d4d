use super::*;
use crate::severity::Severity;
use crate::version::Scheme;

fn collected(documents: &[(&str, &str)]) -> Collector {
    let mut into = Collector::new();
    into.feed(Feed { name: "test".to_owned(), ..Feed::default() });
    for (path, text) in documents {
        assert!(import::import_document(&mut into, path, text.as_bytes()).unwrap(), "{path}");
    }
    into
}

fn index(documents: &[(&str, &str)]) -> Index {
    let index =
        Index::from_bytes(collected(documents).to_bytes("2026-01-01T00:00:00Z").unwrap()).unwrap();
    index.verify().unwrap();
    index
}

/// `flaw state range…` of each statement about a package.
fn shown(index: &Index, space: &str, package: &str) -> Vec<String> {
    let Some(space) = index.space(space).unwrap() else { return Vec::new() };
    space
        .rows(package, &mut 0)
        .unwrap()
        .iter()
        .map(|row| {
            let ranges: Vec<String> = index
                .intervals(row)
                .unwrap()
                .iter()
                .map(|i| {
                    let end = i.end.map_or("∞".to_owned(), |(v, with)| {
                        format!("{v}{}", if with { "]" } else { ")" })
                    });
                    format!("{}{}..{end}", if i.after { "(" } else { "[" }, i.from)
                })
                .collect();
            format!(
                "{} {:?} {}",
                index.vulnerability(row.flaw).unwrap().id,
                row.state,
                ranges.join(" ")
            )
            .trim()
            .to_owned()
        })
        .collect()
}

#[test]
fn osv_ranges_are_walked_in_the_order_of_versions() {
    let record = r#"{"id":"GHSA-1","modified":"2026-01-02T00:00:00Z","aliases":["CVE-2026-1"],"summary":"s",
        "severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:N/A:N"}],
        "affected":[{"package":{"ecosystem":"npm","name":"@a/b"},"ranges":[{"type":"SEMVER","events":[
        {"introduced":"10.0.0"},{"fixed":"10.1.0"},{"introduced":"0"},{"fixed":"9.2.0"},{"introduced":"11.0.0"},{"last_affected":"11.2.0"}]},
        {"type":"GIT","events":[{"introduced":"0"}]}],"versions":["9.1.0","12.0.0"]}]}"#;
    let index = index(&[("a.json", record)]);
    assert_eq!(
        shown(&index, "npm", "@a/b"),
        ["CVE-2026-1 Affected [..9.2.0) [10.0.0..10.1.0) [11.0.0..11.2.0] [12.0.0..12.0.0]"]
    );
    let flaw = index.vulnerability(index.find("GHSA-1").unwrap().unwrap()).unwrap();
    assert_eq!(
        (flaw.id, flaw.aliases.as_slice(), flaw.severity),
        ("CVE-2026-1", ["GHSA-1"].as_slice(), Severity::High)
    );
    assert_eq!(flaw.score, Some(7.5));
    assert_eq!(index.find("CVE-0").unwrap(), None);
}

#[test]
fn withdrawn_records_are_dropped() {
    let record = r#"{"id":"GHSA-1","modified":"2026-01-02T00:00:00Z","withdrawn":"2026-01-02T00:00:00Z",
        "affected":[{"package":{"ecosystem":"npm","name":"x"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}]}]}"#;
    assert!(shown(&index(&[("a.json", record)]), "npm", "x").is_empty());
}

#[test]
fn two_cve_ids_stay_two_flaws() {
    let record = |id: &str, aliases: &str| {
        format!(
            r#"{{"id":"{id}","modified":"2026-01-02T00:00:00Z","aliases":[{aliases}],"affected":[{{"package":
            {{"ecosystem":"Go","name":"x"}},"ranges":[{{"type":"SEMVER","events":[{{"introduced":"0"}}]}}]}}]}}"#
        )
    };
    let (go, ghsa) =
        (record("GO-1", r#""CVE-1","CVE-2","GHSA-2""#), record("GHSA-2", r#""CVE-2""#));
    let index = index(&[("a.json", &go), ("b.json", &ghsa)]);
    assert_eq!(shown(&index, "go", "x"), ["CVE-1 Affected [..∞", "CVE-2 Affected [..∞"]);
    let first = index.vulnerability(index.find("GO-1").unwrap().unwrap()).unwrap();
    assert_eq!(first.aliases, ["CVE-2", "GHSA-2", "GO-1"]);
}

const TRACKER: &str = r#"{"bash":{
    "CVE-1":{"description":"one","releases":{"bookworm":{"status":"resolved","fixed_version":"5.1-2","urgency":"high**"}}},
    "CVE-2":{"releases":{"bookworm":{"status":"resolved","fixed_version":"0","urgency":"unimportant"}}},
    "CVE-3":{"releases":{"bookworm":{"status":"open","urgency":"low","nodsa":"Minor issue","nodsa_reason":"ignored"}}},
    "CVE-4":{"releases":{"bookworm":{"status":"open","urgency":"not yet assigned","nodsa":"Minor issue","nodsa_reason":"postponed"}}},
    "CVE-5":{"releases":{"bookworm":{"status":"open","urgency":"end-of-life"}}},
    "CVE-6":{"releases":{"bookworm":{"status":"undetermined","urgency":"not yet assigned"}}},
    "CVE-7":{"releases":{"bookworm":{"status":"open","urgency":"medium"}}}}}"#;
const NOTICES: &str = "[29 Mar 2023] DSA-1-1 bash - security update\n\t{CVE-1 CVE-7}\n\t[bookworm] - bash 5.1-9\n\
    [28 Mar 2023] DSA-2-2 bash - regression update\n\t[bookworm] - bash 5.1-8\n\
    [27 Mar 2023] DSA-3-1 vim - security update\n\t[bookworm] - vim 9.0\n";

#[test]
fn debian_verdicts_come_before_announcements_unless_they_know_no_fix() {
    let index = index(&[("t.json", TRACKER), ("DSA/list", NOTICES)]);
    assert_eq!(
        shown(&index, "debian:12", "bash"),
        [
            "CVE-1 Affected [..5.1-2)",
            "CVE-2 NotAffected",
            "CVE-3 WontFix [..∞",
            "CVE-4 Deferred [..∞",
            "CVE-5 EndOfLife [..∞",
            "CVE-6 UnderInvestigation [..∞",
            "CVE-7 Affected [..5.1-9)",
        ]
    );
    assert_eq!(shown(&index, "debian:12", "vim"), ["DSA-3-1 Affected [..9.0)"]);
    assert_eq!(index.feeds()[0].newest, "2023-03-29");
}

#[test]
fn releases_inherit_from_unstable_in_the_list_of_flaws() {
    let list = "CVE-2024-1 (text)\n\t- curl 8.5-1 (bug #1; unimportant)\n\t[bookworm] - curl <not-affected> (Vulnerable code not present)\n\
        \tNOTE: something\nCVE-2024-2\n\t- curl <unfixed>\n\t[trixie] - curl <postponed> (Minor)\n\tNOT-FOR-US: x\n";
    let index = index(&[("CVE/list", list)]);
    assert_eq!(
        shown(&index, "debian:12", "curl"),
        ["CVE-2024-1 NotAffected", "CVE-2024-2 Affected [..∞"]
    );
    assert_eq!(
        shown(&index, "debian:13", "curl"),
        ["CVE-2024-1 Affected [..8.5-1)", "CVE-2024-2 Deferred [..∞"]
    );
}

#[test]
fn alpine_fixes() {
    let yaml = "distroversion: v3.19\nreponame: main\npackages:\n  - pkg:\n      name: xen\n      secfixes:\n        4.1-r0:\n          - CVE-1 XSA-1\n          - XSA-2 GHSA-x\n        \"0\":\n          - CVE-3\n  - pkg:\n      name: none\n";
    let index = index(&[("main.yaml", yaml)]);
    assert_eq!(
        shown(&index, "alpine:3.19", "xen"),
        ["CVE-1 Affected [..4.1-r0)", "CVE-3 NotAffected", "XSA-2 Affected [..4.1-r0)"]
    );
}

#[test]
fn ubuntu_statuses() {
    let text = "Candidate: CVE-2016-1\nPublicDate: 2016-10-03 16:09:00 UTC\nDescription:\n a flaw\nPriority: low\nCVSS:\n nvd: CVSS:3.0/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:H\n\
        Patches_tiff:\nupstream_tiff: released (4.0.6-3)\nxenial_tiff: released (4.0.6-1ubuntu0.1)\nbionic_tiff: not-affected (4.0.7-1)\nfocal_tiff: ignored (reached end-of-life)\n\
        trusty/esm_tiff: deferred (2019-01-01)\ndevel_tiff: DNE\njammy_tiff: needs-triage\n";
    let index = index(&[("active/CVE-2016-1", text)]);
    assert_eq!(shown(&index, "ubuntu:16.04", "tiff"), ["CVE-2016-1 Affected [..4.0.6-1ubuntu0.1)"]);
    assert_eq!(shown(&index, "ubuntu:18.04", "tiff"), ["CVE-2016-1 NotAffected"]);
    assert_eq!(shown(&index, "ubuntu:20.04", "tiff"), ["CVE-2016-1 EndOfLife [..∞"]);
    assert_eq!(shown(&index, "ubuntu-pro:14.04", "tiff"), ["CVE-2016-1 Deferred [..∞"]);
    assert_eq!(shown(&index, "ubuntu:22.04", "tiff"), ["CVE-2016-1 UnderInvestigation [..∞"]);
}

#[test]
fn languages_in_their_own_forms() {
    let rust = "```toml\n[advisory]\nid = \"RUSTSEC-1\"\npackage = \"c\"\ndate = \"2026-01-01\"\naliases = [\"CVE-1\"]\n[versions]\npatched = [\">= 1.2.3, < 2\", \">= 2.1\"]\nunaffected = [\"< 0.5\"]\n```\n# Title\n";
    let ruby = "---\ngem: g\ncve: 2026-2\nghsa: a-b-c\ntitle: t\ndate: 2026-01-01\npatched_versions:\n  - \"~> 1.2.3\"\n  - \">= 2.0\"\n";
    let php = "title: t\ncve: ~\nbranches:\n  1.x:\n    time: 2015-01-01\n    versions: ['>=1.0', '<1.5']\nreference: composer://V/n\n";
    let node = r#"{"id":7,"module_name":"m","title":"t","cves":[],"vulnerable_versions":"<=1.0.0 || >=2 <2.1","cvss_vector":null}"#;
    let index = index(&[("a.md", rust), ("b.yml", ruby), ("v/n/x.yaml", php), ("7.json", node)]);
    assert_eq!(shown(&index, "cargo", "c"), ["CVE-1 Affected [0.5..1.2.3) [2..2.1)"]);
    assert_eq!(shown(&index, "gem", "g"), ["CVE-2026-2 Affected [..1.2.3) [1.3..2.0)"]);
    assert_eq!(shown(&index, "composer", "v/n"), ["V/n/x Affected [1.0..1.5)"]);
    assert_eq!(shown(&index, "npm", "m"), ["NSWG-ECO-7 Affected [..1.0.0] [2..2.1)"]);
}

#[test]
fn exploited_flaws_probabilities_and_ends_of_life() {
    let osv = r#"{"id":"CVE-2026-1","modified":"2026-01-02T00:00:00Z","affected":[{"package":{"ecosystem":"npm","name":"x"},
        "ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}]}]}"#;
    let kev = r#"{"catalogVersion":"1","dateReleased":"2026-01-05T00:00:00Z","vulnerabilities":[{"cveID":"CVE-2026-1","dateAdded":"2026-01-03","dueDate":"2026-02-03","knownRansomwareCampaignUse":"Known"}]}"#;
    let epss = "#model_version:x,score_date:2026-01-06T00:00:00Z\ncve,epss,percentile\nCVE-2026-1,0.91234,0.99\n";
    let csv = "version,codename,series,created,release,eol,eol-lts,eol-elts\n12,Bookworm,bookworm,2021-08-14,2023-06-10,2026-07-11,2028-06-30,2033-06-30\n";
    let ended = "# x\nxen 4.11-1 2021-08-28 https://x\n";
    let index = index(&[
        ("o.json", osv),
        ("k.json", kev),
        ("e.csv", epss),
        ("debian.csv", csv),
        ("security-support-ended.deb10", ended),
    ]);
    let flaw = index.vulnerability(0).unwrap();
    assert_eq!(flaw.kev, Some(Kev { added: "2026-01-03", due: "2026-02-03", ransomware: true }));
    assert_eq!(flaw.epss, Some((0.91234, 0.99)));
    assert_eq!(index.releases()[0].end_lts.as_deref(), Some("2028-06-30"));
    assert_eq!(index.support()[0].ended.as_deref(), Some("2021-08-28"));
}

#[test]
fn csaf_of_red_hat() {
    let document = r#"{"document":{"category":"csaf_vex","tracking":{"id":"CVE-2026-9","current_release_date":"2026-01-01T00:00:00Z"}},
      "product_tree":{"branches":[{"category":"vendor","name":"Red Hat","branches":[
        {"product":{"product_id":"BaseOS-9","product_identification_helper":{"cpe":"cpe:/o:redhat:enterprise_linux:9::baseos"}}},
        {"product":{"product_id":"eus","product_identification_helper":{"cpe":"cpe:/o:redhat:rhel_eus:9.2::baseos"}}},
        {"product":{"product_id":"openssl-1:3.0-2.el9.x86_64","product_identification_helper":{"purl":"pkg:rpm/redhat/openssl@3.0-2.el9?arch=x86_64&epoch=1"}}},
        {"product":{"product_id":"vim","product_identification_helper":{"purl":"pkg:rpm/redhat/vim"}}}]}],
       "relationships":[
        {"full_product_name":{"product_id":"BaseOS-9:openssl"},"product_reference":"openssl-1:3.0-2.el9.x86_64","relates_to_product_reference":"BaseOS-9"},
        {"full_product_name":{"product_id":"eus:openssl"},"product_reference":"openssl-1:3.0-2.el9.x86_64","relates_to_product_reference":"eus"},
        {"full_product_name":{"product_id":"BaseOS-9:vim"},"product_reference":"vim","relates_to_product_reference":"BaseOS-9"}]},
      "vulnerabilities":[{"cve":"CVE-2026-9","title":"t","product_status":{"fixed":["BaseOS-9:openssl","eus:openssl"],"known_affected":["BaseOS-9:vim"]},
        "threats":[{"category":"impact","details":"Important"}],
        "remediations":[{"category":"no_fix_planned","details":"Will not fix","product_ids":["BaseOS-9:vim"]}]}]}"#;
    let index = index(&[("a.json", document)]);
    assert_eq!(shown(&index, "rhel:9", "openssl"), ["CVE-2026-9 Affected [..1:3.0-2.el9)"]);
    assert_eq!(shown(&index, "rhel:9", "vim"), ["CVE-2026-9 WontFix [..∞"]);
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let bytes = || collected(&[("t.json", TRACKER), ("DSA/list", NOTICES)]).to_bytes("x").unwrap();
    assert_eq!(bytes(), bytes());
}

#[test]
fn a_damaged_index_is_an_error() {
    let whole = collected(&[("t.json", TRACKER)]).to_bytes("x").unwrap();
    let read_all = |bytes: Vec<u8>| -> Result<(), DbError> {
        let index = Index::from_bytes(bytes)?;
        for space in index.spaces()? {
            for name in space.package_names()? {
                for row in space.rows(name, &mut 0)? {
                    index.intervals(&row)?;
                    index.vulnerability(row.flaw)?;
                }
            }
        }
        index.verify()
    };
    read_all(whole.clone()).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        let error = read_all(bytes).unwrap_err();
        assert!(matches!(error, DbError::Damaged(_) | DbError::Foreign(_)), "{at}: {error}");
    }
    for length in 0..whole.len() {
        assert!(read_all(whole[..length].to_vec()).is_err(), "{length}");
    }
    assert!(matches!(Index::open(std::path::Path::new("/nonexistent")), Err(DbError::Missing(_))));
}

#[test]
fn archives_and_lines_are_feeds() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let record = |id: &str| {
        format!(
            r#"{{"id":"{id}","modified":"2026-01-02T00:00:00Z","affected":[{{"package":{{"ecosystem":"npm","name":"{id}"}},"versions":["1.0.0"]}}]}}"#
        )
    };
    let lines = format!("{}\nnot json\n{}\n", record("A-1"), record("A-2"));
    std::fs::write(
        folder.path().join("a.jsonl.zst"),
        zstd::encode_all(lines.as_bytes(), 1).unwrap(),
    )
    .unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let body = record("A-3");
    header.set_size(u64::try_from(body.len()).unwrap());
    tar.append_data(&mut header, "x/a.json", body.as_bytes()).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&tar.into_inner().unwrap()).unwrap();
    std::fs::write(folder.path().join("b.tar.gz"), gz.finish().unwrap()).unwrap();
    let mut into = Collector::new();
    let feed = import::import_path(&mut into, Feed::default(), folder.path()).unwrap();
    assert_eq!((feed.records, feed.skipped), (3, 1));
    let index_path = folder.path().join("db/index");
    into.write(&index_path, "2026-01-01T00:00:00Z").unwrap();
    let index = Index::open(&index_path).unwrap();
    assert_eq!(index.space("npm").unwrap().unwrap().len(), 3);
    assert_eq!(index.space("npm").unwrap().unwrap().scheme, Scheme::Semver);
    let copy = folder.path().join("copy");
    index.copy_to(&copy).unwrap();
    assert_eq!(Index::open(&copy).unwrap().digest(), index.digest());
    let nothing = folder.path().join("nothing.txt");
    std::fs::write(&nothing, "hello").unwrap();
    assert!(matches!(
        import::import_path(&mut Collector::new(), Feed::default(), &nothing),
        Err(DbError::Unknown(_))
    ));
}
