//! Requests under way, so that they can be judged again when the rules change.
//!
//! A stream may be open for weeks. Every request is known here from its judgement to the last byte
//! of its answer, or to the end of the connection that it took over; whoever may not do any more
//! what was allowed then is cut off. Requests whose body counted are changes, which end by
//! themselves, and which half done would be worse.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brig_access::{Object, Rules};

use super::peer::PeerWatch;
use super::query::Query;
use super::route::{Params, Route};
use crate::access::{Principal, judge};
use crate::state::AppState;

/// The requests under way.
#[derive(Debug, Default)]
pub struct OpenRequests(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last: u64,
    open: BTreeMap<u64, Arc<OpenRequest>>,
}

/// What a request was judged by.
#[derive(Debug)]
pub(super) struct OpenRequest {
    pub(super) principal: Arc<Principal>,
    pub(super) route: &'static Route,
    pub(super) params: Params,
    pub(super) query: Query,
    /// What it was about, if that was looked up.
    pub(super) object: Option<Object>,
    pub(super) peer: PeerWatch,
}

/// A request's place here, until it is dropped.
#[derive(Debug)]
pub struct Standing {
    table: Arc<OpenRequests>,
    id: u64,
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.table.table().open.remove(&self.id);
    }
}

impl OpenRequests {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request.
    pub(super) fn enter(self: &Arc<Self>, request: OpenRequest) -> Standing {
        let mut table = self.table();
        table.last += 1;
        let id = table.last;
        table.open.insert(id, Arc::new(request));
        Standing { table: Arc::clone(self), id }
    }

    fn all(&self) -> Vec<Arc<OpenRequest>> {
        self.table().open.values().cloned().collect()
    }
}

impl Standing {
    /// Judges this one request again.
    pub(super) async fn review(&self, state: &AppState) {
        let request = self.table.table().open.get(&self.id).cloned();
        if let Some(request) = request {
            review_one(state, &state.gate.rules(), &request).await;
        }
    }
}

/// Judges all requests again, by the rules that are in force now. Called whenever those, or what
/// they rest on, have changed.
pub async fn review(state: &AppState) {
    let rules = state.gate.rules();
    for request in state.open.all() {
        review_one(state, &rules, &request).await;
    }
}

async fn review_one(state: &AppState, rules: &Rules, request: &OpenRequest) {
    let OpenRequest { principal, route, params, query, .. } = request;
    if rules.unrestricted(principal) {
        return;
    }
    let mut object = judge::object(state, route, params, query).await;
    if let Some(known) = &request.object
        && object.id.is_empty()
    {
        // It has gone meanwhile, and its last words may still be on their way.
        object.clone_from(known);
    }
    let facts = judge::facts(state, route, params, query, &object, &[]).await.unwrap_or_default();
    if state.gate.still_allows(rules, principal, route.action, &object, &facts) {
        return;
    }
    request.peer.sever();
}
