//! Batches made ahead of time on threads, handed out in the order of their numbers.
//!
//! Worker `w` of `W` makes every `W`th batch from the `w`th on into a channel of its own,
//! and the reader goes round the channels: which thread is faster changes nothing.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::{Batch, BatchMaker};
use crate::TrainerError;

/// A running pipeline; dropping it stops the threads.
pub struct Prefetch {
    channels: Vec<Receiver<Result<Batch, TrainerError>>>,
    workers: Vec<JoinHandle<()>>,
    /// The channel of the next batch; none after the last.
    next: Option<usize>,
    /// What comes behind it.
    rest: Box<dyn Iterator<Item = u64> + Send>,
}

impl Prefetch {
    /// Starts making the batches of `numbers` on `workers` threads (at least one), of which each
    /// keeps one batch waiting and makes another.
    ///
    /// # Errors
    /// [`TrainerError::Thread`] if the system gives no thread.
    pub fn start(
        maker: Arc<BatchMaker>,
        numbers: impl Iterator<Item = u64> + Clone + Send + 'static,
        workers: usize,
    ) -> Result<Prefetch, TrainerError> {
        let workers = workers.max(1);
        let mut rest = Box::new(numbers.clone());
        let next = rest.next().map(|_| 0);
        let mut prefetch = Prefetch { channels: Vec::new(), workers: Vec::new(), next, rest };
        for worker in 0..workers {
            let (sender, receiver) = sync_channel(1);
            let maker = Arc::clone(&maker);
            let own = numbers.clone().skip(worker).step_by(workers);
            let work = move || {
                for number in own {
                    let batch = maker.make(number);
                    let failed = batch.is_err();
                    // Nobody listens once the reader is dropped.
                    if sender.send(batch).is_err() || failed {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().name(format!("data-{worker}")).spawn(work);
            let thread = thread.map_err(|source| TrainerError::Thread { what: "data", source })?;
            prefetch.channels.push(receiver);
            prefetch.workers.push(thread);
        }
        Ok(prefetch)
    }

    /// Whether every batch has been handed out.
    pub fn is_done(&self) -> bool {
        self.next.is_none()
    }

    /// The next batch; `None` after the last.
    ///
    /// # Errors
    /// Those of [`BatchMaker::make`], and [`TrainerError::WorkerLost`] if a thread died.
    pub fn next_batch(&mut self) -> Option<Result<Batch, TrainerError>> {
        let channel = self.next?;
        self.next = self.rest.next().map(|_| (channel + 1) % self.channels.len());
        Some(self.channels[channel].recv().unwrap_or(Err(TrainerError::WorkerLost)))
    }
}

impl Drop for Prefetch {
    fn drop(&mut self) {
        self.channels.clear();
        for worker in self.workers.drain(..) {
            // A panic of a worker was reported as `WorkerLost` where it mattered.
            let _ = worker.join();
        }
    }
}
