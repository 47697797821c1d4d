//! `events`.

use brig_api::event::Event;
use clap::Args;
use time::OffsetDateTime;

use crate::cli::leaf;
use crate::client::Call;
use crate::commands::filters;
use crate::context::Context;
use crate::error::{Error, Result, message};
use crate::output::template::Template;
use crate::parse::time::timestamp;

leaf!(EVENTS, "events", "[OPTIONS]", "Get real time events from the server", EventsArgs, events);

/// The longest event, in bytes.
const MAX_LINE: usize = 1024 * 1024;

#[derive(Args, Debug)]
struct EventsArgs {
    /// Filter output based on conditions provided
    #[arg(long, short = 'f')]
    filter: Vec<String>,
    /// Format output using a custom template: 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long)]
    since: Option<String>,
    /// Stream events until this timestamp
    #[arg(long)]
    until: Option<String>,
}

async fn events(context: &Context, args: EventsArgs) -> Result<()> {
    let now = brig_api::time::now();
    let time = |text: &Option<String>| text.as_deref().map(|text| timestamp(text, now)).transpose();
    let template = match args.format.as_deref() {
        None | Some("") => None,
        Some("json") => Some(Template::parse("{{json .}}")?),
        Some(format) => Some(Template::parse(format)?),
    };
    let call = Call::get("/events")
        .query_opt("since", time(&args.since)?)
        .query_opt("until", time(&args.until)?)
        .filters(&filters(&args.filter)?);
    let mut answer = context.client.send(call).await?;
    let mut partial = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        partial.extend_from_slice(&chunk);
        while let Some(end) = partial.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = partial.drain(..=end).collect();
            print(&line, template.as_ref())?;
        }
        if partial.len() > MAX_LINE {
            return Err(message("an event is too long"));
        }
    }
    print(&partial, template.as_ref())
}

fn print(line: &[u8], template: Option<&Template>) -> Result<()> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let unreadable = |source| Error::Answer { path: "/events".to_owned(), source };
    let text = match template {
        Some(template) => {
            template.render_value(&serde_json::from_slice(line).map_err(unreadable)?)?
        }
        None => text(&serde_json::from_slice(line).map_err(unreadable)?),
    };
    crate::output::line(&text)
}

/// `2026-11-21T19:37:12.000000000Z container die <id> (exitCode=0, name=x)`
fn text(event: &Event) -> String {
    let nanos = if event.time_nano == 0 {
        i128::from(event.time) * 1_000_000_000
    } else {
        event.time_nano.into()
    };
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let mut text = format!(
        "{} {} {} {}",
        brig_api::time::rfc3339nano_fixed(at),
        event.kind,
        event.action,
        event.actor.id
    );
    if !event.actor.attributes.is_empty() {
        let attributes: Vec<String> =
            event.actor.attributes.iter().map(|(k, v)| format!("{k}={v}")).collect();
        text.push_str(&format!(" ({})", attributes.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_event_is_one_line() {
        let event = serde_json::from_str(
            r#"{"status":"die","id":"x","Type":"container","Action":"die","Actor":{"ID":"x","Attributes":{"name":"n","exitCode":"0"}},"time":1795291215,"timeNano":1795291215929695507}"#,
        )
        .unwrap();
        assert_eq!(
            super::text(&event),
            "2026-11-21T20:00:15.929695507Z container die x (exitCode=0, name=n)"
        );
    }
}
