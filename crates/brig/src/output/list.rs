//! Lists: rows of named fields, printed as a table, by a template, as JSON, or only their ids.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::template::{Data, Template};
use super::{print, table};
use crate::error::Result;

/// One element of a list: what `--format` can name.
#[derive(Debug, Default)]
pub(crate) struct Row {
    fields: Map<String, Value>,
    labels: BTreeMap<String, String>,
}

impl Row {
    /// An empty row.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The row with one more field.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// The row with its labels: `.Labels`, and `.Label "name"`.
    #[must_use]
    pub(crate) fn labels(mut self, labels: &BTreeMap<String, String>) -> Self {
        let mut text: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        text.sort();
        self.labels.clone_from(labels);
        self.with("Labels", text.join(","))
    }

    /// A field's text.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// How a list is printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listing<'a> {
    /// The default table's template.
    pub(crate) table: &'a str,
    /// Headers of fields whose name is not their header.
    pub(crate) headers: &'a [(&'a str, &'a str)],
    /// The field that `--quiet` prints.
    pub(crate) id: &'a str,
}

impl Listing<'_> {
    /// Prints rows as `--format` and `--quiet` say.
    pub(crate) fn print(&self, rows: &[Row], format: Option<&str>, quiet: bool) -> Result<()> {
        let format = format.unwrap_or_default();
        if quiet && matches!(format, "" | "table") {
            let ids: String = rows.iter().map(|row| format!("{}\n", row.text(self.id))).collect();
            return print(&ids);
        }
        print(&self.render(rows, format)?)
    }

    /// The text that is printed.
    pub(crate) fn render(&self, rows: &[Row], format: &str) -> Result<String> {
        let (template, is_table) = match format {
            "" | "table" => (self.table.to_owned(), true),
            "json" => ("{{json .}}".to_owned(), false),
            other => match other.strip_prefix("table ") {
                Some(columns) => (unescape(columns), true),
                None => (unescape(other), false),
            },
        };
        let template = Template::parse(&template)?;
        let mut text = String::new();
        for row in rows {
            let data = Value::Object(row.fields.clone());
            text.push_str(&template.render(&Data { value: &data, labels: Some(&row.labels) })?);
            text.push('\n');
        }
        if !is_table {
            return Ok(text);
        }
        let headers = Value::Object(
            self.headers
                .iter()
                .map(|(name, header)| ((*name).to_owned(), Value::from(*header)))
                .collect(),
        );
        let head = template.render_header(&headers)?;
        Ok(table::align(&format!("{head}\n{text}")))
    }
}

/// `\t` and `\n` as people type them in a shell.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing<'_> = Listing {
        table: "{{.ID}}\t{{.Name}}",
        headers: &[("ID", "NETWORK ID"), ("Name", "NAME"), ("Self", "")],
        id: "ID",
    };

    fn rows() -> Vec<Row> {
        let labels =
            BTreeMap::from([("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d".to_owned())]);
        vec![
            Row::new().with("ID", "0123").with("Name", "bridge").with("Self", true).labels(&labels),
        ]
    }

    #[test]
    fn a_list_is_a_table_by_default() {
        assert_eq!(
            LISTING.render(&rows(), "").unwrap(),
            "NETWORK ID   NAME\n0123         bridge\n"
        );
        assert_eq!(LISTING.render(&[], "").unwrap(), "NETWORK ID   NAME\n");
    }

    #[test]
    fn formats_name_fields() {
        assert_eq!(
            LISTING.render(&rows(), r"table {{.Name}}\t{{.Label `a`}}\t{{.Labels}}").unwrap(),
            "NAME      a         LABELS\nbridge    b         a=b,c=d\n"
        );
        assert_eq!(LISTING.render(&rows(), "{{.ID}}:{{.Name}}").unwrap(), "0123:bridge\n");
        assert_eq!(
            LISTING.render(&rows(), "json").unwrap(),
            "{\"ID\":\"0123\",\"Labels\":\"a=b,c=d\",\"Name\":\"bridge\",\"Self\":true}\n"
        );
        assert_eq!(LISTING.render(&rows(), "{{.ID}}{{if .Self}}*{{end}}").unwrap(), "0123*\n");
        assert!(LISTING.render(&rows(), "{{.Nope}}").is_err());
        assert!(LISTING.render(&rows(), "{{.ID").is_err());
    }
}
