//! One line of comma-separated fields, quoted as in RFC 4180: the form of `--mount`, `--secret`
//! and their like.

use super::{BadValue, bad};

/// The fields of a line.
pub(crate) fn fields(line: &str) -> Result<Vec<String>, BadValue> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = if let Some(quoted) = rest.strip_prefix('"') {
            quoted_field(quoted)?
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            let (field, after) = rest.split_at(end);
            if field.contains('"') {
                return bad("bare \" in non-quoted-field");
            }
            (field.to_owned(), after)
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

fn quoted_field(mut rest: &str) -> Result<(String, &str), BadValue> {
    let mut field = String::new();
    loop {
        let Some((part, after)) = rest.split_once('"') else {
            return bad("extraneous or missing \" in quoted-field");
        };
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None if after.is_empty() || after.starts_with(',') => return Ok((field, after)),
            None => return bad("extraneous or missing \" in quoted-field"),
        }
    }
}

/// The fields as `key`, `Some(value)`; a field without `=` has no value. Keys are lower-cased.
pub(crate) fn pairs(line: &str) -> Result<Vec<(String, Option<String>)>, BadValue> {
    Ok(fields(line)?
        .into_iter()
        .map(|field| match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value.to_owned())),
            None => (field.to_ascii_lowercase(), None),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_protect_commas() {
        assert_eq!(fields(r#"a=1,"b=2,3","c=""x""""#).unwrap(), ["a=1", "b=2,3", "c=\"x\""]);
        assert_eq!(fields("").unwrap(), [""]);
        assert_eq!(fields("a,").unwrap(), ["a", ""]);
        for line in ["\"a", "\"a\"b", "a\"b"] {
            assert!(fields(line).is_err(), "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(line in ".*") {
            let _ = pairs(&line);
        }
    }
}
