//! The register: which identities there are, and which of their certificates count. No I/O, no
//! clock of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use brig_access::{Grant, Scope};
use brig_pki::access_ca::Issued;
use brig_proto::brig::{Access, AccessCertificate, AccessIdentity, AccessScope};
use time::OffsetDateTime;

use super::EnrolError;

/// Most identities, those that count no more included.
pub const MAX_IDENTITIES: usize = 2000;
/// Most certificates of one identity that count at the same time.
const MAX_CERTIFICATES: usize = 8;
/// Longest name of an identity.
const MAX_NAME: usize = 63;
/// Longest name of a role, and of what a role is bound to.
const MAX_WORD: usize = 128;
/// Most names that a role is bound to, of one kind.
const MAX_NAMES: usize = 64;
/// Shortest and longest lifetime of a certificate.
const LIFETIME: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(366 * 24 * 3600));
/// How long an identity is remembered after its end.
const REMEMBERED: i64 = 30 * 24 * 3600;

/// How an identity stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is let in.
    Active,
    /// Its last certificate has ended.
    Expired,
    /// Somebody took it away.
    Revoked,
}

impl Standing {
    /// Its name, for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// What somebody is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The name.
    pub name: String,
    /// What it may do.
    pub grant: Grant,
    /// For how long.
    pub lifetime: Duration,
    /// Whether its holder may have it renewed.
    pub renews: bool,
    /// Who says so.
    pub issued_by: String,
}

impl Wanted {
    /// Checks what came from outside.
    ///
    /// # Errors
    /// [`EnrolError::Invalid`].
    pub fn check(&self) -> Result<(), EnrolError> {
        let invalid = |text: String| Err(EnrolError::Invalid(text));
        if !is_name(&self.name) {
            return invalid(format!(
                "invalid name {:?}: letters, digits, '.', '_' and '-', at most {MAX_NAME}, the first a letter or digit",
                self.name
            ));
        }
        let (least, most) = LIFETIME;
        if self.lifetime < least || self.lifetime > most {
            return invalid(
                "the lifetime must be between a second and a year: --ttl 24h".to_owned(),
            );
        }
        let scope = &self.grant.scope;
        let sets = [
            &scope.services,
            &scope.stacks,
            &scope.secrets,
            &scope.configs,
            &scope.networks,
            &scope.volumes,
        ];
        let fits = |word: &str| {
            !word.is_empty() && word.len() <= MAX_WORD && !word.contains(char::is_control)
        };
        if !fits(&self.grant.role) {
            return invalid("a role is needed: --role viewer".to_owned());
        }
        if sets.iter().any(|set| set.len() > MAX_NAMES || !set.iter().all(|name| fits(name))) {
            return invalid(format!("at most {MAX_NAMES} names of each kind, none empty"));
        }
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    name.len() <= MAX_NAME
        && name.bytes().all(fits)
        && name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
}

/// How an identity stands.
#[must_use]
pub fn standing(identity: &AccessIdentity, now: OffsetDateTime) -> Standing {
    if identity.revoked != 0 {
        Standing::Revoked
    } else if ends(identity) < now.unix_timestamp() {
        Standing::Expired
    } else {
        Standing::Active
    }
}

/// When the last certificate of an identity ends.
#[must_use]
pub fn ends(identity: &AccessIdentity) -> i64 {
    identity.certificates.iter().map(|certificate| certificate.ends).max().unwrap_or_default()
}

/// What an identity may do.
#[must_use]
pub fn grant(identity: &AccessIdentity) -> Grant {
    let set = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
    let scope = identity.scope.clone().unwrap_or_default();
    Grant {
        role: identity.role.clone(),
        scope: Scope {
            services: set(&scope.services),
            stacks: set(&scope.stacks),
            secrets: set(&scope.secrets),
            configs: set(&scope.configs),
            networks: set(&scope.networks),
            volumes: set(&scope.volumes),
        },
    }
}

fn kept(scope: &Scope) -> AccessScope {
    let list = |set: &BTreeSet<String>| set.iter().cloned().collect();
    AccessScope {
        services: list(&scope.services),
        stacks: list(&scope.stacks),
        secrets: list(&scope.secrets),
        configs: list(&scope.configs),
        networks: list(&scope.networks),
        volumes: list(&scope.volumes),
    }
}

/// The certificates that count.
#[must_use]
pub fn known(access: &Access) -> BTreeSet<[u8; 32]> {
    access
        .identities
        .iter()
        .filter(|identity| identity.revoked == 0)
        .flat_map(|identity| &identity.certificates)
        .filter_map(|certificate| certificate.fingerprint.as_slice().try_into().ok())
        .collect()
}

/// Whose certificate this is, if it counts.
#[must_use]
pub fn holder<'a>(access: &'a Access, fingerprint: &[u8]) -> Option<&'a AccessIdentity> {
    access.identities.iter().find(|identity| {
        identity.revoked == 0
            && identity.certificates.iter().any(|one| one.fingerprint == fingerprint)
    })
}

/// The identity of this name that counts, or else the last one.
#[must_use]
pub fn named<'a>(
    access: &'a Access,
    name: &str,
    now: OffsetDateTime,
) -> Option<&'a AccessIdentity> {
    let mut of_name = access.identities.iter().filter(|identity| identity.name == name).rev();
    let last = of_name.clone().next();
    of_name.find(|identity| standing(identity, now) == Standing::Active).or(last)
}

/// Whether there is room for somebody of this name.
///
/// # Errors
/// [`EnrolError::Conflict`].
pub fn check_free(access: &Access, name: &str, now: OffsetDateTime) -> Result<(), EnrolError> {
    if named(access, name, now).is_some_and(|one| standing(one, now) == Standing::Active) {
        return Err(EnrolError::Conflict(format!(
            "there is an identity {name:?} already: choose another name, or take it away first: brig access revoke {name}"
        )));
    }
    if access.identities.len() >= MAX_IDENTITIES {
        return Err(EnrolError::Conflict(format!(
            "there are {MAX_IDENTITIES} identities already; those that have ended are forgotten after 30 days"
        )));
    }
    Ok(())
}

fn certificate(issued: &Issued) -> AccessCertificate {
    AccessCertificate {
        fingerprint: issued.fingerprint.to_vec(),
        issued: OffsetDateTime::now_utc().unix_timestamp(),
        ends: issued.not_after.unix_timestamp(),
    }
}

/// Adds an identity with its first certificate. One of the same name that counts no more goes.
pub fn add(access: &mut Access, wanted: &Wanted, issued: &Issued, now: OffsetDateTime) {
    access.identities.retain(|identity| identity.name != wanted.name);
    access.identities.push(AccessIdentity {
        id: brig_types::id::random_hex().chars().take(16).collect(),
        name: wanted.name.clone(),
        role: wanted.grant.role.clone(),
        scope: Some(kept(&wanted.grant.scope)),
        issued_by: wanted.issued_by.clone(),
        created: now.unix_timestamp(),
        lifetime: i64::try_from(wanted.lifetime.as_secs()).unwrap_or(i64::MAX),
        renews: wanted.renews,
        revoked: 0,
        certificates: vec![certificate(issued)],
    });
}

/// What the holder of a certificate gets when it is renewed.
///
/// # Errors
/// [`EnrolError::Conflict`] when that is not how it was issued.
pub fn renewal(
    access: &Access,
    fingerprint: &[u8],
    now: OffsetDateTime,
) -> Result<Wanted, EnrolError> {
    let identity = holder(access, fingerprint).ok_or_else(|| {
        EnrolError::NotFound("only certificates of the access authority are renewed".to_owned())
    })?;
    if !identity.renews {
        return Err(EnrolError::Conflict(format!(
            "the certificate of {:?} was issued for once: ask for another one (brig access issue)",
            identity.name
        )));
    }
    let in_time = |one: &&AccessCertificate| one.ends >= now.unix_timestamp();
    if identity.certificates.iter().filter(in_time).count() >= MAX_CERTIFICATES {
        return Err(EnrolError::Conflict(format!(
            "{:?} has {MAX_CERTIFICATES} certificates that count; wait for the end of one",
            identity.name
        )));
    }
    Ok(Wanted {
        name: identity.name.clone(),
        grant: grant(identity),
        lifetime: Duration::from_secs(u64::try_from(identity.lifetime).unwrap_or_default()),
        renews: true,
        issued_by: identity.issued_by.clone(),
    })
}

/// Adds a certificate to the holder of another one.
pub fn renewed(access: &mut Access, fingerprint: &[u8], issued: &Issued) {
    let holder = access
        .identities
        .iter_mut()
        .find(|identity| identity.certificates.iter().any(|one| one.fingerprint == fingerprint));
    if let Some(identity) = holder {
        identity.certificates.push(certificate(issued));
    }
}

/// Takes an identity away; its name.
///
/// # Errors
/// [`EnrolError::NotFound`].
pub fn revoke(access: &mut Access, key: &str, now: OffsetDateTime) -> Result<String, EnrolError> {
    let found = access
        .identities
        .iter_mut()
        .rev()
        .find(|identity| identity.revoked == 0 && (identity.name == key || identity.id == key));
    let Some(identity) = found else {
        return Err(EnrolError::NotFound(format!(
            "no identity {key:?} counts: see brig access identities"
        )));
    };
    identity.revoked = now.unix_timestamp().max(1);
    Ok(identity.name.clone())
}

/// Forgets what ended long ago, and certificates that have ended beside a newer one.
pub fn forget(access: &mut Access, now: OffsetDateTime) {
    let now = now.unix_timestamp();
    access.identities.retain(|identity| {
        let end = if identity.revoked != 0 { identity.revoked } else { ends(identity) };
        end.saturating_add(REMEMBERED) > now
    });
    for identity in &mut access.identities {
        let last = ends(identity);
        identity.certificates.retain(|one| one.ends >= now || one.ends == last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    fn issued(number: u8, ends: i64) -> Issued {
        Issued {
            chain_pem: Vec::new(),
            fingerprint: [number; 32],
            not_before: at(0),
            not_after: at(ends),
        }
    }

    fn wanted(name: &str) -> Wanted {
        Wanted {
            name: name.to_owned(),
            grant: Grant {
                role: "deployer".to_owned(),
                scope: Scope { services: ["web".to_owned()].into(), ..Scope::default() },
            },
            lifetime: Duration::from_secs(100),
            renews: true,
            issued_by: "uid:0".to_owned(),
        }
    }

    #[test]
    fn an_identity_counts_until_its_end_or_until_it_is_taken_away() {
        let mut access = Access::default();
        add(&mut access, &wanted("ci"), &issued(1, 100), at(0));
        assert_eq!(known(&access), [[1; 32]].into());
        assert_eq!(grant(holder(&access, &[1; 32]).unwrap()), wanted("ci").grant);
        assert!(check_free(&access, "ci", at(100)).is_err());
        assert!(check_free(&access, "ci", at(101)).is_ok(), "its time is over");
        assert!(check_free(&access, "other", at(0)).is_ok());
        assert_eq!(renewal(&access, &[1; 32], at(50)).unwrap(), wanted("ci"));
        renewed(&mut access, &[1; 32], &issued(2, 150));
        assert_eq!(known(&access).len(), 2, "the old one is in use until its end");
        assert_eq!(standing(named(&access, "ci", at(140)).unwrap(), at(140)), Standing::Active);
        forget(&mut access, at(140));
        assert_eq!(known(&access), [[2; 32]].into());
        assert_eq!(revoke(&mut access, "ci", at(140)).unwrap(), "ci");
        assert!(known(&access).is_empty() && holder(&access, &[2; 32]).is_none());
        assert!(renewal(&access, &[2; 32], at(140)).is_err());
        assert!(revoke(&mut access, "ci", at(141)).is_err());
        forget(&mut access, at(141));
        assert_eq!(access.identities.len(), 1, "it is still shown");
        add(&mut access, &wanted("ci"), &issued(3, 300), at(200));
        assert_eq!((access.identities.len(), known(&access)), (1, [[3; 32]].into()));
        forget(&mut access, at(301 + REMEMBERED));
        assert!(access.identities.is_empty());
    }

    #[test]
    fn what_is_issued_for_once_is_not_renewed() {
        let mut access = Access::default();
        let once = Wanted { renews: false, ..wanted("job") };
        add(&mut access, &once, &issued(1, 100), at(0));
        assert!(renewal(&access, &[1; 32], at(1)).is_err());
        assert!(renewal(&access, &[9; 32], at(1)).is_err());
    }

    #[test]
    fn nobody_collects_certificates() {
        let mut access = Access::default();
        add(&mut access, &wanted("ci"), &issued(0, 100), at(0));
        let count = u8::try_from(MAX_CERTIFICATES).unwrap();
        for number in 1..count {
            renewal(&access, &[0; 32], at(1)).unwrap();
            renewed(&mut access, &[0; 32], &issued(number, 100));
        }
        assert!(renewal(&access, &[0; 32], at(1)).is_err());
    }

    #[test]
    fn odd_wishes_are_refused() {
        wanted("ci-1.a_b").check().unwrap();
        for name in ["", "-a", "a b", "a/b", "a\n", "\u{e4}", &"a".repeat(64)] {
            assert!(wanted(name).check().is_err(), "{name:?}");
        }
        let short = Wanted { lifetime: Duration::ZERO, ..wanted("a") };
        let long = Wanted { lifetime: Duration::from_secs(367 * 86_400), ..wanted("a") };
        let nothing = Wanted { grant: Grant::of(""), ..wanted("a") };
        for wrong in [short, long, nothing] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }

    proptest::proptest! {
        /// Whatever is done, a certificate that was taken away never counts again.
        #[test]
        fn taken_away_is_taken_away(steps in proptest::collection::vec((0u8..4, 0u8..3, 1i64..200), 0..40)) {
            let mut access = Access::default();
            let (mut gone, mut number) = (BTreeSet::new(), 0u8);
            for (step, who, time) in steps {
                let name = format!("n{who}");
                number += 1;
                match step {
                    0 if check_free(&access, &name, at(time)).is_ok() => {
                        add(&mut access, &wanted(&name), &issued(number, time + 50), at(time));
                    }
                    1 => {
                        let before = known(&access);
                        if revoke(&mut access, &name, at(time)).is_ok() {
                            gone.extend(before.difference(&known(&access)).copied());
                        }
                    }
                    2 => forget(&mut access, at(time)),
                    _ => {
                        let first = known(&access).first().copied().unwrap_or_default();
                        if renewal(&access, &first, at(time)).is_ok() {
                            renewed(&mut access, &first, &issued(number, time + 50));
                        }
                    }
                }
                proptest::prop_assert!(gone.is_disjoint(&known(&access)));
            }
        }
    }
}
