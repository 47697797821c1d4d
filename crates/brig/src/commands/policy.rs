//! The policies of the gates: the same few steps for each of them.

use std::io::Read as _;

use brig_trust::policy::TrustPolicy;
use serde::Deserialize;
use serde_json::Value;

use crate::client::Call;
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::output::{line, print, table, warn};

/// Largest file with a policy.
const MAX_FILE: u64 = 1 << 20;
const NOT_FOUND: u16 = 404;

/// A policy as the daemon shows it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Shown {
    version: u64,
    scope: String,
}

/// What a policy says of something that runs.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Tested {
    kind: String,
    name: String,
    image: String,
    admitted: bool,
    enforced: bool,
    rule: String,
    reason: String,
}

fn path(gate: &str) -> String {
    format!("/brig/policies/{gate}")
}

/// The document in a file, or on stdin: JSON, else TOML.
fn read(file: &str) -> Result<Value> {
    let failed = |source| Error::io(format!("read {file}"), source);
    let source: Box<dyn std::io::Read> = match file {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(std::fs::File::open(path).map_err(failed)?),
    };
    let mut text = String::new();
    source.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
    parsed(&text).map_err(|why| message(format!("{file}: {}", why.trim())))
}

/// The document as data. It is read as a policy first: only here is it known in which line of the
/// file a mistake is.
fn parsed(text: &str) -> std::result::Result<Value, String> {
    if text.trim_start().starts_with('{') {
        let _: TrustPolicy = serde_json::from_str(text).map_err(|error| error.to_string())?;
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    let _: TrustPolicy = toml::from_str(text).map_err(|error| error.to_string())?;
    toml::from_str(text).map_err(|error| error.to_string())
}

async fn tested(context: &Context, gate: &str, document: &Value) -> Result<Vec<Tested>> {
    let call = Call::post(format!("{}/test", path(gate))).json(document)?;
    context.client.json(call).await
}

/// Puts a policy in force, and tells what of that which runs it would refuse.
pub(crate) async fn set(
    context: &Context,
    gate: &str,
    file: &str,
    version: Option<u64>,
) -> Result<()> {
    let document = read(file)?;
    let current: Result<Shown> = context.client.json(Call::get(path(gate))).await;
    let current = match (version, current) {
        (Some(version), _) => version,
        (None, Ok(shown)) => shown.version,
        (None, Err(Error::Api { status: NOT_FOUND, .. })) => 0,
        (None, Err(error)) => return Err(error),
    };
    let refused = tested(context, gate, &document).await?;
    let call = Call::put(path(gate)).query("version", current.to_string()).json(&document)?;
    let shown: Shown = context.client.json(call).await?;
    for one in refused.iter().filter(|one| !one.admitted) {
        warn(&format!(
            "WARNING: {} {} would not be admitted now (what ran before goes on): {}",
            one.kind, one.name, one.reason
        ));
    }
    line(&format!("{gate} policy: version {} ({})", shown.version, shown.scope))
}

/// Prints a policy.
pub(crate) async fn inspect(context: &Context, gate: &str) -> Result<()> {
    let shown: Value = context.client.json(Call::get(path(gate))).await?;
    let text = serde_json::to_string_pretty(&shown).map_err(|e| message(e.to_string()))?;
    line(&text)
}

/// Takes a policy out of force.
pub(crate) async fn remove(context: &Context, gate: &str) -> Result<()> {
    let shown: Shown = context.client.json(Call::get(path(gate))).await?;
    let call = Call::delete(path(gate)).query("version", shown.version.to_string());
    context.client.none(call).await?;
    line(gate)
}

/// Prints what a policy would say of all that runs. Exit status 1 when it would refuse something.
pub(crate) async fn test(context: &Context, gate: &str, file: &str) -> Result<()> {
    let document = read(file)?;
    let tested = tested(context, gate, &document).await?;
    let mut text = "KIND\tNAME\tIMAGE\tDECISION\tRULE\tREASON\n".to_owned();
    let mut refused = false;
    for one in &tested {
        let decision = match (one.admitted, one.enforced) {
            (true, _) => "admitted",
            (false, true) => "refused",
            (false, false) => "warning",
        };
        refused |= !one.admitted && one.enforced;
        let reason = one.reason.replace(['\n', '\t'], " ");
        text.push_str(&format!(
            "{}\t{}\t{}\t{decision}\t{}\t{reason}\n",
            one.kind, one.name, one.image, one.rule
        ));
    }
    print(&table::align(&text))?;
    if refused { Err(Error::Status(1)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::parsed;

    #[test]
    fn a_mistake_is_shown_where_it_is_in_the_file() {
        let text = "mode = \"enforce\"\n\n[[rules]]\nimages = \"*\"\nrequires = \"reject\"\n";
        let why = parsed(text).unwrap_err();
        assert!(why.contains("line 5") && why.contains("requires"), "{why}");
        let why = parsed("{\n\"rules\":[\n{\"images\":1}]}").unwrap_err();
        assert!(why.contains("line 3"), "{why}");
        assert!(parsed("[[rules]]\nimages = \"*\"\nrequire = \"reject\"\n").is_ok());
    }
}
