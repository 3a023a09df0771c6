//! Checkpoints written on a thread of their own while training goes on. What is in them is the caller's.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use super::RunConfig;
use crate::checkpoint::{CheckpointStore, Progress, folder_name, text_hash};
use crate::{Event, TrainerError};

/// Writes one checkpoint at a time; one failure is a warning, two in a row are an error.
pub(super) struct Saver {
    store: CheckpointStore,
    config_hash: String,
    keep_last: usize,
    leads: bool,
    pending: Option<Pending>,
    failed_before: bool,
    newest: Option<PathBuf>,
}

struct Pending {
    step: u64,
    thread: JoinHandle<Result<PathBuf, TrainerError>>,
}

impl Saver {
    /// For the run of `progress`.
    pub(super) fn new(config: &RunConfig, progress: &Progress) -> Saver {
        Saver {
            store: CheckpointStore::new(&config.output_dir, &progress.run),
            config_hash: text_hash(&progress.identity.to_string()),
            keep_last: config.keep_last,
            leads: config.team.leads(),
            pending: None,
            failed_before: false,
            newest: None,
        }
    }

    /// Starts writing the checkpoint of `step` by `write`, after the one before it is done, where this process leads.
    pub(super) fn start(
        &mut self,
        step: u64,
        write: impl FnOnce(&Path) -> Result<(), TrainerError> + Send + 'static,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), TrainerError> {
        self.finish(on_event)?;
        if !self.leads {
            return Ok(());
        }
        let (store, hash, keep) = (self.store.clone(), self.config_hash.clone(), self.keep_last);
        let write = move || {
            let folder = store.save(step, &hash, write)?;
            store.rotate(step, keep)?;
            Ok(folder)
        };
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(write);
        let thread =
            thread.map_err(|source| TrainerError::Thread { what: "checkpoint", source })?;
        self.pending = Some(Pending { step, thread });
        Ok(())
    }

    /// Waits for the checkpoint that is being written and reports what became of it.
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

    /// The checkpoint of a run that ends after `step` updates: the newest, or the one it went on from, or a last one by `write`. Here
    /// a failure is an error at once.
    pub(super) fn conclude(
        &mut self,
        step: u64,
        resumed_from: Option<&PathBuf>,
        write: impl FnOnce(&Path) -> Result<(), TrainerError>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<PathBuf, TrainerError> {
        self.finish(on_event)?;
        let on_disk = self.newest.as_ref().or(resumed_from);
        if let Some(folder) = on_disk.filter(|folder| folder.ends_with(folder_name(step))) {
            return Ok(folder.clone());
        }
        if !self.leads {
            return Ok(self.store.folder().join(folder_name(step)));
        }
        let folder = self.store.save(step, &self.config_hash, write)?;
        self.store.rotate(step, self.keep_last)?;
        on_event(Event::Saved { folder: folder.clone(), step });
        Ok(folder)
    }

    /// Where checkpoints go.
    pub(super) fn store(&self) -> &CheckpointStore {
        &self.store
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
