//! The scan gate: an image's inventory, judged by the database and by the policy.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use brig_engine::Origin;
use brig_image::{Credentials, ImageStore};
use brig_scan::gate::{self, DoubtKind, Facts, GateDecision, Mode, Policy, Rule};
use brig_scan::matching::{Matcher, Report};
use brig_scan::package::Inventory;
use brig_types::error::chain;
use brig_types::reference::Reference;
use time::OffsetDateTime;
use time::macros::format_description;

use super::database::{Database, Loaded};
use crate::admission::gate::{Decision, Gate, Subject, Verdict};
use crate::admission::policies::PolicyInForce;
use crate::inventory::Inventories;

/// How long an image may take to get here that has to be looked into.
const PULL_PATIENCE: Duration = Duration::from_secs(600);

/// Judges images by what is wrong with them.
#[derive(Clone, Debug)]
pub struct ScanGate {
    database: Arc<Database>,
    inventories: Inventories,
    images: ImageStore,
}

/// What is known about an image.
pub(super) enum Known {
    /// What is in it.
    Inventory(Arc<Inventory>),
    /// Nothing, for this reason.
    Nothing(String),
}

impl ScanGate {
    /// The gate over these parts.
    #[must_use]
    pub fn new(database: Arc<Database>, inventories: Inventories, images: ImageStore) -> Self {
        Self { database, inventories, images }
    }

    /// What is in the image that is to start. One that is nowhere near is pulled: its verdict is
    /// worth more than the time.
    async fn look(&self, subject: &Subject<'_>) -> Known {
        if let Some(local) = &subject.local {
            return self.kept(local.id.as_str()).await;
        }
        let Some(reference) = &subject.reference else {
            return Known::Nothing("the image has no name that it could be had by".to_owned());
        };
        let pinned = match &subject.digest {
            Some(digest) => reference.repository().with_digest(digest.clone()),
            None => reference.clone(),
        };
        let name = pinned.familiar();
        if let known @ Known::Inventory(_) = self.kept(&name).await {
            return known;
        }
        if subject.digest.is_none() {
            // What stands behind the name may be another image on each node.
            return Known::Nothing(format!("{name} is not here, and its digest is not known"));
        }
        let credentials: Option<Credentials> =
            subject.auth.map(crate::api::image_transfer::credentials_of);
        let pull = self.images.pull(&pinned, None, credentials, &|_| {});
        match tokio::time::timeout(PULL_PATIENCE, pull).await {
            Ok(Ok(_)) => self.kept(&name).await,
            Ok(Err(error)) => Known::Nothing(format!(
                "{name} cannot be pulled to be looked into: {}",
                chain(&error)
            )),
            Err(_) => Known::Nothing(format!(
                "{name} was not here within {} seconds to be looked into",
                PULL_PATIENCE.as_secs()
            )),
        }
    }

    /// What is in an image that is here, or that another node has told about.
    pub(super) async fn kept(&self, name: &str) -> Known {
        match self.inventories.ensure(name).await {
            Ok(Some(inventory)) => Known::Inventory(Arc::new(inventory)),
            Ok(None) => Known::Nothing(format!("nothing is known about what is in {name}")),
            Err(error) => {
                Known::Nothing(format!("what is in {name} cannot be read: {}", chain(&error)))
            }
        }
    }

    /// The decisions about an image under each of its names, by a policy. Whoever asks about many
    /// images has one matcher for all of them.
    pub(super) async fn decide(
        &self,
        policy: &Arc<Policy>,
        names: Vec<Option<Reference>>,
        asked: &str,
        (service, stack): (&str, &str),
        known: Known,
        matcher: &Arc<Mutex<Matcher>>,
    ) -> Vec<GateDecision> {
        let matcher = Arc::clone(matcher);
        let (policy, database) = (Arc::clone(policy), self.database.current());
        let (asked, service, stack) = (asked.to_owned(), service.to_owned(), stack.to_owned());
        let decide = move || {
            let some = |text: &'_ String| (!text.is_empty()).then(|| text.clone());
            let (service, stack) = (some(&service), some(&stack));
            // What it remembers is right at any time.
            let mut matcher = matcher.lock().unwrap_or_else(PoisonError::into_inner);
            names
                .iter()
                .map(|image| {
                    let subject = gate::Subject {
                        image: image.as_ref(),
                        name: &asked,
                        service: service.as_deref(),
                        stack: stack.as_deref(),
                    };
                    decide(&policy, &subject, &known, database.as_deref(), &mut matcher)
                })
                .collect()
        };
        tokio::task::spawn_blocking(decide).await.unwrap_or_default()
    }
}

/// One decision. Reads the database: blocks.
fn decide(
    policy: &Policy,
    subject: &gate::Subject<'_>,
    known: &Known,
    database: Option<&Loaded>,
    matcher: &mut Matcher,
) -> GateDecision {
    let today = today();
    let unjudged =
        |doubt, why: &str| gate::decide(policy, Facts::Unjudged { doubt, why }, subject, &today);
    let Some(rule) = policy.rule(subject.image).filter(|rule| rule.mode != Mode::Off) else {
        return unjudged(DoubtKind::NoInventory, "");
    };
    let inventory = match known {
        Known::Inventory(inventory) => inventory,
        Known::Nothing(why) => return unjudged(DoubtKind::NoInventory, why),
    };
    match report(inventory, database, rule, &today, matcher) {
        Ok(report) => {
            let facts = Facts::Judged { inventory, report: &report };
            gate::decide(policy, facts, subject, &today)
        }
        Err(why) => unjudged(DoubtKind::NoDatabase, &why),
    }
}

fn report(
    inventory: &Inventory,
    database: Option<&Loaded>,
    rule: &Rule,
    today: &str,
    matcher: &mut Matcher,
) -> Result<Report, String> {
    let database = database.ok_or(
        "this engine has no vulnerability database; give it one: brig scan db update --engine",
    )?;
    matcher.judge(&database.index, inventory, &rule.options(today)).map_err(|error| chain(&error))
}

/// Today, in UTC.
pub(super) fn today() -> String {
    let format = format_description!("[year]-[month]-[day]");
    OffsetDateTime::now_utc().format(format).unwrap_or_default()
}

/// The names that an image is judged under: what was asked for, and what it was pulled as. A name
/// that somebody gives it here does not take it out of the rules for where it comes from.
fn names(subject: &Subject<'_>) -> Vec<Option<Reference>> {
    let mut names: BTreeSet<Option<Reference>> = BTreeSet::new();
    names.insert(subject.reference.clone());
    let origins = subject.local.iter().flat_map(|local| local.repo_digests);
    let asked = subject.reference.as_ref().map(Reference::name);
    names.extend(origins.filter(|name| Some(name.name()) != asked).cloned().map(Some));
    if names.len() > 1 && subject.reference.is_none() {
        names.remove(&None);
    }
    names.into_iter().collect()
}

/// Whether any rule looks at an image.
fn applies(policy: &Policy, names: &[Option<Reference>]) -> bool {
    let rule = |name: &Option<Reference>| policy.rule(name.as_ref());
    names.iter().filter_map(rule).any(|rule| rule.mode != Mode::Off)
}

#[async_trait]
impl Gate for ScanGate {
    fn name(&self) -> &'static str {
        "scan"
    }

    fn canonical(&self, document: &[u8]) -> Result<Vec<u8>, String> {
        let policy = Policy::parse_new(document).map_err(|error| chain(&error))?;
        policy.to_bytes().map_err(|error| chain(&error))
    }

    async fn judge(&self, policy: &PolicyInForce, subject: &Subject<'_>) -> Decision {
        // What its manager admitted goes on: a flaw that is found later is no outage.
        if matches!(subject.origin, Origin::Task { .. }) {
            return Decision::admitted("tasks of admitted services");
        }
        let policy = match Policy::parse(&policy.document) {
            Ok(policy) => Arc::new(policy),
            Err(error) => {
                let why = format!("the policy cannot be read: {}", chain(&error));
                return Decision { verdict: Verdict::Refused(why), ..Decision::admitted("") };
            }
        };
        let names = names(subject);
        if !applies(&policy, &names) {
            return Decision::admitted("none");
        }
        let known = self.look(subject).await;
        let about = (subject.service, subject.stack);
        let matcher = Arc::default();
        let decisions = self.decide(&policy, names, subject.asked, about, known, &matcher).await;
        // The strictest of its names decides.
        let Some(worst) = decisions
            .into_iter()
            .max_by_key(|decision| (decision.outcome, decision.refusing().count()))
        else {
            let why = "the image could not be judged: interrupted".to_owned();
            return Decision { verdict: Verdict::Refused(why), ..Decision::admitted("") };
        };
        let refusal = worst.refusal();
        Decision {
            verdict: if refusal.is_empty() { Verdict::Admitted } else { Verdict::Refused(refusal) },
            enforced: worst.mode == Mode::Enforce,
            rule: worst.rule.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string),
            digest: None,
            warnings: worst.warnings(),
            details: serde_json::to_value(&worst).unwrap_or_default(),
        }
    }
}
