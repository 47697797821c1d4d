//! A document with its signatures: reading it, checking it, making it.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use brig_pki::signing::SigningKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use crate::key::{self, KeyId};
use crate::metadata::{Document, FileMeta, RoleKeys};
use crate::name::Role;
use crate::{TrustError, canonical};

/// More signatures are not looked at: each costs a verification.
const MAX_SIGNATURES: usize = 256;

/// A signature of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Whose.
    #[serde(rename = "keyid")]
    pub key_id: String,
    /// How it was made.
    pub method: String,
    /// Its bytes.
    #[serde(rename = "sig", with = "crate::metadata::base64_bytes")]
    pub bytes: Vec<u8>,
}

/// A document that was read, and the bytes it was read from. Reading believes nothing yet.
#[derive(Clone, Debug)]
pub struct Signed<T> {
    /// The document.
    pub document: T,
    /// The signatures as they came.
    pub signatures: Vec<Signature>,
    message: Vec<u8>,
    raw: Vec<u8>,
}

/// What must hold beside the signatures.
#[derive(Clone, Copy, Debug)]
pub struct Demands {
    /// The lowest version that is not a step back.
    pub at_least: u64,
    /// The time by which it must not have run out; `None` where that does not matter.
    pub unexpired_at: Option<OffsetDateTime>,
}

impl<T: Document> Signed<T> {
    /// Reads a file of a role.
    ///
    /// # Errors
    /// [`TrustError::TooLarge`], [`TrustError::Json`], [`TrustError::Structure`].
    pub fn parse(raw: &[u8], role: &Role) -> Result<Self, TrustError> {
        let broken = |reason: String| TrustError::Structure { role: role.clone(), reason };
        if raw.len() > T::MAX_SIZE {
            return Err(TrustError::TooLarge { limit: T::MAX_SIZE });
        }
        let Value::Object(mut fields) = canonical::parse(raw)? else {
            return Err(broken("not an object".to_owned()));
        };
        let signed =
            fields.remove("signed").ok_or_else(|| broken("nothing is signed".to_owned()))?;
        let signatures: Option<Vec<Signature>> = match fields.remove("signatures") {
            Some(list) => serde_json::from_value(list).map_err(|e| broken(e.to_string()))?,
            None => None,
        };
        let signatures = signatures.unwrap_or_default();
        if signatures.len() > MAX_SIGNATURES {
            return Err(broken(format!("more than {MAX_SIGNATURES} signatures")));
        }
        let message = canonical::encode(&signed);
        let document: T = serde_json::from_value(signed).map_err(|e| broken(e.to_string()))?;
        if document.version() == 0 {
            return Err(broken("version cannot be less than 1".to_owned()));
        }
        document.check(role).map_err(broken)?;
        Ok(Self { document, signatures, message, raw: raw.to_vec() })
    }

    /// Checks that enough of the role's keys have signed.
    ///
    /// A signature counts when its key is one of the role's and really has that ID; a key counts
    /// once however often it has signed.
    ///
    /// # Errors
    /// [`TrustError::Threshold`].
    pub fn verify(&self, keys: &RoleKeys<'_>) -> Result<(), TrustError> {
        let mut good: BTreeSet<&KeyId> = BTreeSet::new();
        for signature in &self.signatures {
            let Some((id, key)) = keys.keys.iter().find(|(id, _)| id.as_str() == signature.key_id)
            else {
                continue;
            };
            if good.contains(id) || key.id() != **id {
                continue;
            }
            let Some(scheme) = key::scheme(&signature.method) else {
                continue;
            };
            let verifies = key
                .verifier()
                .is_ok_and(|key| key.verifies(scheme, &self.message, &signature.bytes));
            if verifies {
                good.insert(id);
            }
        }
        if keys.threshold >= 1 && good.len() >= keys.threshold {
            Ok(())
        } else {
            Err(TrustError::Threshold(keys.role.clone()))
        }
    }

    /// Checks version and time.
    ///
    /// # Errors
    /// [`TrustError::Rollback`], [`TrustError::Expired`].
    pub fn meets(&self, role: &Role, demands: Demands) -> Result<(), TrustError> {
        let found = self.document.version();
        if found < demands.at_least {
            return Err(TrustError::Rollback {
                role: role.clone(),
                found,
                known: demands.at_least,
            });
        }
        let expires = self.document.expires();
        if demands.unexpired_at.is_some_and(|now| now >= expires) {
            return Err(TrustError::Expired { role: role.clone(), at: expires });
        }
        Ok(())
    }

    /// The bytes it was read from.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// What other files say about this one.
    #[must_use]
    pub fn meta(&self) -> FileMeta {
        FileMeta::of(&self.raw)
    }

    /// Signs a document with the keys, each under the ID that its role knows it by.
    ///
    /// The bytes are exactly those that Go's clients would write: a real trust server hashes what
    /// it encodes anew instead of what it was sent.
    ///
    /// # Errors
    /// [`TrustError::Unwritable`], [`TrustError::Sign`].
    pub fn sign(
        document: T,
        role: &Role,
        keys: &[(&KeyId, &SigningKey)],
    ) -> Result<Self, TrustError> {
        let value = serde_json::to_value(&document)
            .map_err(|e| TrustError::Json { reason: e.to_string() })?;
        canonical::check_writable(&value)?;
        let message = canonical::encode(&value);
        let mut signatures = Vec::with_capacity(keys.len());
        for (id, key) in keys {
            let bytes = key
                .sign(&message)
                .map_err(|source| TrustError::Sign { role: role.clone(), source })?;
            signatures.push(Signature {
                key_id: id.as_str().to_owned(),
                method: key::method(key.scheme()).to_owned(),
                bytes,
            });
        }
        let mut raw = Vec::with_capacity(message.len() + 256 * (signatures.len() + 1));
        raw.extend_from_slice(b"{\"signed\":");
        raw.extend_from_slice(&message);
        raw.extend_from_slice(b",\"signatures\":[");
        for (at, signature) in signatures.iter().enumerate() {
            if at > 0 {
                raw.push(b',');
            }
            // Made here, of digits, names and base64: there is nothing to escape.
            raw.extend_from_slice(
                format!(
                    "{{\"keyid\":\"{}\",\"method\":\"{}\",\"sig\":\"{}\"}}",
                    signature.key_id,
                    signature.method,
                    STANDARD.encode(&signature.bytes)
                )
                .as_bytes(),
            );
        }
        raw.extend_from_slice(b"]}");
        Ok(Self { document, signatures, message, raw })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use brig_pki::signing::Curve;
    use proptest::prelude::*;

    use super::*;
    use crate::key::Key;
    use crate::metadata::{Expires, Hash, Snapshot, Targets, Timestamp};

    fn targets(tags: usize) -> Targets {
        let now = OffsetDateTime::now_utc();
        let mut targets = Targets::new(Expires::in_days(now, Targets::DAYS), 7);
        for tag in 0..tags {
            targets.targets.insert(format!("v{tag}"), FileMeta::of_image([7; 32], 528));
        }
        targets
    }

    fn key() -> (SigningKey, Key) {
        let key = SigningKey::generate(Curve::P256).unwrap();
        let public = Key::of(&key).unwrap();
        (key, public)
    }

    #[test]
    fn the_bytes_are_gos() {
        let (private, public) = key();
        let id = public.id();
        let signed = Signed::sign(targets(1), &Role::Targets, &[(&id, &private)]).unwrap();
        let text = String::from_utf8(signed.raw().to_vec()).unwrap();
        let expires = serde_json::to_string(&signed.document.expires).unwrap();
        assert!(expires.ends_with("Z\""), "{expires}");
        let begin = format!(
            "{{\"signed\":{{\"_type\":\"Targets\",\"delegations\":{{\"keys\":{{}},\"roles\":[]}},\"expires\":{expires},\"targets\":{{\"v0\":{{\"hashes\":{{\"sha256\":\"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\"}},\"length\":528}}}},\"version\":7}},\"signatures\":[{{\"keyid\":\"{id}\",\"method\":\"ecdsa\",\"sig\":\""
        );
        assert!(text.starts_with(&begin), "{text}");
        assert!(text.ends_with("\"}]}"));
    }

    #[test]
    fn fields_that_are_not_known_are_covered_by_the_signature() {
        let (private, public) = key();
        let id = public.id();
        let mut value = serde_json::to_value(targets(1)).unwrap();
        value["later"] = serde_json::json!({"b": 1, "a": ["é\n"]});
        let sig = private.sign(&canonical::encode(&value)).unwrap();
        let file = |value: &Value| {
            let file = serde_json::json!({
                "signatures": [{"sig": STANDARD.encode(&sig), "keyid": id, "method": "ECDSA", "x": 1}],
                "signed": value,
            });
            Signed::<Targets>::parse(&serde_json::to_vec_pretty(&file).unwrap(), &Role::Targets)
        };
        let keys = RoleKeys { role: Role::Targets, keys: vec![(&id, &public)], threshold: 1 };
        file(&value).unwrap().verify(&keys).unwrap();
        value["later"]["b"] = 2.into();
        assert!(file(&value).unwrap().verify(&keys).is_err());
    }

    #[test]
    fn signatures_that_do_not_count() {
        let ((private, public), (other, other_public)) = (key(), key());
        let (id, other_id) = (public.id(), other_public.id());
        let signed = |keys: &[(&KeyId, &SigningKey)]| {
            Signed::sign(targets(2), &Role::Targets, keys).unwrap()
        };
        let keys = |keys: Vec<(_, _)>, threshold| RoleKeys { role: Role::Targets, keys, threshold };
        let both = || vec![(&id, &public), (&other_id, &other_public)];
        let good = signed(&[(&id, &private), (&other_id, &other)]);
        good.verify(&keys(both(), 2)).unwrap();
        // A threshold that nothing asks for, none at all, more than there are.
        assert!(good.verify(&keys(both(), 0)).is_err());
        assert!(good.verify(&keys(both(), 3)).is_err());
        // The same key twice; another's signature under this name; a key under another ID.
        assert!(signed(&[(&id, &private), (&id, &private)]).verify(&keys(both(), 2)).is_err());
        assert!(signed(&[(&id, &other)]).verify(&keys(both(), 1)).is_err());
        let alias = vec![(&id, &public), (&other_id, &public)];
        assert!(signed(&[(&id, &private), (&other_id, &private)]).verify(&keys(alias, 2)).is_err());
        // One bad signature before the good one of the same key does not spoil it.
        let mut second = signed(&[(&id, &other), (&id, &private)]);
        second.verify(&keys(both(), 1)).unwrap();
        // A method that the key does not have.
        second.signatures.remove(0);
        second.signatures[0].method = "eddsa".into();
        assert_eq!(
            second.verify(&keys(both(), 1)).unwrap_err().to_string(),
            "valid signatures did not meet threshold for targets"
        );
    }

    #[test]
    fn versions_and_times() {
        let (private, public) = key();
        let id = public.id();
        let signed = Signed::sign(targets(0), &Role::Targets, &[(&id, &private)]).unwrap();
        let expires = signed.document.expires.0;
        let meets = |at_least, unexpired_at| {
            let met = signed.meets(&Role::Targets, Demands { at_least, unexpired_at });
            met.map_err(|e| e.to_string())
        };
        meets(7, Some(expires - time::Duration::SECOND)).unwrap();
        meets(7, None).unwrap();
        assert_eq!(meets(8, None).unwrap_err(), "version 7 is lower than current version 8");
        assert!(meets(0, Some(expires)).unwrap_err().starts_with("targets expired at "));
    }

    #[test]
    fn documents_that_are_refused() {
        fn refused<T: Document>(value: &Value, role: &Role) -> bool {
            let file = serde_json::json!({"signed": value, "signatures": []});
            Signed::<T>::parse(&serde_json::to_vec(&file).unwrap(), role).is_err()
        }
        let good = serde_json::to_value(targets(1)).unwrap();
        assert!(!refused::<Targets>(&good, &Role::Targets));
        let change = |path: &str, to: Value| {
            let mut value = good.clone();
            *value.pointer_mut(path).unwrap() = to;
            value
        };
        let role = |name: &str| serde_json::json!([{"name": name, "keyids": [], "threshold": 1}]);
        for (path, to) in [
            ("/_type", "targets".into()),
            ("/_type", "Root".into()),
            ("/version", 0.into()),
            ("/version", (-1).into()),
            ("/expires", "tomorrow".into()),
            ("/targets/v0/hashes/sha256", "?".into()),
            ("/targets/v0/length", (-1).into()),
            ("/delegations/roles", role("targets/a/b")),
            ("/delegations/roles", role("targets")),
            ("/delegations/roles", role("snapshot")),
            ("/delegations/roles", role("targets/../x")),
            (
                "/delegations/roles",
                serde_json::json!([{"name": "targets/a", "keyids": null, "threshold": 0}]),
            ),
        ] {
            assert!(refused::<Targets>(&change(path, to.clone()), &Role::Targets), "{path} {to}");
        }
        let twice = Value::Array(
            [role("targets/a"), role("targets/a")].iter().map(|r| r[0].clone()).collect(),
        );
        assert!(refused::<Targets>(&change("/delegations/roles", twice), &Role::Targets));
        assert!(!refused::<Targets>(
            &change("/delegations/roles", role("targets/a")),
            &Role::Targets
        ));
        assert!(refused::<Targets>(
            &change("/delegations/roles", role("targets/a")),
            &Role::releases()
        ));
        assert!(!refused::<Targets>(&change("/targets", Value::Null), &Role::Targets));
        assert!(refused::<Timestamp>(&good, &Role::Timestamp));

        let now = OffsetDateTime::now_utc();
        let meta = FileMeta::of(b"x");
        let without = Snapshot::new(Expires(now), 1, BTreeMap::from([(Role::Root, meta.clone())]));
        assert!(refused::<Snapshot>(&serde_json::to_value(without).unwrap(), &Role::Snapshot));
        let mut unhashed = meta.clone();
        unhashed.hashes.remove("sha256");
        let timestamp = |meta| serde_json::to_value(Timestamp::new(Expires(now), 1, meta)).unwrap();
        assert!(refused::<Timestamp>(&timestamp(unhashed), &Role::Timestamp));
        assert!(!refused::<Timestamp>(&timestamp(meta), &Role::Timestamp));
        let huge = vec![b' '; Timestamp::MAX_SIZE + 1];
        assert!(matches!(
            Signed::<Timestamp>::parse(&huge, &Role::Timestamp),
            Err(TrustError::TooLarge { .. })
        ));
        let many = serde_json::json!({"signed": good, "signatures": vec![serde_json::json!({"keyid": "", "method": "", "sig": ""}); MAX_SIGNATURES + 1]});
        assert!(
            Signed::<Targets>::parse(&serde_json::to_vec(&many).unwrap(), &Role::Targets).is_err()
        );
    }

    #[test]
    fn files_are_what_they_are_said_to_be() {
        let meta = FileMeta::of(b"content");
        meta.check("targets", b"content").unwrap();
        let text = meta.check("targets", b"c0ntent").unwrap_err().to_string();
        assert!(text.starts_with("sha256 checksum for targets did not match: expected "), "{text}");
        let mut other = meta.clone();
        other.hashes.insert("sha512".into(), Hash(vec![0; 64]));
        assert!(other.check("t", b"content").unwrap_err().to_string().starts_with("sha512 "));
        let mut longer = meta.clone();
        longer.length += 1;
        assert!(matches!(longer.check("t", b"content"), Err(TrustError::Length { .. })));
        let mut none = meta;
        none.hashes.remove("sha256");
        assert!(none.check("t", b"content").is_err());
    }

    proptest! {
        #[test]
        fn what_is_signed_is_read_again_byte_for_byte(
            tags in prop::collection::btree_map("[A-Za-z0-9_.é-]{1,20}", (any::<[u8; 32]>(), 0u64..1 << 53), 0..8),
            version in 1u64..1 << 53,
        ) {
            let (private, public) = key();
            let id = public.id();
            let mut document = targets(0);
            document.version = version;
            document.targets =
                tags.into_iter().map(|(tag, (hash, length))| (tag, FileMeta::of_image(hash, length))).collect();
            let signed = Signed::sign(document, &Role::releases(), &[(&id, &private)]).unwrap();
            let read = Signed::<Targets>::parse(signed.raw(), &Role::releases()).unwrap();
            prop_assert_eq!(&read.document, &signed.document);
            let keys = RoleKeys { role: Role::releases(), keys: vec![(&id, &public)], threshold: 1 };
            read.verify(&keys).unwrap();
            let again = Signed::sign(read.document, &Role::releases(), &[(&id, &private)]).unwrap();
            prop_assert_eq!(&again.message, &signed.message);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Signed::<Targets>::parse(&bytes, &Role::Targets);
        }
    }
}
