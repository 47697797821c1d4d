//! Logs of tasks whose agents other managers serve: a reader's manager asks those managers, each
//! of which answers with what its own agents have.

use std::sync::Arc;
use std::time::Duration;

use brig_pki::tls::TlsCredentials;
use brig_proto::swarm::{
    LogMessage, LogSelector, LogSubscriptionOptions, SubscribeLogsMessage, SubscribeLogsRequest,
    logs_client::LogsClient, logs_server,
};
use brig_store::etcd::Live;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::logbroker::LogBroker;
use crate::grpc::client::{self, MANAGER_NAME};

/// Lines that wait for a slow reader.
const BUFFER: usize = 256;
/// How long another manager may take to begin.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines in one message are large at most.
const MAX_MESSAGE: usize = 64 << 20;

/// The way to the other managers.
#[derive(Clone)]
pub(crate) struct OtherLogs {
    own: String,
    live: Live,
    credentials: Arc<TlsCredentials>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl OtherLogs {
    pub(crate) const fn new(
        own: String,
        live: Live,
        credentials: Arc<TlsCredentials>,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { own, live, credentials, tracker, stop }
    }

    /// Whether a manager serves this node's agent.
    pub(crate) fn is_served(&self, node: &str) -> bool {
        self.live.get(&super::leading::node_claim(node)).is_some()
    }

    /// The lines that the other managers' agents have; ends when all of them are done. Dropping
    /// the receiver ends the questions.
    pub(crate) fn subscribe(
        &self,
        selector: &LogSelector,
        options: &LogSubscriptionOptions,
    ) -> mpsc::Receiver<LogMessage> {
        let (sender, lines) = mpsc::channel(BUFFER);
        let entries = self.live.entries().borrow().clone();
        let others = entries.iter().filter_map(|(key, address)| {
            let manager = key.strip_prefix("m/")?;
            (manager != self.own).then(|| address.clone())
        });
        for address in others {
            let request = SubscribeLogsRequest {
                selector: Some(selector.clone()),
                options: Some(options.clone()),
            };
            let (credentials, sender) = (Arc::clone(&self.credentials), sender.clone());
            let stop = self.stop.clone();
            self.tracker.spawn(async move {
                let closed = sender.clone();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = closed.closed() => {}
                    outcome = ask(&address, credentials, request, sender) => {
                        if let Err(error) = outcome {
                            tracing::warn!(manager = address, error, "logs of this manager's nodes are missing");
                        }
                    }
                }
            });
        }
        lines
    }
}

async fn ask(
    address: &str,
    credentials: Arc<TlsCredentials>,
    request: SubscribeLogsRequest,
    sender: mpsc::Sender<LogMessage>,
) -> Result<(), String> {
    let begin = async {
        let (channel, _) = client::connect(address, credentials, MANAGER_NAME)
            .await
            .map_err(|error| brig_types::error::chain(&error))?;
        let mut logs = LogsClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        logs.subscribe_logs(request).await.map_err(|status| status.message().to_owned())
    };
    let answer = tokio::time::timeout(PATIENCE, begin)
        .await
        .map_err(|_| "it does not answer".to_owned())??;
    let mut messages = answer.into_inner();
    while let Some(message) =
        messages.message().await.map_err(|status| status.message().to_owned())?
    {
        for line in message.messages {
            if sender.send(line).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What this manager's own agents have, for other managers.
#[derive(Clone)]
pub(crate) struct OwnLogs {
    pub(crate) broker: LogBroker,
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
}

#[tonic::async_trait]
impl logs_server::Logs for OwnLogs {
    type SubscribeLogsStream = ReceiverStream<Result<SubscribeLogsMessage, Status>>;

    async fn subscribe_logs(
        &self,
        request: Request<SubscribeLogsRequest>,
    ) -> Result<Response<Self::SubscribeLogsStream>, Status> {
        let request = request.into_inner();
        let (Some(selector), Some(options)) = (request.selector, request.options) else {
            return Err(Status::invalid_argument("selector and options are necessary"));
        };
        let mut reader = self.broker.subscribe(selector, options);
        let (sender, stream) = mpsc::channel(BUFFER);
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            loop {
                let line = tokio::select! {
                    () = stop.cancelled() => return,
                    () = sender.closed() => return,
                    line = reader.next() => line,
                };
                let Some(line) = line else { return };
                if sender.send(Ok(SubscribeLogsMessage { messages: vec![line] })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
