//! Tokens of a registry's token server: JSON web tokens as docker's registry takes them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use brig_pki::jws::{JwsAlgorithm, MAX_CHAIN, NamedKey, TokenTrust};
use serde::Deserialize;
use time::{Duration, OffsetDateTime};

use super::{AuthError, Challenge, quotable, read};
use crate::route::Access;

/// Bytes of the bundle.
const MAX_BUNDLE: u64 = 1 << 20;
/// How far clocks may be apart.
const LEEWAY: Duration = Duration::seconds(60);
/// Entries of a token that are looked at.
const MAX_ACCESS: usize = 256;

/// Where tokens come from and what they have to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// The token server's address.
    pub realm: String,
    /// Whom tokens are for: this server's name.
    pub service: String,
    /// Who makes them.
    pub issuer: String,
    /// Certificates of the keys that sign them, PEM.
    pub bundle: PathBuf,
}

/// Checks tokens.
#[derive(Debug)]
pub struct Tokens {
    settings: TokenSettings,
    trust: ArcSwap<(Vec<u8>, TokenTrust)>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    x5c: Option<Vec<String>>,
    jwk: Option<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x5c: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: String,
    #[serde(default)]
    aud: Audience,
    #[serde(default)]
    exp: i64,
    #[serde(default)]
    nbf: i64,
    #[serde(default)]
    access: Option<Vec<Granted>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

#[derive(Deserialize)]
struct Granted {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    actions: Vec<String>,
}

impl Tokens {
    /// Reads the bundle.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn load(settings: TokenSettings) -> Result<Self, AuthError> {
        for text in [&settings.realm, &settings.service, &settings.issuer] {
            quotable(text)?;
        }
        let trust = ArcSwap::from_pointee(bundle(&settings.bundle)?);
        Ok(Self { settings, trust })
    }

    pub(super) fn reload(&self) -> Result<bool, AuthError> {
        let new = bundle(&self.settings.bundle)?;
        if new.0 == self.trust.load().0 {
            return Ok(false);
        }
        self.trust.store(Arc::new(new));
        Ok(true)
    }

    pub(super) fn check(
        &self,
        credentials: Option<&str>,
        access: &Access<'_>,
        now: OffsetDateTime,
    ) -> Result<(), Challenge> {
        let Some(credentials) = credentials else {
            return Err(self.challenge(access, None));
        };
        let token = credentials
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .and_then(|(_, token)| self.claims(token.trim(), now));
        match token {
            None => Err(self.challenge(access, Some("invalid_token"))),
            Some(claims) if grants(&claims, access) => Ok(()),
            Some(_) => Err(self.challenge(access, Some("insufficient_scope"))),
        }
    }

    fn challenge(&self, access: &Access<'_>, error: Option<&str>) -> Challenge {
        let TokenSettings { realm, service, .. } = &self.settings;
        let scope = match access {
            Access::Repository(gun, actions) => format!("repository:{gun}:{}", actions.join(",")),
            Access::Nothing | Access::Catalog => "registry:catalog:*".to_owned(),
        };
        let mut text = format!("Bearer realm=\"{realm}\",service=\"{service}\",scope=\"{scope}\"");
        if let Some(error) = error {
            text.push_str(&format!(",error=\"{error}\""));
        }
        Challenge(text)
    }

    /// What a token says, if it may say it.
    fn claims(&self, token: &str, now: OffsetDateTime) -> Option<Claims> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let header: Header = serde_json::from_slice(&url(header)?).ok()?;
        let claims: Claims = serde_json::from_slice(&url(claims)?).ok()?;
        let signature = url(signature)?;
        let algorithm = JwsAlgorithm::parse(&header.alg)?;
        let trust = self.trust.load();
        let verifies = |named: &NamedKey<'_>| {
            trust.1.verifies(algorithm, named, message.as_bytes(), &signature, now)
        };
        if !by_key(&header, verifies)? {
            return None;
        }
        let service = &self.settings.service;
        let for_us = match &claims.aud {
            Audience::One(one) => one == service,
            Audience::Several(several) => several.contains(service),
        };
        let at = |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).ok();
        let in_time = at(claims.exp)?.saturating_add(LEEWAY) > now
            && at(claims.nbf)?.saturating_sub(LEEWAY) <= now;
        (for_us && in_time && claims.iss == self.settings.issuer).then_some(claims)
    }
}

/// Asks with the key that the header names; the first of its three ways counts.
fn by_key(header: &Header, verifies: impl Fn(&NamedKey<'_>) -> bool) -> Option<bool> {
    let of_jwk = header.jwk.as_ref().and_then(|jwk| jwk.x5c.as_ref());
    if let Some(chain) = header.x5c.as_ref().or(of_jwk) {
        if chain.len() > MAX_CHAIN {
            return None;
        }
        let chain: Option<Vec<_>> = chain.iter().map(|one| STANDARD.decode(one).ok()).collect();
        return Some(verifies(&NamedKey::Chain(&chain?)));
    }
    if let Some(jwk) = &header.jwk {
        return match (&jwk.x, &jwk.y, &jwk.n, &jwk.e) {
            (Some(x), Some(y), None, None) => {
                Some(verifies(&NamedKey::Point { x: &url(x)?, y: &url(y)? }))
            }
            (None, None, Some(n), Some(e)) => {
                Some(verifies(&NamedKey::Rsa { n: &url(n)?, e: &url(e)? }))
            }
            _ => None,
        };
    }
    Some(verifies(&NamedKey::Name(header.kid.as_ref()?)))
}

fn grants(claims: &Claims, access: &Access<'_>) -> bool {
    let has = |kind: &str, name: &str, action: &str| {
        claims.access.iter().flatten().take(MAX_ACCESS).any(|granted| {
            granted.kind == kind
                && granted.name == name
                && granted.actions.iter().any(|one| one == action || one == "*")
        })
    };
    match access {
        Access::Nothing => true,
        Access::Catalog => has("registry", "catalog", "*"),
        Access::Repository(gun, actions) => {
            actions.iter().all(|action| has("repository", gun.as_str(), action))
        }
    }
}

fn url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

fn bundle(path: &Path) -> Result<(Vec<u8>, TokenTrust), AuthError> {
    let text = read(path, MAX_BUNDLE)?;
    let trust = TokenTrust::from_bundle(&text)
        .map_err(|source| AuthError::Bundle { path: path.to_owned(), source })?;
    Ok((text, trust))
}

#[cfg(test)]
mod tests {
    use brig_pki::signing::{Curve, PublisherCertificate, SigningKey};
    use brig_trust::Gun;
    use serde_json::{Value, json};

    use super::*;

    struct Issuer {
        key: SigningKey,
        certificate: String,
        now: OffsetDateTime,
    }

    impl Issuer {
        fn new() -> Self {
            let (key, now) = (SigningKey::generate(Curve::P256).unwrap(), OffsetDateTime::now_utc());
            let certificate = PublisherCertificate::issue("tokens", &key, now).unwrap();
            Self { key, certificate, now }
        }

        fn claims(&self) -> Value {
            let now = self.now.unix_timestamp();
            json!({
                "iss": "issuer", "aud": "trust", "sub": "alice",
                "exp": now + 300, "nbf": now - 10, "iat": now,
                "access": [
                    { "type": "repository", "name": "reg/app", "actions": ["pull", "push"] },
                    { "type": "registry", "name": "catalog", "actions": ["*"] },
                ],
            })
        }

        fn token(&self, algorithm: &str, claims: &Value) -> String {
            let der: String = self.certificate.lines().filter(|line| !line.contains("---")).collect();
            let header = json!({ "typ": "JWT", "alg": algorithm, "x5c": [der] });
            let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let message = format!("{}.{}", encode(&header), encode(claims));
            let signature = self.key.sign(message.as_bytes()).unwrap();
            format!("Bearer {message}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    #[test]
    fn tokens_say_what_their_bearer_may() {
        let (issuer, other) = (Issuer::new(), Issuer::new());
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("bundle");
        std::fs::write(&bundle, &issuer.certificate).unwrap();
        let settings = TokenSettings {
            realm: "https://auth.example/token".to_owned(),
            service: "trust".to_owned(),
            issuer: "issuer".to_owned(),
            bundle: bundle.clone(),
        };
        let tokens = Tokens::load(settings.clone()).unwrap();
        let (app, elsewhere) = (Gun::parse("reg/app").unwrap(), Gun::parse("reg/app2").unwrap());
        let pull = Access::Repository(&app, &["pull"]);
        let check = |token: &str, access: &Access<'_>| {
            tokens.check(Some(token), access, issuer.now).map_err(|challenge| challenge.0)
        };
        let good = issuer.token("ES256", &issuer.claims());
        for access in [&pull, &Access::Repository(&app, &["push", "pull"]), &Access::Catalog] {
            check(&good, access).unwrap();
        }
        for access in
            [Access::Repository(&app, &["*"]), Access::Repository(&elsewhere, &["pull"])]
        {
            let challenge = check(&good, &access).unwrap_err();
            assert!(challenge.ends_with(",error=\"insufficient_scope\""), "{challenge}");
        }
        let changed = |name: &str, value: Value| {
            let mut claims = issuer.claims();
            claims[name] = value;
            issuer.token("ES256", &claims)
        };
        let now = issuer.now.unix_timestamp();
        check(&changed("aud", json!(["x", "trust"])), &pull).unwrap();
        check(&changed("exp", json!(now - 30)), &pull).unwrap();
        let mut tampered = good.clone();
        tampered.insert(40, 'A');
        for bad in [
            changed("aud", json!("other")),
            changed("iss", json!("other")),
            changed("exp", json!(now - 90)),
            changed("exp", Value::Null),
            changed("nbf", json!(now + 90)),
            changed("access", json!("all")),
            issuer.token("none", &issuer.claims()),
            issuer.token("ES384", &issuer.claims()),
            issuer.token("HS256", &issuer.claims()),
            other.token("ES256", &issuer.claims()),
            tampered,
            "Bearer x".to_owned(),
            "Bearer a.b.c".to_owned(),
            good.replace("Bearer", "Basic"),
        ] {
            let challenge = check(&bad, &pull).unwrap_err();
            assert!(challenge.contains("error=\"invalid_token\""), "{bad}: {challenge}");
        }
        assert_eq!(check(&changed("access", Value::Null), &pull).unwrap_err(),
            "Bearer realm=\"https://auth.example/token\",service=\"trust\",scope=\"repository:reg/app:pull\",error=\"insufficient_scope\"");
        let nobody = tokens.check(None, &Access::Catalog, issuer.now).unwrap_err().0;
        assert!(nobody.ends_with("scope=\"registry:catalog:*\""), "{nobody}");
        // Another bundle counts from the next look at it.
        std::fs::write(&bundle, &other.certificate).unwrap();
        assert!(tokens.reload().unwrap());
        assert!(check(&good, &pull).is_err());
        let quoted = TokenSettings { realm: "a\"b".to_owned(), ..settings };
        assert!(matches!(Tokens::load(quoted), Err(AuthError::Text(_))));
    }
}
