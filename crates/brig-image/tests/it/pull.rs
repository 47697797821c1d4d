use std::sync::{Arc, Mutex};

use brig_image::{
    Credentials, ImageStore, LayerState, OpenOptions, Platform, Progress, RegistrySettings,
};
use brig_types::error::{Categorized, ErrorKind, chain};
use brig_types::secret::SecretString;
use serde_json::json;

use crate::fake_registry::{Content, FakeRegistry};
use crate::make::{
    assert_tidy, config, digest, gzip, names, no_progress, noise, reference, settings, std_arch,
    store, tar,
};

fn layers(seed: u64) -> Vec<Vec<u8>> {
    (0..3).map(|at| tar(&[(&format!("f{at}"), &noise(seed + at, 300_000))])).collect()
}

async fn pull_error(store: &ImageStore, name: &str) -> (String, ErrorKind) {
    let error = store.pull(&reference(name), None, None, &no_progress).await.unwrap_err();
    (chain(&error), error.kind())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_brings_the_image_and_a_second_one_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let registry = FakeRegistry::start();
    let (manifest, paths) = registry.image("team/app", "1", &layers(1));
    let name = format!("{}/team/app:1", registry.address);
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&steps);
    let sink = move |step: Progress| seen.lock().unwrap().push(step);

    let pulled = store.pull(&reference(&name), None, None, &sink).await.unwrap();
    assert!(!pulled.up_to_date);
    assert_eq!(pulled.digest, manifest);
    let image = store.resolve(&name).unwrap();
    assert_eq!((image.id.clone(), image.layers.len(), image.size), (pulled.id.clone(), 3, 900_000));
    assert_eq!(
        image.repo_digests[0].familiar(),
        format!("{}/team/app@{manifest}", registry.address)
    );
    let steps = steps.lock().unwrap().clone();
    assert_eq!(
        steps.first(),
        Some(&Progress::PullingFrom { repository: "team/app".to_owned(), tag: "1".to_owned() })
    );
    assert_eq!(steps.last(), Some(&Progress::Done { reference: name.clone(), up_to_date: false }));
    let complete =
        |step: &&Progress| matches!(step, Progress::Layer { state: LayerState::PullComplete, .. });
    assert_eq!(steps.iter().filter(complete).count(), 3);

    let before = registry.seen().len();
    let again = store.pull(&reference(&name), None, None, &no_progress).await.unwrap();
    assert_eq!((again.id, again.up_to_date), (pulled.id.clone(), true));
    let asked: Vec<String> = registry.seen()[before..].iter().map(|s| s.method.clone()).collect();
    assert_eq!(asked, ["HEAD"], "nothing is fetched, only asked for");
    assert_tidy(root.path());

    // By digest, and after a restart.
    let by_digest = format!("{}/team/app@{manifest}", registry.address);
    assert!(store.pull(&reference(&by_digest), None, None, &no_progress).await.unwrap().up_to_date);
    drop(store);
    let store = crate::make::store(root.path());
    assert_eq!(store.resolve(&by_digest).unwrap().id, pulled.id);
    assert_eq!(store.history(&image)[0].created_by, "1");
    assert_eq!(store.history(&image)[1].size, 300_000);

    // Shared layers are not fetched again.
    let mut more = layers(1);
    more.push(tar(&[("new", b"layer")]));
    registry.image("team/app", "2", &more);
    let before = registry.seen().len();
    let second = format!("{}/team/app:2", registry.address);
    store.pull(&reference(&second), None, None, &no_progress).await.unwrap();
    let fetched = &registry.seen()[before..];
    assert!(fetched.iter().all(|s| !paths.contains(&s.path)), "{fetched:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pulls_at_once_fetch_each_layer_once() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let registry = FakeRegistry::start();
    let (_, paths) = registry.image("a", "1", &layers(20));
    let mut reversed = layers(20);
    reversed.reverse();
    registry.image("b", "1", &reversed);
    let mut pulls = tokio::task::JoinSet::new();
    for repository in ["a", "b", "a", "b", "a"] {
        let (store, name) = (store.clone(), format!("{}/{repository}:1", registry.address));
        pulls.spawn(async move { store.pull(&reference(&name), None, None, &no_progress).await });
    }
    while let Some(pulled) = pulls.join_next().await {
        pulled.unwrap().unwrap();
    }
    let seen = registry.seen();
    let count = |digest: &str| seen.iter().filter(|s| s.path.ends_with(digest)).count();
    for path in &paths {
        assert_eq!(count(path.rsplit('/').next().unwrap()), 1, "{path}");
    }
    assert_eq!(names(&root.path().join("image/layers")).len(), 3);
    assert_tidy(root.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_come_in_parallel_but_not_all_at_once() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let registry = FakeRegistry::start();
    let layers: Vec<Vec<u8>> = (0..7).map(|at| tar(&[("f", &noise(40 + at, 1000))])).collect();
    let (_, paths) = registry.image("par", "1", &layers);
    for path in paths {
        registry.edit(&path, |content| content.delay_ms = 60);
    }
    let name = format!("{}/par:1", registry.address);
    store.pull(&reference(&name), None, None, &no_progress).await.unwrap();
    assert_eq!(registry.config.lock().unwrap().most_active, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_transfers_go_on_where_they_stopped() {
    for ignore_ranges in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let registry = FakeRegistry::start();
        let (_, paths) = registry.image("broken", "1", &layers(60));
        registry.edit(&paths[1], |content| {
            content.ignore_ranges = ignore_ranges;
            content.break_after = Some(if ignore_ranges { 299_000 } else { 100_000 });
        });
        let name = format!("{}/broken:1", registry.address);
        let pulled = store.pull(&reference(&name), None, None, &no_progress).await;
        let requests: Vec<_> =
            registry.seen().into_iter().filter(|s| s.path == paths[1]).map(|s| s.range).collect();
        if ignore_ranges {
            // Always the same part: no progress, so it ends.
            let error = chain(&pulled.unwrap_err());
            assert!(error.contains("Get \"http://127.0.0.1"), "{error}");
            assert_eq!(requests.len(), 5, "the first counts too once nothing follows");
            assert!(store.list().is_empty());
            assert!(names(&root.path().join("image/layers")).is_empty());
        } else {
            pulled.unwrap();
            assert!(
                requests.len() >= 3 && requests[1].as_deref() == Some("bytes=100000-"),
                "{requests:?}"
            );
        }
        assert_tidy(root.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_what_it_says_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let registry = FakeRegistry::start();
    let host = registry.address.clone();

    let (_, paths) = registry.image("swapped", "1", &layers(80));
    let other = gzip(&tar(&[("evil", &noise(9, 299_900))]));
    registry.edit(&paths[2], |content| {
        content.body.truncate(0);
        content.body.extend(&other);
    });
    let (text, _) = pull_error(&store, &format!("{host}/swapped:1")).await;
    assert!(text.contains("bytes instead of") || text.contains("verification failed"), "{text}");

    // The same length, another content: only the hash can tell.
    let plain = tar(&[("f", b"good")]);
    let evil = tar(&[("f", b"evil")]);
    let raw = config(std::slice::from_ref(&plain), "x");
    let manifest = |size: usize, diff: &[u8]| {
        serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&raw).as_str(), "size": raw.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest(diff).as_str(), "size": size}],
        }))
        .unwrap()
    };
    let oci = "application/vnd.oci.image.manifest.v1+json";
    registry.blob("oci", raw.clone());
    let path = registry.blob("oci", plain.clone());
    registry.edit(&path, |content| content.body.clone_from(&evil));
    registry.manifest("oci", "hash", oci, manifest(plain.len(), &plain));
    let (text, _) = pull_error(&store, &format!("{host}/oci:hash")).await;
    assert!(text.contains("filesystem layer verification failed for digest sha256:"), "{text}");

    // A layer that is not the one that the configuration names.
    registry.blob("oci", evil.clone());
    registry.manifest("oci", "diff", oci, manifest(evil.len(), &evil));
    let (text, _) = pull_error(&store, &format!("{host}/oci:diff")).await;
    assert!(text.contains("does not match its diff id"), "{text}");

    // The manifest lies about the size, shorter and longer.
    registry.edit(&path, |content| content.body.clone_from(&plain));
    for size in [plain.len() - 1, plain.len() + 1] {
        registry.manifest("oci", "size", oci, manifest(size, &plain));
        let (text, _) = pull_error(&store, &format!("{host}/oci:size")).await;
        assert!(text.contains("bytes instead of"), "{text}");
    }

    // A manifest that is not what its digest says.
    let (wanted, _) = registry.image("lie", "1", &layers(90));
    registry.edit(&format!("/v2/lie/manifests/{wanted}"), |content| content.body.push(b' '));
    let (text, _) = pull_error(&store, &format!("{host}/lie@{wanted}")).await;
    assert!(text.contains("manifest verification failed"), "{text}");

    // A manifest without end.
    registry.manifest("lie", "endless", oci, vec![b' '; 5 << 20]);
    let (text, _) = pull_error(&store, &format!("{host}/lie:endless")).await;
    assert!(text.contains("larger than"), "{text}");

    assert!(store.list().is_empty());
    assert!(names(&root.path().join("image/layers")).is_empty());
    assert!(names(&root.path().join("image/blobs")).is_empty());
    assert_tidy(root.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_dockers() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let registry = FakeRegistry::start();
    let host = &registry.address;
    registry.image("bb", "1", &layers(100));
    assert_eq!(
        pull_error(&store, &format!("{host}/bb:nope")).await,
        (
            format!("manifest for {host}/bb:nope not found: manifest unknown: manifest unknown"),
            ErrorKind::NotFound
        )
    );
    registry.config.lock().unwrap().basic = Some("Basic dTpw".to_owned());
    assert_eq!(
        pull_error(&store, &format!("{host}/bb:1")).await,
        (
            format!("Head \"http://{host}/v2/bb/manifests/1\": no basic auth credentials"),
            ErrorKind::System
        )
    );
    let login = |password: &str| Credentials {
        username: "u".to_owned(),
        password: SecretString::new(password.to_owned()),
        ..Credentials::default()
    };
    let name = reference(&format!("{host}/bb:1"));
    let wrong = store.pull(&name, None, Some(login("x")), &no_progress).await.unwrap_err();
    assert_eq!(chain(&wrong), "unauthorized: authentication required");
    assert_eq!(wrong.kind(), ErrorKind::Unauthorized);
    store.pull(&name, None, Some(login("p")), &no_progress).await.unwrap();
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let (text, _) = pull_error(&store, &format!("{closed}/bb:1")).await;
    assert!(text.starts_with(&format!("Get \"http://{closed}/v2/\": ")), "{text}");
    assert!(text.contains("refused"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_checked() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let (basic, token) = (FakeRegistry::start(), FakeRegistry::start());
    basic.config.lock().unwrap().basic = Some("Basic dTpw".to_owned());
    token.config.lock().unwrap().token = Some("t0ken".to_owned());
    for registry in [&basic, &token] {
        registry.put("/v2/", Content::default());
    }
    let login = |password: &str| Credentials {
        username: "u".to_owned(),
        password: SecretString::new(password.to_owned()),
        ..Credentials::default()
    };
    store.login(&basic.address, login("p")).await.unwrap();
    let error = store.login(&basic.address, login("x")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "login attempt to http://{}/v2/ failed with status: 401 Unauthorized",
            basic.address
        )
    );
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    store.login(&format!("http://{}/v2/", token.address), login("p")).await.unwrap();
    let asked = token.seen().into_iter().find(|s| s.path.starts_with("/token")).unwrap();
    assert_eq!(asked.authorization.as_deref(), Some("Basic dTpw"));
    assert!(!asked.path.contains("scope"), "{}", asked.path);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_once_and_go_nowhere_else() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let (registry, storage) = (FakeRegistry::start(), FakeRegistry::start());
    let (_, paths) = registry.image("sec/ret", "1", &layers(120));
    registry.config.lock().unwrap().token = Some("t0ken".to_owned());
    // One layer lives elsewhere.
    let body = registry.config.lock().unwrap().contents[&paths[0]].body.clone();
    storage.put("/bucket/x", Content { body, ..Content::default() });
    registry.edit(&paths[0], |content| {
        content.location = Some(format!("http://{}/bucket/x", storage.address));
    });
    let login = Credentials {
        username: "me".to_owned(),
        password: SecretString::new("pass".to_owned()),
        ..Credentials::default()
    };
    let name = reference(&format!("{}/sec/ret:1", registry.address));
    store.pull(&name, None, Some(login.clone()), &no_progress).await.unwrap();
    let seen = registry.seen();
    let tokens: Vec<_> = seen.iter().filter(|s| s.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].authorization.as_deref(), Some("Basic bWU6cGFzcw=="));
    assert!(tokens[0].path.contains("scope=repository%3Asec%2Fret%3Apull"), "{}", tokens[0].path);
    assert!(tokens[0].path.contains("account=me") && tokens[0].path.contains("service=test"));
    for request in seen.iter().filter(|s| s.path.starts_with("/v2/sec")) {
        assert!(
            request.authorization.as_deref().is_none_or(|a| a == "Bearer t0ken"),
            "the password went to the registry itself"
        );
    }
    assert_eq!(storage.seen().len(), 1);
    assert_eq!(storage.seen()[0].authorization, None, "credentials followed a redirect");

    // A token server that is neither local nor TLS gets nothing.
    registry.config.lock().unwrap().realm = Some("http://192.0.2.1/token".to_owned());
    let other = reference(&format!("{}/sec/ret:2", registry.address));
    let error = store.pull(&other, None, Some(login), &no_progress).await.unwrap_err();
    assert_eq!(
        chain(&error),
        "refusing the token server \"http://192.0.2.1/token\": only https is allowed"
    );
    // Nor does a redirect lead to anybody's plain HTTP.
    registry.config.lock().unwrap().token = None;
    registry.image("sec/ret", "3", &[tar(&[("n", b"new")])]);
    let path = format!("/v2/sec/ret/blobs/{}", digest(&gzip(&tar(&[("n", b"new")]))));
    registry.edit(&path, |content| content.location = Some("http://192.0.2.1/x".to_owned()));
    let (text, _) = pull_error(&store, &format!("{}/sec/ret:3", registry.address)).await;
    assert_eq!(text, "refusing the redirect to \"http://192.0.2.1/x\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_lead_to_the_image_for_the_platform() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let registry = FakeRegistry::start();
    let (mine, _) = registry.image("multi", "mine", &layers(140));
    let (other, _) = registry.image("multi", "other", &layers(150));
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let size = |tag: &str| {
        registry.config.lock().unwrap().contents[&format!("/v2/multi/manifests/{tag}")].body.len()
    };
    let entry = |digest: &brig_types::digest::Digest, size: usize, os: &str, arch: &str| {
        json!({"mediaType": docker, "digest": digest.as_str(), "size": size,
            "platform": {"os": os, "architecture": arch}})
    };
    let index = "application/vnd.oci.image.index.v1+json";
    let list = serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": index, "manifests": [
        entry(&other, size("other"), "unknown", "unknown"),
        entry(&other, size("other"), "linux", "s390x"),
        entry(&mine, size("mine"), "linux", std_arch()),
    ]}))
    .unwrap();
    let list_digest = digest(&list);
    registry.manifest("multi", "1", index, list.clone());
    let name = reference(&format!("{}/multi:1", registry.address));

    let info = store.distribution(&name, None).await.unwrap();
    assert_eq!((info.digest, info.media_type.as_str()), (list_digest.clone(), index));
    assert_eq!(info.size, u64::try_from(list.len()).unwrap());
    assert_eq!(info.platforms.len(), 2);
    let single = reference(&format!("{}/multi:mine", registry.address));
    let info = store.distribution(&single, None).await.unwrap();
    assert_eq!(info.platforms, [Platform::host()]);

    let pulled = store.pull(&name, None, None, &no_progress).await.unwrap();
    assert_eq!(pulled.digest, list_digest, "the digest is the list's");
    let again = store.pull(&name, None, None, &no_progress).await.unwrap();
    assert!(again.up_to_date);

    let arm = Platform::of("linux", "riscv64", None);
    let error = store.pull(&name, Some(arm), None, &no_progress).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no matching manifest for linux/riscv64 in the manifest list entries"
    );
    let arm = Platform::of("linux", "riscv64", None);
    let error = store.pull(&single, Some(arm), None, &no_progress).await.unwrap_err();
    assert!(error.to_string().contains("wanted linux/riscv64, actual: linux/"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn zstd_and_plain_layers_unpack_and_repeated_ones_count_once() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let registry = FakeRegistry::start();
    let (one, two) = (tar(&[("one", b"1")]), tar(&[("two", b"2")]));
    let raw = config(&[one.clone(), two.clone(), one.clone()], "x");
    let zstd = zstd::encode_all(&two[..], 3).unwrap();
    let layer = |kind: &str, blob: &[u8]| {
        json!({"mediaType": format!("application/vnd.oci.image.layer.v1.tar{kind}"),
            "digest": digest(blob).as_str(), "size": blob.len(),
            "urls": ["http://192.0.2.1/never"]})
    };
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(&raw).as_str(), "size": raw.len()},
        "layers": [layer("", &one), layer("+zstd", &zstd), layer("", &one)],
    }))
    .unwrap();
    for blob in [raw, one, zstd] {
        registry.blob("mix", blob);
    }
    registry.manifest("mix", "1", "application/vnd.oci.image.manifest.v1+json", manifest);
    let name = format!("{}/mix:1", registry.address);
    store.pull(&reference(&name), None, None, &no_progress).await.unwrap();
    let image = store.resolve(&name).unwrap();
    assert_eq!(image.layers.len(), 3);
    let dirs = store.snapshots().mounted_layers(&image);
    assert_eq!(dirs.len(), 2);
    assert_eq!(std::fs::read(dirs[0].join("one")).unwrap(), b"1");
    assert_eq!(std::fs::read(dirs[1].join("two")).unwrap(), b"2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_pull_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = store(root.path());
    let registry = FakeRegistry::start();
    let (_, paths) = registry.image("slow", "1", &layers(160));
    registry.edit(&paths[2], |content| content.delay_ms = 2_000);
    let name = reference(&format!("{}/slow:1", registry.address));
    let pull = store.pull(&name, None, None, &no_progress);
    let stopped = tokio::time::timeout(std::time::Duration::from_millis(400), pull).await;
    assert!(stopped.is_err());
    assert_tidy(root.path());
    assert!(names(&root.path().join("image/layers")).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_first_and_get_no_credentials() {
    let root = tempfile::tempdir().unwrap();
    let mirror = FakeRegistry::start();
    mirror.image("library/busybox", "1", &layers(180));
    let registry =
        RegistrySettings { mirrors: vec![format!("http://{}", mirror.address)], ..settings() };
    let store =
        ImageStore::open(root.path(), OpenOptions { registry, ..OpenOptions::default() }).unwrap();
    let login = Credentials {
        username: "hub".to_owned(),
        password: SecretString::new("secret".to_owned()),
        ..Credentials::default()
    };
    store.pull(&reference("busybox:1"), None, Some(login), &no_progress).await.unwrap();
    assert_eq!(store.resolve("busybox:1").unwrap().tags[0].familiar(), "busybox:1");
    assert!(mirror.seen().iter().all(|s| s.authorization.is_none()));

    let registry = RegistrySettings { mirrors: vec!["http://192.0.2.1".to_owned()], ..settings() };
    let other = tempfile::tempdir().unwrap();
    let refused =
        ImageStore::open(other.path(), OpenOptions { registry, ..OpenOptions::default() });
    assert!(refused.unwrap_err().to_string().contains("must use https"));
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_cannot_fit_are_not_begun() {
    let mount = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "brig-image-test"])
        .arg(mount.path())
        .status()
        .unwrap();
    assert!(mounted.success());
    let store = store(mount.path());
    let registry = FakeRegistry::start();
    let (_, paths) = registry.image("big", "1", &[tar(&[("big", &noise(9, 4 << 20))])]);
    let (text, kind) = pull_error(&store, &format!("{}/big:1", registry.address)).await;
    assert!(text.starts_with("no space left on device: "), "{text}");
    assert_eq!(kind, ErrorKind::System);
    assert!(registry.seen().iter().all(|seen| !paths.contains(&seen.path)), "a layer was fetched");
    assert_tidy(mount.path());
    // What fits is pulled all the same.
    registry.image("small", "1", &[tar(&[("small", &noise(9, 100_000))])]);
    let small = reference(&format!("{}/small:1", registry.address));
    store.pull(&small, None, None, &no_progress).await.unwrap();
    drop(store);
    crate::make::eventually("unmounting", || {
        std::process::Command::new("umount").arg(mount.path()).status().unwrap().success()
    });
}
