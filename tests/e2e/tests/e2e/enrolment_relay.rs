//! Somebody on the way between a client that enrols and its engine.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use brig_e2e::Client;
use brig_e2e::remote::{Pki, User};

use crate::access::{enroll, listen};

/// Takes one connection. `pass` hands on what comes as it comes. `relay` ends TLS on either side,
/// with a key of its own towards the client, and hands on what is said. `own` says things of its
/// own to the engine, so that it would get the certificate itself.
const RELAY: &str = r#"
import hashlib, json, os, socket, ssl, sys, threading
kind, port, certificate, key, request = sys.argv[1:]
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
client, _ = listener.accept()
engine = socket.create_connection(("127.0.0.1", int(port)))
if kind != "pass":
    towards = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    towards.load_cert_chain(certificate, key)
    beyond = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    beyond.check_hostname, beyond.verify_mode = False, ssl.CERT_NONE
    for context in towards, beyond: context.set_alpn_protocols(["brig-enroll/1"])
    client = towards.wrap_socket(client, server_side=True)
    engine = beyond.wrap_socket(engine)

def line(stream):
    text = b""
    while not text.endswith(b"\n"):
        piece = stream.recv(1)
        if not piece: sys.exit(0)
        text += piece
    return json.loads(text)

def say(stream, what): stream.sendall(json.dumps(what).encode() + b"\n")

if kind == "own":
    own, nonce = open(request).read(), os.urandom(32)
    name = line(client)["name"]
    digest = hashlib.sha256()
    for part in b"brig-enroll/1 commitment", own.encode(), name.encode(), nonce:
        digest.update(len(part).to_bytes(8, "big") + part)
    say(engine, {"commitment": digest.hexdigest(), "name": name})
    say(client, line(engine))
    line(client)
    say(engine, {"request": own, "nonce": nonce.hex()})

def pump(source, target):
    try:
        while piece := source.recv(65536): target.sendall(piece)
    except OSError: pass
    for end in source, target:
        try: end.shutdown(socket.SHUT_RDWR)
        except OSError: pass

other = threading.Thread(target=pump, args=(client, engine))
other.start()
pump(engine, client)
other.join()
"#;

struct Relay {
    child: Child,
    port: u16,
}

impl Relay {
    fn start(kind: &str, engine: &str, pki: &Pki) -> Self {
        let port = engine.rsplit(':').next().unwrap();
        let files = ["server-cert.pem", "server-key.pem", "server.csr"].map(|name| pki.path(name));
        let mut child = Command::new("timeout")
            .args(["120", "python3", "-c", RELAY, kind, port])
            .args(files)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
        Self { child, port: port.trim().parse().unwrap() }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Told, not killed: it runs below `timeout`.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

fn identities(brig: &Client) -> String {
    brig.run(&["access", "identities", "-a", "--format", "{{.Name}}"]).ok().to_owned()
}

#[test]
fn whoever_ends_tls_in_between_is_seen_by_the_codes_and_gets_nothing() {
    let (daemon, host) = listen();
    let brig = daemon.brig();
    let user = User::all().pop().unwrap();
    let pki = Pki::new();
    let _ = brig.run(&["access", "open", "--for", "5m"]).ok();
    for kind in ["relay", "own"] {
        let relay = Relay::start(kind, &host, &pki);
        let place = format!("127.0.0.1:{}", relay.port);
        let (mut child, shown) = enroll(&user, &place, kind);
        assert_eq!(shown.len(), 9, "the relay works: {shown:?}");
        let pending = brig.run(&["access", "pending", "-q"]).ok().to_owned();
        assert_eq!(pending.len(), 9, "{pending}");
        assert_ne!(pending, shown, "{kind}");
        // The code that the client shows is nobody's.
        let refused = brig.run(&["access", "approve", &shown, "--role", "admin"]);
        assert!(refused.fails(1).contains("somebody in between"), "{refused:?}");
        assert_eq!(identities(&brig), "", "{kind}");
        assert_eq!(brig.run(&["access", "deny", &pending]).ok(), pending);
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(!child.wait().unwrap().success(), "{said}");
        assert_ne!(user.run(&["context", "inspect", kind]).code, 0);
    }
    assert_eq!(identities(&brig), "", "nothing was issued");

    // It is the ended TLS that shows: bytes that are handed on as they are give one code.
    let relay = Relay::start("pass", &host, &pki);
    let (mut child, shown) = enroll(&user, &format!("127.0.0.1:{}", relay.port), "pass");
    assert_eq!(brig.run(&["access", "pending", "-q"]).ok(), shown);
    assert_eq!(brig.run(&["access", "deny", &shown]).ok(), shown);
    assert!(!child.wait().unwrap().success());
}
