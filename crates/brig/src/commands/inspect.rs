//! `inspect` of every kind: a JSON list, or a template for each object.

use bytes::Bytes;
use serde_json::Value;

use crate::client::{Call, Client};
use crate::error::{Error, Failures, Result};
use crate::output::template::Template;
use crate::output::{indent, line, print};

/// An object as the daemon sent it.
#[derive(Debug)]
pub(crate) struct Found {
    path: String,
    json: Bytes,
}

impl Found {
    fn value(&self) -> Result<Value> {
        serde_json::from_slice(&self.json)
            .map_err(|source| Error::Answer { path: self.path.clone(), source })
    }
}

/// Finds one object.
pub(crate) async fn fetch(client: &Client, call: Call) -> Result<Found> {
    let path = call.path().to_owned();
    let json = client.bytes(call).await?;
    Ok(Found { path, json })
}

/// Prints what was found, then fails for what was not.
pub(crate) async fn print_all<F>(
    names: &[String],
    format: Option<&str>,
    mut find: impl FnMut(String) -> F,
) -> Result<()>
where
    F: Future<Output = Result<Found>>,
{
    let template = match format {
        None | Some("") => None,
        Some("json") => Some(Template::parse("{{json .}}")?),
        Some(format) => Some(Template::parse(format)?),
    };
    let mut failures = Failures::default();
    let mut found = Vec::new();
    for name in names {
        match find(name.clone()).await {
            // Without a daemon there is nothing more to find.
            Err(error @ Error::Connect { .. }) => return Err(error),
            result => found.extend(failures.keep(result)?),
        }
    }
    let Some(template) = template else {
        print(&list(&found)?)?;
        return failures.finish();
    };
    for object in &found {
        if let Some(text) =
            failures.keep(object.value().and_then(|value| template.render_value(&value)))?
        {
            line(&text)?;
        }
    }
    failures.finish()
}

fn list(found: &[Found]) -> Result<String> {
    if found.is_empty() {
        return Ok("[]\n".to_owned());
    }
    let mut objects = Vec::new();
    for object in found {
        serde_json::from_slice::<serde::de::IgnoredAny>(&object.json)
            .map_err(|source| Error::Answer { path: object.path.clone(), source })?;
        objects.push(format!("    {}", indent(&String::from_utf8_lossy(&object.json), 1)));
    }
    Ok(format!("[\n{}\n]\n", objects.join(",\n")))
}
