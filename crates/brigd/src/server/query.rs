//! The query of a request, read by docker's rules.

use brig_api::filters::Filters;

use super::error::ApiError;

/// Most parameters that a query may have.
const MAX_PARAMETERS: usize = 1024;

/// Decoded parameters in the order they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the part of a URI after the question mark.
    #[must_use]
    pub fn parse(text: Option<&str>) -> Self {
        let text = text.unwrap_or_default();
        Self(
            form_urlencoded::parse(text.as_bytes())
                .take(MAX_PARAMETERS)
                .map(|(key, value)| (key.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// The first value of a parameter.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Puts another name of the same object in place of the first value of a parameter.
    pub fn pin(&mut self, key: &str, id: String) {
        if let Some((_, value)) = self.0.iter_mut().find(|(name, _)| name == key) {
            *value = id;
        }
    }

    /// The first value of a parameter unless it is empty.
    #[must_use]
    pub fn non_empty(&self, key: &str) -> Option<&str> {
        self.text(key).filter(|value| !value.is_empty())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A boolean: absent, empty, `0`, `no`, `false` and `none` are false, all else is true.
    #[must_use]
    pub fn flag(&self, key: &str) -> bool {
        self.flag_or(key, false)
    }

    /// A boolean with a default for when it is absent.
    #[must_use]
    pub fn flag_or(&self, key: &str, default: bool) -> bool {
        match self.text(key) {
            None => default,
            Some(text) => {
                let text = text.trim().to_ascii_lowercase();
                !matches!(text.as_str(), "" | "0" | "no" | "false" | "none")
            }
        }
    }

    /// A number; `None` when it is absent or empty.
    ///
    /// # Errors
    /// 400 when it is something else.
    pub fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, ApiError> {
        self.non_empty(key)
            .map(|text| {
                text.parse().map_err(|_| {
                    ApiError::invalid(format!(
                        "invalid value {text:?} for {key}: expected a number"
                    ))
                })
            })
            .transpose()
    }

    /// The `filters` parameter in either of its encodings.
    ///
    /// # Errors
    /// 400 when it is malformed.
    pub fn filters(&self) -> Result<Filters, ApiError> {
        match self.non_empty("filters") {
            None => Ok(Filters::default()),
            Some(text) => Ok(Filters::parse(text)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_dockers() {
        let query = Query::parse(Some("a=1&b=0&c=false&d=&e=yes&f=None&g=True&h"));
        for (key, value) in [
            ("a", true),
            ("b", false),
            ("c", false),
            ("d", false),
            ("e", true),
            ("f", false),
            ("g", true),
            ("h", false),
            ("absent", false),
        ] {
            assert_eq!(query.flag(key), value, "{key}");
        }
        assert!(query.flag_or("absent", true));
    }

    #[test]
    fn values_are_decoded_and_repeat() {
        let query = Query::parse(Some("names=a%2Fb&names=c+d&t=-1&u=x"));
        assert_eq!(query.all("names").collect::<Vec<_>>(), ["a/b", "c d"]);
        assert_eq!(query.number::<i64>("t").unwrap(), Some(-1));
        assert_eq!(query.number::<i64>("absent").unwrap(), None);
        assert!(query.number::<i64>("u").is_err());
    }

    #[test]
    fn what_was_judged_is_pinned_where_it_is_read() {
        let mut query = Query::parse(Some("container=a&container=b"));
        query.pin("container", "id".to_owned());
        query.pin("absent", "id".to_owned());
        assert_eq!((query.text("container"), query.text("absent")), (Some("id"), None));
    }

    #[test]
    fn filters_come_in_two_encodings() {
        let maps = Query::parse(Some("filters=%7B%22status%22%3A%7B%22running%22%3Atrue%7D%7D"));
        let lists = Query::parse(Some("filters=%7B%22status%22%3A%5B%22running%22%5D%7D"));
        assert_eq!(maps.filters().unwrap(), lists.filters().unwrap());
        assert_eq!(Query::parse(Some("filters=")).filters().unwrap(), Filters::default());
        assert!(Query::parse(Some("filters=%7B")).filters().is_err());
    }
}
