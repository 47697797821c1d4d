//! What runs is matched again when the database or the policy changes. Nothing is stopped: a finding
//! that the policy would refuse is told as an event, once for each image and flaw.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use brig_api::event::{Actor, Event};
use brig_engine::ListOptions;
use brig_files::Durability;
use brig_scan::gate::{GateDecision, Mode, Policy, Reason, What};
use brig_swarm::LocalNodeState;
use brig_types::digest::Digest;
use brig_types::error::chain;
use brig_types::reference::Reference;

use super::gate::{Known, ScanGate};
use crate::admission::services;
use crate::state::{AppState, State};
use crate::swarm::local;

/// What was told already.
const TOLD: &str = "told.json";
/// Largest such file.
const MAX_TOLD: u64 = 64 << 20;
/// How often what runs is looked through although nothing changed: images come, days pass.
const PAUSE: Duration = Duration::from_secs(600);
/// How often the policy is looked at.
const GLANCE: Duration = Duration::from_secs(5);

/// Images and the flaws that were told of each.
type Told = BTreeMap<String, BTreeSet<String>>;

/// Something that runs.
struct Running {
    /// The image: its id, or its name with a digest.
    image: String,
    name: String,
    names: Vec<Option<Reference>>,
    service: String,
    stack: String,
    containers: BTreeSet<String>,
}

/// Matches what runs again and again until the daemon stops.
pub async fn follow(state: AppState, gate: ScanGate) {
    let stop = state.stop.clone();
    let _ = stop.run_until_cancelled(run(&state, &gate)).await;
}

async fn run(state: &State, gate: &ScanGate) {
    let path = state.vulnerabilities.dir().join(TOLD);
    let mut told = {
        let path = path.clone();
        tokio::task::spawn_blocking(move || read(&path)).await.unwrap_or_default()
    };
    let mut changed = state.vulnerabilities.watch();
    loop {
        if changed.borrow_and_update().is_none() {
            // Nothing can be judged; workers have none, and do not trouble their managers.
            if changed.changed().await.is_err() {
                return;
            }
            continue;
        }
        let policy = state.admission.policies.find("scan").await.ok().flatten();
        if let Some(in_force) = &policy
            && let Ok(parsed) = Policy::parse(&in_force.document)
        {
            let now = look_through(state, gate, &Arc::new(parsed), &told).await;
            if now != told {
                told = now;
                let (path, copy) = (path.clone(), told.clone());
                let wrote = tokio::task::spawn_blocking(move || write(&path, &copy)).await;
                if let Ok(Err(error)) = wrote {
                    tracing::warn!(%error, "which findings were told is not kept");
                }
            }
        }
        let version = policy.map(|policy| (policy.scope, policy.version));
        let other_policy = async {
            loop {
                tokio::time::sleep(if asks_managers(state) { PAUSE } else { GLANCE }).await;
                let now = state.admission.policies.find("scan").await.ok().flatten();
                if now.map(|policy| (policy.scope, policy.version)) != version {
                    return;
                }
            }
        };
        tokio::select! {
            _ = changed.changed() => {}
            () = other_policy => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Whether this node has the policy from others.
fn asks_managers(state: &State) -> bool {
    let in_swarm = state.swarm.status().local_node_state != LocalNodeState::Inactive;
    in_swarm && local::control(state).is_err()
}

/// Matches all that runs; answers what has been told by now.
async fn look_through(state: &State, gate: &ScanGate, policy: &Arc<Policy>, told: &Told) -> Told {
    let mut now = Told::new();
    let matcher = Arc::default();
    for running in running(state).await {
        let kept = told.get(&running.image).cloned().unwrap_or_default();
        let flaws = now.entry(running.image.clone()).or_insert(kept);
        let known = gate.kept(&running.image).await;
        // Nothing new can be said about what is not known.
        if matches!(known, Known::Nothing(_)) {
            continue;
        }
        let about = (running.service.as_str(), running.stack.as_str());
        let decisions =
            gate.decide(policy, running.names.clone(), &running.name, about, known, &matcher).await;
        for decision in decisions.iter().filter(|decision| decision.mode != Mode::Off) {
            for reason in decision.refusing() {
                if let What::Flaw(flaw) = &reason.what
                    && flaws.insert(flaw.id.clone())
                {
                    publish(state, &running, decision, reason);
                }
            }
        }
    }
    now
}

fn publish(state: &State, running: &Running, decision: &GateDecision, reason: &Reason) {
    let What::Flaw(flaw) = &reason.what else { return };
    let mut attributes = BTreeMap::from([
        ("name".to_owned(), running.name.clone()),
        ("vulnerability".to_owned(), flaw.id.clone()),
        ("severity".to_owned(), flaw.severity.as_str().to_owned()),
        ("package".to_owned(), flaw.package.clone()),
        ("version".to_owned(), flaw.version.clone()),
        ("reason".to_owned(), reason.line()),
        ("exception".to_owned(), decision.exception(reason)),
    ]);
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            attributes.insert(name.to_owned(), value);
        }
    };
    add("fixed", flaw.fixed.clone());
    add("layer", flaw.layer.clone());
    add("service", Some(running.service.clone()));
    let containers: Vec<&str> = running.containers.iter().map(String::as_str).collect();
    add("containers", Some(containers.join(",")));
    tracing::warn!(
        image = running.name,
        vulnerability = flaw.id,
        package = flaw.package,
        "an image that runs would be refused now; it goes on"
    );
    state.engine.events().publish(Event {
        kind: "image".to_owned(),
        action: "vulnerable".to_owned(),
        actor: Actor { id: running.image.clone(), attributes },
        scope: "local".to_owned(),
        ..Event::default()
    });
}

/// This node's containers, and on a manager the services of the swarm.
async fn running(state: &State) -> Vec<Running> {
    let mut found: BTreeMap<(String, String), Running> = BTreeMap::new();
    match state.engine.list(ListOptions::default()).await {
        Ok(containers) => {
            for container in containers {
                let Ok(id) = Digest::parse(&container.image_id) else { continue };
                let service = container.labels.get("com.docker.swarm.service.name");
                let service = service.cloned().unwrap_or_default();
                let stack = container.labels.get("com.docker.stack.namespace").cloned();
                let name = container.names.first().map_or("", |name| name.trim_start_matches('/'));
                let asked = Reference::parse(&container.image).map(Reference::with_default_tag);
                let entry =
                    found.entry((id.to_string(), service.clone())).or_insert_with(|| Running {
                        image: id.to_string(),
                        name: container.image.clone(),
                        names: vec![asked.ok()],
                        service,
                        stack: stack.unwrap_or_default(),
                        containers: BTreeSet::new(),
                    });
                entry.containers.insert(name.to_owned());
            }
        }
        Err(error) => tracing::warn!(error = %chain(&error), "the containers cannot be listed"),
    }
    let Ok(control) = local::control(state) else { return found.into_values().collect() };
    for service in control.services() {
        let Some(spec) = service.spec.as_ref() else { continue };
        let (name, stack) = services::names(spec);
        let image = services::image_of(spec);
        let here = found.keys().any(|(_, service)| *service == name);
        let Ok(reference) = Reference::parse(image).map(Reference::with_default_tag) else {
            continue;
        };
        // Its containers here stand for it; on other nodes only the digest says what runs.
        if here || reference.digest().is_none() {
            continue;
        }
        found.insert(
            (image.to_owned(), name.clone()),
            Running {
                image: image.to_owned(),
                name: image.to_owned(),
                names: vec![Some(reference)],
                service: name,
                stack,
                containers: BTreeSet::new(),
            },
        );
    }
    found.into_values().collect()
}

fn read(path: &Path) -> Told {
    // Nothing hangs on it but that something is told twice.
    let text = brig_files::read(path, MAX_TOLD).ok().flatten().unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn write(path: &Path, told: &Told) -> io::Result<()> {
    brig_files::replace(path, &serde_json::to_vec(told)?, 0o600, Durability::Synced)
}
