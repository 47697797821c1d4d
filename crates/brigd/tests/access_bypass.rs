//! Ways around authorization that are known of Docker's plugins and of HTTP: what is judged is what
//! is done, however the request is written.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/image.rs"]
mod image;
#[path = "common/rights.rs"]
mod rights;

use std::io::Write as _;
use std::process::{Command, Stdio};

use common::{Daemon, clis};
use rights::{BINDINGS, DEPLOYER, OPERATOR, VIEWER, call, daemon, forget, raw, rest, send, status};

/// What an operator must not have.
const HOST: &str = r#"{"Image":"x","HostConfig":{"Binds":["/:/host"]}}"#;
const RULE: &str = r#"authorization denied by policy \"operator/no-host-access\""#;

fn containers(daemon: &Daemon) -> Vec<serde_json::Value> {
    serde_json::from_str(rest(&call(daemon, 0, "GET", "/containers/json?all=1", "")).trim())
        .unwrap()
}

#[test]
fn known_ways_around_authorization_plugins_lead_nowhere() {
    let daemon = daemon(BINDINGS, &[]);
    let send = |text: &str| raw(&daemon, OPERATOR, text.as_bytes());
    let (host, rule) = (HOST, RULE);
    for path in [
        "/containers/create",
        "/v1.24/containers/create",
        "/v1.50/containers/create?name=a",
        "/containers/%63reate",
        "/%76%31.41/containers/create",
    ] {
        let answer = call(&daemon, OPERATOR, "POST", path, host);
        assert!(status(&answer) == 403 && answer.contains(rule), "{path}: {answer}");
    }
    // None of these is another spelling of a route.
    for (path, expected) in [
        ("//containers/create", 404),
        ("/containers//create", 404),
        ("/containers/create/", 404),
        ("/containers/./create", 404),
        ("/x/../containers/create", 404),
        ("/containers/%2e%2e/containers/create", 404),
        ("/v1.99/containers/create", 400),
        ("/v1.41/v1.41/containers/create", 404),
    ] {
        assert_eq!(status(&call(&daemon, OPERATOR, "POST", path, host)), expected, "{path}");
    }
    // Other methods do not reach the route, and HEAD has its own row.
    for (method, path) in
        [("PATCH", "/containers/create"), ("HEAD", "/brig/audit"), ("GET", "/containers/create")]
    {
        assert!(status(&call(&daemon, VIEWER, method, path, "")) >= 403, "{method}");
    }
    assert_eq!(status(&call(&daemon, VIEWER, "HEAD", "/containers/x/archive?path=/", "")), 403);
    // Chunks: the rule sees all of them together.
    let (one, two) = host.split_at(30);
    let chunked = format!(
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
        one.len(),
        two.len()
    );
    let answer = send(&chunked);
    assert!(status(&answer) == 403 && answer.contains(rule), "{answer}");
    // A body padded beyond what a plugin would look at is still judged whole.
    let padded = format!(r#"{{"Labels":{{"a":"{}"}},{}"#, "x".repeat(2 << 20), &host[1..]);
    let answer = call(&daemon, OPERATOR, "POST", "/containers/create", &padded);
    assert!(status(&answer) == 403 && answer.contains(rule), "{}", &answer[..200]);
    let huge = format!(r#"{{"Labels":{{"a":"{}"}},{}"#, "x".repeat(5 << 20), &host[1..]);
    assert_eq!(status(&call(&daemon, OPERATOR, "POST", "/containers/create", &huge)), 413);
    // Twice the same key is refused, whichever is the harmless one.
    for body in [
        r#"{"Image":"x","HostConfig":{"Binds":["/:/host"]},"HostConfig":{}}"#,
        r#"{"Image":"x","HostConfig":{},"HostConfig":{"Privileged":true}}"#,
        r#"{"Image":"x","HostConfig":{"Privileged":true,"Privileged":false}}"#,
    ] {
        let answer = call(&daemon, OPERATOR, "POST", "/containers/create", body);
        assert!(status(&answer) == 400 && answer.contains("duplicate field"), "{body}: {answer}");
    }
    // A body without a length is no body, for the rule and for the handler.
    let bare = "POST /containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert_eq!(status(&send(&format!("{bare}{host}"))), 400);
    // An upgrade changes nothing about the rule.
    let upgrade = "POST /containers/x/attach?stream=1 HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: tcp\r\n\r\n";
    let answer = raw(&daemon, VIEWER, upgrade.as_bytes());
    assert!(status(&answer) == 403 && answer.contains("viewer/default"), "{answer}");
    // Two requests on one connection are two decisions.
    let pipelined = format!(
        "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n\
         POST /containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{host}",
        host.len()
    );
    let answers = send(&pipelined);
    assert!(answers.starts_with("HTTP/1.1 200") && answers.contains(rule), "{answers}");
    forget(daemon);
}

/// `POST /containers/create` with these further headers and this body.
fn create(headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn paths_have_one_spelling() {
    let daemon = daemon(BINDINGS, &[]);
    // Decoded once, before the route is looked for: the same route, the same rule.
    for path in [
        "http://elsewhere/containers/create",
        "https://user@elsewhere:1/v1.41/containers/create",
        "/containers%2fcreate",
        "/v1.41%2Fcontainers/create",
        "/v1.41.7/containers/create",
        "/containers/create?name=a&name=b",
        "/containers/create?x=%ff%fe",
    ] {
        let answer = call(&daemon, OPERATOR, "POST", path, HOST);
        assert!(status(&answer) == 403 && answer.contains(RULE), "{path}: {answer}");
    }
    for path in [
        "/containers%252fcreate",
        "/containers/create%00",
        "/containers/create%20",
        "/containers/create%3fname=x",
        "/containers/create;x=1",
        "/Containers/Create",
        "\\containers\\create",
        "/containers/%ff/create",
        "/v1.41/../containers/create",
        "/v1.999/containers/create",
        "/v1./containers/create",
        "/v-1.41/containers/create",
        "/v1.41//containers/create",
        "/v%31.41%2f%2fcontainers/create",
        "/containers/x/../create",
        "/containers/create/.",
        "/images/..%2f..%2fcontainers/create",
        "*",
    ] {
        let answer = call(&daemon, OPERATOR, "POST", path, HOST);
        let known = matches!(status(&answer), 400 | 404 | 405);
        assert!(known && !answer.contains("authorization"), "{path}: {answer}");
    }
    // A name is one segment, and names nothing else by having dots or slashes in it.
    for path in ["/containers/./json", "/containers/../json", "/containers/%2e%2e/json"] {
        assert_eq!(status(&call(&daemon, DEPLOYER, "GET", path, "")), 403, "{path}");
        assert_eq!(status(&call(&daemon, 0, "GET", path, "")), 404, "{path}");
    }
    for path in ["/services/web/../bank/update", "/services/web%2f..%2fbank/update"] {
        assert_eq!(status(&call(&daemon, DEPLOYER, "POST", path, "{}")), 404, "{path}");
    }
    let odd = call(&daemon, DEPLOYER, "GET", "/services/web%00", "");
    assert!(status(&odd) == 403 && odd.contains("deployer/only-named"), "{odd}");
    // A secret's route reached through an image's name is an image's route.
    let odd = call(&daemon, DEPLOYER, "GET", "/images/..%2fsecrets%2fdb/json", "");
    assert!(status(&odd) == 403 && odd.contains("image.inspect"), "{odd}");
    assert_eq!(containers(&daemon).len(), 0);
    forget(daemon);
}

#[test]
fn framing_has_one_reading() {
    let daemon = daemon(BINDINGS, &[]);
    let n = HOST.len();
    let post = |headers: &str, body: &str| {
        format!("POST /containers/create HTTP/1.1\r\nHost: x\r\n{JSON}{headers}\r\n{body}")
    };
    let hidden = post(&format!("Connection: close\r\nContent-Length: {n}\r\n"), HOST);
    let length = hidden.len();
    let requests = [
        // Two lengths, and a length beside chunks: what one reader takes for a body, another one
        // takes for the next request.
        post(&format!("Content-Length: 0\r\nContent-Length: {n}\r\n"), HOST),
        post(&format!("Content-Length: 0, {n}\r\n"), HOST),
        post(
            &format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
            &format!("0\r\n\r\n{hidden}"),
        ),
        post(
            &format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
            &format!("0\r\n\r\n{hidden}"),
        ),
        post(
            &format!(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nContent-Length: {length}\r\n"
            ),
            &format!("0\r\n\r\n{hidden}"),
        ),
        post(&format!("Transfer-Encoding: xchunked\r\nContent-Length: {n}\r\n"), HOST),
        post(&format!("Transfer-Encoding : chunked\r\nContent-Length: {n}\r\n"), HOST),
        post(
            &format!("Transfer-Encoding:\tchunked\r\nContent-Length: {length}\r\n"),
            &format!("0\r\n\r\n{hidden}"),
        ),
        post(&format!("X: y\r\n Content-Length: 0\r\nContent-Length: {n}\r\n"), HOST),
        post(&format!("Content-Length: +{n}\r\n"), HOST),
        post("Content-Length: -1\r\n", HOST),
        post(&format!("Content-Length: 0x{n:x}\r\n"), HOST),
        post("Content-Length: 99999999999999999999\r\n", HOST),
        // No length, and none at all: the bytes behind are the next request.
        post("Content-Length: 0\r\n", HOST),
        post("Content-Length: 0\r\n", &hidden),
        post("", &hidden),
        post(
            &format!("Expect: 100-continue\r\nConnection: close\r\nContent-Length: {n}\r\n"),
            HOST,
        ),
        // Chunks with extensions and trailers.
        post(
            "Connection: close\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length\r\n",
            &format!("{n:x};a=\"b\"\r\n{HOST}\r\n0\r\nContent-Length: 0\r\n\r\n"),
        ),
        post(
            "Connection: close\r\nTransfer-Encoding: chunked\r\n",
            &format!("{:x}\r\n{HOST}\r\n0\r\n\r\n", 1_u128 << 70),
        ),
        // HTTP/2, HTTP/0.9, and what is no HTTP.
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{hidden}"),
        format!("POST /containers/create\r\n\r\n{HOST}"),
        format!("POST /containers/create HTTP/1.0\r\n{JSON}Content-Length: {n}\r\n\r\n{HOST}"),
        format!("\r\n\r\n{hidden}"),
        hidden.replace("\r\n", "\n"),
        hidden.replace("POST ", "post "),
        hidden.replace("POST ", "POST\t"),
    ];
    for request in requests {
        let answer = send(&daemon, OPERATOR, request.as_bytes());
        // Nothing, or refusals only: by the parser, by the rule, by the handler for want of a body.
        let answers: Vec<u16> = answer
            .split("HTTP/1.1 ")
            .skip(1)
            .filter_map(|answer| answer.get(..3)?.parse().ok())
            .collect();
        let refused =
            |status: &u16| matches!(status, 100 | 400 | 403 | 404 | 405 | 413 | 431 | 505);
        assert!(answers.iter().all(refused), "{request}\n=> {answer}");
        assert!(!answer.contains("No such image"), "judged harmless: {request}\n=> {answer}");
    }
    assert_eq!(containers(&daemon).len(), 0);
    forget(daemon);
}

#[test]
fn bodies_have_one_reading() {
    let Some(&cli) = clis().first() else { return };
    let daemon = daemon(BINDINGS, &[]);
    let Some(archive) = image::archive(&daemon.dir) else { return forget(daemon) };
    daemon.must(cli, &["load", "-qi", archive.to_str().unwrap()]);
    let image = image::NAME;
    let plain = format!(r#"{{"Image":"{image}","HostConfig":{{"Privileged":true}}}}"#);
    // However it is packed, it is judged or not understood.
    let mut gzip = Command::new("gzip")
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    gzip.stdin.take().unwrap().write_all(plain.as_bytes()).unwrap();
    let packed = gzip.wait_with_output().unwrap().stdout;
    let wide: Vec<u8> = plain.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked = [b"\xef\xbb\xbf", plain.as_bytes()].concat();
    let twice = [format!(r#"{{"Image":"{image}"}}"#).as_bytes(), plain.as_bytes()].concat();
    for (headers, body) in [
        ("Content-Encoding: gzip\r\n", packed.as_slice()),
        ("Content-Encoding: gzip\r\n", plain.as_bytes()),
        ("Content-Encoding: deflate, br\r\n", plain.as_bytes()),
        ("", &wide),
        ("", &marked),
        ("", &twice),
        ("", plain.replace("HostConfig", r"Host\u0043onfig").as_bytes()),
        ("", plain.replace("Privileged", r"\u0050rivileged").as_bytes()),
        ("", plain.replace("true}", r#"true,"\u0050rivileged":false}"#).as_bytes()),
        ("", plain.replace("true}", r#"true},"Host\u0043onfig":{}"#).as_bytes()),
        ("", format!("[{plain}]").as_bytes()),
        ("", format!("null{plain}").as_bytes()),
        ("", format!("{plain}\0").as_bytes()),
        ("X-HTTP-Method-Override: GET\r\nX-Method-Override: HEAD\r\n", plain.as_bytes()),
        (
            "X-Original-URL: /_ping\r\nX-Rewrite-URL: /_ping\r\nX-Forwarded-For: 127.0.0.1\r\n",
            plain.as_bytes(),
        ),
    ] {
        let answer = raw(&daemon, OPERATOR, &create(&format!("{JSON}{headers}"), body));
        let judged = status(&answer) == 403 && answer.contains(RULE);
        assert!(judged || status(&answer) == 400, "{headers} {body:?}: {answer}");
    }
    for media in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: text/plain\r\nContent-Type: application/json\r\n",
    ] {
        let answer = raw(&daemon, OPERATOR, &create(media, plain.as_bytes()));
        assert!(matches!(status(&answer), 400 | 403), "{media}: {answer}");
    }
    assert_eq!(containers(&daemon).len(), 0);
    // Keys count as they are written: by another case they are neither judged nor done.
    for (number, body) in [
        plain.replace("HostConfig", "hostconfig"),
        plain.replace("HostConfig", "HOSTCONFIG"),
        plain.replace("Privileged", "privileged"),
        plain.replace("HostConfig", "Host\u{17f}onfig"),
        plain.replace("true}", r#"false},"hostConfig":{"Privileged":true}"#),
    ]
    .iter()
    .enumerate()
    {
        let path = format!("/containers/create?name=case{number}");
        let answer = call(&daemon, OPERATOR, "POST", &path, body);
        assert_eq!(status(&answer), 201, "{body}: {answer}");
        let made = call(&daemon, 0, "GET", &format!("/containers/case{number}/json"), "");
        let made: serde_json::Value = serde_json::from_str(rest(&made).trim()).unwrap();
        assert_eq!(made["HostConfig"]["Privileged"], false, "{body}");
    }
    // Other headers do not make one method another.
    for over in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
        let request = format!(
            "GET /containers/case0/json?_method=DELETE HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{over}: DELETE\r\n\r\n"
        );
        assert_eq!(status(&raw(&daemon, VIEWER, request.as_bytes())), 200);
    }
    assert_eq!(containers(&daemon).len(), 5);
    forget(daemon);
}

#[test]
fn what_follows_an_upgrade_is_no_request() {
    let Some(&cli) = clis().first() else { return };
    let daemon = daemon(BINDINGS, &[]);
    let Some(archive) = image::archive(&daemon.dir) else { return forget(daemon) };
    daemon.must(cli, &["load", "-qi", archive.to_str().unwrap()]);
    daemon.must(cli, &["run", "-di", "--name", "box", image::NAME, "head", "-n", "1"]);
    let hidden = format!(
        "POST /containers/create HTTP/1.1\r\nHost: x\r\n{JSON}Content-Length: {}\r\n\r\n{HOST}",
        HOST.len()
    );
    let attach = "POST /containers/box/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
    // Who may not, gets no upgrade; what comes behind is judged as the request that it is.
    let both = send(&daemon, VIEWER, format!("{attach}{hidden}").as_bytes());
    assert!(both.starts_with("HTTP/1.1 403") && !both.contains("HTTP/1.1 101"), "{both}");
    assert!(!both.contains("HTTP/1.1 2"), "{both}");
    // Who may, speaks with the container from then on.
    let answer = send(&daemon, OPERATOR, format!("{attach}{hidden}").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let behind = rest(&answer);
    assert!(behind.contains("POST /containers/create HTTP/1.1"), "the container saw it: {answer}");
    assert!(!behind.contains("authorization denied"), "{answer}");
    // To ask for an upgrade does not make another request of an ordinary one.
    for (uid, path) in [(OPERATOR, "/containers/create"), (VIEWER, "/session"), (VIEWER, "/grpc")] {
        for protocol in ["tcp", "h2c", "websocket", "TLS/1.2", "HTTP/2.0"] {
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n\
                 HTTP2-Settings: AAMAAABkAAQAAP__\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                 {JSON}Content-Length: {}\r\n\r\n{HOST}GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                HOST.len()
            );
            let answer = send(&daemon, uid, request.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 403"), "{path} {protocol}: {answer}");
            assert!(!answer.contains("HTTP/1.1 101"), "{path} {protocol}: {answer}");
        }
    }
    assert_eq!(containers(&daemon).len(), 1);
    daemon.must(cli, &["rm", "-f", "box"]);
    forget(daemon);
}

/// Whoever may do nearly everything could start first what an administrator has prepared, or give
/// a container's name to another one in between.
#[test]
fn what_others_prepared_is_judged_by_what_it_is() {
    let Some(&cli) = clis().first() else { return };
    let daemon = daemon(BINDINGS, &[]);
    let Some(archive) = image::archive(&daemon.dir) else { return forget(daemon) };
    daemon.must(cli, &["load", "-qi", archive.to_str().unwrap()]);
    daemon.must(cli, &["run", "-d", "--name", "box", image::NAME, "sleep", "1000"]);
    let prepare = |uid: u32, body: &str| -> String {
        let answer = call(&daemon, uid, "POST", "/containers/box/exec", body);
        assert_eq!(status(&answer), 201, "{answer}");
        let json: serde_json::Value = serde_json::from_str(rest(&answer).trim()).unwrap();
        format!("/exec/{}/start", json["Id"].as_str().unwrap())
    };
    let mighty = prepare(0, r#"{"Cmd":["id"],"Privileged":true,"AttachStdout":true}"#);
    let modest = prepare(0, r#"{"Cmd":["id"],"AttachStdout":true}"#);
    let answer = call(&daemon, OPERATOR, "POST", &mighty, "{}");
    assert!(status(&answer) == 403 && answer.contains(RULE), "{answer}");
    let answer = call(&daemon, OPERATOR, "POST", &modest, "{}");
    assert!(answer.contains("uid=0"), "{answer}");
    daemon.must(cli, &["rm", "-f", "box"]);
    forget(daemon);
}
