//! A bound on what one entry may say before its content: names and extensions are held in memory.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Longest headers of one entry, long names and extended attributes included, in bytes.
const MAX_HEADERS: u64 = 1 << 20;

/// Switches the bound on between entries and off while content is read.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeaderBudget(Rc<Cell<Option<u64>>>);

impl HeaderBudget {
    pub(crate) fn limit<R: Read>(&self, inner: R) -> Limited<R> {
        Limited { inner, budget: self.clone() }
    }

    /// Headers come next.
    pub(crate) fn headers(&self) {
        self.0.set(Some(MAX_HEADERS));
    }

    /// Content comes next, of any length.
    pub(crate) fn content(&self) {
        self.0.set(None);
    }
}

#[derive(Debug)]
pub(crate) struct Limited<R> {
    inner: R,
    budget: HeaderBudget,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        if let Some(left) = self.budget.0.get() {
            let left = left
                .checked_sub(u64::try_from(read).unwrap_or(u64::MAX))
                .ok_or_else(|| io::Error::other("the header of an entry is too large"))?;
            self.budget.0.set(Some(left));
        }
        Ok(read)
    }
}
