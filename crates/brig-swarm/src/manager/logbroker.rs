//! Brings the logs of tasks from agents to whoever asked for them.
//!
//! A reader's subscription is pushed to every agent that listens; each agent publishes the lines
//! of the tasks it selects and says when it is done. Without `follow` the stream ends when all
//! agents are done; with it when the reader goes away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brig_proto::swarm::{
    ListenSubscriptionsRequest, LogMessage, LogSelector, LogSubscriptionOptions,
    PublishLogsMessage, PublishLogsResponse, SubscriptionMessage, log_broker_server,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use crate::grpc::authorize::caller;

/// Lines that wait for a slow reader; then the agents wait.
const READER_BUFFER: usize = 256;

/// The log broker of this manager.
#[derive(Clone)]
pub(crate) struct LogBroker {
    state: Arc<Mutex<State>>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    listeners: BTreeMap<String, Listener>,
    subscriptions: BTreeMap<String, Subscription>,
    next_listener: u64,
}

struct Listener {
    number: u64,
    sender: mpsc::UnboundedSender<Result<SubscriptionMessage, Status>>,
}

struct Subscription {
    message: SubscriptionMessage,
    sender: mpsc::Sender<LogMessage>,
    /// Agents that have not said yet that they are done.
    waiting_for: BTreeSet<String>,
}

/// A reader's end of a subscription; dropping it ends the subscription.
pub(crate) struct LogReader {
    id: String,
    broker: LogBroker,
    lines: mpsc::Receiver<LogMessage>,
}

impl LogReader {
    /// The next line; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<LogMessage> {
        self.lines.recv().await
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.broker.unsubscribe(&self.id);
    }
}

impl LogBroker {
    /// A broker without agents and readers.
    pub(crate) fn new(tracker: TaskTracker, stop: CancellationToken) -> Self {
        Self { state: Arc::default(), tracker, stop }
    }

    /// Asks the agents for the logs of the selected tasks.
    pub(crate) fn subscribe(
        &self,
        selector: LogSelector,
        options: LogSubscriptionOptions,
    ) -> LogReader {
        let id = brig_types::id::random_swarm_id();
        let message = SubscriptionMessage {
            id: id.clone(),
            selector: Some(selector),
            options: Some(options),
            close: false,
        };
        let (sender, lines) = mpsc::channel(READER_BUFFER);
        let mut state = self.lock();
        let waiting_for: BTreeSet<String> = state
            .listeners
            .iter()
            .filter(|(_, listener)| listener.sender.send(Ok(message.clone())).is_ok())
            .map(|(node, _)| node.clone())
            .collect();
        let follow = follows(&message);
        // Without an agent there is nothing to wait for: the sender is dropped at once.
        if follow || !waiting_for.is_empty() {
            state.subscriptions.insert(id.clone(), Subscription { message, sender, waiting_for });
        }
        drop(state);
        LogReader { id, broker: self.clone(), lines }
    }

    /// The nodes whose agents listen now.
    pub(crate) fn listening(&self) -> BTreeSet<String> {
        self.lock().listeners.keys().cloned().collect()
    }

    fn unsubscribe(&self, id: &str) {
        let mut state = self.lock();
        let Some(subscription) = state.subscriptions.remove(id) else {
            return;
        };
        let close = SubscriptionMessage { close: true, ..subscription.message };
        for listener in state.listeners.values() {
            // One that is gone needs no notice.
            let _ = listener.sender.send(Ok(close.clone()));
        }
    }

    fn done(&self, node: &str, subscription: Option<&str>) {
        self.lock().done(node, subscription);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// An agent is done with a subscription, or with all of them.
    fn done(&mut self, node: &str, subscription: Option<&str>) {
        self.subscriptions.retain(|id, entry| {
            if subscription.is_some_and(|only| only != id) {
                return true;
            }
            let waited = entry.waiting_for.remove(node);
            !waited || follows(&entry.message) || !entry.waiting_for.is_empty()
        });
    }
}

fn follows(message: &SubscriptionMessage) -> bool {
    message.options.as_ref().is_some_and(|options| options.follow)
}

#[tonic::async_trait]
impl log_broker_server::LogBroker for LogBroker {
    type ListenSubscriptionsStream = ReceiverStream<Result<SubscriptionMessage, Status>>;

    async fn listen_subscriptions(
        &self,
        request: Request<ListenSubscriptionsRequest>,
    ) -> Result<Response<Self::ListenSubscriptionsStream>, Status> {
        let node = caller(&request)?.node.to_string();
        let (sender, receiver) = mpsc::unbounded_channel();
        let number = {
            let mut state = self.lock();
            if state.listeners.remove(&node).is_some() {
                // It lost its connection, and with it what it was asked for over that one; that
                // may have gone unnoticed here.
                state.done(&node, None);
            }
            state.next_listener += 1;
            let number = state.next_listener;
            for entry in state.subscriptions.values_mut() {
                if follows(&entry.message) && sender.send(Ok(entry.message.clone())).is_ok() {
                    entry.waiting_for.insert(node.clone());
                }
            }
            state.listeners.insert(node.clone(), Listener { number, sender });
            number
        };
        // The bounded half belongs to the connection: when it goes, the listener does.
        let (out, stream) = mpsc::channel(1);
        let broker = self.clone();
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            let mut messages = UnboundedReceiverStream::new(receiver);
            loop {
                let message = tokio::select! {
                    () = stop.cancelled() => break,
                    () = out.closed() => break,
                    message = futures_util::StreamExt::next(&mut messages) => message,
                };
                let Some(message) = message else { break };
                if out.send(message).await.is_err() {
                    break;
                }
            }
            let mut state = broker.lock();
            if state.listeners.get(&node).is_some_and(|listener| listener.number == number) {
                state.listeners.remove(&node);
                state.done(&node, None);
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<PublishLogsMessage>>,
    ) -> Result<Response<PublishLogsResponse>, Status> {
        let node = caller(&request)?.node.to_string();
        let mut current = None;
        let result = self.receive(&node, request.into_inner(), &mut current).await;
        if let Some((id, sender)) = current {
            drop(sender);
            self.done(&node, Some(&id));
        }
        result.map(|()| Response::new(PublishLogsResponse {}))
    }
}

impl LogBroker {
    async fn receive(
        &self,
        node: &str,
        mut stream: Streaming<PublishLogsMessage>,
        current: &mut Option<(String, mpsc::Sender<LogMessage>)>,
    ) -> Result<(), Status> {
        loop {
            let next = tokio::select! {
                () = self.stop.cancelled() => return Err(Status::aborted("log broker is stopped")),
                next = stream.message() => next?,
            };
            let Some(message) = next else { return Ok(()) };
            let sender = match current {
                Some((id, sender)) if *id == message.subscription_id => sender.clone(),
                Some(_) => {
                    return Err(Status::invalid_argument(
                        "different subscription IDs received in the same session",
                    ));
                }
                None => {
                    let sender = self.sender_of(&message.subscription_id)?;
                    *current = Some((message.subscription_id.clone(), sender.clone()));
                    sender
                }
            };
            if message.close {
                return Ok(());
            }
            for line in message.messages {
                let own = line.context.as_ref().is_some_and(|context| context.node_id == node);
                if !own {
                    return Err(Status::permission_denied("log message node id does not match"));
                }
                if sender.send(line).await.is_err() {
                    return Err(Status::cancelled("nobody reads this subscription any more"));
                }
            }
        }
    }

    fn sender_of(&self, subscription: &str) -> Result<mpsc::Sender<LogMessage>, Status> {
        if subscription.is_empty() {
            return Err(Status::invalid_argument("missing subscription ID"));
        }
        self.lock()
            .subscriptions
            .get(subscription)
            .map(|entry| entry.sender.clone())
            .ok_or_else(|| Status::not_found("no such subscription"))
    }
}

#[cfg(test)]
mod tests {
    use brig_pki::admission::Standing;
    use brig_pki::token::NodeRole;
    use brig_types::id::NodeId;
    use log_broker_server::LogBroker as _;
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::grpc::authorize::Caller;

    fn by(node: &NodeId) -> Request<ListenSubscriptionsRequest> {
        let mut request = Request::new(ListenSubscriptionsRequest {});
        request.extensions_mut().insert(Caller {
            node: node.clone(),
            role: NodeRole::Worker,
            standing: Standing::Full,
        });
        request
    }

    #[tokio::test]
    async fn an_agent_that_begins_anew_is_not_waited_for() {
        let broker = LogBroker::new(TaskTracker::new(), CancellationToken::new());
        let (agent, other) = (NodeId::generate(), NodeId::generate());
        // Its connection broke, which nobody has noticed yet.
        let _lost = broker.listen_subscriptions(by(&agent)).await.unwrap();
        let mut others = broker.listen_subscriptions(by(&other)).await.unwrap().into_inner();
        let options = |follow| LogSubscriptionOptions { follow, ..Default::default() };
        let mut once = broker.subscribe(LogSelector::default(), options(false));
        let mut on = broker.subscribe(LogSelector::default(), options(true));
        let mut again = broker.listen_subscriptions(by(&agent)).await.unwrap().into_inner();
        assert_eq!(again.next().await.unwrap().unwrap().id, on.id, "it is asked to go on");
        assert_eq!(others.next().await.unwrap().unwrap().id, once.id);
        broker.done(other.as_str(), Some(&once.id));
        assert!(once.next().await.is_none());
        assert!(futures_util::FutureExt::now_or_never(on.next()).is_none(), "it goes on");
    }
}
