//! Signatures by key pair: brig's and the real cosign's, each verifying what the other signed; what
//! an attacker with the registry can do; and the way there from content trust.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use brig_e2e::notary::Notary;
use brig_e2e::registry::{LOGIN, NIGEL, Registry};
use brig_e2e::{Brigd, Client, Output, image};

/// What opens the private keys of these tests.
const PASSWORD: &str = "pw of keys";

fn run(mut command: Command, shown: &str) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Output::of(shown.to_owned(), &output)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A registry that wants a login, and somebody who has one. No daemon: nothing here needs it.
struct Desk {
    registry: Registry,
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let registry = Registry::start(Some(LOGIN));
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        // u:pw
        registry.log_in(folder.path(), "dTpwdw==");
        Self { registry, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn name(&self, reference: &str) -> String {
        format!("{}/{reference}", self.registry.address)
    }

    fn brig(&self, args: &[&str]) -> Output {
        let nowhere = self.path("no.sock");
        let mut command = Client::brig(&nowhere, self.folder.path()).command(args);
        command.current_dir(&self.folder).env("COSIGN_PASSWORD", PASSWORD);
        run(command, &format!("brig {}", args.join(" ")))
    }

    fn cosign(&self, args: &[&str]) -> Output {
        brig_e2e::cosign::run(self.folder.path(), PASSWORD, args)
    }

    /// With the flags that keep it from public services.
    fn cosign_signs(&self, key: &str, more: &[&str], image: &str) -> Output {
        let mut args =
            vec!["sign", "--key", key, "--tlog-upload=false", "--allow-http-registry", "-y"];
        args.extend(more);
        args.push(image);
        self.cosign(&args)
    }

    fn cosign_verifies(&self, key: &str, more: &[&str], image: &str) -> Output {
        let mut args =
            vec!["verify", "--key", key, "--insecure-ignore-tlog=true", "--allow-http-registry"];
        args.extend(more);
        args.push(image);
        self.cosign(&args)
    }

    fn brig_signs(&self, key: &str, more: &[&str], image: &str) -> Output {
        self.brig(&[&["trust", "sign", "--key", key], more, &[image]].concat())
    }

    fn brig_verifies(&self, key: &str, more: &[&str], image: &str) -> Output {
        self.brig(&[&["trust", "verify", "--key", key], more, &[image]].concat())
    }

    /// Pushes an image; the same one in another form is another image.
    fn push(&self, reference: &str, format: &str) -> String {
        let name = self.name(reference);
        let from = format!("docker-archive:{}", image::busybox().display());
        self.copy(&["--format", format], &from, &name);
        name
    }

    fn copy(&self, more: &[&str], from: &str, to: &str) {
        let mut command = Command::new("skopeo");
        command.args(["copy", "--insecure-policy", "--dest-tls-verify=false"]);
        command.args(["--src-tls-verify=false", "--authfile"]).arg(self.path("config.json"));
        command.args(more).arg(from).arg(format!("docker://{to}"));
        run(command, "skopeo copy").ok();
    }

    fn key_pair(&self, name: &str) -> (String, String) {
        self.brig(&["trust", "cosign", "generate-key-pair", "--output-key-prefix", name]).ok();
        (format!("{name}.key"), format!("{name}.pub"))
    }
}

/// The digest in `Signed NAME@DIGEST`.
fn signed_digest(output: &Output) -> String {
    output.ok().split('@').nth(1).unwrap().to_owned()
}

#[test]
fn brig_and_cosign_take_each_others_keys_and_signatures() {
    let desk = Desk::new();
    let (own, own_public) = desk.key_pair("own");
    desk.cosign(&["generate-key-pair", "--output-key-prefix", "theirs"]).ok();
    let (theirs, their_public) = ("theirs.key", "theirs.pub");

    // Each tool with each key on one image: all four stay, and each tool finds them.
    let both = desk.push("team/both:1", "v2s2");
    desk.brig_signs(&own, &["-a", "by=brig"], &both).ok();
    desk.cosign_signs(&own, &["-a", "by=cosign"], &both).ok();
    desk.cosign_signs(theirs, &["-a", "by=cosign"], &both).ok();
    desk.brig_signs(theirs, &["-a", "by=brig"], &both).ok();
    for key in [own_public.as_str(), their_public] {
        for said in ["by=brig", "by=cosign"] {
            let ours = desk.brig_verifies(key, &["-a", said], &both);
            let cosigns = desk.cosign_verifies(key, &["-a", said], &both);
            let payloads = |output: &Output| {
                serde_json::from_str::<Vec<serde_json::Value>>(output.ok().trim()).unwrap()
            };
            assert_eq!(payloads(&ours), payloads(&cosigns), "{key} {said}");
            assert_eq!(payloads(&ours).len(), 1);
        }
        assert_eq!(desk.brig_verifies(key, &["-a", "by=nobody"], &both).code, 1);
    }
    let key = desk.brig(&["trust", "verify", "--key", "own.pub", "--key", "theirs.pub", &both]);
    assert_eq!(key.ok().matches("critical").count(), 4, "{key:?}");

    // As referrers of the image. This registry keeps no lists of them; the tools keep one.
    let referred = desk.push("team/referred:1", "oci");
    let mode = "--registry-referrers-mode=oci-1-1";
    desk.brig_signs(&own, &[mode], &referred).ok();
    desk.cosign_verifies(&own_public, &["--experimental-oci11"], &referred).ok();
    desk.cosign_signs(theirs, &[mode], &referred).ok();
    desk.brig_verifies(their_public, &[], &referred).ok();
    desk.brig_verifies(&own_public, &[], &referred).ok();

    // A bundle, as newer versions of cosign sign. What is in one says what it is about.
    let bundled = desk.push("team/bundled:1", "v2s2");
    std::fs::write(desk.path("predicate.json"), "{}").unwrap();
    let attest = |kind: &str| {
        desk.cosign(&[
            "attest",
            "--new-bundle-format",
            "--type",
            kind,
            "--predicate",
            "predicate.json",
            "--key",
            theirs,
            "--tlog-upload=false",
            "--allow-http-registry",
            "-y",
            &bundled,
        ])
        .ok();
    };
    attest("https://example.com/something-else");
    let refused = desk.brig_verifies(their_public, &[], &bundled);
    assert!(refused.fails(1).contains("there are no signatures"), "{refused:?}");
    attest("https://sigstore.dev/cosign/sign/v1");
    desk.brig_verifies(their_public, &[], &bundled).ok();
    assert_eq!(desk.brig_verifies(&own_public, &[], &bundled).code, 1);

    // A key of openssl's.
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
        .arg(desk.path("plain.pem"))
        .output()
        .unwrap();
    assert!(made.status.success());
    desk.brig(&["trust", "cosign", "import-key-pair", "--key", "plain.pem"]).ok();
    desk.cosign_signs("import-cosign.key", &["-a", "by=openssl"], &both).ok();
    desk.brig_verifies("import-cosign.pub", &[], &both).ok();
}

#[test]
fn openssl_verifies_what_brig_signed() {
    let desk = Desk::new();
    let (key, public) = desk.key_pair("own");
    let image = desk.push("team/app:1", "v2s2");
    let digest = signed_digest(&desk.brig_signs(&key, &[], &image));
    let tag = format!("{}.sig", digest.replace(':', "-"));
    let folder = desk.path("signature");
    let from = format!("docker://{}", desk.name(&format!("team/app:{tag}")));
    let mut command = Command::new("skopeo");
    command.args(["copy", "--insecure-policy", "--src-tls-verify=false", "--authfile"]);
    command.arg(desk.path("config.json")).arg(from).arg(format!("dir:{}", folder.display()));
    run(command, "skopeo copy").ok();
    let manifest = std::fs::read(folder.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layer = &manifest["layers"][0];
    let payload = layer["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let signature = &layer["annotations"]["dev.cosignproject.cosign/signature"];
    std::fs::write(desk.path("signature.b64"), signature.as_str().unwrap()).unwrap();
    let script = format!(
        "base64 -d signature.b64 > signature.der && openssl dgst -sha256 -verify {public} -signature signature.der signature/{payload}"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(&desk.folder);
    assert_eq!(run(command, &script).ok(), "Verified OK");
}

#[test]
fn who_has_the_registry_has_no_signature() {
    let desk = Desk::new();
    let (key, public) = desk.key_pair("own");
    let (stranger, _) = desk.key_pair("stranger");
    let good = desk.push("team/app:1", "v2s2");
    let digest = signed_digest(&desk.brig_signs(&key, &[], &good));
    desk.brig_verifies(&public, &[], &good).ok();

    // Another image, without a signature and with one by somebody else.
    let evil = desk.push("team/app:evil", "oci");
    let refused = desk.brig_verifies(&public, &[], &evil);
    assert!(refused.fails(1).contains("there are no signatures"), "{refused:?}");
    let evil_digest = signed_digest(&desk.brig_signs(&stranger, &[], &evil));
    let refused = desk.brig_verifies(&public, &[], &evil);
    assert!(refused.fails(1).contains("none of the keys has made the signature"), "{refused:?}");
    assert_ne!(digest, evil_digest);

    // The good image's signatures in the place of the evil one's.
    let tag = |digest: &str| desk.name(&format!("team/app:{}.sig", digest.replace(':', "-")));
    desk.copy(&[], &format!("docker://{}", tag(&digest)), &tag(&evil_digest));
    let refused = desk.brig_verifies(&public, &[], &evil);
    assert!(refused.fails(1).contains(&format!("the signature is for {digest}")), "{refused:?}");

    // The tag is moved: it is another image now. The signed one is where it was.
    desk.copy(&["--format", "oci"], &format!("docker://{evil}"), &good);
    assert_eq!(desk.brig_verifies(&public, &[], &good).code, 1);
    let by_digest = desk.name(&format!("team/app@{digest}"));
    desk.brig_verifies(&public, &[], &by_digest).ok();

    // Image and signature in another repository: good as a copy only.
    let elsewhere = desk.name("evil/app:1");
    desk.copy(&[], &format!("docker://{by_digest}"), &elsewhere);
    let to = desk.name(&format!("evil/app:{}.sig", digest.replace(':', "-")));
    desk.copy(&[], &format!("docker://{}", tag(&digest)), &to);
    let refused = desk.brig_verifies(&public, &[], &elsewhere);
    assert!(refused.fails(1).contains("the signature is for"), "{refused:?}");
    desk.brig_verifies(&public, &["--identity", "any"], &elsewhere).ok();

    // The wrong files, the wrong password, nobody who is logged in.
    let wrong = desk.brig_verifies(&key, &[], &by_digest);
    assert!(wrong.fails(1).contains("verifying takes cosign.pub"), "{wrong:?}");
    let wrong = desk.brig_signs(&public, &[], &by_digest);
    assert!(wrong.fails(1).contains("signing takes cosign.key"), "{wrong:?}");
    let exists = desk.brig(&["trust", "cosign", "generate-key-pair", "--output-key-prefix", "own"]);
    assert!(exists.fails(1).contains("own.key exists already"), "{exists:?}");
    let mode = std::fs::metadata(desk.path(&key)).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
    let mut command = Client::brig(&desk.path("no.sock"), desk.folder.path()).command(&[
        "trust",
        "sign",
        "--key",
        text(&desk.path(&key)),
        &by_digest,
    ]);
    command.env("COSIGN_PASSWORD", "another");
    let wrong = run(command, "sign with another password");
    assert!(wrong.fails(1).contains("the passphrase does not open the key"), "{wrong:?}");
    std::fs::write(desk.path("config.json"), "{}").unwrap();
    let refused = desk.brig_verifies(&public, &[], &by_digest);
    assert!(refused.fails(1).contains("log in with `brig login"), "{refused:?}");
}

/// Signs with content trust, moves to cosign's signatures, and looks at what the tools say.
fn content_trust_is_left_for_cosign(notary: &Notary) {
    let daemon = Brigd::start();
    let registry = Registry::start(None);
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    registry.log_in(folder.path(), NIGEL);
    let client = Client::brig(&daemon.socket(), folder.path());
    let brig = |args: &[&str]| {
        let mut command = client.command(args);
        command.current_dir(&folder).envs(notary.introduction()).env("COSIGN_PASSWORD", PASSWORD);
        run(command, &format!("brig {}", args.join(" ")))
    };
    let cosign_verifies = |tag: &str, image: &str| {
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "60", "cosign", "verify", "--key", "cosign.pub"]);
        command.args(["--insecure-ignore-tlog=true", "--allow-http-registry", "-a"]);
        command.arg(format!("tag={tag}")).arg(image).current_dir(&folder);
        command.env("DOCKER_CONFIG", folder.path()).env("HOME", folder.path());
        run(command, &format!("cosign verify {image}"))
    };
    let name = format!("{}/team/app", registry.address);
    let tagged = |tag: &str| format!("{name}:{tag}");
    brig(&["load", "-i", text(&image::busybox())]).ok();
    let change = |tag: &str| {
        let id = brig(&["create", "busybox:latest", "true"]).ok().to_owned();
        brig(&["commit", "-m", tag, &id, &tagged(tag)]).ok();
        brig(&["rm", &id]).ok();
    };
    for tag in ["1.0", "2.0", "unsigned"] {
        change(tag);
    }
    // Two tags of one image.
    brig(&["tag", &tagged("1.0"), &tagged("1")]).ok();
    for tag in ["1.0", "1", "2.0"] {
        brig(&["trust", "sign", &tagged(tag)]).ok();
    }
    brig(&["push", &tagged("unsigned")]).ok();
    let digest_of = |tag: &str| {
        let shown: serde_json::Value =
            serde_json::from_str(brig(&["trust", "inspect", &tagged(tag)]).ok()).unwrap();
        format!("sha256:{}", shown[0]["SignedTags"][0]["Digest"].as_str().unwrap())
    };
    let (one, two) = (digest_of("1.0"), digest_of("2.0"));
    assert_ne!(one, two);
    // An attacker has moved one of the tags.
    change("evil");
    brig(&["tag", &tagged("evil"), &tagged("2.0")]).ok();
    brig(&["push", &tagged("2.0")]).ok();

    brig(&["trust", "cosign", "generate-key-pair"]).ok();
    let migrate = |more: &[&str]| {
        brig(&[&["trust", "migrate", "--key", "cosign.key"], more, &[&name]].concat())
    };
    let result = |output: &Output, tag: &str| {
        let row = output.stdout.lines().find(|line| line.split(' ').next() == Some(tag));
        row.unwrap_or_else(|| panic!("{tag}: {output:?}")).to_owned()
    };
    let planned = migrate(&["--dry-run"]);
    planned.ok();
    assert!(result(&planned, "1.0").ends_with("would be signed"), "{planned:?}");
    assert_ne!(cosign_verifies("1.0", &tagged("1.0")).code, 0);
    let done = migrate(&[]);
    done.ok();
    assert_eq!(done.stdout.lines().count(), 4, "{done:?}");
    for tag in ["1.0", "1"] {
        let row = result(&done, tag);
        assert!(row.ends_with("signed") && row.contains(&one) && row.contains("nigel"), "{row}");
        cosign_verifies(tag, &tagged(tag)).ok();
    }
    let row = result(&done, "2.0");
    assert!(row.ends_with("signed; the tag is another image in the registry"), "{row}");
    // What was signed is signed; what the tag says now is not, and neither is what nobody signed.
    cosign_verifies("2.0", &format!("{name}@{two}")).ok();
    for tag in ["2.0", "unsigned"] {
        assert_ne!(cosign_verifies(tag, &tagged(tag)).code, 0);
        let refused = brig(&["trust", "verify", "--key", "cosign.pub", &tagged(tag)]);
        assert!(refused.fails(1).contains("there are no signatures"), "{refused:?}");
    }
    assert_ne!(cosign_verifies("2.0", &tagged("1.0")).code, 0);

    // Again: nothing is left to do. What was signed meanwhile is.
    change("3.0");
    brig(&["trust", "sign", &tagged("3.0")]).ok();
    let again = migrate(&[]);
    again.ok();
    for tag in ["1.0", "1", "2.0"] {
        assert!(result(&again, tag).ends_with("signed before"), "{again:?}");
    }
    assert!(result(&again, "3.0").ends_with("  signed"), "{again:?}");

    // An image that is gone cannot be signed, the others are.
    change("4.0");
    brig(&["trust", "sign", &tagged("4.0")]).ok();
    let mut command = Command::new("skopeo");
    let gone = format!("docker://{}", tagged("3.0"));
    run(
        {
            command.args(["delete", "--tls-verify=false", &gone]);
            command
        },
        "skopeo delete",
    )
    .ok();
    let third = migrate(&[]);
    assert!(third.fails(1).contains("1 of 5 tags were not signed"), "{third:?}");
    let row = result(&third, "3.0");
    assert!(row.ends_with("refused: the image is not in the registry any more"), "{row}");
    assert!(result(&third, "4.0").ends_with("  signed"), "{third:?}");

    // Whom nothing vouches for.
    let other = format!("{}/team/other", registry.address);
    let refused = brig(&["trust", "migrate", "--key", "cosign.key", &other]);
    assert!(refused.fails(1).contains("does not have trust data"), "{refused:?}");
}

#[test]
fn from_notary_server_to_cosign() {
    content_trust_is_left_for_cosign(&Notary::start());
}

#[test]
fn from_brigs_trust_server_to_cosign() {
    content_trust_is_left_for_cosign(&Notary::brig());
}
