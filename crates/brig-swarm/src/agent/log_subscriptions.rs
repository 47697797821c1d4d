//! The agent's side of `service logs`: managers push subscriptions, the agent publishes the lines
//! of the tasks they select.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use brig_proto::swarm::{
    ListenSubscriptionsRequest, LogContext, LogMessage, LogSubscriptionOptions, PublishLogsMessage,
    SubscriptionMessage, log_broker_client::LogBrokerClient,
};
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::worker::{LogSource, Worker, selects};

/// Lines that wait for the network.
const BUFFER: usize = 256;

/// Serves subscriptions until the session breaks.
pub(crate) async fn run(
    mut client: LogBrokerClient<Channel>,
    worker: Arc<Worker>,
    node: String,
) -> Status {
    let mut subscriptions = match client.listen_subscriptions(ListenSubscriptionsRequest {}).await {
        Ok(response) => response.into_inner(),
        Err(status) if status.code() == Code::Unimplemented => return std::future::pending().await,
        Err(status) => return status,
    };
    let tracker = TaskTracker::new();
    let mut running: BTreeMap<String, DropGuard> = BTreeMap::new();
    loop {
        match subscriptions.message().await {
            Ok(Some(message)) if message.close => {
                running.remove(&message.id);
            }
            Ok(Some(message)) if running.contains_key(&message.id) => {}
            Ok(Some(message)) => {
                let cancel = CancellationToken::new();
                running.insert(message.id.clone(), cancel.clone().drop_guard());
                let publisher = Publisher {
                    client: client.clone(),
                    worker: Arc::clone(&worker),
                    node: node.clone(),
                };
                tracker.spawn(async move {
                    tokio::select! {
                        () = cancel.cancelled() => {}
                        () = publisher.serve(message) => {}
                    }
                });
            }
            Ok(None) => return Status::unavailable("the manager ended the log subscriptions"),
            Err(status) => return status,
        }
    }
}

struct Publisher {
    client: LogBrokerClient<Channel>,
    worker: Arc<Worker>,
    node: String,
}

impl Publisher {
    async fn serve(mut self, subscription: SubscriptionMessage) {
        let (sender, receiver) = mpsc::channel(BUFFER);
        let id = subscription.id.clone();
        let publish = self.client.publish_logs(ReceiverStream::new(receiver));
        let gather = gather(&self.worker, &self.node, subscription, sender);
        let (published, ()) = tokio::join!(publish, gather);
        if let Err(status) = published {
            tracing::debug!(subscription = id, %status, "logs could not be published");
        }
    }
}

/// Sends the lines of all selected tasks, those that come later included when following.
async fn gather(
    worker: &Worker,
    node: &str,
    subscription: SubscriptionMessage,
    sender: mpsc::Sender<PublishLogsMessage>,
) {
    let selector = subscription.selector.unwrap_or_default();
    let options = subscription.options.unwrap_or_default();
    let id = subscription.id;
    let mut changes = worker.changes();
    let mut known = BTreeSet::new();
    let mut streams = futures_util::stream::FuturesUnordered::new();
    loop {
        for source in worker.log_sources() {
            if selects(&selector, &source.task) && known.insert(source.task.id.clone()) {
                streams.push(forward(source, node, &id, &options, &sender));
            }
        }
        if !options.follow {
            while streams.next().await.is_some() {}
            break;
        }
        tokio::select! {
            Some(()) = streams.next() => {}
            changed = changes.changed() => if changed.is_err() { break },
            () = sender.closed() => return,
        }
    }
    let end = PublishLogsMessage { subscription_id: id.clone(), messages: Vec::new(), close: true };
    // The manager may have gone; then nobody waits for the end.
    let _ = sender.send(end).await;
}

async fn forward(
    mut source: LogSource,
    node: &str,
    subscription: &str,
    options: &LogSubscriptionOptions,
    sender: &mpsc::Sender<PublishLogsMessage>,
) {
    if options.follow {
        // The sender lives as long as the task.
        if source.controller.wait_for(Option::is_some).await.is_err() {
            return;
        }
    }
    let Some(controller) = source.controller.borrow().clone() else {
        return;
    };
    let mut lines = match controller.logs(options).await {
        Ok(lines) => lines,
        Err(error) => {
            tracing::debug!(task = source.task.id, error = %error, "no logs");
            return;
        }
    };
    while let Some(line) = lines.next().await {
        let message = LogMessage {
            context: Some(LogContext {
                service_id: source.task.service_id.clone(),
                node_id: node.to_owned(),
                task_id: source.task.id.clone(),
            }),
            ..line
        };
        let publish = PublishLogsMessage {
            subscription_id: subscription.to_owned(),
            messages: vec![message],
            close: false,
        };
        if sender.send(publish).await.is_err() {
            return;
        }
    }
}
