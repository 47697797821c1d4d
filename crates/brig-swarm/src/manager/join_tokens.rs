//! Join tokens with an end: how long they may be used and how often.
//!
//! SwarmKit has no such thing. The limits are fields of our own beside the tokens in the cluster
//! object, under numbers that SwarmKit does not use. They are not in the spec, which docker's
//! clients send back without what they do not know, and never leave the managers in a message of
//! the protocol. So they are sealed, replaced and counted together with the tokens.

use std::time::{Duration, SystemTime};

use brig_pki::token::JoinToken;
use brig_proto::swarm::{Cluster, JoinTokenLimit, JoinTokens, NodeRole};
use tonic::Status;

use crate::error::ControlError;
use crate::validate::service::invalid;
use crate::wire_time;

/// The limits of a new join token; none by default, as in docker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenLimit {
    /// How long nodes may join with it.
    pub lifetime: Option<Duration>,
    /// How many nodes may join with it.
    pub uses: Option<u32>,
}

impl TokenLimit {
    /// The limit as it is stored, of a token that is made `now`.
    pub(crate) fn stored(self, now: SystemTime) -> Result<Option<JoinTokenLimit>, ControlError> {
        if self.lifetime.is_some_and(|lifetime| lifetime.is_zero()) || self.uses == Some(0) {
            return Err(invalid("a join token must be of use: its limits must be above zero"));
        }
        let expires_at = self
            .lifetime
            .map(|lifetime| {
                now.checked_add(lifetime).ok_or_else(|| invalid("the join token's end is too far"))
            })
            .transpose()?
            .map(wire_time::timestamp);
        let limited = self != Self::default();
        Ok(limited.then_some(JoinTokenLimit { expires_at, uses_left: self.uses }))
    }
}

/// Why a token lets nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is none of this cluster's tokens.
    Unknown,
    /// Its time is over.
    Expired,
    /// As many nodes joined with it as may.
    UsedUp,
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::invalid_argument(match refusal {
            Refusal::Unknown => "A valid join token is necessary to join this cluster",
            Refusal::Expired => "the join token has expired: rotate it on a manager for a new one",
            Refusal::UsedUp => {
                "the join token was used as often as it may be: rotate it on a manager for a new one"
            }
        })
    }
}

/// What a node may become that shows this token.
pub(crate) fn role(cluster: &Cluster, token: &str, now: SystemTime) -> Result<NodeRole, Refusal> {
    let tokens = cluster.root_ca.as_ref().and_then(|root| root.join_tokens.as_ref());
    let tokens = tokens.ok_or(Refusal::Unknown)?;
    // Both are always compared, so the time says nothing.
    let worker = JoinToken::text_matches(&tokens.worker, token);
    let manager = JoinToken::text_matches(&tokens.manager, token);
    let role = match (manager, worker) {
        (true, _) => NodeRole::Manager,
        (false, true) => NodeRole::Worker,
        (false, false) => return Err(Refusal::Unknown),
    };
    if let Some(limit) = limit_of(tokens, role) {
        let over = |end| wire_time::instant(Some(end)) <= now;
        if limit.expires_at.as_ref().is_some_and(over) {
            return Err(Refusal::Expired);
        }
        if limit.uses_left == Some(0) {
            return Err(Refusal::UsedUp);
        }
    }
    Ok(role)
}

/// Counts a node that joined with a role's token; the changed cluster if the token's uses are
/// limited.
pub(crate) fn spent(cluster: &Cluster, role: NodeRole) -> Option<Cluster> {
    let tokens = cluster.root_ca.as_ref()?.join_tokens.as_ref()?;
    // Most tokens have no such limit: nothing is copied for them.
    limit_of(tokens, role)?.uses_left?;
    let mut cluster = cluster.clone();
    let tokens = cluster.root_ca.as_mut()?.join_tokens.as_mut()?;
    let limit = match role {
        NodeRole::Worker => tokens.worker_limit.as_mut()?,
        NodeRole::Manager => tokens.manager_limit.as_mut()?,
    };
    let left = limit.uses_left.as_mut()?;
    *left = left.saturating_sub(1);
    Some(cluster)
}

const fn limit_of(tokens: &JoinTokens, role: NodeRole) -> Option<&JoinTokenLimit> {
    match role {
        NodeRole::Worker => tokens.worker_limit.as_ref(),
        NodeRole::Manager => tokens.manager_limit.as_ref(),
    }
}
