//! One writer, any number of readers with bounded buffers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::{ConsoleError, OutputChunk};

/// Bytes that may wait for one subscriber before the process has to wait for it, with
/// [`PIECE_COST`] for each piece.
pub const SUBSCRIBER_BUFFER: usize = 1 << 20;
/// What a piece takes beside its bytes: its place in the queue, and the allocation of the bytes. A
/// process that writes a byte at a time would else fill the memory with pieces.
pub const PIECE_COST: usize = 128;
/// How long a subscriber with a full buffer may read nothing before it is cut off.
pub const STALL_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Fanout {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    subscribers: Vec<Subscriber>,
    ended: bool,
    last: u64,
}

#[derive(Clone, Debug)]
struct Subscriber {
    number: u64,
    chunks: mpsc::UnboundedSender<Result<OutputChunk, ConsoleError>>,
    /// One permit for each byte that is free in the buffer; closed when the reader is gone.
    room: Arc<Semaphore>,
}

impl Fanout {
    pub(super) fn subscribe(&self) -> ConsoleOutput {
        let (chunks, receiver) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(SUBSCRIBER_BUFFER));
        let mut state = self.lock();
        // Those of a silent process are not removed by its output.
        state.subscribers.retain(|subscriber| !subscriber.room.is_closed());
        if !state.ended {
            state.last += 1;
            let number = state.last;
            state.subscribers.push(Subscriber { number, chunks, room: Arc::clone(&room) });
        }
        ConsoleOutput { chunks: receiver, room }
    }

    pub(super) fn has_subscribers(&self) -> bool {
        !self.lock().subscribers.is_empty()
    }

    /// Hands a piece to every subscriber, waiting for those whose buffer is full.
    pub(super) async fn send(&self, chunk: &OutputChunk) {
        // Only the one reader of the socket sends, so the order is the same for everybody.
        let waiting: Vec<Subscriber> = {
            let mut state = self.lock();
            state.subscribers.retain(|subscriber| !subscriber.room.is_closed());
            state.subscribers.iter().filter(|s| !s.try_send(chunk)).cloned().collect()
        };
        for subscriber in waiting {
            if !subscriber.send(chunk, STALL_LIMIT).await {
                self.lock().subscribers.retain(|other| other.number != subscriber.number);
            }
        }
    }

    /// Nothing more will come.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.subscribers.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a piece takes of the buffer: never more than all of it, for it must fit an empty one.
fn cost(chunk: &OutputChunk) -> u32 {
    let cost = chunk.bytes.len().saturating_add(PIECE_COST).min(SUBSCRIBER_BUFFER);
    u32::try_from(cost).unwrap_or(u32::MAX)
}

impl Subscriber {
    fn try_send(&self, chunk: &OutputChunk) -> bool {
        match self.room.try_acquire_many(cost(chunk)) {
            Ok(permit) => {
                // Given back by the reader.
                permit.forget();
                // A reader that is gone is removed with the next piece.
                let _ = self.chunks.send(Ok(chunk.clone()));
                true
            }
            Err(_) => false,
        }
    }

    /// Whether it still reads.
    async fn send(&self, chunk: &OutputChunk, limit: Duration) -> bool {
        match tokio::time::timeout(limit, self.room.acquire_many(cost(chunk))).await {
            Ok(Ok(permit)) => {
                permit.forget();
                self.chunks.send(Ok(chunk.clone())).is_ok()
            }
            Ok(Err(_closed)) => false,
            Err(_elapsed) => {
                let _ = self.chunks.send(Err(ConsoleError::Stalled));
                false
            }
        }
    }
}

/// A subscription to a console's output. Dropping it ends it.
#[derive(Debug)]
pub struct ConsoleOutput {
    chunks: mpsc::UnboundedReceiver<Result<OutputChunk, ConsoleError>>,
    room: Arc<Semaphore>,
}

impl ConsoleOutput {
    /// The next piece; `None` when all output was read and the process has ended. Cancel-safe.
    ///
    /// # Errors
    /// [`ConsoleError::Stalled`] in place of what is missing; nothing comes after it.
    pub async fn recv(&mut self) -> Option<Result<OutputChunk, ConsoleError>> {
        let next = self.chunks.recv().await;
        if let Some(Ok(chunk)) = &next {
            self.room.add_permits(usize::try_from(cost(chunk)).unwrap_or(SUBSCRIBER_BUFFER));
        }
        next
    }
}

impl Drop for ConsoleOutput {
    fn drop(&mut self) {
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::StdStream;
    use bytes::Bytes;

    fn chunk(length: usize) -> OutputChunk {
        OutputChunk { stream: StdStream::Stdout, bytes: Bytes::from(vec![0; length]) }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_readers_lose_nothing() {
        let fanout = Fanout::default();
        let mut output = fanout.subscribe();
        let send = async {
            for _ in 0..1000 {
                fanout.send(&chunk(8192)).await;
            }
            fanout.end();
        };
        let receive = async {
            let mut total = 0;
            while let Some(chunk) = output.recv().await {
                total += chunk.unwrap().bytes.len();
                // Slow, but never silent for the limit.
                tokio::time::sleep(STALL_LIMIT / 2).await;
            }
            total
        };
        let ((), total) = tokio::join!(send, receive);
        assert_eq!(total, 8192 * 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn stuck_readers_are_cut_off_and_others_go_on() {
        let fanout = Fanout::default();
        let mut stuck = fanout.subscribe();
        let mut good = fanout.subscribe();
        let pieces = SUBSCRIBER_BUFFER / 8192 + 10;
        let read = async {
            let mut total = 0;
            while let Some(chunk) = good.recv().await {
                total += chunk.unwrap().bytes.len();
            }
            total
        };
        let send = async {
            for _ in 0..pieces {
                fanout.send(&chunk(8192)).await;
            }
            fanout.end();
        };
        let (read, ()) = tokio::join!(read, send);
        assert_eq!(read, pieces * 8192);
        let mut got = 0;
        let last = loop {
            match stuck.recv().await {
                Some(Ok(chunk)) => got += chunk.bytes.len(),
                last => break last,
            }
        };
        assert!(matches!(last, Some(Err(ConsoleError::Stalled))));
        assert_eq!(got, SUBSCRIBER_BUFFER / (8192 + PIECE_COST) * 8192);
        assert!(stuck.recv().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn many_small_pieces_fill_a_buffer_too() {
        let fanout = Fanout::default();
        let mut stuck = fanout.subscribe();
        for _ in 0..2 * SUBSCRIBER_BUFFER / PIECE_COST {
            fanout.send(&chunk(1)).await;
        }
        let mut pieces = 0;
        while let Some(Ok(_)) = stuck.recv().await {
            pieces += 1;
        }
        assert_eq!(pieces, SUBSCRIBER_BUFFER / (PIECE_COST + 1));
    }

    #[tokio::test]
    async fn readers_that_leave_are_forgotten() {
        let fanout = Fanout::default();
        drop(fanout.subscribe());
        for _ in 0..3 {
            fanout.send(&chunk(SUBSCRIBER_BUFFER)).await;
        }
        assert!(!fanout.has_subscribers());
        fanout.end();
        assert!(fanout.subscribe().recv().await.is_none());
    }
}
