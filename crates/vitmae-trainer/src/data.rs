//! From files to batches: which sample stands where, and its pixels.
//!
//! [`open`] knows what lies at a path: [`ImageFolder`], [`TarShards`], [`Cifar`], [`Idx`], [`Packed`].
//!
//! Every choice is a pure function of (seed, purpose, epoch, sample): [`Permutation`] gives the
//! order, [`BatchMaker`] the crops, flips and masking noise, [`Prefetch`] runs ahead on threads
//! without changing either. Nothing has to be saved to resume but the step.

mod bad_samples;
mod batches;
mod cifar;
mod idx;
mod image_folder;
mod masks;
mod packed;
#[cfg(feature = "parquet")]
mod parquet;
mod permutation;
mod positioned;
mod prefetch;
mod source;
mod tar_shards;

use vitmae_image::{Image, ImageError};

pub use bad_samples::{BadSample, BadSampleLog, OnBadSample};
pub use batches::{Augmentation, Batch, BatchMaker, BatchPlan};
pub use cifar::Cifar;
pub use idx::Idx;
pub(crate) use image_folder::SIZES;
pub use image_folder::{EXTENSIONS, ImageFolder};
pub use masks::{MaskRatio, MaskStrategy};
pub use packed::{PackSummary, Packed, pack};
#[cfg(feature = "parquet")]
pub use parquet::Parquet;
pub use permutation::Permutation;
pub use prefetch::Prefetch;
pub use source::{Parts, open, open_parts};
pub use tar_shards::TarShards;

/// Images by index; the same index always gives the same image.
pub trait Dataset: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the image at `index`, which is below [`len`](Dataset::len).
    ///
    /// # Errors
    /// Whatever is wrong with the image.
    fn load(&self, index: usize) -> Result<Image, ImageError>;

    /// What to call the image in messages.
    fn name(&self, index: usize) -> String;

    /// A text that changes when the set does; a resumed run compares it.
    fn fingerprint(&self) -> String;

    /// The name of the image's class, if the set knows it.
    fn class(&self, _index: usize) -> Option<String> {
        None
    }
}
