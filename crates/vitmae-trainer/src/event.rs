//! What the trainer tells while it runs; it prints nothing itself.

use std::path::{Path, PathBuf};

use crate::checkpoint::Flaw;
use crate::data::BadSample;
use crate::{Spike, TrainerError};

/// One thing that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run is set up.
    Started(Started),
    /// Training goes on from a checkpoint.
    Resumed {
        /// The checkpoint.
        folder: &'a Path,
        /// Updates it has seen.
        step: u64,
    },
    /// Warning: a newer checkpoint does not verify and is left alone.
    CheckpointSkipped {
        /// Its folder.
        folder: &'a Path,
        /// What is wrong with it.
        flaw: &'a Flaw,
    },
    /// An update was made.
    Step(Step),
    /// Warning: a loss or a gradient norm far above those before it.
    Spike {
        /// The update.
        step: u64,
        /// What stands out.
        spike: Spike,
    },
    /// Warning: the loss or gradient was not finite, and the update was left out.
    Skipped {
        /// The update.
        step: u64,
        /// Its loss.
        loss: f64,
        /// Its gradient's norm.
        gradient_norm: f64,
    },
    /// Warning: the loss or gradient was not finite, and the run goes on from its last checkpoint with other images.
    RolledBack {
        /// The update that failed.
        failed: u64,
        /// Updates that the checkpoint has seen.
        step: u64,
        /// The checkpoint.
        folder: &'a Path,
    },
    /// An epoch ended.
    EpochEnd {
        /// Epochs done.
        epoch: u64,
        /// Mean loss of its updates.
        train_loss: f64,
        /// Learning rate of its last update.
        lr: f64,
    },
    /// The model was judged on the evaluation images: reconstructed under their fixed masks, or classified.
    Evaluated {
        /// Updates made.
        step: u64,
        /// Mean loss.
        loss: f64,
        /// Share of images whose class was found, for a classifier.
        accuracy: Option<f64>,
        /// Images.
        images: u64,
    },
    /// A picture of reconstructions was written.
    Sheet {
        /// Epochs done.
        epoch: u64,
        /// The picture.
        path: &'a Path,
    },
    /// Warning: a picture of reconstructions could not be made; the run goes on.
    SheetFailed {
        /// Epochs done.
        epoch: u64,
        /// Why.
        error: &'a TrainerError,
    },
    /// The same of the average of the weights, where one is kept.
    EmaEvaluated {
        /// Updates made.
        step: u64,
        /// Mean loss.
        loss: f64,
        /// Share of images whose class was found, for a classifier.
        accuracy: Option<f64>,
        /// Images.
        images: u64,
    },
    /// An epoch ended in which a classifier learned beside a pre-training.
    Probed {
        /// Updates made.
        step: u64,
        /// Share of the epoch's images whose class it found before it learned from them.
        accuracy: f64,
    },
    /// Warning: an image cannot be used.
    BadSample(&'a BadSample),
    /// A checkpoint is on the disk.
    Saved {
        /// Its folder.
        folder: PathBuf,
        /// Updates it has seen.
        step: u64,
    },
    /// Warning: a checkpoint could not be written; the next one is tried before giving up.
    SaveFailed {
        /// Updates it would have seen.
        step: u64,
        /// Why.
        error: &'a TrainerError,
    },
}

/// The size of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Started {
    /// Training images.
    pub images: u64,
    /// Updates in an epoch.
    pub updates_per_epoch: u64,
    /// Updates in the run.
    pub total_steps: u64,
    /// Images of one update.
    pub effective_batch: u64,
    /// Highest learning rate.
    pub lr: f64,
    /// Numbers in the model.
    pub parameters: u64,
}

/// One update.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Updates made, this one included.
    pub step: u64,
    /// Updates in the run.
    pub total_steps: u64,
    /// Epoch of this update, fractional.
    pub epoch: f64,
    /// Mean loss over its batches.
    pub loss: f64,
    /// Its learning rate.
    pub lr: f64,
    /// Global norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Images it saw.
    pub images: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Of these, seconds spent waiting for data.
    pub data_seconds: f64,
}
