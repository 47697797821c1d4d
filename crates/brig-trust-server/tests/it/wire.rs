//! Statuses, codes, headers and bodies: beside Debian's notary-server where both do the same.

use brig_trust::remote::Remote as _;
use brig_trust::Role;

use crate::owner::Owner;
use crate::support::{Answer, Server, UPLOAD, upload};

const GUN: &str = "reg.example:5000/team/app";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What clients look at.
fn facts(answer: &Answer) -> (u16, String, String) {
    (answer.status, answer.code(), answer.name())
}

/// Requests to which both answer alike; `@` stands for the repository's path.
const REQUESTS: &[(&str, &str)] = &[
    ("GET", "/v2/"),
    ("GET", "/v2"),
    ("GET", "/"),
    ("GET", "@root.json"),
    ("GET", "@1.root.json"),
    ("GET", "@01.root.json"),
    ("GET", "@2.root.json"),
    ("GET", "@targets.json"),
    ("GET", "@targets/s0.json"),
    ("GET", "@targets/none.json"),
    ("GET", "@snapshot.json"),
    ("GET", "@timestamp.json"),
    ("GET", "@root.key"),
    ("GET", "@targets.key"),
    ("GET", "@other.json"),
    ("GET", "/v2/none/_trust/tuf/root.json"),
    ("GET", "/v2/none/_trust/tuf/1.root.json"),
    ("GET", "/v2/a*/_trust/tuf/root.json"),
    ("PUT", "@root.json"),
    ("DELETE", "@root.json"),
    ("GET", "/v2/_trust/changefeed"),
    ("GET", "/v2/_trust/changefeed?records=x"),
    ("GET", "/v2/_trust/changefeed?records=1&change_id=x"),
    ("GET", "/v2/_trust/changefeed?records=10"),
    ("DELETE", "/v2/none/_trust/tuf/"),
    ("GET", "/_notary_server/health"),
];

/// Uploads to which both answer alike. (One that is no multipart makes notary-server close the
/// connection.)
fn uploads(owner: &Owner) -> Vec<(&'static str, Vec<u8>)> {
    let stranger = Owner::new(GUN, 1);
    let files = |files: &[(&str, &[u8])]| upload(files);
    let key = |at: usize| brig_trust::Key::of(&stranger.signers[at]).unwrap();
    vec![
        ("no name", files(&[("", b"{}")])),
        ("no role", files(&[("tragets", b"{}")])),
        ("a role's name in capitals", files(&[("targets/A", b"{}")])),
        ("not JSON", files(&[("targets", b"{")])),
        ("targets of another owner", files(&[("targets", &stranger.targets(5))])),
        ("root of another owner", files(&[("root", &stranger.root(2, key(0), key(0)))])),
        ("root that jumps", files(&[("root", &owner.root(4, key(0), key(0)))])),
        ("a version that is stored", files(&[("targets", &owner.targets(1))])),
        ("a delegation that is not", files(&[("targets/none", &owner.signers_file(0, 1))])),
        ("a delegation of another signer", files(&[("targets/s1", &owner.signers_file(0, 1))])),
        ("a delegation", files(&[("targets/s0.json", &owner.signers_file(0, 3))])),
        ("the same once more", files(&[("targets/s0", &owner.signers_file(0, 3))])),
        ("a timestamp, which is ignored", files(&[("timestamp", &owner.signers_file(0, 3))])),
        ("nothing at all", files(&[])),
    ]
}

#[test]
fn the_same_answers_as_notary_server() {
    runtime().block_on(async {
        let (ours, theirs) = (Server::start(), Server::notary());
        let base = format!("/v2/{GUN}/_trust/tuf/");
        let mut owners = Vec::new();
        for server in [&ours, &theirs] {
            let owner = Owner::new(GUN, 2);
            owner.publish(&server.remote()).await;
            owners.push(owner);
        }
        let both: Vec<_> = owners.iter().map(uploads).collect();
        for at in 0..both[0].len() {
            let mut answers = Vec::new();
            for (server, cases) in [&ours, &theirs].into_iter().zip(&both) {
                answers.push(server.ask("POST", &base, &[UPLOAD], &cases[at].1).await);
            }
            assert_eq!(facts(&answers[0]), facts(&answers[1]), "{}: {answers:?}", both[0][at].0);
            assert!(answers[0].body.len() <= 1024);
        }
        for (method, path) in REQUESTS {
            let path = path.replace('@', &base);
            let (one, two) = (ours.ask(method, &path, &[], b"").await, theirs.ask(method, &path, &[], b"").await);
            assert_eq!(facts(&one), facts(&two), "{method} {path}: {one:?} {two:?}");
            if one.status == 200 {
                for name in ["content-type", "cache-control"] {
                    let known = two.header(name).filter(|_| path.contains("/tuf/"));
                    assert!(known.is_none() || one.header(name) == known, "{path} {name}");
                }
            }
        }
        // Bodies of errors too, where nothing of the server's own is in them.
        for path in ["/v2/none/_trust/tuf/root.json", "/v2"] {
            assert_eq!(ours.get(path).await.body, theirs.get(path).await.body);
        }
    });
}

#[test]
fn files_by_name_version_and_hash() {
    runtime().block_on(async {
        let server = Server::start();
        let (owner, remote) = (Owner::new(GUN, 1), server.remote());
        let first = owner.first(&remote).await;
        // Until a root names them, the same keys for everybody.
        assert_eq!(owner.first(&remote).await.len(), first.len());
        remote.publish(&owner.gun, &first).await.unwrap();
        let base = format!("/v2/{GUN}/_trust/tuf/");
        let newest = server.get(&format!("{base}root.json")).await;
        assert_eq!(newest.body.as_bytes(), first[0].1);
        let tag = newest.header("etag").unwrap().to_owned();
        let hash = brig_pki::hash::hex(&brig_pki::hash::sha256(&first[0].1));
        assert_eq!(tag, format!("\"{hash}\""));
        let by_hash = server.get(&format!("{base}root.{hash}.json")).await;
        assert_eq!(by_hash.body, newest.body);
        assert_eq!(by_hash.header("cache-control"), Some("public, max-age=2592000, s-maxage=2592000"));
        let upper = server.get(&format!("{base}root.{}.json", hash.to_uppercase())).await;
        assert_eq!(upper.status, 404);
        for line in [format!("If-None-Match: {tag}"), format!("If-None-Match: \"x\", W/{tag}")] {
            let same = server.ask("GET", &format!("{base}root.json"), &[&line], b"").await;
            assert_eq!((same.status, same.body.as_str()), (304, ""));
        }
        let other = server.ask("GET", &format!("{base}root.json"), &["If-None-Match: \"x\""], b"").await;
        assert_eq!(other.status, 200);
        assert!(newest.header("last-modified").unwrap().ends_with(" GMT"));
        // The keys that the root names; a new one counts once a root names it.
        let key = server.get(&format!("{base}snapshot.key")).await.body;
        assert!(first[0].1.windows(60).any(|part| key.contains(std::str::from_utf8(part).unwrap())));
        let new = server.ask("POST", &format!("{base}snapshot.key"), &[], b"").await.body;
        assert_ne!(new, key);
        assert_eq!(server.get(&format!("{base}snapshot.key")).await.body, key);
        // Refused without a word in the log, and the server goes on.
        let large = "Content-Length: 99999999";
        let refused = server.ask("POST", &base, &[UPLOAD, large], b"").await;
        assert!(matches!(refused.status, 0 | 400), "{refused:?}");
        for path in ["PATCH", "OPTIONS"] {
            assert_eq!(server.ask(path, &base, &[], b"").await.status, 405);
        }
        assert_eq!(server.ask("HEAD", &format!("{base}root.json"), &[], b"").await.status, 404);
        let metrics = server.get("/metrics").await.body;
        assert!(metrics.contains("brig_trust_requests_total{route=\"upload\",status=\"200\"} 1"), "{metrics}");
        // Deleted: gone, also by hash; what begins with the same name is not.
        let near = Owner::new(&format!("{GUN}/x"), 0);
        near.publish(&remote).await;
        remote.delete(&owner.gun).await.unwrap();
        for name in ["root.json".to_owned(), "1.root.json".to_owned(), format!("root.{hash}.json")] {
            assert_eq!(server.get(&format!("{base}{name}")).await.status, 404);
        }
        assert_eq!(server.get(&format!("/v2/{GUN}/x/_trust/tuf/root.json")).await.status, 200);
        let feed = server.get("/v2/_trust/changefeed?records=100").await.body;
        assert!(feed.starts_with("{\"count\":3,") && feed.contains("\"deletion\""), "{feed}");
    });
}

#[test]
fn passwords_prefixes_and_reading_for_everybody() {
    runtime().block_on(async {
        // u and pw.
        let users = "u:$2b$04$abcdefghijklmnopqrstuuyvPXIbu7xe6/CED2DzX8z6Si09MlzlW\n";
        let server = Server::guarded(users, "reg.example:5000/");
        let login = "Authorization: Basic dTpwdw==";
        let base = format!("/v2/{GUN}/_trust/tuf/");
        let ping = server.get("/v2/").await;
        assert_eq!((ping.status, ping.code().as_str()), (401, "UNAUTHORIZED"));
        assert_eq!(ping.header("www-authenticate"), Some("Basic realm=\"trust\""));
        assert_eq!(server.ask("GET", "/v2/", &[login], b"").await.status, 200);
        assert_eq!(server.get(&format!("{base}root.json")).await.status, 404);
        for (method, path) in [
            ("POST", base.clone()),
            ("DELETE", base.clone()),
            ("GET", format!("{base}snapshot.key")),
            ("POST", format!("{base}snapshot.key")),
            ("GET", "/v2/_trust/changefeed?records=1".to_owned()),
            ("GET", "/other".to_owned()),
        ] {
            assert_eq!(server.ask(method, &path, &[], b"").await.status, 401, "{method} {path}");
            let wrong = "Authorization: Basic dTp3cm9uZw==";
            assert_eq!(server.ask(method, &path, &[wrong], b"").await.status, 401);
            let right = server.ask(method, &path, &[login], b"").await.status;
            assert_ne!(right, 401, "{method} {path}");
        }
        for path in ["/_notary_server/health", "/metrics"] {
            assert_eq!(server.get(path).await.status, 200);
        }
        let outside = "/v2/other.example/app/_trust/tuf/";
        let refused = server.ask("POST", outside, &[login, UPLOAD], &upload(&[])).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "INVALID_GUN"));
        let refused = server.ask("GET", &format!("{outside}snapshot.key"), &[login], b"").await;
        assert_eq!((refused.status, refused.code().as_str()), (404, "METADATA_NOT_FOUND"));
    });
}

#[test]
fn of_several_uploads_of_one_version_one_is_taken() {
    runtime().block_on(async {
        let server = Server::start();
        let owner = Owner::new(GUN, 0);
        owner.publish(&server.remote()).await;
        let files = [(Role::Targets, owner.targets(2))];
        let mut attempts = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (remote, gun, files) = (server.remote(), owner.gun.clone(), files.clone());
            attempts.spawn(async move { remote.publish(&gun, &files).await.is_ok() });
        }
        let taken = attempts.join_all().await.into_iter().filter(|taken| *taken).count();
        assert_eq!(taken, 1);
    });
}
