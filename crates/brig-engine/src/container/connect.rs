//! Connecting a container to a network, and disconnecting it, while it exists.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use brig_api::container::EndpointSettings;
use brig_network::NetworkError;
use brig_types::error::chain;

use super::networking::{self, cleared};
use super::record::Record;
use super::state::Status;
use super::{Container, files};
use crate::engine::Engine;
use crate::error::EngineError;

impl Engine {
    /// Connects a container to one more network: at once if it runs, else at its next start.
    ///
    /// # Errors
    /// Unknown network or container, connected already, network mode `host`, `none` or
    /// `container:`, an address that cannot be had; the kernel.
    pub async fn connect_network(
        &self,
        network: &str,
        container: &str,
        settings: Option<EndpointSettings>,
    ) -> Result<(), EngineError> {
        let container = self.registry().find(container)?;
        let network = self.networks().get(network)?.record;
        let settings = settings.unwrap_or_default();
        let engine = self.clone();
        self.detached(async move {
            let _op = container.op.lock().await;
            let record = changeable(&container)?;
            let mode = record.host_config.network_mode.as_str();
            if matches!(mode, "host" | "none") || mode.starts_with("container:") {
                return Err(NetworkError::PrivateMode(mode.to_owned()).into());
            }
            if record.networks.contains_key(&network.name) {
                return Err(NetworkError::EndpointExists {
                    endpoint: record.name,
                    network: network.name,
                }
                .into());
            }
            let shown = match record.state.process {
                Some(process) => {
                    let request = networking::request(&record, &network.name, &settings)?;
                    let ns = net_ns(process.pid)?;
                    let served = engine.networks().serves_names(&container.id);
                    let endpoint = engine.networks().attach(&container.id, ns, request).await?;
                    if !served && engine.networks().serves_names(&container.id) {
                        engine.name_the_server(&container, &record).await;
                    }
                    networking::shown(&settings, &endpoint, &container.id)
                }
                None => {
                    EndpointSettings { network_id: network.id.to_string(), ..cleared(&settings) }
                }
            };
            let running = record.state.process.is_some();
            let network_id = shown.network_id.clone();
            container.cell().record.networks.insert(network.name.clone(), shown);
            container.save_durably(record.durability()).await;
            if running {
                engine.network_event(&container, "connect", &network.name, &network_id);
            }
            Ok(())
        })
        .await
    }

    /// Has a running container ask the name server that it has just got.
    ///
    /// COMPAT: a container that cannot be told is connected all the same, as with docker.
    async fn name_the_server(&self, container: &Arc<Container>, record: &Record) {
        let told = async {
            let dns = files::dns_options(record, &self.config().dns)?;
            let (engine, container) = (self.clone(), Arc::clone(container));
            self.blocking(move || {
                let text = engine.networks().resolv_conf(&container.id, &dns);
                files::rewrite_resolv_conf(&container.paths, &text)
            })
            .await
        };
        match told.await {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!(container = %container.id, "its changed resolv.conf is left alone");
            }
            Err(error) => {
                tracing::error!(container = %container.id, error = chain(&error), "its resolv.conf does not name the name server: names resolve after a restart of the container");
            }
        }
    }

    /// Disconnects a container from a network.
    ///
    /// COMPAT: with `force` the name may be that of an endpoint whose container is gone. None
    /// outlives its container here, so there is no such endpoint.
    ///
    /// # Errors
    /// Unknown network or container, not connected; the kernel.
    pub async fn disconnect_network(
        &self,
        network: &str,
        container: &str,
        force: bool,
    ) -> Result<(), EngineError> {
        let container = match self.registry().find(container) {
            Err(EngineError::NoSuchContainer(_)) if force => {
                self.networks().get(network)?;
                return Err(NetworkError::NoSuchEndpoint(container.to_owned()).into());
            }
            found => found?,
        };
        let network = self.networks().get(network)?.record;
        let engine = self.clone();
        self.detached(async move {
            let _op = container.op.lock().await;
            let record = changeable(&container)?;
            let Some(settings) = record.networks.get(&network.name) else {
                return Err(NetworkError::NotConnected {
                    container: container.id.clone(),
                    network: network.name,
                }
                .into());
            };
            if let Some(process) = record.state.process {
                let ns = net_ns(process.pid)?;
                engine.networks().detach(&container.id, &network.name, Some(ns)).await?;
                engine.network_event(&container, "disconnect", &network.name, &settings.network_id);
            }
            container.cell().record.networks.remove(&network.name);
            container.save_durably(record.durability()).await;
            Ok(())
        })
        .await
    }
}

fn net_ns(pid: i32) -> Result<OwnedFd, EngineError> {
    brig_sys::ns::open(pid, brig_sys::ns::NsKind::Net)
        .map_err(|source| EngineError::system("open the network namespace", source))
}

fn changeable(container: &Arc<Container>) -> Result<Record, EngineError> {
    let record = container.record();
    match record.state.status {
        Status::Removing | Status::Dead => Err(EngineError::Conflict(format!(
            "container {} is marked for removal and cannot be connected or disconnected to the network",
            container.id
        ))),
        _ => Ok(record),
    }
}
