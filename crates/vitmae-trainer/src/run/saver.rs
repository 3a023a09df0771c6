//! Checkpoints written on a thread of their own while training goes on.

use std::path::PathBuf;
use std::thread::JoinHandle;

use crate::checkpoint::{CheckpointStore, Snapshot};
use crate::{Event, Trainable, TrainerError};

/// Writes one snapshot at a time; one failure is a warning, two in a row are an error.
pub(super) struct Saver {
    store: CheckpointStore,
    config_hash: String,
    keep_last: usize,
    pending: Option<Pending>,
    failed_before: bool,
    newest: Option<PathBuf>,
}

struct Pending {
    step: u64,
    thread: JoinHandle<Result<PathBuf, TrainerError>>,
}

impl Saver {
    pub(super) fn new(store: CheckpointStore, config_hash: String, keep_last: usize) -> Saver {
        Saver { store, config_hash, keep_last, pending: None, failed_before: false, newest: None }
    }

    /// Starts writing `snapshot`, after the one before it is done.
    pub(super) fn start(
        &mut self,
        snapshot: Snapshot<impl Trainable>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainerError> {
        self.finish(on_event)?;
        let (store, hash, keep) = (self.store.clone(), self.config_hash.clone(), self.keep_last);
        let step = snapshot.step();
        let write = move || {
            let folder = store.save(step, &hash, |folder| snapshot.write(folder))?;
            store.rotate(step, keep)?;
            Ok(folder)
        };
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(write);
        let thread =
            thread.map_err(|source| TrainerError::Thread { what: "checkpoint", source })?;
        self.pending = Some(Pending { step, thread });
        Ok(())
    }

    /// Waits for the snapshot that is being written and reports what became of it.
    pub(super) fn finish(
        &mut self,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainerError> {
        let Some(Pending { step, thread }) = self.pending.take() else { return Ok(()) };
        match thread.join().unwrap_or(Err(TrainerError::WorkerLost)) {
            Ok(folder) => {
                self.failed_before = false;
                self.newest = Some(folder.clone());
                on_event(Event::Saved { folder, step });
                Ok(())
            }
            Err(error) if self.failed_before => {
                Err(TrainerError::SaveFailedTwice { source: Box::new(error) })
            }
            Err(error) => {
                self.failed_before = true;
                on_event(Event::SaveFailed { step, error: &error });
                Ok(())
            }
        }
    }

    /// Writes the last snapshot of a run; here a failure is an error at once.
    pub(super) fn last(
        &mut self,
        snapshot: Snapshot<impl Trainable>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<PathBuf, TrainerError> {
        self.finish(on_event)?;
        let step = snapshot.step();
        let folder = self.store.save(step, &self.config_hash, |folder| snapshot.write(folder))?;
        self.store.rotate(step, self.keep_last)?;
        on_event(Event::Saved { folder: folder.clone(), step });
        Ok(folder)
    }

    /// Where checkpoints go.
    pub(super) fn store(&self) -> &CheckpointStore {
        &self.store
    }

    /// The hash that goes into every manifest.
    pub(super) fn config_hash(&self) -> &str {
        &self.config_hash
    }

    /// The newest checkpoint that was written and finished.
    pub(super) fn newest(&self) -> Option<&PathBuf> {
        self.newest.as_ref()
    }
}

impl Drop for Saver {
    /// A run that ends by an error still completes the checkpoint that is being written.
    fn drop(&mut self) {
        if let Some(Pending { thread, .. }) = self.pending.take() {
            // The error that ends the run is the one worth reporting.
            let _ = thread.join();
        }
    }
}
