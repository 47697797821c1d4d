//! Who asks, and may they?
//!
//! Every request passes [`Gate::authorize`] between the route table and its handler. The table
//! names the [`Action`], the connection the [`Principal`]; the path and the body are turned into
//! an object and facts ([`judge`]), and the policies of `brig_access` decide. Handlers get an
//! [`Authorized`], which only this module can make. What is decided goes to the audit log.

pub mod api;
pub mod container;
pub mod enrol;
pub mod judge;
pub mod lend;
pub mod mask;
pub mod object;
pub mod service;
pub mod table;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
pub use brig_access::{Action, Principal};
use brig_access::{Decision, Facts, LoadError, Object, Request, Rules, Transport};
use brig_types::error::{Categorized, ErrorKind};

use crate::audit::entry::{Entry, Kind};
use crate::audit::{AuditError, AuditLog};

/// What happens to changes while the audit log can't be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuditFailure {
    /// They are refused: nothing changes without a record.
    #[default]
    Refuse,
    /// They are done all the same, and the daemon's log says so.
    Allow,
}

/// The rules in force and the log of what they decided.
#[derive(Debug)]
pub struct Gate {
    dir: PathBuf,
    rules: ArcSwap<Rules>,
    audit: AuditLog,
    on_failure: AuditFailure,
    requests: AtomicU64,
    boot: u64,
}

/// Proof that an action was allowed, and the right to ask what else is.
#[derive(Clone, Debug)]
pub struct Authorized {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    principal: Arc<Principal>,
    action: Action,
    rules: Arc<Rules>,
    unrestricted: bool,
    entry: Option<Entry>,
}

impl Authorized {
    /// Who was allowed.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.inner.principal
    }

    /// What was allowed.
    #[must_use]
    pub fn action(&self) -> Action {
        self.inner.action
    }

    /// Whether the same principal may do something else: for lists, which show what may be
    /// inspected, and for parts of answers.
    #[must_use]
    pub fn may(&self, action: Action, object: &Object) -> bool {
        if self.inner.unrestricted {
            return true;
        }
        let (principal, facts) = (&*self.inner.principal, &Facts::default());
        self.inner.rules.decide(&Request { principal, action, object, facts }).allowed
    }

    /// The rules that allowed it.
    #[must_use]
    pub fn rules(&self) -> &Arc<Rules> {
        &self.inner.rules
    }

    /// Whether nothing is kept from the principal.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        self.inner.unrestricted
    }
}

/// The principal may not do this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("authorization denied by policy {rule:?}: {reason}")]
pub struct Denied {
    rule: String,
    reason: String,
}

impl Categorized for Denied {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Forbidden
    }
}

/// A change that can't be recorded is not made.
#[derive(Debug, thiserror::Error)]
#[error(
    "nothing is changed while the audit log cannot be written; free space on its file system, or \
     set \"audit-failure\" to \"allow\" in the configuration"
)]
pub struct Unrecorded(#[source] AuditError);

impl Categorized for Unrecorded {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }
}

impl Gate {
    /// Reads the rules of a directory.
    ///
    /// # Errors
    /// [`LoadError`] with the file and the line; [`AuditError`].
    pub fn open(dir: PathBuf, audit: AuditLog, on_failure: AuditFailure) -> anyhow::Result<Self> {
        let rules = Rules::load(&dir)?;
        let boot = time::OffsetDateTime::now_utc().unix_timestamp().unsigned_abs();
        let gate = Self {
            dir,
            rules: ArcSwap::from_pointee(rules),
            audit,
            on_failure,
            requests: AtomicU64::new(1),
            boot,
        };
        gate.note_rules();
        Ok(gate)
    }

    /// Reads the rules again; on an error the old ones stay.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn reload(&self) -> Result<(), LoadError> {
        self.rules.store(Arc::new(Rules::load(&self.dir)?));
        self.note_rules();
        Ok(())
    }

    fn note_rules(&self) {
        let rules = self.rules.load();
        let mut sum = brig_pki::hash::Sha256::new();
        for (id, _, text) in rules.policies() {
            sum.update(id.as_bytes());
            sum.update(text.as_bytes());
        }
        sum.update(format!("{:?}", rules.bindings()).as_bytes());
        let note = format!(
            "{} policies and {} bindings in force, sha256:{}",
            rules.policies().count(),
            rules.bindings().bindings.len(),
            brig_pki::hash::hex(&sum.finish())
        );
        tracing::info!(note, dir = %self.dir.display(), "access rules read");
        let entry = Entry { kind: Kind::Rules, note, ..Entry::default() };
        if let Err(error) = self.audit.append(entry) {
            let error = brig_types::error::chain(&error);
            tracing::error!(%error, "the rules in force are not in the audit log");
        }
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Where the rules are read from.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// The audit log.
    #[must_use]
    pub const fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// Whether a principal may do something by the rules of this moment, for streams that outlive
    /// rules. Not recorded.
    #[must_use]
    pub fn may_now(&self, principal: &Principal, action: Action, object: &Object) -> bool {
        let rules = self.rules.load();
        rules.unrestricted(principal)
            || rules
                .decide(&Request { principal, action, object, facts: &Facts::default() })
                .allowed
    }

    /// Decides once more about something that is under way. That it ends is recorded.
    #[must_use]
    pub fn still_allows(
        &self,
        rules: &Rules,
        principal: &Principal,
        action: Action,
        object: &Object,
        facts: &Facts,
    ) -> bool {
        let decision = rules.decide(&Request { principal, action, object, facts });
        if decision.allowed {
            return true;
        }
        let entry = self.entry(principal, action, object, facts, &decision);
        tracing::info!(
            principal = entry.principal, %action, object = entry.object,
            rule = decision.rule, reason = decision.reason, "cut off: not allowed any more"
        );
        let note = format!("cut off: {}", decision.reason);
        if let Err(error) = self.audit.append(Entry { note, ..entry }) {
            let error = brig_types::error::chain(&error);
            tracing::error!(%error, "a cut is not in the audit log");
        }
        false
    }

    /// Decides, and records what must be.
    ///
    /// # Errors
    /// [`Denied`]; [`Unrecorded`] for changes.
    pub fn authorize(
        &self,
        rules: Arc<Rules>,
        principal: &Arc<Principal>,
        action: Action,
        object: &Object,
        facts: &Facts,
    ) -> Result<Authorized, GateError> {
        let decision = rules.decide(&Request { principal, action, object, facts });
        let entry = self.entry(principal, action, object, facts, &decision);
        if !decision.allowed {
            tracing::info!(
                principal = entry.principal, %action, object = entry.object,
                rule = decision.rule, reason = decision.reason, "denied"
            );
            let denied = Entry {
                status: Some(http::StatusCode::FORBIDDEN.as_u16()),
                note: decision.reason.clone(),
                ..entry
            };
            if let Err(error) = self.audit.append(denied) {
                let error = brig_types::error::chain(&error);
                tracing::error!(%error, "a denial is not in the audit log");
            }
            let Decision { rule, reason, .. } = decision;
            return Err(GateError::Denied(Denied { rule, reason }));
        }
        tracing::trace!(%principal, %action, rule = decision.rule, "allowed");
        let mut recorded = None;
        if action.is_change() {
            match self.audit.append(entry.clone()) {
                Ok(()) => recorded = Some(entry),
                Err(error) if self.on_failure == AuditFailure::Allow => {
                    let error = brig_types::error::chain(&error);
                    tracing::error!(%error, "a change is not in the audit log");
                }
                Err(error) => return Err(GateError::Unrecorded(Unrecorded(error))),
            }
        }
        let unrestricted = rules.unrestricted(principal);
        let principal = Arc::clone(principal);
        let inner = Inner { principal, action, rules, unrestricted, entry: recorded };
        Ok(Authorized { inner: Arc::new(inner) })
    }

    fn entry(
        &self,
        principal: &Principal,
        action: Action,
        object: &Object,
        facts: &Facts,
        decision: &Decision,
    ) -> Entry {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let name = if object.label().is_empty() { facts.name.as_str() } else { object.label() };
        Entry {
            kind: Kind::Decision,
            request: format!("{:x}-{number:x}", self.boot),
            principal: principal.name(),
            transport: Transport::of(principal).name().to_owned(),
            container: principal.container().to_owned(),
            action: action.name().to_owned(),
            object: name.to_owned(),
            role: decision.role.clone(),
            rule: decision.rule.clone(),
            allowed: decision.allowed,
            ..Entry::default()
        }
    }

    /// Records in words what was changed about rights: who got which role.
    pub fn note(&self, authorized: &Authorized, object: &str, note: String) {
        let Some(entry) = &authorized.inner.entry else { return };
        let entry = Entry { object: object.to_owned(), note, ..entry.clone() };
        if let Err(error) = self.audit.append(entry) {
            let error = brig_types::error::chain(&error);
            tracing::error!(%error, "a change of rights is not in the audit log");
        }
    }

    /// Records how an allowed change was answered.
    pub fn answered(&self, authorized: &Authorized, status: http::StatusCode) {
        let Some(entry) = &authorized.inner.entry else { return };
        let outcome = Entry { kind: Kind::Outcome, status: Some(status.as_u16()), ..entry.clone() };
        if let Err(error) = self.audit.append(outcome) {
            let error = brig_types::error::chain(&error);
            tracing::error!(%error, "an outcome is not in the audit log");
        }
    }
}

/// Why a request does not get to its handler.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// The rules.
    #[error(transparent)]
    Denied(Denied),
    /// The audit log.
    #[error(transparent)]
    Unrecorded(Unrecorded),
}

impl Categorized for GateError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Denied(denied) => denied.kind(),
            Self::Unrecorded(unrecorded) => unrecorded.kind(),
        }
    }
}
