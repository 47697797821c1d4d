//! When a root is believed: the first one, and each that follows it.

use std::collections::BTreeMap;

use brig_pki::signing::{PublisherCertificate, certificate_chains_to};
use time::{Duration, OffsetDateTime};

use crate::TrustError;
use crate::key::{Key, KeyId};
use crate::metadata::{RoleKeys, Root};
use crate::name::{Gun, Role};
use crate::signed::Signed;

/// How far ahead of the clock a certificate may begin.
const CLOCK_SKEW: Duration = Duration::days(1);

const NO_LEAF: &str = "unable to retrieve valid leaf certificates";
const NO_TRUSTED_LEAF: &str = "could not retrieve trusted certs from previous root role data";
const NO_PIN_MATCHES: &str = "unable to match any certificates to trust_pinning config";
const BAD_INTEGRITY: &str = "failed to validate integrity of roots";
const BAD_ROTATION: &str = "failed to validate data with current trusted certificates";

/// What a root must match beside its own signatures. The first rule that names the repository
/// decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinning {
    /// Root certificates' key IDs; the repository's name, or its beginning and `*`.
    pub certificates: BTreeMap<String, Vec<KeyId>>,
    /// Root keys' IDs: their own, whatever certificate they are in, or their certificates'; names as
    /// above.
    pub keys: BTreeMap<String, Vec<KeyId>>,
    /// Authorities in PEM that root certificates must lead to, by the name's beginning.
    pub authorities: BTreeMap<String, Vec<u8>>,
    /// What happens to a repository that nothing above names.
    pub otherwise: FirstUse,
}

/// Whether a first root is believed because there is nothing to hold against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstUse {
    /// It is, as docker's CLI does; from then on only its successors are.
    #[default]
    Trust,
    /// It is not.
    Refuse,
}

/// What applies to one repository.
enum Pin<'a> {
    Certificates(&'a [KeyId]),
    Keys(&'a [KeyId]),
    Authority(&'a [u8]),
    None,
}

impl Pinning {
    fn of(&self, gun: &Gun, is_first: bool) -> Result<Pin<'_>, TrustError> {
        if let Some(ids) = named(&self.certificates, gun) {
            return Ok(Pin::Certificates(ids));
        }
        if let Some(ids) = named(&self.keys, gun) {
            return Ok(Pin::Keys(ids));
        }
        let authority = self
            .authorities
            .iter()
            .filter(|(prefix, _)| gun.as_str().starts_with(prefix.as_str()))
            .max_by_key(|(prefix, _)| prefix.len());
        if let Some((_, pem)) = authority {
            return Ok(Pin::Authority(pem));
        }
        if is_first && self.otherwise == FirstUse::Refuse {
            return Err(TrustError::NoPin);
        }
        Ok(Pin::None)
    }
}

impl Pin<'_> {
    fn accepts(&self, id: &KeyId, key: &Key, now: OffsetDateTime) -> bool {
        match self {
            Self::Certificates(ids) => ids.contains(id),
            // Of a key there are two IDs: that of the certificate around it, which `trust inspect`
            // shows, and its own, under which its private half is filed.
            Self::Keys(ids) => {
                ids.contains(id) || key.canonical_id().is_ok_and(|id| ids.contains(&id))
            }
            Self::Authority(pem) => certificate_chains_to(key.public(), pem, now).unwrap_or(false),
            Self::None => true,
        }
    }
}

/// The exact name's entry, else that of the longest beginning with `*`.
fn named<'a, T>(map: &'a BTreeMap<String, Vec<T>>, gun: &Gun) -> Option<&'a [T]> {
    if let Some(exact) = map.get(gun.as_str()) {
        return Some(exact);
    }
    map.iter()
        .filter_map(|(name, value)| Some((name.strip_suffix('*')?, value)))
        .filter(|(prefix, _)| gun.as_str().starts_with(prefix))
        .max_by_key(|(prefix, _)| prefix.len())
        .map(|(_, value)| value.as_slice())
}

/// Believes a root, or does not: its certificates are for this repository, the root before it has
/// signed it, the pins match, and it has signed itself.
///
/// Versions are the caller's: a client takes none that is lower, a server the next one only.
///
/// # Errors
/// [`TrustError::RootInvalid`], [`TrustError::RootRotation`], [`TrustError::NoPin`].
pub fn accept_root(
    root: &Signed<Root>,
    previous: Option<&Root>,
    gun: &Gun,
    pinning: &Pinning,
    now: OffsetDateTime,
) -> Result<(), TrustError> {
    let leaves = leaf_keys(&root.document, gun, Some(now));
    if leaves.is_empty() {
        return Err(TrustError::RootInvalid(NO_LEAF));
    }
    if let Some(previous) = previous {
        let trusted = leaf_keys(previous, gun, None);
        if trusted.is_empty() {
            return Err(TrustError::RootInvalid(NO_TRUSTED_LEAF));
        }
        let keys = with_threshold(previous, trusted);
        root.verify(&keys).map_err(|_| TrustError::RootRotation(BAD_ROTATION))?;
    }
    let pin = pinning.of(gun, previous.is_none())?;
    let pinned: Vec<_> = leaves.into_iter().filter(|(id, key)| pin.accepts(id, key, now)).collect();
    if pinned.is_empty() {
        return Err(TrustError::RootInvalid(NO_PIN_MATCHES));
    }
    let keys = with_threshold(&root.document, pinned);
    root.verify(&keys).map_err(|_| TrustError::RootInvalid(BAD_INTEGRITY))
}

/// Checks a root that was believed before: nobody has changed it since. Its time may be over.
///
/// # Errors
/// [`TrustError::RootInvalid`].
pub fn check_remembered(root: &Signed<Root>, gun: &Gun) -> Result<(), TrustError> {
    let leaves = leaf_keys(&root.document, gun, None);
    if leaves.is_empty() {
        return Err(TrustError::RootInvalid(NO_LEAF));
    }
    let keys = with_threshold(&root.document, leaves);
    root.verify(&keys).map_err(|_| TrustError::RootInvalid(BAD_INTEGRITY))
}

/// Checks a root that was believed before against pins that may be newer than it: what a policy
/// asks for before it uses what is remembered.
///
/// # Errors
/// [`TrustError::RootInvalid`], [`TrustError::NoPin`] where nothing names the repository.
pub fn check_pinned(
    root: &Signed<Root>,
    gun: &Gun,
    pinning: &Pinning,
    now: OffsetDateTime,
) -> Result<(), TrustError> {
    let pin = pinning.of(gun, true)?;
    let leaves = leaf_keys(&root.document, gun, None);
    if leaves.into_iter().any(|(id, key)| pin.accepts(id, key, now)) {
        Ok(())
    } else {
        Err(TrustError::RootInvalid(NO_PIN_MATCHES))
    }
}

fn with_threshold<'a>(root: &Root, keys: Vec<(&'a KeyId, &'a Key)>) -> RoleKeys<'a> {
    // A root without its own role is not read; nothing meets this threshold.
    let threshold = root.roles.get(&Role::Root).map_or(usize::MAX, |role| role.threshold);
    RoleKeys { role: Role::Root, keys, threshold }
}

/// The root role's keys whose certificates are for this repository, and valid where that counts.
fn leaf_keys<'a>(
    root: &'a Root,
    gun: &Gun,
    valid_at: Option<OffsetDateTime>,
) -> Vec<(&'a KeyId, &'a Key)> {
    let Some(keys) = root.role_keys(&Role::Root) else {
        return Vec::new();
    };
    let usable = |(_, key): &(&KeyId, &Key)| {
        key.certificate().is_ok_and(|certificate| {
            names(&certificate.common_name, gun) && is_sound(&certificate, valid_at)
        })
    };
    keys.keys.into_iter().filter(usable).collect()
}

fn names(common_name: &str, gun: &Gun) -> bool {
    common_name == gun.as_str()
        || common_name.strip_suffix('*').is_some_and(|prefix| gun.as_str().starts_with(prefix))
}

fn is_sound(certificate: &PublisherCertificate, valid_at: Option<OffsetDateTime>) -> bool {
    let in_time = valid_at.is_none_or(|now| {
        now.saturating_add(CLOCK_SKEW) >= certificate.not_before && now < certificate.not_after
    });
    in_time && !certificate.weak_signature
}

#[cfg(test)]
mod tests {
    use brig_pki::signing::{Curve, SigningKey};

    use super::*;
    use crate::metadata::Expires;

    struct Publisher {
        key: SigningKey,
        wrapped: Key,
    }

    fn publisher(name: &str, at: OffsetDateTime) -> Publisher {
        let key = SigningKey::generate(Curve::P256).unwrap();
        let pem = PublisherCertificate::issue(name, &key, at).unwrap();
        Publisher { wrapped: Key::from_certificate(pem.as_bytes()).unwrap(), key }
    }

    fn other_key() -> Key {
        Key::of(&SigningKey::generate(Curve::P256).unwrap()).unwrap()
    }

    fn unsigned(publisher: &Publisher, now: OffsetDateTime) -> Root {
        let expires = Expires::in_days(now, Root::DAYS);
        Root::new(expires, publisher.wrapped.clone(), other_key(), other_key(), other_key())
    }

    fn sign(root: Root, by: &[&Publisher]) -> Signed<Root> {
        let ids: Vec<KeyId> = by.iter().map(|p| p.wrapped.id()).collect();
        let keys: Vec<_> = ids.iter().zip(by).map(|(id, p)| (id, &p.key)).collect();
        let signed = Signed::sign(root, &Role::Root, &keys).unwrap();
        let read = Signed::<Root>::parse(signed.raw(), &Role::Root).unwrap();
        assert_eq!(read.document, signed.document);
        assert_eq!(read.signatures, signed.signatures);
        read
    }

    fn text(result: Result<(), TrustError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn first_roots_and_their_successors() {
        let now = OffsetDateTime::now_utc();
        let gun = Gun::parse("reg:5000/team/app").unwrap();
        let trusting = Pinning::default();
        let (old, new) = (publisher(gun.as_str(), now), publisher(gun.as_str(), now));
        let stranger = publisher(gun.as_str(), now);
        let first = sign(unsigned(&old, now), &[&old]);
        let accept =
            |root: &Signed<Root>, previous| accept_root(root, previous, &gun, &trusting, now);
        accept(&first, None).unwrap();
        accept(&first, Some(&first.document)).unwrap();

        let mut second = first.document.clone();
        second.version = 2;
        second.set_key(Role::Root, new.wrapped.clone());
        let rotated = sign(second.clone(), &[&old, &new]);
        accept(&rotated, Some(&first.document)).unwrap();
        accept(&rotated, None).unwrap();

        let rotation = "could not rotate trust to a new trusted root: failed to validate data with current trusted certificates";
        let integrity =
            "could not validate the path to a trusted root: failed to validate integrity of roots";
        assert_eq!(text(accept(&sign(second.clone(), &[&new]), Some(&first.document))), rotation);
        assert_eq!(text(accept(&sign(second.clone(), &[&old]), Some(&first.document))), integrity);
        assert_eq!(
            text(accept(&sign(unsigned(&stranger, now), &[&stranger]), Some(&first.document))),
            rotation
        );
        assert_eq!(text(accept(&sign(second, &[]), None)), integrity);
        assert_eq!(text(accept(&sign(first.document.clone(), &[&stranger]), None)), integrity);
    }

    #[test]
    fn thresholds_are_met_by_distinct_keys() {
        let now = OffsetDateTime::now_utc();
        let gun = Gun::parse("a/b").unwrap();
        let (one, two) = (publisher("a/*", now), publisher("a/b", now));
        let mut root = unsigned(&one, now);
        let id = two.wrapped.id();
        root.keys.insert(id.clone(), two.wrapped.clone());
        let spec = root.roles.get_mut(&Role::Root).unwrap();
        spec.key_ids.push(id);
        spec.threshold = 2;
        let accept = |root: &Signed<Root>| accept_root(root, None, &gun, &Pinning::default(), now);
        assert!(accept(&sign(root.clone(), &[&one])).is_err());
        assert!(accept(&sign(root.clone(), &[&one, &one])).is_err());
        accept(&sign(root, &[&one, &two])).unwrap();
    }

    #[test]
    fn certificates_are_for_the_repository_and_in_time() {
        let now = OffsetDateTime::now_utc();
        let gun = Gun::parse("reg/team/app").unwrap();
        let leaf = "could not validate the path to a trusted root: unable to retrieve valid leaf certificates";
        let day = Duration::days(1);
        for (name, made, good) in [
            ("reg/team/app", now, true),
            ("reg/team/*", now, true),
            ("*", now, true),
            ("reg/team", now, false),
            ("reg/other/*", now, false),
            ("", now, false),
            ("reg/team/app", now + day / 2, true),
            ("reg/team/app", now + day * 2, false),
            ("reg/team/app", now - day * 3649, true),
            ("reg/team/app", now - day * 3651, false),
        ] {
            let owner = publisher(name, made);
            let root = sign(unsigned(&owner, now), &[&owner]);
            let found = accept_root(&root, None, &gun, &Pinning::default(), now);
            assert_eq!(found.is_ok(), good, "{name} {made}");
            if !good {
                assert_eq!(text(found), leaf);
            }
        }
        // A plain key is no root key.
        let owner = publisher(gun.as_str(), now);
        let mut root = unsigned(&owner, now);
        root.set_key(Role::Root, Key::of(&owner.key).unwrap());
        let id = Key::of(&owner.key).unwrap().id();
        let root = Signed::sign(root, &Role::Root, &[(&id, &owner.key)]).unwrap();
        assert_eq!(text(accept_root(&root, None, &gun, &Pinning::default(), now)), leaf);
        // A remembered root's certificate may have run out; what follows it is judged.
        let expired = publisher(gun.as_str(), now - day * 3651);
        let next = publisher(gun.as_str(), now);
        let before = unsigned(&expired, now);
        let mut after = before.clone();
        after.set_key(Role::Root, next.wrapped.clone());
        let after = sign(after, &[&expired, &next]);
        accept_root(&after, Some(&before), &gun, &Pinning::default(), now).unwrap();
    }

    #[test]
    fn pins() {
        let now = OffsetDateTime::now_utc();
        let gun = Gun::parse("reg/team/app").unwrap();
        let owner = publisher(gun.as_str(), now);
        let root = sign(unsigned(&owner, now), &[&owner]);
        let certificate = owner.wrapped.id();
        let key = owner.wrapped.canonical_id().unwrap();
        let pin = |name: &str, id: &KeyId| BTreeMap::from([(name.to_owned(), vec![id.clone()])]);
        let no = KeyId::parse(&"0".repeat(64)).unwrap();
        let refuse = || Pinning { otherwise: FirstUse::Refuse, ..Pinning::default() };
        let ca = brig_pki::ca::RootCa::generate().unwrap();
        let mismatch = Some(
            "could not validate the path to a trusted root: unable to match any certificates to trust_pinning config",
        );
        let none = Some("invalid trust pinning specified");
        for (pinning, refusal) in [
            (Pinning { certificates: pin("reg/team/app", &certificate), ..refuse() }, None),
            (Pinning { certificates: pin("reg/*", &certificate), ..refuse() }, None),
            (Pinning { certificates: pin("reg/team/app", &no), ..Pinning::default() }, mismatch),
            (Pinning { keys: pin("*", &key), ..refuse() }, None),
            // Pinned as `trust inspect` shows it.
            (Pinning { keys: pin("*", &certificate), ..refuse() }, None),
            (Pinning { keys: pin("*", &no), ..refuse() }, mismatch),
            (Pinning { keys: pin("reg/oth*", &key), ..refuse() }, none),
            (
                Pinning {
                    authorities: BTreeMap::from([("reg".into(), ca.cert_pem().to_vec())]),
                    ..Pinning::default()
                },
                mismatch,
            ),
            (refuse(), none),
        ] {
            let found = accept_root(&root, None, &gun, &pinning, now);
            assert_eq!(found.err().map(|e| e.to_string()).as_deref(), refusal, "{pinning:?}");
            let later = check_pinned(&root, &gun, &pinning, now);
            assert_eq!(later.err().map(|e| e.to_string()).as_deref(), refusal, "{pinning:?}");
        }
        // The exact name outranks the beginning, the longer beginning the shorter.
        let mut certificates = pin("reg/*", &no);
        certificates.extend(pin("reg/team/*", &certificate));
        let pinning = Pinning { certificates, ..refuse() };
        accept_root(&root, None, &gun, &pinning, now).unwrap();
        // With a remembered root nothing else is needed.
        accept_root(&root, Some(&root.document), &gun, &refuse(), now).unwrap();
    }
}
