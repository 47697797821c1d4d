use proptest::prelude::*;

use super::*;
use crate::package::{Layer, Unread};

fn sample() -> Inventory {
    let layer = Digest::from_sha256([7; 32]);
    let package = |url: &str, path: &str, kind| {
        let (mut package, _) = package_of(url, path).unwrap();
        package.evidence.kind = kind;
        package.layer = Some(layer.clone());
        package
    };
    let mut inventory = Inventory::empty();
    let mut openssl = package(
        "pkg:deb/debian/libssl3@1:3.0.11-1%2Bb1?arch=amd64&upstream=openssl@1:3.0.11-1",
        "var/lib/dpkg/status",
        EvidenceKind::Database,
    );
    openssl.vendor = Some("Debian".to_owned());
    let mut requests = package(
        "pkg:pypi/requests@2.25.1",
        "usr/lib/x.dist-info/METADATA",
        EvidenceKind::Installed,
    );
    requests.owned_by = Some("python3-requests".to_owned());
    requests.licenses = vec!["Apache-2.0".to_owned()];
    let log4j = "pkg:maven/org.apache.logging.log4j/log4j-core@2.14.1";
    inventory.packages = vec![
        openssl,
        requests,
        package(
            "pkg:npm/%40a/b@1.0.0",
            "app/node_modules/@a/b/package.json",
            EvidenceKind::Installed,
        ),
        package(log4j, "app/a.jar!/l.jar", EvidenceKind::Binary),
        package(log4j, "app/b.jar", EvidenceKind::Binary),
    ];
    inventory.layers = vec![Layer {
        diff_id: layer.clone(),
        created_by: Some("RUN x".to_owned()),
        created: None,
        size: 0,
    }];
    inventory.unread = vec![Unread {
        path: "a.jar".to_owned(),
        layer: Some(layer),
        reader: "java".to_owned(),
        reason: "it is no archive: at all".to_owned(),
    }];
    inventory.image.id = Some(Digest::from_sha256([1; 32]));
    inventory.image.names = vec!["app:1".to_owned()];
    let mut known = distribution("debian", Some("12"));
    known.codename = Some("bookworm".to_owned());
    known.known_by = vec!["etc/os-release".to_owned()];
    inventory.distribution = Some(known);
    inventory.sort();
    inventory
}

#[test]
fn cyclonedx_comes_back_whole() {
    let inventory = sample();
    let bytes = cyclonedx::write(&inventory);
    assert_eq!(bytes, cyclonedx::write(&inventory.clone()));
    assert_eq!(read(&bytes).unwrap(), inventory);
    let document = cyclonedx::document(&inventory);
    assert_eq!(document["specVersion"], "1.6");
    let references: Vec<_> = document["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|component| component["bom-ref"].as_str().unwrap())
        .collect();
    let mut unique = references.clone();
    unique.dedup();
    assert_eq!(unique.len(), references.len(), "{references:?}");
}

#[test]
fn spdx_keeps_what_judging_takes() {
    let inventory = sample();
    let bytes = spdx::write(&inventory);
    assert_eq!(bytes, spdx::write(&inventory));
    let back = read(&bytes).unwrap();
    assert_eq!(back.packages.len(), inventory.packages.len());
    for (mut read, written) in back.packages.into_iter().zip(inventory.packages) {
        read.evidence.kind = written.evidence.kind;
        assert_eq!(read, written);
    }
    assert_eq!(back.distribution.unwrap().qualifier(), "debian-12");
    assert_eq!(back.unread[0].reason, inventory.unread[0].reason);
    let document = spdx::document(&sample());
    for package in document["packages"].as_array().unwrap() {
        let id = package["SPDXID"].as_str().unwrap();
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')), "{id}");
    }
}

#[test]
fn documents_of_trivy_and_syft_are_read() {
    let trivy = br#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":[
        {"type":"operating-system","name":"debian","version":"12.5","bom-ref":"x"},
        {"type":"library","name":"libssl3","version":"3.0.11-1","purl":"pkg:deb/debian/libssl3@3.0.11-1?arch=amd64&distro=debian-12.5",
         "properties":[{"name":"aquasecurity:trivy:SrcName","value":"openssl"},
           {"name":"aquasecurity:trivy:SrcVersion","value":"3.0.11"},{"name":"aquasecurity:trivy:SrcRelease","value":"1"}]},
        {"type":"application","name":"app/package.json","properties":[{"name":"aquasecurity:trivy:Class","value":"lang-pkgs"}]},
        {"type":"library","name":"mystery","version":"1"}]}"#;
    let inventory = read(trivy).unwrap();
    let known = inventory.distribution.unwrap();
    assert_eq!(
        (known.version.as_deref(), known.point_release.as_deref()),
        (Some("12"), Some("12.5"))
    );
    let source = inventory.packages[0].source.clone().unwrap();
    assert_eq!((source.name.as_str(), source.version.as_str()), ("openssl", "3.0.11-1"));
    assert_eq!(inventory.unread.len(), 1);
    assert_eq!(inventory.unread[0].path, "mystery");

    let syft = br#"{"spdxVersion":"SPDX-2.3","packages":[{"name":"bash","versionInfo":"5.1-1","externalRefs":[
        {"referenceCategory":"SECURITY","referenceType":"cpe23Type","referenceLocator":"cpe:2.3:a:x"},
        {"referenceCategory":"PACKAGE-MANAGER","referenceType":"purl",
         "referenceLocator":"pkg:rpm/almalinux/bash@5.1-1?arch=x86_64&distro=almalinux-9.3&epoch=1&upstream=bash-5.1-1.src.rpm"}]}]}"#;
    let inventory = read(syft).unwrap();
    assert_eq!(inventory.distribution.unwrap().qualifier(), "almalinux-9.3");
    assert_eq!(inventory.packages[0].version, "1:5.1-1");
}

#[test]
fn an_image_among_the_packages_is_not_taken_for_the_subject() {
    let listed = br#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":[
        {"type":"library","name":"a","version":"1","purl":"pkg:oci/app@1?tag=x"}]}"#;
    let inventory = read(listed).unwrap();
    assert_eq!(inventory.packages.len(), 1);
    for written in [cyclonedx::write(&inventory), spdx::write(&inventory)] {
        assert_eq!(read(&written).unwrap().packages.len(), 1);
    }
    let subject = br#"{"spdxVersion":"SPDX-2.3","packages":[
        {"name":"app","primaryPackagePurpose":"CONTAINER","externalRefs":[
        {"referenceCategory":"PACKAGE-MANAGER","referenceType":"purl","referenceLocator":"pkg:oci/app@1"}]}]}"#;
    assert!(read(subject).unwrap().packages.is_empty());
}

#[test]
fn other_documents_are_refused() {
    assert!(matches!(read(b"{}"), Err(SbomError::Unknown)));
    assert!(matches!(read(b"{"), Err(SbomError::Json(_))));
    let deep = [r#"{"bomFormat":"CycloneDX","components":"#, &"[".repeat(200_000)].concat();
    assert!(matches!(read(deep.as_bytes()), Err(SbomError::Json(_))));
}

proptest! {
    #[test]
    fn any_document_ends(text in "(?s).{0,200}") {
        let _ = cyclonedx::read(text.as_bytes());
        let _ = spdx::read(text.as_bytes());
        let _ = read(format!("{{\"bomFormat\":\"CycloneDX\",\"components\":[{{\"purl\":{text:?}}}]}}").as_bytes());
    }

    #[test]
    fn strange_names_survive(name in "[ -~é\u{1f600}]{1,20}", version in "[!-~]{1,10}") {
        let mut inventory = sample();
        inventory.packages[0].name = name.clone();
        inventory.packages[0].version = version.clone();
        inventory.sort();
        let back = read(&cyclonedx::write(&inventory)).unwrap();
        prop_assert_eq!(back.packages.len(), inventory.packages.len());
    }
}
