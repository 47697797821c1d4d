//! What ends and when: `GET /system/expiring`, an extension of brig's, and the warnings about it
//! in `/info`, in the log and as events.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use brig_access::Object;
use brig_api::event::{Actor, Event};
use brig_api::expiring::Expiring;
use brig_api::filters::Filters;
use brig_api::time::rfc3339nano;
use brig_pki::token::NodeRole;
use brig_swarm::{ClockOffset, Expiry, ExpiryKind, ExpiryState};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::Answer;
use crate::access::{Action, enrol};
use crate::server::{Call, body};
use crate::state::{AppState, State};

const FILTERS: [&str; 5] = ["id", "kind", "name", "role", "state"];

/// The end of a root is told about from this long before.
const ROOT_NOTICE: Duration = Duration::from_secs(90 * 24 * 3600);
/// Warnings that one answer has at most.
const MAX_WARNINGS: usize = 10;
/// How often somebody looks, and how often the log repeats what goes on.
const LOOK_EVERY: Duration = Duration::from_secs(600);
const TELL_EVERY: Duration = Duration::from_secs(24 * 3600);

/// `GET /system/expiring`: everything that this node knows the end of.
pub(super) async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.check_keys(&FILTERS)?;
    let known = call.state.swarm.expiries(SystemTime::now())?;
    let mut shown: Vec<Expiring> = known.iter().map(json).collect();
    // Who may reach the engine is not for everybody to know.
    if call.authorized.may(Action::AccessInspect, &Object::named("access", "")) {
        shown.extend(enrol::expiring::list(&call.state));
    }
    shown.retain(|item| matches(&filters, item));
    body::ok(&shown)
}

fn matches(filters: &Filters, item: &Expiring) -> bool {
    filters.matches_prefix("id", &item.id)
        && filters.matches_prefix("name", &item.name)
        && filters.matches_exactly("kind", &item.kind)
        && filters.matches_exactly("role", &item.role)
        && filters.matches_exactly("state", &item.state)
}

fn json(expiry: &Expiry) -> Expiring {
    let text = |at: Option<SystemTime>| {
        at.map(|at| rfc3339nano(OffsetDateTime::from(at))).unwrap_or_default()
    };
    Expiring {
        kind: expiry.kind.as_str().to_owned(),
        id: expiry.id.clone(),
        name: expiry.name.clone(),
        role: expiry.role.map(role).unwrap_or_default().to_owned(),
        issued: text(expiry.issued),
        ends: text(expiry.ends),
        renews_from: text(expiry.renews.map(|(from, _)| from)),
        renews_until: text(expiry.renews.map(|(_, until)| until)),
        uses_left: expiry.uses_left,
        state: expiry.state.as_str().to_owned(),
        clock_offset: expiry.clock.map(|clock| clock.millis().saturating_mul(1_000_000)),
    }
}

const fn role(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Worker => "worker",
        NodeRole::Manager => "manager",
    }
}

/// What `/info` warns of.
#[must_use]
pub fn warnings(state: &State) -> Vec<String> {
    let now = SystemTime::now();
    let known = state.swarm.expiries(now).unwrap_or_default();
    let mut all: Vec<String> = own_clock(state.swarm.status().clock).into_iter().collect();
    all.extend(known.iter().filter_map(|expiry| concern(expiry, now)).map(|c| c.text));
    shortened(all).into_iter().map(|text| format!("WARNING: {text}")).collect()
}

fn shortened(mut all: Vec<String>) -> Vec<String> {
    let more = all.len().saturating_sub(MAX_WARNINGS);
    if more > 0 {
        all.truncate(MAX_WARNINGS);
        all.push(format!("{more} more ends need attention: see \"brig system expiring\""));
    }
    all
}

fn own_clock(clock: Option<ClockOffset>) -> Option<String> {
    let clock = clock.filter(|clock| clock.is_off())?;
    Some(format!("this node's clock is {clock} of its manager's. Set the clock that is wrong"))
}

/// Something that an operator has to know.
#[derive(Debug, PartialEq, Eq)]
struct Concern {
    text: String,
    /// The action of the event that says so, for nodes.
    action: Option<&'static str>,
}

/// What has to be known of something that ends; `None` while all is well.
fn concern(expiry: &Expiry, now: SystemTime) -> Option<Concern> {
    let end = expiry.ends.map(day).unwrap_or_default();
    let (id, name) = (&expiry.id, &expiry.name);
    match (expiry.kind, expiry.state) {
        (ExpiryKind::RootCertificate | ExpiryKind::PendingRootCertificate, state) => {
            let near = expiry.ends.is_some_and(|ends| ends <= now + ROOT_NOTICE);
            near.then(|| {
                let ends = if state == ExpiryState::Expired { "ended" } else { "ends" };
                let text = format!(
                    "the swarm's root certificate {ends} on {end}, and with it every certificate of its nodes. Replace it: brig swarm ca --rotate"
                );
                Concern { text, action: None }
            })
        }
        (ExpiryKind::NodeCertificate, ExpiryState::Overdue) => {
            let until = expiry.renews.map(|(_, until)| day(until)).unwrap_or_default();
            let text = format!(
                "the certificate of node {name} ({id}) should have been renewed until {until} and ends on {end}. The log of its daemon says why it was not"
            );
            Some(Concern { text, action: Some("certificate-overdue") })
        }
        (ExpiryKind::NodeCertificate, ExpiryState::Grace) => {
            let text = format!(
                "the certificate of node {name} ({id}) ended on {end}. The node can still renew it, by itself when it comes back"
            );
            Some(Concern { text, action: Some("certificate-expired") })
        }
        (ExpiryKind::NodeCertificate, ExpiryState::Expired) => {
            let text = format!(
                "the certificate of node {name} ({id}) ended on {end}. If the node does not come back by itself, let it leave the swarm and join again"
            );
            Some(Concern { text, action: Some("certificate-expired") })
        }
        (ExpiryKind::NodeCertificate, _) => {
            let clock = expiry.clock.filter(|clock| name != "self" && clock.is_off())?;
            let text = format!("the clock of node {name} ({id}) is {clock} of this manager's");
            Some(Concern { text, action: Some("clock-off") })
        }
        _ => None,
    }
}

fn day(at: SystemTime) -> String {
    OffsetDateTime::from(at).date().to_string()
}

/// Tells the log once a day, and whoever listens to events once, what has to be known.
pub fn follow(state: &AppState) {
    let state = AppState::clone(state);
    let tasks = state.tasks.clone();
    tasks.spawn(async move {
        let stop = state.stop.clone();
        let _ = stop.run_until_cancelled(watch(&state)).await;
    });
}

async fn watch(state: &State) {
    let mut told = Told::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = SystemTime::now();
        let known = state.swarm.expiries(now).unwrap_or_default();
        for (expiry, news) in told.look(&known, now, Instant::now()) {
            tracing::warn!("{}", news.concern.text);
            if let Some(action) = news.concern.action.filter(|_| news.first) {
                state.engine.events().publish(event(expiry, action));
            }
        }
    }
}

fn event(expiry: &Expiry, action: &str) -> Event {
    let ends = json(expiry).ends;
    Event {
        kind: "node".to_owned(),
        action: action.to_owned(),
        actor: Actor {
            id: expiry.id.clone(),
            attributes: [
                ("name".to_owned(), expiry.name.clone()),
                ("certificate.ends".to_owned(), ends),
            ]
            .into(),
        },
        scope: "swarm".to_owned(),
        ..Event::default()
    }
}

/// What was told already.
#[derive(Debug, Default)]
struct Told(BTreeMap<(ExpiryKind, String, Option<&'static str>), Instant>);

/// Something to tell.
#[derive(Debug)]
struct News {
    concern: Concern,
    /// Whether it is told for the first time.
    first: bool,
}

impl Told {
    /// What is to be told now. What is well again is forgotten, so that it is news the next time.
    fn look<'a>(
        &mut self,
        known: &'a [Expiry],
        now: SystemTime,
        at: Instant,
    ) -> Vec<(&'a Expiry, News)> {
        let before = std::mem::take(&mut self.0);
        let mut news = Vec::new();
        for expiry in known {
            let Some(concern) = concern(expiry, now) else {
                continue;
            };
            let key = (expiry.kind, expiry.id.clone(), concern.action);
            let last = before.get(&key).copied();
            let due = last.is_none_or(|last| at.duration_since(last) >= TELL_EVERY);
            self.0.insert(key, last.filter(|_| !due).unwrap_or(at));
            if due {
                news.push((expiry, News { concern, first: last.is_none() }));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn node(state: ExpiryState) -> Expiry {
        let begin = SystemTime::UNIX_EPOCH;
        Expiry {
            kind: ExpiryKind::NodeCertificate,
            id: "n1".into(),
            name: "host".into(),
            role: Some(NodeRole::Worker),
            issued: Some(begin),
            ends: Some(begin + DAY * 90),
            renews: Some((begin + DAY * 45, begin + DAY * 72)),
            uses_left: None,
            state,
            clock: None,
        }
    }

    fn root() -> Expiry {
        Expiry {
            kind: ExpiryKind::RootCertificate,
            role: None,
            renews: None,
            ..node(ExpiryState::Ok)
        }
    }

    #[test]
    fn what_is_shown() {
        let item = json(&node(ExpiryState::Renewing));
        let value = serde_json::to_value(&item).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"Kind": "node-certificate", "ID": "n1", "Name": "host", "Role": "worker",
                "Issued": "1970-01-01T00:00:00Z", "Ends": "1970-04-01T00:00:00Z",
                "RenewsFrom": "1970-02-15T00:00:00Z", "RenewsUntil": "1970-03-14T00:00:00Z",
                "State": "renewing"})
        );
        for (key, value, expected) in [
            ("kind", "node-certificate", true),
            ("kind", "node", false),
            ("state", "renewing", true),
            ("role", "manager", false),
            ("name", "ho", true),
            ("id", "n2", false),
        ] {
            assert_eq!(matches(&Filters::new().with(key, value), &item), expected, "{key}={value}");
        }
    }

    #[test]
    fn operators_are_told_of_what_does_not_mend_itself() {
        let now = SystemTime::UNIX_EPOCH;
        for state in [ExpiryState::Ok, ExpiryState::Renewing, ExpiryState::Down] {
            assert_eq!(concern(&node(state), now), None);
        }
        let overdue = concern(&node(ExpiryState::Overdue), now).unwrap();
        assert_eq!(overdue.action, Some("certificate-overdue"));
        assert!(overdue.text.contains("host (n1) should have been renewed until 1970-03-14"));
        let expired = concern(&node(ExpiryState::Expired), now).unwrap();
        assert!(expired.text.contains("ended on 1970-04-01"), "{}", expired.text);
        assert_eq!(concern(&root(), now - DAY), None, "91 days are left");
        let near = concern(&root(), now).unwrap();
        assert!(near.text.contains("root certificate ends on 1970-04-01"), "{}", near.text);
        let token = Expiry { kind: ExpiryKind::JoinToken, ..node(ExpiryState::Expired) };
        assert_eq!(concern(&token, now), None, "a token is meant to end");
    }

    #[test]
    fn the_log_is_told_once_a_day_and_events_once() {
        let (mut told, now, at) = (Told::default(), SystemTime::UNIX_EPOCH, Instant::now());
        let overdue = [node(ExpiryState::Overdue)];
        let mut look = |known: &[Expiry], hours: u32| -> Vec<bool> {
            let at = at + Duration::from_secs(3600) * hours;
            told.look(known, now, at).into_iter().map(|(_, news)| news.first).collect()
        };
        assert_eq!(look(&overdue, 0), [true]);
        assert!(look(&overdue, 1).is_empty());
        assert_eq!(look(&overdue, 24), [false], "again, but no event");
        assert!(look(&overdue, 25).is_empty());
        assert_eq!(look(&[node(ExpiryState::Expired)], 26), [true], "worse");
        assert!(look(&[node(ExpiryState::Ok)], 27).is_empty(), "well again");
        assert_eq!(look(&overdue, 28), [true], "news");
    }

    #[test]
    fn a_hundred_lost_nodes_do_not_fill_the_screen() {
        let shown = shortened(vec!["x".to_owned(); 100]);
        assert_eq!(shown.len(), MAX_WARNINGS + 1);
        assert!(shown.last().unwrap().starts_with("90 more"));
        assert_eq!(shortened(vec!["x".to_owned(); MAX_WARNINGS]).len(), MAX_WARNINGS);
    }
}
