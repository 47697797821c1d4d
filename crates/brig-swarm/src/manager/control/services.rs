//! Services: create, change, roll back, remove.

use std::sync::Arc;
use std::time::SystemTime;

use brig_proto::swarm::{
    Config, Endpoint, Network, Secret, Service, ServiceSpec, TaskSpec, UpdateStatus, Version,
    service_spec, update_status::UpdateState,
};
use brig_store::{State, StoreObject as _};
use brig_types::id::ServiceId;

use super::{Control, check_version, find};
use crate::error::ControlError;
use crate::manager::allocator::{networks, ports};
use crate::task;
use crate::validate::service::{self as validate, invalid};
use crate::wire_time;

/// Where registry credentials come from when an update brings none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RegistryAuthFrom {
    /// The spec that is replaced.
    #[default]
    Spec,
    /// The spec before that.
    PreviousSpec,
}

/// How a service is updated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpdateOptions {
    /// Where registry credentials come from when the spec has none.
    pub registry_auth_from: RegistryAuthFrom,
    /// Go back to the previous spec; the one that was sent is not looked at.
    pub roll_back: bool,
}

impl Control {
    /// All services.
    #[must_use]
    pub fn services(&self) -> Vec<Arc<Service>> {
        self.store.view().all::<Service>().cloned().collect()
    }

    /// A service by id, name or id prefix.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Ambiguous`].
    pub fn service(&self, reference: &str) -> Result<Arc<Service>, ControlError> {
        find(&self.store.view(), "service", reference, task::service_name)
    }

    /// Creates a service and returns its id. A replicated mode without a number means one.
    ///
    /// # Errors
    /// [`ControlError::InvalidArgument`], [`ControlError::AlreadyExists`],
    /// [`ControlError::NotImplemented`].
    pub async fn create_service(&self, mut spec: ServiceSpec) -> Result<String, ControlError> {
        validate::spec(&spec)?;
        let id = ServiceId::generate().to_string();
        self.store
            .update(|tx| {
                resolve_references(tx, &mut spec)?;
                let service = Service {
                    id: id.clone(),
                    spec: Some(spec),
                    spec_version: Some(Version::default()),
                    endpoint: None,
                    ..Service::default()
                };
                let service = check_ports(tx, service)?;
                tx.create(service)?;
                Ok(id)
            })
            .await
    }

    /// Replaces a service's spec; its tasks follow as its update config says.
    ///
    /// # Errors
    /// [`ControlError::OutOfSequence`], [`ControlError::InvalidArgument`],
    /// [`ControlError::Unsupported`] for another name or mode,
    /// [`ControlError::FailedPrecondition`] for a rollback without a previous spec.
    pub async fn update_service(
        &self,
        reference: &str,
        version: u64,
        mut spec: ServiceSpec,
        options: UpdateOptions,
    ) -> Result<(), ControlError> {
        if !options.roll_back {
            validate::spec(&spec)?;
        }
        let now = SystemTime::now();
        self.store
            .update(|tx| {
                let service = find::<Service>(tx, "service", reference, task::service_name)?;
                check_version(&*service, version)?;
                let mut service = (*service).clone();
                if options.roll_back {
                    roll_back(&mut service, now)?;
                } else {
                    resolve_references(tx, &mut spec)?;
                    replace_spec(&mut service, spec, options)?;
                }
                let service = check_ports(tx, service)?;
                tx.update(service)?;
                Ok(())
            })
            .await
    }

    /// Removes a service; its tasks are stopped and removed.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Ambiguous`].
    pub async fn remove_service(&self, reference: &str) -> Result<(), ControlError> {
        self.store
            .update(|tx| {
                let service = find::<Service>(tx, "service", reference, task::service_name)?;
                tx.delete::<Service>(&service.id)?;
                Ok(())
            })
            .await
    }
}

fn replace_spec(
    service: &mut Service,
    mut spec: ServiceSpec,
    options: UpdateOptions,
) -> Result<(), ControlError> {
    let old = service.spec.clone().unwrap_or_default();
    let name = |spec: &ServiceSpec| spec.annotations.as_ref().map(|a| a.name.clone());
    if name(&old) != name(&spec) {
        return Err(ControlError::Unsupported("renaming services is not supported".to_owned()));
    }
    let mode =
        |spec: &ServiceSpec| spec.mode.as_ref().map(std::mem::discriminant::<service_spec::Mode>);
    if mode(&old) != mode(&spec) {
        return Err(ControlError::Unsupported("service mode change is not allowed".to_owned()));
    }
    let credentials = match options.registry_auth_from {
        RegistryAuthFrom::Spec => Some(&old),
        RegistryAuthFrom::PreviousSpec => service.previous_spec.as_ref(),
    };
    keep_credentials(&mut spec, credentials);
    service.previous_spec_version = service.spec_version;
    service.previous_spec = Some(old);
    service.spec_version = Some(Version { index: service.version() });
    service.spec = Some(spec);
    service.update_status = None;
    Ok(())
}

fn roll_back(service: &mut Service, now: SystemTime) -> Result<(), ControlError> {
    let previous = service.previous_spec.take().ok_or_else(|| {
        ControlError::FailedPrecondition(format!(
            "service {} does not have a previous spec",
            service.id
        ))
    })?;
    let current = service.spec.replace(previous);
    let current_version = service.spec_version;
    service.spec_version =
        service.previous_spec_version.or(Some(Version { index: service.version() }));
    service.previous_spec = current;
    service.previous_spec_version = current_version;
    service.update_status = Some(UpdateStatus {
        state: UpdateState::RollbackStarted as i32,
        started_at: Some(wire_time::timestamp(now)),
        completed_at: None,
        message: "manually requested rollback".to_owned(),
    });
    Ok(())
}

/// Credentials are not shown to clients, so an update usually comes without them.
fn keep_credentials(spec: &mut ServiceSpec, from: Option<&ServiceSpec>) {
    let credentials = from
        .and_then(|spec| spec.task.as_ref())
        .and_then(task::container)
        .and_then(|container| container.pull_options.clone());
    if let Some(container) = spec.task.as_mut().and_then(task::container_mut)
        && container.pull_options.is_none()
    {
        container.pull_options = credentials;
    }
}

/// Checks that what a spec names is there, and turns network names into ids.
fn resolve_references(state: &State, spec: &mut ServiceSpec) -> Result<(), ControlError> {
    let Some(template) = spec.task.as_mut() else {
        return Ok(());
    };
    check_existence(state, template)?;
    for network in template.networks.iter_mut().chain(&mut spec.networks) {
        let found = find::<Network>(state, "network", &network.target, |network| {
            network
                .spec
                .as_ref()
                .and_then(|spec| spec.annotations.as_ref())
                .map_or("", |annotations| annotations.name.as_str())
        });
        let found = found.map_err(|_| {
            ControlError::NotImplemented(format!(
                "network {}: services can be attached to the networks host and bridge only, networks of the swarm are not supported yet",
                network.target
            ))
        })?;
        if !networks::is_predefined(&found) {
            return Err(invalid(format!("network {} cannot be used by services", network.target)));
        }
        network.target.clone_from(&found.id);
    }
    Ok(())
}

fn check_existence(state: &State, template: &TaskSpec) -> Result<(), ControlError> {
    let Some(container) = task::container(template) else {
        return Ok(());
    };
    let missing_secrets: Vec<&str> = container
        .secrets
        .iter()
        .filter(|secret| state.get::<Secret>(&secret.secret_id).is_none())
        .map(|secret| secret.secret_name.as_str())
        .collect();
    not_missing("secret", &missing_secrets)?;
    let missing_configs: Vec<&str> = container
        .configs
        .iter()
        .filter(|config| state.get::<Config>(&config.config_id).is_none())
        .map(|config| config.config_name.as_str())
        .collect();
    not_missing("config", &missing_configs)
}

fn not_missing(kind: &str, names: &[&str]) -> Result<(), ControlError> {
    match names {
        [] => Ok(()),
        [one] => Err(invalid(format!("{kind} not found: {one}"))),
        several => Err(invalid(format!("{kind}s not found: {}", several.join(", ")))),
    }
}

/// Refuses ports that another service has, before anything is stored.
fn check_ports(state: &State, service: Service) -> Result<Service, ControlError> {
    let others: Vec<Arc<Service>> =
        state.all::<Service>().filter(|other| other.id != service.id).cloned().collect();
    let ports = ports::allocate(&service, &others).map_err(|error| invalid(error.to_string()))?;
    // Allocated right here: what the caller gets told is then true, and the allocator finds
    // nothing left to do.
    let endpoint = Endpoint {
        spec: service.spec.as_ref().and_then(|spec| spec.endpoint.clone()),
        ports,
        virtual_ips: Vec::new(),
    };
    Ok(Service { endpoint: Some(endpoint), ..service })
}
