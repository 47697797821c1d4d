//! Readers that a layer's bytes pass through: counting, hashing, bounding, and crossing from async
//! tasks to blocking threads.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::rc::Rc;

use brig_pki::hash::Sha256;
use brig_types::digest::Digest;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::error::UnpackError;
use crate::limits::MAX_ENTRY_HEADERS;

/// A bound that was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// Of what.
    pub what: &'static str,
    /// The bound.
    pub limit: u64,
}

impl From<Exceeded> for UnpackError {
    fn from(limit: Exceeded) -> Self {
        Self::Limit { what: limit.what, limit: limit.limit }
    }
}

struct State {
    hash: Option<Sha256>,
    count: u64,
    exceeded: Option<Exceeded>,
}

/// The view on a [`HashingReader`] that stays when something else owns the reader.
#[derive(Clone)]
pub struct Meter(Rc<RefCell<State>>);

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Meter").field(&self.count()).finish()
    }
}

impl Meter {
    /// Bytes so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.borrow().count
    }

    /// The bound that was passed, if one was.
    #[must_use]
    pub fn exceeded(&self) -> Option<Exceeded> {
        self.0.borrow().exceeded
    }

    /// Digest and number of all bytes; counting starts again. Without hashing the digest is that of
    /// nothing.
    #[must_use]
    pub fn finish(&self) -> (Digest, u64) {
        let mut state = self.0.borrow_mut();
        let hash = state.hash.as_mut().map(std::mem::take).unwrap_or_default();
        let count = std::mem::take(&mut state.count);
        (Digest::from_sha256(hash.finish()), count)
    }
}

/// Hashes and counts what is read, and stops at a bound.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    meter: Meter,
    limit: u64,
    what: &'static str,
    ratio: Option<(Meter, u64, u64)>,
}

impl<R: Read> HashingReader<R> {
    /// Reads at most `limit` bytes of `inner`; `what` names them in errors.
    pub fn new(inner: R, limit: u64, what: &'static str) -> Self {
        let state = State { hash: Some(Sha256::new()), count: 0, exceeded: None };
        Self { inner, meter: Meter(Rc::new(RefCell::new(state))), limit, what, ratio: None }
    }

    /// Only counts and bounds.
    #[must_use]
    pub fn without_hash(self) -> Self {
        self.meter.0.borrow_mut().hash = None;
        self
    }

    /// Also refuses more than `ratio` bytes for each byte that `source` counted, beyond `floor`.
    #[must_use]
    pub fn with_ratio(mut self, source: Meter, ratio: u64, floor: u64) -> Self {
        self.ratio = Some((source, ratio, floor));
        self
    }

    /// Count and hash, to look at later.
    #[must_use]
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        let mut state = self.meter.0.borrow_mut();
        state.count = state.count.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        if state.count > self.limit {
            state.exceeded = Some(Exceeded { what: self.what, limit: self.limit });
        } else if let Some((source, ratio, floor)) = &self.ratio
            && state.count > *floor
            && state.count > source.count().saturating_mul(*ratio)
        {
            state.exceeded =
                Some(Exceeded { what: "unpacked bytes for each compressed byte", limit: *ratio });
        }
        if state.exceeded.is_some() {
            return Err(io::Error::other("limit exceeded"));
        }
        if let Some(hash) = &mut state.hash {
            hash.update(buf.get(..read).unwrap_or_default());
        }
        Ok(read)
    }
}

/// Bounds the bytes of headers before each archive entry.
///
/// The archive reader keeps long names and PAX records in memory whatever their size; with the
/// budget open only while it looks for the next entry, and each entry's data drained before, the
/// bound is exact.
#[derive(Clone, Debug, Default)]
pub struct HeaderBudget(Rc<Cell<Option<u64>>>);

impl HeaderBudget {
    /// The reader that keeps to the budget.
    pub fn limit<R: Read>(&self, inner: R) -> BudgetReader<R> {
        BudgetReader { inner, budget: self.clone() }
    }

    /// From here on only headers are read.
    pub fn headers(&self) {
        self.0.set(Some(MAX_ENTRY_HEADERS));
    }

    /// From here on data is read, without a bound.
    pub fn data(&self) {
        self.0.set(None);
    }
}

/// See [`HeaderBudget`].
#[derive(Debug)]
pub struct BudgetReader<R> {
    inner: R,
    budget: HeaderBudget,
}

impl<R> BudgetReader<R> {
    /// The reader beneath.
    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for BudgetReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        if let Some(left) = self.budget.0.get() {
            let left =
                left.checked_sub(u64::try_from(read).unwrap_or(u64::MAX)).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidData, "entry header is too large")
                })?;
            self.budget.0.set(Some(left));
        }
        Ok(read)
    }
}

/// What an async task sends to a [`ChannelReader`]: bytes, or the orderly end.
#[derive(Clone, Debug)]
pub enum Chunk {
    /// More bytes.
    Data(Bytes),
    /// The end; a channel closed without it means that the source failed.
    End,
}

/// Chunks that may wait in a channel; with HTTP's buffers a few hundred KiB for each layer.
pub const CHANNEL_DEPTH: usize = 8;

/// Reads on a blocking thread what an async task sends.
#[derive(Debug)]
pub struct ChannelReader {
    receiver: mpsc::Receiver<Chunk>,
    current: Bytes,
    ended: bool,
}

impl ChannelReader {
    /// A bounded channel and its reading end.
    #[must_use]
    pub fn channel() -> (mpsc::Sender<Chunk>, Self) {
        Self::with_depth(CHANNEL_DEPTH)
    }

    /// A channel in which so many chunks may wait.
    pub(crate) fn with_depth(depth: usize) -> (mpsc::Sender<Chunk>, Self) {
        let (sender, receiver) = mpsc::channel(depth);
        (sender, Self { receiver, current: Bytes::new(), ended: false })
    }
}

impl Read for ChannelReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.receiver.blocking_recv() {
                Some(Chunk::Data(bytes)) => self.current = bytes,
                Some(Chunk::End) => self.ended = true,
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::ConnectionAborted,
                        "the transfer was broken off",
                    ));
                }
            }
        }
        let take = self.current.len().min(buf.len());
        let bytes = self.current.split_to(take);
        if let Some(target) = buf.get_mut(..take) {
            target.copy_from_slice(&bytes);
        }
        Ok(take)
    }
}
