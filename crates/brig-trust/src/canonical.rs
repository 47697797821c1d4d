//! The one form of a JSON value that signatures are made over.
//!
//! Keys sorted by their bytes, no white space, whole numbers only; in strings `"` and `\` are
//! escaped and nothing else is. A verifier parses what it got and makes this form of it, so that
//! fields it does not know are covered too. What different parsers read differently (keys that
//! come twice, fractions, numbers that a double cannot hold) is refused when read.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::TrustError;

/// Largest file of any kind, in bytes.
pub const MAX_FILE: usize = 100 << 20;
/// How deep values may be nested.
pub const MAX_DEPTH: usize = 64;
/// How many values one file may hold.
pub const MAX_VALUES: usize = 4_000_000;
/// The largest whole number that passes through a double unchanged, and its negative.
pub const MAX_NUMBER: i64 = (1 << 53) - 1;

/// Reads JSON strictly, within the limits.
///
/// # Errors
/// [`TrustError::TooLarge`], [`TrustError::Json`].
pub fn parse(bytes: &[u8]) -> Result<Value, TrustError> {
    if bytes.len() > MAX_FILE {
        return Err(TrustError::TooLarge { limit: MAX_FILE });
    }
    let unreadable = |error: serde_json::Error| TrustError::Json { reason: error.to_string() };
    let mut left = MAX_VALUES;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: MAX_DEPTH, left: &mut left }
        .deserialize(&mut deserializer)
        .map_err(unreadable)?;
    deserializer.end().map_err(unreadable)?;
    Ok(value)
}

/// Writes the canonical form.
#[must_use]
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(value, &mut out);
    out
}

/// Checks that a document that is going to be signed has one form only: Go's encoder escapes some
/// characters once more in the file around the signed part, and a server that hashes what it
/// encoded anew would then name a file that does not exist.
///
/// # Errors
/// [`TrustError::Unwritable`].
pub fn check_writable(value: &Value) -> Result<(), TrustError> {
    let plain = |text: &str| {
        let odd =
            |c: char| c.is_control() || matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        match text.chars().find(|c| odd(*c)) {
            Some(c) => Err(TrustError::Unwritable(format!("the character {c:?} in {text:?}"))),
            None => Ok(()),
        }
    };
    match value {
        Value::String(text) => plain(text),
        Value::Array(items) => items.iter().try_for_each(check_writable),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            plain(name)?;
            check_writable(value)
        }),
        Value::Number(number) if !is_exact(number) => {
            Err(TrustError::Unwritable(format!("the number {number}")))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn is_exact(number: &serde_json::Number) -> bool {
    number.as_i64().is_some_and(|n| (-MAX_NUMBER..=MAX_NUMBER).contains(&n))
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| name.as_bytes());
            out.push(b'{');
            for (at, (name, value)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write(value, out);
            }
            out.push(b'}');
        }
    }
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Builds a value and counts what it builds.
struct Strict<'a> {
    depth: usize,
    left: &'a mut usize,
}

impl Strict<'_> {
    fn inner<E: serde::de::Error>(&mut self) -> Result<Strict<'_>, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Strict { depth, left: self.left })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        *self.left = self.left.checked_sub(1).ok_or_else(|| D::Error::custom("too many values"))?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with whole numbers")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        if (-MAX_NUMBER..=MAX_NUMBER).contains(&value) {
            Ok(Value::from(value))
        } else {
            Err(E::custom("a number that is too large"))
        }
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value)
            .map_err(|_| E::custom("a number that is too large"))
            .and_then(|value| self.visit_i64(value))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Value, E> {
        Err(E::custom("a number that is not whole"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(self.inner()?)? {
            all.push(item);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Value, A::Error> {
        let mut all = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let value = fields.next_value_seed(self.inner()?)?;
            if all.insert(name, value).is_some() {
                return Err(A::Error::custom("a key that comes twice"));
            }
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        String::from_utf8(encode(&parse(text.as_bytes()).unwrap())).unwrap()
    }

    #[test]
    fn one_form() {
        assert_eq!(
            canonical(
                " { \"b\" : [ 1 , -2 , null , true ] , \"a\\u0301\" : \"x\\n\\t\\/\\\"\\\\<\\u00e9\" } "
            ),
            "{\"a\u{301}\":\"x\n\t/\\\"\\\\<é\",\"b\":[1,-2,null,true]}"
        );
        // Sorted by bytes, not by UTF-16 units.
        assert_eq!(
            canonical("{\"\u{10000}\":1,\"\u{ffff}\":2}"),
            "{\"\u{ffff}\":2,\"\u{10000}\":1}"
        );
        assert_eq!(canonical("9007199254740991"), "9007199254740991");
    }

    #[test]
    fn what_parsers_disagree_on_is_refused() {
        for bad in [
            "",
            "{",
            "1.0",
            "1e3",
            "9007199254740992",
            "-9007199254740992",
            "18446744073709551615",
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"\\u0061\":2}",
            "1 2",
            "\"\\ud800\"",
            "\"\n\"",
            "[1,]",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(MAX_DEPTH).as_bytes()).is_ok());
        assert!(parse(nested(MAX_DEPTH + 1).as_bytes()).is_err());
        assert!(parse(nested(100_000).as_bytes()).is_err());
        let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
        assert!(parse(many.as_bytes()).is_err());
    }

    #[test]
    fn what_encoders_disagree_on_is_not_written() {
        for bad in ["<", ">", "&", "\u{2028}", "\u{2029}", "\n", "\u{0}"] {
            assert!(check_writable(&serde_json::json!({ "a": [bad] })).is_err(), "{bad:?}");
            assert!(check_writable(&serde_json::json!({ bad: 1 })).is_err(), "{bad:?}");
        }
        assert!(check_writable(&serde_json::json!(1.5)).is_err());
        assert!(check_writable(&serde_json::json!({"é \"\\/": [1, null, true]})).is_ok());
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-MAX_NUMBER..=MAX_NUMBER).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn white_space_escapes_and_order_do_not_matter(value in value()) {
            let plain = serde_json::to_vec(&value).unwrap();
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            prop_assert_eq!(encode(&parse(&plain).unwrap()), encode(&value));
            prop_assert_eq!(encode(&parse(&pretty).unwrap()), encode(&value));
        }

        #[test]
        fn what_is_writable_is_its_own_canonical_form(value in value()) {
            let bytes = encode(&value);
            if check_writable(&value).is_ok() {
                prop_assert_eq!(&parse(&bytes).unwrap(), &value);
                prop_assert_eq!(bytes, serde_json::to_vec(&value).unwrap());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(value) = parse(&bytes) {
                let _ = encode(&value);
            }
        }
    }
}
