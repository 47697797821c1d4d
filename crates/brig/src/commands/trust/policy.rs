//! `trust policy …` and `trust explain`: which signatures the daemon, or the whole swarm, demands.

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::leaf;
use crate::client::{Call, registry_auth};
use crate::commands::policy;
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::output::line;

leaf!(SET, "set", "[OPTIONS] FILE|-", "Put a trust policy in force (TOML or JSON)", SetArgs, set);
leaf!(INSPECT, "inspect", "", "Show the trust policy", NoArgs, inspect);
leaf!(RM, "rm" | "remove", "", "Demand no signatures any more", NoArgs, remove);
leaf!(
    TEST,
    "test",
    "FILE|-",
    "Tell what of the running services and containers a trust policy would refuse",
    TestArgs,
    test
);
leaf!(
    EXPLAIN,
    "explain",
    "[OPTIONS] IMAGE",
    "Tell whether an image may start, and why",
    ExplainArgs,
    explain
);

const GATE: &str = "trust";

#[derive(Args, Debug)]
struct NoArgs {}

#[derive(Args, Debug)]
struct SetArgs {
    /// Version that is replaced (default: the present one)
    #[arg(long)]
    version: Option<u64>,
    #[arg(hide = true)]
    file: String,
}

#[derive(Args, Debug)]
struct TestArgs {
    #[arg(hide = true)]
    file: String,
}

#[derive(Args, Debug)]
struct ExplainArgs {
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[arg(hide = true)]
    image: String,
}

async fn set(context: &Context, args: SetArgs) -> Result<()> {
    policy::set(context, GATE, &args.file, args.version).await
}

async fn inspect(context: &Context, _: NoArgs) -> Result<()> {
    policy::inspect(context, GATE).await
}

async fn remove(context: &Context, _: NoArgs) -> Result<()> {
    policy::remove(context, GATE).await
}

async fn test(context: &Context, args: TestArgs) -> Result<()> {
    policy::test(context, GATE, &args.file).await
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Explained {
    image: String,
    local: bool,
    admitted: bool,
    gates: Vec<Explanation>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Explanation {
    policy: String,
    version: u64,
    scope: String,
    admitted: bool,
    enforced: bool,
    rule: String,
    digest: String,
    reason: String,
    warnings: Vec<String>,
    details: Value,
}

async fn explain(context: &Context, args: ExplainArgs) -> Result<()> {
    let auth = registry_auth::for_image(&context.config, &args.image).await;
    let call = Call::get("/brig/admission/explain")
        .query("image", &args.image)
        .registry_auth_if_any(&auth);
    let answer: Value = context.client.json(call).await?;
    if args.json {
        let text = serde_json::to_string_pretty(&answer).map_err(|e| message(e.to_string()))?;
        line(&text)?;
    }
    let explained: Explained =
        serde_json::from_value(answer).map_err(|e| message(e.to_string()))?;
    if !args.json {
        tell(&explained)?;
    }
    if explained.admitted { Ok(()) } else { Err(Error::Status(1)) }
}

fn tell(explained: &Explained) -> Result<()> {
    let place = if explained.local { "as it is on this node" } else { "as it would be pulled" };
    let verdict = if explained.admitted { "admitted" } else { "refused" };
    line(&format!("{} ({place}): {verdict}", explained.image))?;
    if explained.gates.is_empty() {
        return line("  no policy is in force");
    }
    for gate in &explained.gates {
        let verdict = match (gate.admitted, gate.enforced) {
            (true, _) => "admitted",
            (false, true) => "refused",
            (false, false) => "refused, but only warned of",
        };
        line(&format!(
            "  {} policy, version {} ({}), rule {}: {verdict}",
            gate.policy, gate.version, gate.scope, gate.rule
        ))?;
        for (name, value) in [("Digest", &gate.digest), ("Reason", &gate.reason)] {
            if !value.is_empty() {
                line(&format!("    {name}: {value}"))?;
            }
        }
        details(&gate.details, "    ")?;
        for warning in &gate.warnings {
            line(&format!("    Warning: {warning}"))?;
        }
    }
    Ok(())
}

/// What a decision rests on, a line each.
fn details(value: &Value, indent: &str) -> Result<()> {
    let Value::Object(fields) = value else { return Ok(()) };
    for (name, value) in fields {
        match value {
            Value::Object(_) => {
                line(&format!("{indent}{name}:"))?;
                details(value, &format!("{indent}  "))?;
            }
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(plain).collect();
                line(&format!("{indent}{name}: {}", items.join(", ")))?;
            }
            value => line(&format!("{indent}{name}: {}", plain(value)))?,
        }
    }
    Ok(())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
