//! `system expiring`.

use brig_api::expiring::Expiring;
use clap::Args;
use time::{Duration, OffsetDateTime};

use crate::cli::leaf;
use crate::client::Call;
use crate::commands::filters;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::list::{Listing, Row};
use crate::parse::duration;

leaf!(
    EXPIRING,
    "expiring",
    "[OPTIONS]",
    "List certificates and join tokens with their ends",
    ExpiringArgs,
    expiring
);

/// Exit status with `--exit-code` when something ends soon.
const STATUS_EXPIRING: u8 = 2;
/// What `--exit-code` calls soon when `--within` does not say.
const SOON: Duration = Duration::days(30);
/// A clock that is further off than this is shown.
const CLOCK_OFF: i64 = 60_000_000_000;

const LISTING: Listing<'_> = Listing {
    table: "{{.Kind}}\t{{.Name}}\t{{.Role}}\t{{.Issued}}\t{{.Ends}}\t{{.Left}}\t{{.Renews}}\t{{.Status}}",
    headers: &[],
    id: "ID",
};

#[derive(Args, Debug)]
struct ExpiringArgs {
    /// Exit with status 2 if anything ends within --within (default 30d) or is overdue
    #[arg(long)]
    exit_code: bool,
    /// Filter output based on conditions provided (id, kind, name, role, state)
    #[arg(long, short = 'f')]
    filter: Vec<String>,
    /// Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template
    #[arg(long)]
    format: Option<String>,
    /// Only display IDs
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Only show what ends within this time (s|m|h|d) or is overdue
    #[arg(long, value_parser = duration::with_days)]
    within: Option<i64>,
}

async fn expiring(context: &Context, args: ExpiringArgs) -> Result<()> {
    let call = Call::get("/system/expiring").filters(&filters(&args.filter)?);
    let mut known: Vec<Expiring> = context.client.json(call).await?;
    let now = brig_api::time::now();
    let within = args.within.map(Duration::nanoseconds);
    let soon = known.iter().any(|item| is_pressing(item, within.unwrap_or(SOON), now));
    if let Some(within) = within {
        known.retain(|item| is_pressing(item, within, now));
    }
    let rows: Vec<Row> = known.iter().map(|item| row(item, now)).collect();
    LISTING.print(&rows, args.format.as_deref(), args.quiet)?;
    if args.exit_code && soon {
        return Err(Error::Status(STATUS_EXPIRING));
    }
    Ok(())
}

/// Whether it ends soon, ended, or waits for a renewal that does not come. A token that has ended
/// presses nobody.
fn is_pressing(item: &Expiring, within: Duration, now: OffsetDateTime) -> bool {
    match item.state.as_str() {
        "overdue" => return true,
        "expired" | "used-up" if item.kind == "join-token" => return false,
        _ => {}
    }
    time(&item.ends).is_some_and(|ends| ends - now <= within)
}

fn time(text: &str) -> Option<OffsetDateTime> {
    brig_api::time::parse(text).ok()
}

fn row(item: &Expiring, now: OffsetDateTime) -> Row {
    let at = |text: &str| time(text).map(minute).unwrap_or_default();
    let left = time(&item.ends).map(|ends| {
        let seconds = (ends - now).whole_seconds();
        if seconds < 0 {
            format!("{} ago", brig_api::time::in_words(-seconds))
        } else {
            brig_api::time::in_words(seconds)
        }
    });
    let renews = match (time(&item.renews_from), time(&item.renews_until)) {
        (Some(from), Some(until)) => format!("{} to {}", minute(from), minute(until)),
        _ => String::new(),
    };
    Row::new()
        .with("Kind", item.kind.as_str())
        .with("ID", item.id.as_str())
        .with("Name", item.name.as_str())
        .with("Role", item.role.as_str())
        .with("Issued", at(&item.issued))
        .with("Ends", at(&item.ends))
        .with("Left", left.unwrap_or_default())
        .with("Renews", renews)
        .with("UsesLeft", item.uses_left.map(|uses| uses.to_string()).unwrap_or_default())
        .with("ClockOffset", item.clock_offset.map(duration::format).unwrap_or_default())
        .with("State", item.state.as_str())
        .with("Status", status(item))
}

/// The state with what else has to be known.
fn status(item: &Expiring) -> String {
    let mut text = item.state.clone();
    match item.uses_left {
        Some(0) | None => {}
        Some(1) => text.push_str(", 1 use left"),
        Some(uses) => text.push_str(&format!(", {uses} uses left")),
    }
    if let Some(offset) = item.clock_offset.filter(|offset| offset.abs() > CLOCK_OFF) {
        let size = brig_api::time::in_words(offset.abs() / 1_000_000_000).to_lowercase();
        let side = if offset < 0 { "behind" } else { "ahead" };
        text.push_str(&format!(", clock {size} {side}"));
    }
    text
}

/// `2027-02-20 18:00`, in UTC.
fn minute(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> OffsetDateTime {
        brig_api::time::parse(text).unwrap()
    }

    fn node(state: &str) -> Expiring {
        Expiring {
            kind: "node-certificate".into(),
            id: "n1".into(),
            name: "host".into(),
            role: "worker".into(),
            issued: "2026-11-22T00:00:00Z".into(),
            ends: "2027-02-20T01:00:00Z".into(),
            renews_from: "2027-01-06T00:00:00Z".into(),
            renews_until: "2027-02-02T00:00:00Z".into(),
            state: state.into(),
            ..Expiring::default()
        }
    }

    #[test]
    fn a_row_says_when_and_how_long() {
        let token = Expiring {
            kind: "join-token".into(),
            id: "worker".into(),
            name: "worker".into(),
            role: "worker".into(),
            uses_left: Some(3),
            state: "ok".into(),
            ..Expiring::default()
        };
        let off = Expiring { clock_offset: Some(-125_000_000_000), ..node("overdue") };
        let rows = [off, token].map(|item| row(&item, at("2027-02-10T00:00:00Z")));
        let text = LISTING.render(&rows, "").unwrap();
        let lines: Vec<String> =
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[0], "KIND NAME ROLE ISSUED ENDS LEFT RENEWS STATUS");
        assert_eq!(
            lines[1],
            "node-certificate host worker 2026-11-22 00:00 2027-02-20 01:00 10 days 2027-01-06 00:00 to 2027-02-02 00:00 overdue, clock 2 minutes behind"
        );
        assert_eq!(lines[2], "join-token worker worker ok, 3 uses left");
        let text =
            LISTING.render(&rows, "{{.ID}} {{.State}} {{.ClockOffset}}{{.UsesLeft}}").unwrap();
        assert_eq!(text, "n1 overdue -2m5s\nworker ok 3\n");
    }

    #[test]
    fn what_presses() {
        let now = at("2027-01-01T00:00:00Z");
        let within = |item: &Expiring, days| is_pressing(item, Duration::days(days), now);
        assert!(!within(&node("ok"), 50) && within(&node("ok"), 51));
        assert!(within(&node("overdue"), 0));
        assert!(is_pressing(&node("expired"), Duration::ZERO, at("2028-01-01T00:00:00Z")));
        let token = Expiring { kind: "join-token".into(), ..node("expired") };
        assert!(!within(&token, 1000), "it was meant to end");
        let endless = Expiring { ends: String::new(), ..node("ok") };
        assert!(!within(&endless, 100_000));
    }
}
