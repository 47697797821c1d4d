use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use brig_types::secret::SecretBytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType, SerialNumber,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;
use crate::web::ClientIdentity;

struct Pair {
    cert: String,
    der: Vec<u8>,
    key: String,
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(
    ca: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> Pair {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, ca).unwrap();
    Pair { cert: cert.pem(), der: cert.der().to_vec(), key: key.serialize_pem() }
}

fn server_pair(ca: &CertifiedIssuer<'static, KeyPair>) -> Pair {
    issue(ca, "server", |params| {
        params.subject_alt_names = vec![SanType::DnsName("engine".try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    })
}

fn client_pair(ca: &CertifiedIssuer<'static, KeyPair>, name: &str, serial: u64) -> Pair {
    issue(ca, name, |params| {
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    })
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn files(dir: &Path, ca: &str, server: &Pair) -> EngineFiles {
    let path = |name: &str| dir.join(name);
    write(&path("ca.pem"), ca, 0o444);
    write(&path("cert.pem"), &server.cert, 0o444);
    write(&path("key.pem"), &server.key, 0o400);
    write(&path("revoked"), "", 0o600);
    EngineFiles {
        ca: Some(path("ca.pem")),
        cert: path("cert.pem"),
        key: path("key.pem"),
        revoked: Some(path("revoked")),
    }
}

fn identity(pair: &Pair) -> ClientIdentity {
    ClientIdentity {
        chain_pem: pair.cert.clone().into_bytes(),
        key_pem: SecretBytes::new(pair.key.clone().into_bytes()),
    }
}

/// Asks the server for a byte, as only a client that was let in gets one.
async fn reach(
    server: &EngineServer,
    ca: &str,
    who: Option<&Pair>,
) -> Result<ClientCertificate, String> {
    let trust = EngineTrust::Authority(ca.as_bytes().to_vec());
    let client = EngineClient::new(&trust, who.map(identity).as_ref()).unwrap();
    let (near, far) = duplex(1 << 16);
    let served = async {
        let accepted = server.accept(far, true).await.map_err(|e| e.to_string())?;
        let Accepted::Client(mut stream, client) = accepted else { panic!("nobody enrols") };
        let mut all = Vec::new();
        // The client's half-close is the end of its data and of nothing else.
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
        stream.shutdown().await.unwrap();
        Ok(client)
    };
    let asked = async {
        let mut stream = client.connect("engine", near).await.map_err(|e| e.to_string())?;
        stream.write_all(b"x").await.map_err(|e| e.to_string())?;
        stream.shutdown().await.map_err(|e| e.to_string())?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.map_err(|e| e.to_string())?;
        Ok::<_, String>(all)
    };
    let (served, asked) = tokio::join!(served, asked);
    match served {
        Ok(client) => {
            assert_eq!(asked.unwrap(), b"x");
            Ok(client)
        }
        Err(error) => {
            assert!(asked.is_err(), "{error}");
            Err(error)
        }
    }
}

#[tokio::test]
async fn who_holds_a_certificate_of_the_authority_gets_in_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, other) = (authority("ca"), authority("other"));
    let server = EngineServer::load(files(dir.path(), &ca.pem(), &server_pair(&ca)), None).unwrap();
    let ann = client_pair(&ca, "ann", 7);
    let client = reach(&server, &ca.pem(), Some(&ann)).await.unwrap();
    assert_eq!(client.common_name, "ann");
    assert_eq!(client.fingerprint, hex::encode(crate::hash::sha256(&ann.der)));
    assert!(server.still_trusts(&client));

    assert!(reach(&server, &ca.pem(), None).await.unwrap_err().contains("no certificates"));
    let stranger = client_pair(&other, "ann", 7);
    assert!(reach(&server, &ca.pem(), Some(&stranger)).await.is_err());
    // A server's certificate is no client's.
    assert!(reach(&server, &ca.pem(), Some(&server_pair(&ca))).await.is_err());
    let expired = issue(&ca, "ann", |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    assert!(reach(&server, &ca.pem(), Some(&expired)).await.unwrap_err().contains("xpired"));
}

#[tokio::test]
async fn revocations_count_at_once_also_for_those_inside() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority("ca");
    let server = EngineServer::load(files(dir.path(), &ca.pem(), &server_pair(&ca)), None).unwrap();
    let (ann, bob) = (client_pair(&ca, "ann", 0x0a07), client_pair(&ca, "bob", 8));
    let (inside, stays) = (
        reach(&server, &ca.pem(), Some(&ann)).await.unwrap(),
        reach(&server, &ca.pem(), Some(&bob)).await.unwrap(),
    );
    let stamps = server.stamps();
    assert!(!server.reload().unwrap());
    write(&dir.path().join("revoked"), "# lost laptop\nserial:0A07\n", 0o600);
    assert_ne!(server.stamps(), stamps);
    assert!(server.reload().unwrap());
    assert!(!server.still_trusts(&inside));
    assert!(server.still_trusts(&stays));
    assert!(reach(&server, &ca.pem(), Some(&ann)).await.is_err());
    reach(&server, &ca.pem(), Some(&bob)).await.unwrap();

    let print = hex::encode(crate::hash::sha256(&bob.der)).to_uppercase();
    write(&dir.path().join("revoked"), &format!("sha256 Fingerprint={print}"), 0o600);
    assert!(server.reload().unwrap());
    assert!(server.still_trusts(&inside) && !server.still_trusts(&stays));

    // A broken list changes nothing.
    write(&dir.path().join("revoked"), "ann", 0o600);
    assert!(matches!(server.reload(), Err(EngineTlsError::Revocations { .. })));
    assert!(!server.still_trusts(&stays));
}

#[tokio::test]
async fn another_authority_ends_the_old_ones_clients() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (authority("ca"), authority("new"));
    let files = files(dir.path(), &old.pem(), &server_pair(&old));
    let server = EngineServer::load(files, None).unwrap();
    let ann = client_pair(&old, "ann", 7);
    let inside = reach(&server, &old.pem(), Some(&ann)).await.unwrap();
    write(&dir.path().join("ca.pem"), &format!("{}{}", old.pem(), new.pem()), 0o444);
    assert!(server.reload().unwrap());
    assert!(server.still_trusts(&inside));
    std::fs::remove_file(dir.path().join("ca.pem")).unwrap();
    assert!(matches!(server.reload(), Err(EngineTlsError::Missing { flag: "tlscacert", .. })));
    write(&dir.path().join("ca.pem"), &new.pem(), 0o444);
    assert!(server.reload().unwrap());
    assert!(!server.still_trusts(&inside));
    let eve = client_pair(&new, "eve", 1);
    reach(&server, &old.pem(), Some(&eve)).await.unwrap();
}

#[test]
fn files_that_are_no_good_are_named_with_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let ca = authority("ca");
    let (server, other) = (server_pair(&ca), server_pair(&ca));
    let fresh = || files(dir.path(), &ca.pem(), &server);
    let refused = |files| EngineServer::load(files, None).unwrap_err();

    let files = fresh();
    write(&files.key, &server.key, 0o640);
    let text = refused(files).to_string();
    assert!(text.contains("key.pem") && text.contains("0640") && text.contains("chmod 0400"));
    let files = fresh();
    write(&files.key, &other.key, 0o400);
    assert!(matches!(refused(files), EngineTlsError::Mismatch { .. }));
    let files = fresh();
    let expired = issue(&ca, "old", |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    write(&files.cert, &expired.cert, 0o444);
    write(&files.key, &expired.key, 0o400);
    let text = refused(files).to_string();
    assert!(text.contains("cert.pem") && text.contains("expired on 2021-01-01"), "{text}");
    let files = fresh();
    write(files.ca.as_ref().unwrap(), &expired.cert, 0o444);
    assert!(matches!(refused(files), EngineTlsError::Expired { what: "CA certificate", .. }));
    for (name, what) in [("ca.pem", "CA"), ("cert.pem", "server"), ("key.pem", "private")] {
        let files = fresh();
        write(&dir.path().join(name), "nonsense", 0o400);
        let text = refused(files).to_string();
        assert!(text.contains(name) && text.contains(what), "{text}");
    }
}

#[test]
fn revocation_lists_are_read_strictly() {
    let line = |text: &str| Revocations::parse(text.as_bytes());
    assert_eq!(line("\n# a\nserial:01 # b\nserial=2\nSerial:02").unwrap().len(), 2);
    for text in ["x", "serial:", "serial:xyz", "sha256:00", "md5:00"] {
        assert_eq!(line(text), Err(RevocationError::Line(1)), "{text}");
    }
    assert!(Revocations::parse(&[0xff]).is_err());

    let ca = authority("ca");
    let (ann, bob) = (client_pair(&ca, "ann", 7), client_pair(&ca, "bob", 8));
    let crl = rcgen::CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2024, 1, 1),
        next_update: rcgen::date_time_ymd(2024, 2, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![rcgen::RevokedCertParams {
            serial_number: SerialNumber::from(7),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let revoked = line(&crl.signed_by(&ca).unwrap().pem().unwrap()).unwrap();
    assert!(revoked.contains(&ann.der) && !revoked.contains(&bob.der));
    // The same number of another authority is another certificate.
    let other = authority("other");
    assert!(!revoked.contains(&client_pair(&other, "ann", 7).der));
    assert!(revoked.contains(b"not a certificate"));
}

proptest::proptest! {
    #[test]
    fn any_list_is_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _ = Revocations::parse(&bytes);
    }
}

#[tokio::test]
async fn the_register_decides_about_clients_of_the_access_authority() {
    use crate::access_ca::AccessCa;
    let (dir, ca) = (tempfile::tempdir().unwrap(), authority("ca"));
    let access = AccessCa::generate().unwrap();
    let day = Duration::from_secs(86_400);
    let client = || {
        let key = crate::csr::NodeKey::generate().unwrap();
        let issued = access.issue_client(&key.csr_pem().unwrap(), "ann", "viewer", day).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let key = text(key.key_pem().expose_secret());
        (Pair { cert: text(&issued.chain_pem), der: Vec::new(), key }, issued.fingerprint)
    };
    let ((ann, known), (stranger, _)) = (client(), client());
    let trust = |known: &[[u8; 32]]| AccessTrust {
        ca_pem: access.cert_pem().to_vec(),
        known: known.iter().copied().collect(),
    };
    let mut files = files(dir.path(), &ca.pem(), &server_pair(&ca));
    // An operator who names the same authority opens nothing by that.
    write(
        &dir.path().join("both.pem"),
        &(ca.pem() + std::str::from_utf8(access.cert_pem()).unwrap()),
        0o444,
    );
    files.ca = Some(dir.path().join("both.pem"));
    for files in [files.clone(), EngineFiles { ca: None, ..files.clone() }] {
        let server = EngineServer::load(files, Some(trust(&[known]))).unwrap();
        let holder = reach(&server, &ca.pem(), Some(&ann)).await.unwrap();
        assert_eq!(holder.common_name, "ann");
        reach(&server, &ca.pem(), Some(&stranger)).await.unwrap_err();
        reach(&server, &ca.pem(), None).await.unwrap_err();
        assert!(server.still_trusts(&holder));
        // Files that are broken just now keep nobody in.
        write(&dir.path().join("cert.pem"), "broken", 0o444);
        server.trust(trust(&[])).unwrap();
        assert!(!server.still_trusts(&holder));
        write(&dir.path().join("cert.pem"), &server_pair(&ca).cert, 0o444);
        reach(&server, &ca.pem(), Some(&ann)).await.unwrap_err();
        server.trust(trust(&[known])).unwrap();
        reach(&server, &ca.pem(), Some(&ann)).await.unwrap();
        let pair = server_pair(&ca);
        write(&dir.path().join("cert.pem"), &pair.cert, 0o444);
        std::fs::remove_file(dir.path().join("key.pem")).unwrap();
        write(&dir.path().join("key.pem"), &pair.key, 0o400);
    }
    assert!(EngineServer::load(EngineFiles { ca: None, ..files }, None).is_err());
}

#[tokio::test]
async fn newcomers_get_in_only_where_they_may_enrol_and_both_see_the_same_key() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), authority("ca"));
    let pair = server_pair(&ca);
    let server = EngineServer::load(files(dir.path(), &ca.pem(), &pair), None).unwrap();
    for enrols in [true, false] {
        let (near, far) = duplex(1 << 16);
        let client = EngineClient::for_enrolment().unwrap();
        let (served, asked) =
            tokio::join!(server.accept(far, enrols), client.connect("elsewhere", near));
        match served {
            Ok(Accepted::Newcomer(_, key)) if enrols => {
                assert_eq!(asked.unwrap().server_key().unwrap(), key);
            }
            Err(_) if !enrols => drop(asked.unwrap_err()),
            other => panic!("{enrols}: {other:?}"),
        }
    }
}
