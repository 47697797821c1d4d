//! Resolves what services and tasks ask for in names and wishes into what nodes need: published
//! ports, and network objects. A task that has everything goes from `NEW` to `PENDING`.

pub(crate) mod networks;
pub(crate) mod ports;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use brig_proto::swarm::{Endpoint, Service, Task, TaskState};
use brig_store::{Object, Store, StoreError, Tx};

use super::changes::{self, Wake};
use crate::task;
use crate::wire_time;

/// Runs until the store closes.
pub(crate) async fn run(store: Store) {
    loop {
        let (mut waiting, mut watcher) = store.view_and_watch(|view| Waiting {
            services: view.all::<Service>().map(|service| service.id.clone()).collect(),
            tasks: view
                .all::<Task>()
                .filter(|task| is_new(task))
                .map(|task| task.id.clone())
                .collect(),
        });
        loop {
            if !waiting.is_empty()
                && let Err(error) = allocate(&store, &mut waiting).await
            {
                tracing::warn!(error = %error, "allocation failed");
            }
            match changes::wait(&mut watcher, None).await {
                Wake::Changes(commits) => {
                    for change in changes::of(&commits) {
                        waiting.note(change.object());
                    }
                }
                Wake::Time => {}
                Wake::Missed => break,
                Wake::Closed => return,
            }
        }
    }
}

/// What is still to be allocated; stays here until it succeeded.
#[derive(Debug, Default)]
struct Waiting {
    services: BTreeSet<String>,
    tasks: BTreeSet<String>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.services.is_empty() && self.tasks.is_empty()
    }

    fn note(&mut self, object: &Object) {
        match object {
            Object::Service(service) => {
                self.services.insert(service.id.clone());
            }
            Object::Task(task) if is_new(task) => {
                self.tasks.insert(task.id.clone());
            }
            Object::Task(_)
            | Object::Node(_)
            | Object::Secret(_)
            | Object::Config(_)
            | Object::Network(_)
            | Object::Cluster(_)
            | Object::Access(_)
            | Object::ScanDatabase(_)
            | Object::Policy(_)
            | Object::Trust(_)
            | Object::TrustMetadata(_) => {}
        }
    }
}

fn is_new(task: &Task) -> bool {
    task::observed(task) == TaskState::New && task::is_wanted(task)
}

async fn allocate(store: &Store, waiting: &mut Waiting) -> Result<(), StoreError> {
    // As many transactions as it takes: each of them goes as far as there is room in it.
    while allocate_some(store, waiting).await? {}
    Ok(())
}

/// Answers whether there is something that was not looked at.
async fn allocate_some(store: &Store, waiting: &mut Waiting) -> Result<bool, StoreError> {
    let now = SystemTime::now();
    let (services, tasks, is_full) = store
        .update(|tx| -> Result<_, StoreError> {
            let mut services = waiting.services.clone();
            let mut tasks = waiting.tasks.clone();
            let mut is_full = false;
            services.retain(|id| {
                is_full = is_full || tx.is_full();
                is_full || !matches!(allocate_service(tx, id), Ok(true))
            });
            tasks.retain(|id| {
                is_full = is_full || tx.is_full();
                is_full || !matches!(allocate_task(tx, id, now), Ok(true))
            });
            Ok((services, tasks, is_full))
        })
        .await?;
    waiting.services = services;
    waiting.tasks = tasks;
    Ok(is_full)
}

/// Whether a service has all it asks for now.
fn allocate_service(tx: &mut Tx<'_>, id: &str) -> Result<bool, StoreError> {
    let Some(service) = tx.get::<Service>(id) else {
        return Ok(true);
    };
    if is_allocated(&service) {
        return Ok(true);
    }
    let others: Vec<Arc<Service>> =
        tx.all::<Service>().filter(|other| other.id != service.id).cloned().collect();
    let Ok(ports) = ports::allocate(&service, &others) else {
        return Ok(false);
    };
    let mut service = (*service).clone();
    service.endpoint = Some(Endpoint {
        spec: service.spec.as_ref().and_then(|spec| spec.endpoint.clone()),
        ports,
        virtual_ips: Vec::new(),
    });
    tx.update(service)?;
    Ok(true)
}

fn is_allocated(service: &Service) -> bool {
    let wanted = service.spec.as_ref().and_then(|spec| spec.endpoint.as_ref());
    service.endpoint.as_ref().is_some_and(|endpoint| endpoint.spec.as_ref() == wanted)
}

/// Whether there is nothing more to do for a task.
fn allocate_task(tx: &mut Tx<'_>, id: &str, now: SystemTime) -> Result<bool, StoreError> {
    let Some(task) = tx.get::<Task>(id).filter(|task| is_new(task)) else {
        return Ok(true);
    };
    let Some(service) = tx.get::<Service>(&task.service_id) else {
        return Ok(true);
    };
    if !is_allocated(&service) {
        return Ok(false);
    }
    let Some(networks) = networks::resolve(tx, &task, &service) else {
        return Ok(false);
    };
    let mut task = (*task).clone();
    task.networks = networks;
    task.endpoint.clone_from(&service.endpoint);
    let status = task.status.get_or_insert_default();
    status.state = TaskState::Pending as i32;
    status.timestamp = Some(wire_time::timestamp(now));
    "pending task scheduling".clone_into(&mut status.message);
    tx.update(task)?;
    Ok(true)
}
