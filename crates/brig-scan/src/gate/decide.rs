//! From facts to a decision.

use brig_types::reference::Reference;

use super::decision::{Excepted, Flaw, GateDecision, Outcome, Reason, Trigger, What};
use super::exception::{Exception, Found};
use super::policy::{Action, DoubtKind, Mode, Policy, Rule};
use crate::matching::{Finding, Report, Status};
use crate::package::{Inventory, Package};
use crate::report::Origin;
use crate::severity::Severity;

/// What is to start.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The image's name, normalised; none for an image that only has an id.
    pub image: Option<&'a Reference>,
    /// How people know it.
    pub name: &'a str,
    /// The service that it is for.
    pub service: Option<&'a str>,
    /// The stack of that service.
    pub stack: Option<&'a str>,
}

/// What is known about its image.
#[derive(Clone, Copy, Debug)]
pub enum Facts<'a> {
    /// It was judged, with [`Rule::options`].
    Judged {
        /// The inventory.
        inventory: &'a Inventory,
        /// What is wrong with it.
        report: &'a Report,
    },
    /// It could not be.
    Unjudged {
        /// Of what kind the reason is.
        doubt: DoubtKind,
        /// In a sentence.
        why: &'a str,
    },
}

/// Decides whether an image may start on a day (`2026-11-22`).
#[must_use]
pub fn decide(
    policy: &Policy,
    facts: Facts<'_>,
    subject: &Subject<'_>,
    today: &str,
) -> GateDecision {
    let rule = policy.rule(subject.image);
    let exceptions = &policy.exceptions;
    let mut decision = GateDecision {
        image: subject.name.to_owned(),
        outcome: Outcome::Admitted,
        rule: rule.map(|rule| rule.prefix.clone()),
        mode: rule.map_or(Mode::Off, |rule| rule.mode),
        reasons: Vec::new(),
        excepted: Vec::new(),
        repository: subject.image.map(Reference::name),
    };
    let Some(rule) = rule.filter(|rule| rule.mode != Mode::Off) else { return decision };
    match facts {
        Facts::Judged { inventory, report } => {
            for finding in report.counted() {
                let Some(package) = report.package(inventory, finding) else { continue };
                let (action, triggers) = judge(rule, finding);
                let found = exceptions.of_finding(finding, package, subject, today);
                let flaw = || What::Flaw(Box::new(flaw(inventory, package, finding, triggers)));
                decision.add(action, found, flaw, Some(&package.name));
            }
            for doubt in &report.doubts {
                let kind = DoubtKind::of(doubt);
                let what = || What::Doubt { doubt: kind, text: doubt.to_string() };
                decision.add(rule.on(kind), exceptions.of_doubt(kind, subject, today), what, None);
            }
        }
        Facts::Unjudged { doubt, why } => {
            let what = || What::Doubt { doubt, text: why.to_owned() };
            decision.add(rule.on(doubt), exceptions.of_doubt(doubt, subject, today), what, None);
        }
    }
    // What refuses comes first; within, the report's order is kept, which is that of urgency.
    decision.reasons.sort_by_key(|reason| !reason.refuses);
    decision.outcome = if decision.reasons.is_empty() {
        Outcome::Admitted
    } else if rule.mode == Mode::Enforce && decision.refusing().next().is_some() {
        Outcome::Refused
    } else {
        Outcome::Warned
    };
    decision
}

impl GateDecision {
    fn add(
        &mut self,
        action: Action,
        found: Found<'_>,
        what: impl FnOnce() -> What,
        package: Option<&str>,
    ) {
        if action == Action::Accept {
            return;
        }
        let expired_exception = match found {
            Found::Holds(exception) => {
                let excepted = excepted(exception, package);
                if !self.excepted.contains(&excepted) {
                    self.excepted.push(excepted);
                }
                return;
            }
            Found::Over(exception) => {
                Some(format!("its exception of {} ended on {}", exception.owner, exception.expires))
            }
            Found::No => None,
        };
        let reason = Reason { what: what(), refuses: action == Action::Refuse, expired_exception };
        self.reasons.push(reason);
    }
}

/// What a rule does about a finding, and why.
fn judge(rule: &Rule, finding: &Finding) -> (Action, Vec<Trigger>) {
    let mut triggers = Vec::new();
    if finding.malicious {
        triggers.push(Trigger::Malicious);
    }
    if rule.known_exploited && finding.exploited.is_some() {
        triggers.push(Trigger::Exploited);
    }
    if !rule.fixable_only || finding.fixable() {
        let rated = finding.severity != Severity::Unknown;
        match rule.severity {
            Some(least) if finding.severity >= least => triggers.push(Trigger::Severity),
            Some(_) if !rated => triggers.push(Trigger::Unrated),
            _ => {}
        }
        if let (Some(least), Some(epss)) = (rule.epss, finding.epss)
            && epss >= least
        {
            triggers.push(Trigger::Epss);
        }
    }
    let action = match triggers.as_slice() {
        [] => Action::Accept,
        [Trigger::Unrated] => rule.unrated,
        _ => Action::Refuse,
    };
    (action, triggers)
}

fn flaw(
    inventory: &Inventory,
    package: &Package,
    finding: &Finding,
    triggers: Vec<Trigger>,
) -> Flaw {
    let origin = Origin::of(inventory, package).map(|origin| {
        let base = if origin.base { ", of the base image" } else { "" };
        match origin.step.as_str() {
            "" => format!("layer {}{base}", origin.layer),
            step => format!("layer {}{base} ({step})", origin.layer),
        }
    });
    Flaw {
        id: finding.id.clone(),
        triggers,
        severity: finding.severity,
        epss: finding.epss,
        package: package.name.clone(),
        version: package.version.clone(),
        path: package.evidence.path.clone(),
        layer: package.layer.as_ref().map(ToString::to_string),
        origin,
        fixed: finding.fixed.clone().filter(|_| finding.fixable()),
        status: match (finding.subscription, finding.status) {
            (true, Status::Fixed) => "fixed for subscribers only",
            (_, status) => status.as_str(),
        },
    }
}

fn excepted(exception: &Exception, package: Option<&str>) -> Excepted {
    Excepted {
        id: exception.id.clone(),
        package: package.map(ToOwned::to_owned),
        owner: exception.owner.clone(),
        reason: exception.reason.clone(),
        expires: exception.expires.clone(),
    }
}
