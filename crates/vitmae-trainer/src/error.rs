//! Everything that can stop a training run.

use std::path::PathBuf;

use vitmae_image::ImageError;
use vitmae_model::ModelError;
use vitmae_tensor::TensorError;
use vitmae_weights::WeightsError;

use crate::checkpoint::Flaw;

/// Why a run cannot start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainerError {
    /// The system failed.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start the {what} thread")]
    Thread {
        /// Its job.
        what: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A data thread ended without a result.
    #[error("a data thread died\nhelp: this is a bug; please report it with the images it read")]
    WorkerLost,
    /// A setting is outside its range.
    #[error("`{key}` is {found}, expected {expected}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// Its value.
        found: String,
        /// The allowed range.
        expected: &'static str,
    },
    /// No image below a folder.
    #[error(
        "`{}` holds no images, only {ignored} other files\nhelp: images are files whose name ends \
         in .jpeg, .jpg, .png or .webp, at any depth", folder.display()
    )]
    NoImages {
        /// The folder.
        folder: PathBuf,
        /// Files of other kinds.
        ignored: usize,
    },
    /// Not enough images for one update.
    #[error(
        "{found} images are fewer than one update of {needed} ({batch_size} a batch x \
         {accumulation})\nhelp: pass `--batch-size {}` or less, or more images",
        (found / accumulation).max(1)
    )]
    TooFewImages {
        /// Images in the set.
        found: u64,
        /// Images of one update.
        needed: u64,
        /// Images of one batch.
        batch_size: u64,
        /// Batches of one update.
        accumulation: u64,
    },
    /// An image cannot be used, and the policy says to stop.
    #[error("`{path}` cannot be used\nhelp: `--on-bad-sample replace` goes on without it")]
    BadSample {
        /// The image.
        path: String,
        /// The cause.
        #[source]
        source: Box<ImageError>,
    },
    /// More images are bad than tolerated.
    #[error(
        "{found} of {total} images cannot be used, at most {limit} may\nhelp: `{}` lists them; \
         `--max-bad-fraction` allows more", log.display()
    )]
    TooManyBadSamples {
        /// Bad images found.
        found: usize,
        /// Images in the set.
        total: usize,
        /// Bad images tolerated.
        limit: usize,
        /// The list.
        log: PathBuf,
    },
    /// A bad image, and nothing to put in its place.
    #[error("`{path}` cannot be used, nor can {tried} images tried in its place")]
    NoSubstitute {
        /// The image.
        path: String,
        /// Images tried.
        tried: u64,
    },
    /// The loss or the gradient is not a number.
    #[error(
        "update {step}: {what} is {value}; no update was made\nhelp: `{}` tells its images, `--resume {}` makes it again; \
         go on with a lower learning rate, with `--clip-grad 1` or with `--nan-policy rollback`",
        dump.display(), checkpoint.display()
    )]
    NonFinite {
        /// The update, counted from 1.
        step: u64,
        /// Loss, gradient norm, or the first bad tensor.
        what: String,
        /// The value.
        value: f64,
        /// The report.
        dump: PathBuf,
        /// The state before the update.
        checkpoint: PathBuf,
    },
    /// A checkpoint that was named does not verify.
    #[error("checkpoint `{}` cannot be used", folder.display())]
    Checkpoint {
        /// Its folder.
        folder: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<Flaw>,
    },
    /// A verified checkpoint whose contents do not fit together.
    #[error("checkpoint `{}`: {what} is {found}, expected {expected}", folder.display())]
    CheckpointContents {
        /// Its folder.
        folder: PathBuf,
        /// What does not fit.
        what: String,
        /// As found.
        found: String,
        /// As needed.
        expected: String,
    },
    /// A checkpoint of another configuration.
    #[error(
        "checkpoint `{}` was made with other settings: {}\nhelp: restore them, or pass \
         `--override` to go on with the new ones", folder.display(), differences.join(", ")
    )]
    OtherSettings {
        /// Its folder.
        folder: PathBuf,
        /// `key` found → expected, one each.
        differences: Vec<String>,
    },
    /// A new run would mix with an old one.
    #[error(
        "`{}` already holds checkpoints\nhelp: choose another folder, or go on with `--resume \
         auto`", folder.display()
    )]
    OutputNotEmpty {
        /// The folder.
        folder: PathBuf,
    },
    /// Every checkpoint of the folder is damaged.
    #[error(
        "none of the {found} checkpoints in `{}` can be used\nhelp: choose another folder to start \
         again; nothing was removed", folder.display()
    )]
    NoUsableCheckpoint {
        /// The folder.
        folder: PathBuf,
        /// Checkpoints that do not verify.
        found: usize,
        /// What is wrong with the newest.
        #[source]
        source: Box<Flaw>,
    },
    /// Another process trains into the folder.
    #[error("`{}` is in use by another run", folder.display())]
    OutputInUse {
        /// The folder.
        folder: PathBuf,
    },
    /// MPI does not start.
    #[cfg(feature = "mpi")]
    #[error("MPI {found}")]
    Mpi {
        /// What is in the way.
        found: &'static str,
    },
    /// Another process of the run is gone.
    #[error("the other processes of this run cannot be reached any more")]
    TeamLost,
    /// Processes that should train the same model do not.
    #[error(
        "process {rank} has other {what} than process 0\nhelp: every process needs the same program, the same \
         options and the same files, on machines of one kind"
    )]
    ProcessesDiffer {
        /// What differs.
        what: &'static str,
        /// The first process that differs, from 0.
        rank: usize,
    },
    /// Two checkpoints in a row could not be written.
    #[error("two checkpoints in a row could not be written; the last good one is kept")]
    SaveFailedTwice {
        /// Why the second failed.
        #[source]
        source: Box<TrainerError>,
    },
    /// An evaluation image cannot be used.
    #[error("evaluation image `{path}` cannot be used\nhelp: repair it or take it out")]
    EvaluationImage {
        /// The image.
        path: String,
        /// The cause.
        #[source]
        source: Box<ImageError>,
    },
    /// The data of a probe do not fit together.
    #[error("linear probe: {what} is {found}, expected {expected}")]
    Probe {
        /// Which argument.
        what: &'static str,
        /// As found.
        found: usize,
        /// As needed.
        expected: usize,
    },
    /// An image has no class.
    #[error(
        "`{image}` has no class\nhelp: in a folder of images each class has a folder of its own; in a tar a `.cls` beside the image \
         says it"
    )]
    NoClass {
        /// The image.
        image: String,
    },
    /// A file that should hold images does not.
    #[error("`{}` cannot be used as {kind}: {found}\nhelp: {help}", path.display())]
    Container {
        /// The file, or the folder of several.
        path: PathBuf,
        /// What it should be.
        kind: &'static str,
        /// What is wrong.
        found: String,
        /// What to do.
        help: &'static str,
    },
    /// There are no classes to tell apart.
    #[error("`{}` has {classes} class folder, expected at least 2", folder.display())]
    OneClass {
        /// The folder.
        folder: PathBuf,
        /// Class folders in it.
        classes: usize,
    },
    /// A class that the training images do not have.
    #[error("`{}` is none of the {known} classes of the training images", folder.display())]
    UnknownClass {
        /// Its folder.
        folder: PathBuf,
        /// Classes there are.
        known: usize,
    },
    /// An image operation failed.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Reading or writing weights failed.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// What kind of failure an error is, for a caller's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The run failed.
    Run,
    /// The settings are wrong.
    Usage,
    /// The data or weights given are wrong.
    Input,
    /// The loss or gradient is not finite.
    NonFinite,
    /// The system failed: a missing, unreadable or unwritable file, a full disk.
    Io,
}

impl TrainerError {
    /// The kind of failure.
    pub fn failure(&self) -> Failure {
        use TrainerError as E;
        match self {
            E::Io { .. } | E::OutputInUse { .. } | E::Thread { .. } => Failure::Io,
            E::SaveFailedTwice { source } => source.failure(),
            E::Setting { .. } | E::OutputNotEmpty { .. } => Failure::Usage,
            E::NonFinite { .. } => Failure::NonFinite,
            E::Weights(error) if error.is_io() => Failure::Io,
            #[cfg(feature = "mpi")]
            E::Mpi { .. } => Failure::Run,
            E::WorkerLost
            | E::TeamLost
            | E::ProcessesDiffer { .. }
            | E::Model(_)
            | E::Tensor(_)
            | E::Probe { .. } => Failure::Run,
            E::NoImages { .. }
            | E::NoClass { .. }
            | E::Container { .. }
            | E::OneClass { .. }
            | E::UnknownClass { .. }
            | E::TooFewImages { .. }
            | E::BadSample { .. }
            | E::TooManyBadSamples { .. }
            | E::NoSubstitute { .. }
            | E::Checkpoint { .. }
            | E::CheckpointContents { .. }
            | E::OtherSettings { .. }
            | E::NoUsableCheckpoint { .. }
            | E::EvaluationImage { .. }
            | E::Image(_)
            | E::Weights(_) => Failure::Input,
        }
    }
}
