//! Go's reading and writing of empty values: `null` means "not set" wherever it appears.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Decodes a value or `null`; `null` gives the default.
///
/// # Errors
/// Those of the value's own decoding.
pub fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Whether a value is its type's default, for `skip_serializing_if`.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A collection that can tell whether it is empty.
pub trait Collection {
    /// Whether nothing is in it.
    fn has_none(&self) -> bool;
}

impl<T> Collection for Vec<T> {
    fn has_none(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Collection for std::collections::BTreeMap<K, V> {
    fn has_none(&self) -> bool {
        self.is_empty()
    }
}

/// Writes an empty list or map as `null`, as Go does with one that was never made.
///
/// # Errors
/// Those of the serializer.
pub fn null_when_empty<S, T>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
where
    S: Serializer,
    T: Collection + Serialize,
{
    if value.has_none() { serializer.serialize_none() } else { value.serialize(serializer) }
}

/// Decodes docker's `StrSlice`: a list of strings, one string, or `null`.
///
/// # Errors
/// When it is anything else.
pub fn string_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Visitor;

    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a string or a list of strings")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element::<Option<String>>()? {
                items.push(item.unwrap_or_default());
            }
            Ok(items)
        }
    }

    deserializer.deserialize_any(Visitor)
}
