//! Taking everything off the host that an instance put there.

use crate::bridge;
use crate::error::NetworkError;
use crate::networks::{Inner, Networks};

impl Networks {
    /// Removes every bridge of this instance, its rules and its records. Containers lose their
    /// networks; the networks are of no use afterwards.
    ///
    /// # Errors
    /// The first thing that the kernel or the disk refused; everything else is still tried.
    pub async fn purge(&self) -> Result<(), NetworkError> {
        self.shutdown().await;
        self.blocking(purge).await
    }
}

fn purge(inner: &Inner) -> Result<(), NetworkError> {
    let bridges: Vec<String> = {
        let state = inner.state();
        let records = state.networks.values().map(|network| &network.record);
        records.filter_map(|record| Some(record.bridge.as_ref()?.name.clone())).collect()
    };
    let mut outcome = Ok(());
    for name in bridges {
        let removed = bridge::remove(&name);
        outcome = outcome.and(removed.map_err(NetworkError::kernel("cannot remove a bridge")));
    }
    outcome = outcome.and(inner.firewall().unload());
    let emptied = std::fs::remove_dir_all(&inner.config.state_dir);
    outcome.and(emptied.map_err(NetworkError::kernel("cannot remove the networks' records")))
}
