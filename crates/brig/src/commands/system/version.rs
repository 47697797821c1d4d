//! `version`.

use brig_api::system::Version;
use brig_api::version::MAX;
use clap::Args;
use serde_json::{Value, json};

use crate::cli::leaf;
use crate::client::Call;
use crate::context::Context;
use crate::error::Result;
use crate::output::template::Template;

leaf!(VERSION, "version", "[OPTIONS]", "Show the version information", VersionArgs, version);

#[derive(Args, Debug)]
struct VersionArgs {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(long, short = 'f')]
    format: Option<String>,
}

async fn version(context: &Context, args: VersionArgs) -> Result<()> {
    let server: Result<Value> = context.client.json(Call::get("/version")).await;
    let client = json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "ApiVersion": context.client.version().await.unwrap_or(MAX).to_string(),
        "DefaultAPIVersion": MAX.to_string(),
        "Os": std::env::consts::OS,
        "Arch": go_arch(std::env::consts::ARCH),
        "Context": crate::contexts::current(&context.globals, &context.config),
    });
    match args.format.as_deref() {
        None | Some("") => {
            crate::output::print(&client_text(&client))?;
            if let Ok(server) = &server {
                let parsed: Version = serde_json::from_value(server.clone()).unwrap_or_default();
                crate::output::print(&server_text(&parsed))?;
            }
        }
        Some(format) => {
            let template = Template::parse(if format == "json" { "{{json .}}" } else { format })?;
            let both = json!({"Client": client, "Server": server.as_ref().ok()});
            crate::output::line(&template.render_value(&both)?)?;
        }
    }
    server.map(drop)
}

/// Go's name of an architecture.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn client_text(client: &Value) -> String {
    let text = |name: &str| client.get(name).and_then(Value::as_str).unwrap_or_default();
    format!(
        "Client:\n Version:           {}\n API version:       {}\n OS/Arch:           {}/{}\n Context:           {}\n",
        text("Version"),
        text("ApiVersion"),
        text("Os"),
        text("Arch"),
        text("Context"),
    )
}

fn server_text(version: &Version) -> String {
    let name = if version.platform.name.is_empty() {
        String::new()
    } else {
        format!(" {}", version.platform.name)
    };
    let mut text = format!("\nServer:{name}\n");
    if version.components.is_empty() {
        text.push_str(&format!(
            " Engine:\n  Version:          {}\n  API version:      {} (minimum version {})\n  OS/Arch:          {}/{}\n",
            version.version, version.api_version, version.min_api_version, version.os, version.arch
        ));
    }
    for component in &version.components {
        let detail =
            |name: &str| component.details.get(name).map(String::as_str).unwrap_or_default();
        text.push_str(&format!(" {}:\n  {:18}{}\n", component.name, "Version:", component.version));
        let api = match (detail("ApiVersion"), detail("MinAPIVersion")) {
            ("", _) => String::new(),
            (api, "") => api.to_owned(),
            (api, min) => format!("{api} (minimum version {min})"),
        };
        let platform = match (detail("Os"), detail("Arch")) {
            ("", "") => String::new(),
            (os, arch) => format!("{os}/{arch}"),
        };
        for (label, value) in [
            ("API version:", api.as_str()),
            ("Go version:", detail("GoVersion")),
            ("Git commit:", detail("GitCommit")),
            ("Built:", detail("BuildTime")),
            ("OS/Arch:", &platform),
            ("Experimental:", detail("Experimental")),
        ] {
            if !value.is_empty() {
                text.push_str(&format!("  {label:18}{value}\n"));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_told_by_its_components() {
        let version: Version = serde_json::from_value(json!({"Platform": {"Name": "brig"}, "Components": [
            {"Name": "Engine", "Version": "0.1.0", "Details": {"ApiVersion": "1.50", "MinAPIVersion": "1.24",
             "Os": "linux", "Arch": "amd64", "GitCommit": "abc"}}, {"Name": "crun", "Version": "1.8"}]}))
        .unwrap();
        assert_eq!(
            server_text(&version),
            "\nServer: brig\n Engine:\n  Version:          0.1.0\n  API version:      1.50 (minimum version 1.24)\n  \
             Git commit:       abc\n  OS/Arch:          linux/amd64\n crun:\n  Version:          1.8\n"
        );
    }
}
