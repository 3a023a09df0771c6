//! A request to stop from outside, such as a signal.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A flag that a signal handler sets and the trainer reads between updates; 0 means go on.
///
/// The number set is given back in [`Summary::stopped`](crate::Summary), so that a caller can turn
/// it into an exit code.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicUsize>);

impl StopFlag {
    /// A flag that is not set.
    pub fn new() -> StopFlag {
        StopFlag::default()
    }

    /// Asks for a stop after the current update; `reason` is not 0.
    pub fn set(&self, reason: usize) {
        self.0.store(reason, Ordering::SeqCst);
    }

    /// The reason, if one was set.
    pub fn get(&self) -> Option<usize> {
        Some(self.0.load(Ordering::SeqCst)).filter(|&reason| reason != 0)
    }

    /// The shared number itself, for signal handlers that write it.
    pub fn shared(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.0)
    }
}
