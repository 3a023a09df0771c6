//! An end to what is read of an archive before anything in it is known.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An input of which only so many bytes may be read, until the limit is lifted.
pub(super) struct Budgeted<R> {
    inner: R,
    budget: Budget,
}

/// What is left of a budget.
#[derive(Clone)]
pub(super) struct Budget(Arc<AtomicU64>);

impl Budget {
    /// Lets everything be read.
    pub(super) fn lift(&self) {
        self.0.store(u64::MAX, Ordering::Relaxed);
    }
}

impl<R> Budgeted<R> {
    pub(super) fn new(inner: R, bytes: u64) -> (Self, Budget) {
        let budget = Budget(Arc::new(AtomicU64::new(bytes)));
        (Self { inner, budget: budget.clone() }, budget)
    }
}

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.0.load(Ordering::Relaxed);
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other(
                "no list of entries ends within the bytes that one of a checkpoint has",
            ));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.inner.read(&mut buffer[..most])?;
        if left != u64::MAX {
            self.budget.0.store(left - read as u64, Ordering::Relaxed);
        }
        Ok(read)
    }
}

impl<R: Seek> Seek for Budgeted<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
