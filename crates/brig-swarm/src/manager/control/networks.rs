//! Networks of the cluster. Those that span nodes are not offered yet: there are only the two
//! that stand for a network that every node has by itself.

use std::sync::Arc;

use brig_proto::swarm::{Network, NetworkSpec};

use super::{Control, find, name_of};
use crate::error::ControlError;
use crate::manager::allocator::networks::is_predefined;

impl Control {
    /// All networks of the cluster.
    #[must_use]
    pub fn networks(&self) -> Vec<Arc<Network>> {
        self.store.view().all::<Network>().cloned().collect()
    }

    /// A network by id, name or id prefix.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Ambiguous`].
    pub fn network(&self, reference: &str) -> Result<Arc<Network>, ControlError> {
        find(&self.store.view(), "network", reference, network_name)
    }

    /// Makes a network that spans nodes.
    ///
    /// # Errors
    /// [`ControlError::NotImplemented`] always, for now.
    pub fn create_network(&self, spec: &NetworkSpec) -> Result<String, ControlError> {
        let driver = spec.driver_config.as_ref().map_or("overlay", |driver| {
            if driver.name.is_empty() { "overlay" } else { &driver.name }
        });
        Err(ControlError::NotImplemented(format!(
            "networks of the swarm with driver {driver} are not supported yet"
        )))
    }

    /// Removes a network.
    ///
    /// # Errors
    /// [`ControlError::NotFound`], [`ControlError::Predefined`].
    pub async fn remove_network(&self, reference: &str) -> Result<(), ControlError> {
        self.store
            .update(|tx| {
                let network = find::<Network>(tx, "network", reference, network_name)?;
                if is_predefined(&network) {
                    return Err(ControlError::Predefined {
                        name: network_name(&network).to_owned(),
                    });
                }
                tx.delete::<Network>(&network.id)?;
                Ok(())
            })
            .await
    }
}

fn network_name(network: &Network) -> &str {
    name_of(network.spec.as_ref().and_then(|spec| spec.annotations.as_ref()))
}
