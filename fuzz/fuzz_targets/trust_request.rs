//! Requests to the trust server: paths, queries of the feed, and tokens of strangers.
#![no_main]

use std::sync::OnceLock;

use brig_trust_server::auth::{Authentication, TokenSettings, Tokens};
use http::{Method, Request};
use libfuzzer_sys::fuzz_target;

fn authentication() -> &'static Authentication {
    static AUTHENTICATION: OnceLock<Authentication> = OnceLock::new();
    AUTHENTICATION.get_or_init(|| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), CERTIFICATE).expect("written");
        let tokens = Tokens::load(TokenSettings {
            realm: "https://auth.example/token".to_owned(),
            service: "trust.example".to_owned(),
            issuer: "auth.example".to_owned(),
            bundle: file.path().to_owned(),
        });
        Authentication::Tokens(tokens.expect("a bundle"))
    })
}

const CERTIFICATE: &str = include_str!("../seeds/trust_request.pem");

fuzz_target!(|input: (u8, &str, &str)| {
    let (method, uri, credentials) = input;
    let methods = [Method::GET, Method::POST, Method::DELETE, Method::PUT, Method::HEAD];
    let method = methods[usize::from(method) % methods.len()].clone();
    let built = Request::builder()
        .method(method)
        .uri(uri)
        .header("authorization", format!("Bearer {credentials}"))
        .body(());
    let Ok(request) = built else { return };
    let (request, ()) = request.into_parts();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let through = runtime.block_on(brig_trust_server::read_request(&request, authentication()));
    assert!(!through || !request.uri.path().starts_with("/v2/"));
});
