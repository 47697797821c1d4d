//! A run's input and output before, while and after there is a process: clients may attach before
//! the start and must see the first byte.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brig_runtime::{Console, ConsoleOutput};
use tokio::sync::{oneshot, watch};

/// Where a session is.
#[derive(Clone, Debug)]
pub(crate) enum IoState {
    /// No process yet.
    Waiting,
    /// The process's console.
    Live(Console),
    /// The run is over.
    Ended,
}

/// Input and output of one run, which may still lie ahead.
#[derive(Debug)]
pub(crate) struct IoSession {
    state: watch::Sender<IoState>,
    pending: Mutex<Vec<oneshot::Sender<ConsoleOutput>>>,
}

/// The output of a session, now or later.
#[derive(Debug)]
pub(crate) enum Subscription {
    Now(ConsoleOutput),
    Later(oneshot::Receiver<ConsoleOutput>),
}

impl IoSession {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: watch::Sender::new(IoState::Waiting), pending: Mutex::default() })
    }

    fn pending(&self) -> MutexGuard<'_, Vec<oneshot::Sender<ConsoleOutput>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subscribes to the output: all of it if the process was not started yet.
    pub(crate) fn subscribe(&self) -> Subscription {
        let mut pending = self.pending();
        match &*self.state.borrow() {
            IoState::Live(console) => Subscription::Now(console.output()),
            IoState::Waiting => {
                // Clients that are gone again: a container may wait for its start for ever.
                pending.retain(|sender| !sender.is_closed());
                let (sender, receiver) = oneshot::channel();
                pending.push(sender);
                Subscription::Later(receiver)
            }
            // The sender is dropped at once: an output that ended.
            IoState::Ended => Subscription::Later(oneshot::channel().1),
        }
    }

    /// Follows the session.
    pub(crate) fn state(&self) -> watch::Receiver<IoState> {
        self.state.subscribe()
    }

    /// The console, while there is one.
    pub(crate) fn console(&self) -> Option<Console> {
        match &*self.state.borrow() {
            IoState::Live(console) => Some(console.clone()),
            IoState::Waiting | IoState::Ended => None,
        }
    }

    /// The process exists and was not started: everybody who waits gets its output.
    pub(crate) fn connect(&self, console: &Console) {
        let mut pending = self.pending();
        for sender in pending.drain(..) {
            let _ = sender.send(console.output());
        }
        self.state.send_replace(IoState::Live(console.clone()));
    }

    /// Like [`IoSession::connect`] for a process that runs already: the first who waits gets
    /// `output`, which was subscribed before it ran.
    pub(crate) fn connect_with(&self, console: &Console, output: ConsoleOutput) {
        let mut pending = self.pending();
        let mut whole = Some(output);
        for sender in pending.drain(..) {
            let _ = sender.send(whole.take().unwrap_or_else(|| console.output()));
        }
        self.state.send_replace(IoState::Live(console.clone()));
    }

    /// The run is over, or there will be none.
    pub(crate) fn end(&self) {
        let mut pending = self.pending();
        pending.clear();
        self.state.send_replace(IoState::Ended);
    }
}

impl Subscription {
    /// The output, once there is one; `None` if there won't be.
    pub(crate) async fn ready(self) -> Option<ConsoleOutput> {
        match self {
            Self::Now(output) => Some(output),
            Self::Later(receiver) => receiver.await.ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_before_the_start_is_forgotten() {
        let session = IoSession::new();
        for _ in 0..10 {
            drop(session.subscribe());
        }
        let waiting = session.subscribe();
        assert_eq!(session.pending().len(), 1);
        drop(waiting);
    }
}
