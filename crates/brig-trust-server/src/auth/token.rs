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
