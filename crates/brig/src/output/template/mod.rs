//! The part of Go's text templates that `--format` is used for: fields, pipes, functions,
//! variables, `if`, `with`, `range`.
//!
//! Values are JSON. Field names are looked up as they are first, then without regard to case,
//! because docker's own types answer to `.ID` where its JSON says `Id`.

mod eval;
mod functions;
mod lexer;
mod parser;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{Result, message};

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    nodes: Vec<parser::Node>,
}

/// What a template is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Data<'a> {
    /// The dot.
    pub(crate) value: &'a Value,
    /// What `.Label "name"` looks into.
    pub(crate) labels: Option<&'a BTreeMap<String, String>>,
}

/// Why a template was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct TemplateError(String);

fn fail<T>(text: impl Into<String>) -> std::result::Result<T, TemplateError> {
    Err(TemplateError(text.into()))
}

impl Template {
    /// Reads a template.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let nodes = lexer::segments(text)
            .and_then(|segments| parser::parse(&segments))
            .map_err(|e| message(format!("template parsing error: {e}")))?;
        Ok(Self { nodes })
    }

    /// The text for some data.
    pub(crate) fn render(&self, data: &Data<'_>) -> Result<String> {
        eval::render(&self.nodes, data, false).map_err(|e| message(format!("template: {e}")))
    }

    /// The text for a value.
    pub(crate) fn render_value(&self, value: &Value) -> Result<String> {
        self.render(&Data { value, labels: None })
    }

    /// A table's head: fields become their headers, functions change nothing.
    pub(crate) fn render_header(&self, headers: &Value) -> Result<String> {
        eval::render(&self.nodes, &Data { value: headers, labels: None }, true)
            .map_err(|e| message(format!("template: {e}")))
    }
}

#[cfg(test)]
mod tests;
