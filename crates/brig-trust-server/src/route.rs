//! The table of what the server answers.

use brig_pki::hash::SHA256_LEN;
use brig_trust::remote::ServerRole;
use brig_trust::{Gun, Role};
use http::Method;
use percent_encoding::percent_decode_str;

/// Longest path that is looked at.
const MAX_PATH: usize = 4096;
const TUF: &str = "/_trust/tuf/";
const FEED: &str = "/_trust/changefeed";

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Ping,
    Health,
    Metrics,
    Newest {
        gun: Gun,
        role: Role,
    },
    Version {
        gun: Gun,
        role: Role,
        version: u64,
    },
    /// By SHA-256; `None` for hashes that nothing is found by.
    Hash {
        gun: Gun,
        digest: Option<[u8; SHA256_LEN]>,
    },
    Upload {
        gun: Gun,
    },
    Delete {
        gun: Gun,
    },
    Key {
        gun: Gun,
        role: ServerRole,
    },
    NewKey {
        gun: Gun,
        role: ServerRole,
    },
    Feed {
        gun: Option<Gun>,
    },
    /// Methods that are refused everywhere.
    NotAllowed,
    Unknown,
}

/// What a caller must be allowed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Access<'a> {
    Nothing,
    /// These actions on one repository.
    Repository(&'a Gun, &'static [&'static str]),
    /// Everything there is.
    Catalog,
}

impl Route {
    pub(crate) fn parse(method: &Method, path: &str) -> Self {
        if path.len() > MAX_PATH {
            return Self::Unknown;
        }
        let Ok(path) = percent_decode_str(path).decode_utf8() else {
            return Self::Unknown;
        };
        if *method == Method::GET {
            match &*path {
                "/v2/" => return Self::Ping,
                "/_notary_server/health" => return Self::Health,
                "/metrics" => return Self::Metrics,
                "/v2/_trust/changefeed" => return Self::Feed { gun: None },
                _ => {}
            }
        }
        match *method {
            Method::GET | Method::POST | Method::DELETE => {
                repository(method, &path).unwrap_or(Self::Unknown)
            }
            Method::PUT | Method::HEAD => Self::Unknown,
            _ => Self::NotAllowed,
        }
    }

    pub(crate) fn gun(&self) -> Option<&Gun> {
        match self {
            Self::Newest { gun, .. }
            | Self::Version { gun, .. }
            | Self::Hash { gun, .. }
            | Self::Upload { gun }
            | Self::Delete { gun }
            | Self::Key { gun, .. }
            | Self::NewKey { gun, .. } => Some(gun),
            Self::Feed { gun } => gun.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn access(&self) -> Access<'_> {
        match self {
            Self::Health | Self::Metrics => Access::Nothing,
            Self::Newest { gun, .. }
            | Self::Version { gun, .. }
            | Self::Hash { gun, .. }
            | Self::Feed { gun: Some(gun) } => Access::Repository(gun, &["pull"]),
            Self::Upload { gun } | Self::Key { gun, .. } => {
                Access::Repository(gun, &["push", "pull"])
            }
            Self::Delete { gun } | Self::NewKey { gun, .. } => Access::Repository(gun, &["*"]),
            Self::Ping | Self::Feed { gun: None } | Self::NotAllowed | Self::Unknown => {
                Access::Catalog
            }
        }
    }

    /// For metrics: few names, whatever clients ask for.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Health => "health",
            Self::Metrics => "metrics",
            Self::Newest { .. } => "newest",
            Self::Version { .. } => "version",
            Self::Hash { .. } => "hash",
            Self::Upload { .. } => "upload",
            Self::Delete { .. } => "delete",
            Self::Key { .. } | Self::NewKey { .. } => "key",
            Self::Feed { .. } => "changefeed",
            Self::NotAllowed | Self::Unknown => "unknown",
        }
    }
}

fn repository(method: &Method, path: &str) -> Option<Route> {
    let path = path.strip_prefix("/v2/")?;
    if let Some(gun) = path.strip_suffix(FEED) {
        let gun = Gun::parse(gun).ok()?;
        return (*method == Method::GET).then_some(Route::Feed { gun: Some(gun) });
    }
    let (gun, file) = path.rsplit_once(TUF)?;
    let gun = Gun::parse(gun).ok()?;
    match *method {
        Method::POST if file.is_empty() => Some(Route::Upload { gun }),
        Method::DELETE if file.is_empty() => Some(Route::Delete { gun }),
        Method::POST => Some(Route::NewKey { gun, role: key(file)? }),
        Method::GET => match key(file) {
            Some(role) => Some(Route::Key { gun, role }),
            None => read(gun, file.strip_suffix(".json")?),
        },
        _ => None,
    }
}

fn key(file: &str) -> Option<ServerRole> {
    match file {
        "snapshot.key" => Some(ServerRole::Snapshot),
        "timestamp.key" => Some(ServerRole::Timestamp),
        _ => None,
    }
}

fn read(gun: Gun, name: &str) -> Option<Route> {
    let is_hash = |text: &str| {
        matches!(text.len(), 64 | 96 | 128) && text.bytes().all(|b| b.is_ascii_hexdigit())
    };
    if let Some((role, hash)) = name.rsplit_once('.').filter(|(_, hash)| is_hash(hash)) {
        // The role is looked at as little as the real server does: the hash says it all.
        return is_role_like(role).then(|| Route::Hash { gun, digest: digest(hash) });
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if let Some((version, role)) = name.split_once('.').filter(|(number, _)| is_number(number)) {
        let (role, version) = (Role::parse(role).ok()?, version.parse().ok()?);
        return Some(Route::Version { gun, role, version });
    }
    Some(Route::Newest { gun, role: Role::parse(name).ok()? })
}

fn is_role_like(name: &str) -> bool {
    matches!(name, "root" | "targets" | "snapshot" | "timestamp") || name.starts_with("targets/")
}

/// Only lower-case digits are ever found.
fn digest(hash: &str) -> Option<[u8; SHA256_LEN]> {
    if hash.len() != SHA256_LEN * 2 || hash.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let mut digest = [0; SHA256_LEN];
    for (byte, pair) in digest.iter_mut().zip(hash.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gun(text: &str) -> Gun {
        Gun::parse(text).unwrap()
    }

    fn role(text: &str) -> Role {
        Role::parse(text).unwrap()
    }

    #[test]
    fn each_line_of_the_table() {
        let a = || gun("reg.example:5000/a/b");
        let get = |rest: &str| {
            Route::parse(&Method::GET, &format!("/v2/reg.example:5000/a/b/_trust/{rest}"))
        };
        let post = |rest: &str| {
            Route::parse(&Method::POST, &format!("/v2/reg.example:5000/a/b/_trust/{rest}"))
        };
        assert_eq!(Route::parse(&Method::GET, "/v2/"), Route::Ping);
        assert_eq!(Route::parse(&Method::GET, "/_notary_server/health"), Route::Health);
        assert_eq!(Route::parse(&Method::GET, "/metrics"), Route::Metrics);
        assert_eq!(get("tuf/root.json"), Route::Newest { gun: a(), role: Role::Root });
        assert_eq!(
            get("tuf/targets/nigel.json"),
            Route::Newest { gun: a(), role: role("targets/nigel") }
        );
        assert_eq!(
            get("tuf/07.targets/a/b.json"),
            Route::Version { gun: a(), role: role("targets/a/b"), version: 7 }
        );
        let hash = "0a".repeat(32);
        assert_eq!(
            get(&format!("tuf/snapshot.{hash}.json")),
            Route::Hash { gun: a(), digest: Some([10; 32]) }
        );
        for other in [hash.to_uppercase(), "0a".repeat(48), "0a".repeat(64)] {
            let route = get(&format!("tuf/targets/x.{other}.json"));
            assert_eq!(route, Route::Hash { gun: a(), digest: None });
        }
        assert_eq!(post("tuf/"), Route::Upload { gun: a() });
        assert_eq!(
            Route::parse(&Method::DELETE, "/v2/reg.example%3A5000/a/b/_trust/tuf/"),
            Route::Delete { gun: a() }
        );
        assert_eq!(get("tuf/timestamp.key"), Route::Key { gun: a(), role: ServerRole::Timestamp });
        assert_eq!(
            post("tuf/snapshot.key"),
            Route::NewKey { gun: a(), role: ServerRole::Snapshot }
        );
        assert_eq!(get("changefeed"), Route::Feed { gun: Some(a()) });
        assert_eq!(Route::parse(&Method::GET, "/v2/_trust/changefeed"), Route::Feed { gun: None });
    }

    #[test]
    fn everything_else_is_unknown() {
        for path in [
            "/",
            "/v2",
            "/v2//_trust/tuf/root.json",
            "/v2/a/_trust/tuf/",
            "/v2/a/_trust/tuf/root",
            "/v2/a/_trust/tuf/root.key",
            "/v2/a/_trust/tuf/targets.key",
            "/v2/a*/_trust/tuf/root.json",
            "/v2/a/_trust/tuf/targets/.json",
            "/v2/a/_trust/tuf/targets/a b.json",
            "/v2/a/_trust/tuf/99999999999999999999.root.json",
            "/v2/a/_trust/tuf/x.root.json",
            "/v2/a/../b/_trust/tuf/root.json",
            "/v2/a%00/_trust/tuf/root.json",
            "/v2/%ff",
        ] {
            assert_eq!(Route::parse(&Method::GET, path), Route::Unknown, "{path}");
        }
        let path = "/v2/a/_trust/tuf/root.json";
        for method in [Method::PUT, Method::HEAD, Method::POST, Method::DELETE] {
            assert_eq!(Route::parse(&method, path), Route::Unknown);
        }
        for method in [Method::PATCH, Method::OPTIONS] {
            assert_eq!(Route::parse(&method, path), Route::NotAllowed);
        }
    }

    #[test]
    fn what_each_route_asks_for() {
        let a = gun("a");
        let key = Route::Key { gun: a.clone(), role: ServerRole::Snapshot };
        assert_eq!(key.access(), Access::Repository(&a, &["push", "pull"]));
        assert_eq!(Route::Delete { gun: a.clone() }.access(), Access::Repository(&a, &["*"]));
        assert_eq!(Route::Ping.access(), Access::Catalog);
        assert_eq!(Route::Unknown.access(), Access::Catalog);
        assert_eq!(Route::Health.access(), Access::Nothing);
    }
}
