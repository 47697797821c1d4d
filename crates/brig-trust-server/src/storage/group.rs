//! Writers that wait together commit together: one sync of the disk serves all of them.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use super::StorageError;

/// Requests that one commit takes.
const MAX_GROUP: usize = 64;

/// A thread that is the only writer.
#[derive(Debug)]
pub(super) struct Writer<R> {
    requests: Option<Mutex<Sender<Job<R>>>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Job<R> {
    request: R,
    answer: SyncSender<Result<bool, StorageError>>,
}

impl<R: Send + 'static> Writer<R> {
    /// `commit` answers each request of a group; when it returns, what it accepted is durable.
    pub(super) fn start(
        commit: impl Fn(&[R]) -> Vec<Result<bool, StorageError>> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (requests, jobs) = channel();
        let thread = std::thread::Builder::new()
            .name("trust-writer".to_owned())
            .spawn(move || write(&jobs, &commit))?;
        Ok(Self { requests: Some(Mutex::new(requests)), thread: Some(thread) })
    }

    /// Waits until the request is durable or refused.
    pub(super) fn submit(&self, request: R) -> Result<bool, StorageError> {
        let gone = || StorageError::Failed("the writer has ended".into());
        let (answer, answered) = sync_channel(1);
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        let sent = {
            let requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests.send(Job { request, answer })
        };
        sent.map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }
}

impl<R> Drop for Writer<R> {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to say that its last answers did not.
            let _ = thread.join();
        }
    }
}

fn write<R>(jobs: &Receiver<Job<R>>, commit: &impl Fn(&[R]) -> Vec<Result<bool, StorageError>>) {
    while let Ok(first) = jobs.recv() {
        let (mut requests, mut answers) = (vec![first.request], vec![first.answer]);
        for job in jobs.try_iter().take(MAX_GROUP - 1) {
            requests.push(job.request);
            answers.push(job.answer);
        }
        for (answer, result) in answers.into_iter().zip(commit(&requests)) {
            // Whoever does not wait any more can ask again.
            let _ = answer.send(result);
        }
    }
}
