//! Tells managers which images this node's tasks run, and what is in those that they know nothing of.
//!
//! Every manager is told, each over its own connection: any of them may be asked what is in the
//! cluster. One that speaks no `brig.v1` is left alone until there is news.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use brig_proto::brig::{
    AnnounceRequest, ImageInUse, SendRequest, inventories_client::InventoriesClient,
};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::Shared;
use crate::grpc::client::{self, MANAGER_NAME};
use crate::inventories::ImageInventories;
use crate::manager::inventories::MAX_INVENTORY;

/// How often somebody looks what runs here.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often managers are told what they were told before.
const REPEAT_EVERY: Duration = Duration::from_secs(600);
/// How long one exchange may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs as long as a session with the manager at `address` does.
pub(crate) async fn run(shared: &Shared, address: &str, channel: Channel) -> Infallible {
    let Some(port) = shared.context.executor.inventories() else {
        return std::future::pending().await;
    };
    let mut told: BTreeMap<String, (Vec<ImageInUse>, Instant)> = BTreeMap::new();
    loop {
        let images = port.in_use().await;
        let mut managers: Vec<String> =
            shared.managers().peers().into_iter().map(|peer| peer.addr).collect();
        if !managers.iter().any(|manager| manager == address) {
            managers.push(address.to_owned());
        }
        told.retain(|manager, _| managers.contains(manager));
        for manager in managers {
            let known = told.get(&manager);
            if known.is_some_and(|(old, at)| *old == images && at.elapsed() < REPEAT_EVERY) {
                continue;
            }
            let exchange = async {
                let channel = if manager == address {
                    channel.clone()
                } else {
                    let credentials = Arc::clone(&shared.credentials);
                    client::connect(&manager, credentials, MANAGER_NAME)
                        .await
                        .map_err(|error| Status::unavailable(brig_types::error::chain(&error)))?
                        .0
                };
                exchange(&*port, channel, &images).await
            };
            let outcome = tokio::time::timeout(PATIENCE, exchange)
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("it does not answer")));
            match outcome {
                Ok(true) => {
                    told.insert(manager, (images.clone(), Instant::now()));
                }
                // Something is not known here yet.
                Ok(false) => {}
                Err(status) if status.code() == Code::Unimplemented => {
                    told.insert(manager, (images.clone(), Instant::now()));
                }
                Err(status) => {
                    let reason = status.message();
                    tracing::debug!(manager, reason, "a manager was not told what runs here");
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Tells one manager; answers whether it has all it wants.
async fn exchange(
    port: &dyn ImageInventories,
    channel: Channel,
    images: &[ImageInUse],
) -> Result<bool, Status> {
    let mut client = InventoriesClient::new(channel)
        .max_decoding_message_size(MAX_INVENTORY)
        .max_encoding_message_size(2 * MAX_INVENTORY);
    let request = AnnounceRequest { images: images.to_vec() };
    let wanted = client.announce(request).await?.into_inner().wanted;
    let mut complete = true;
    for image in wanted.into_iter().filter(|id| images.iter().any(|own| own.image == *id)) {
        match port.inventory(&image).await {
            Some(inventory) if inventory.len() <= MAX_INVENTORY => {
                client.send(SendRequest { image, inventory }).await?;
            }
            Some(inventory) => {
                tracing::warn!(image, bytes = inventory.len(), "an inventory is too large to send");
            }
            None => complete = false,
        }
    }
    Ok(complete)
}
