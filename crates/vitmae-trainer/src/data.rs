//! From files to batches: which sample stands where, and its pixels.
//!
//! Every choice is a pure function of (seed, purpose, epoch, sample): [`Permutation`] gives the
//! order, [`BatchMaker`] the crops, flips and masking noise, [`Prefetch`] runs ahead on threads
//! without changing either. Nothing has to be saved to resume but the step.

mod bad_samples;
mod batches;
mod image_folder;
mod masks;
mod permutation;
mod prefetch;

use vitmae_image::{Image, ImageError};

pub use bad_samples::{BadSample, BadSampleLog, OnBadSample};
pub use batches::{Augmentation, Batch, BatchMaker, BatchPlan};
pub use image_folder::{EXTENSIONS, ImageFolder};
pub use masks::MaskStrategy;
pub use permutation::Permutation;
pub use prefetch::Prefetch;

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
}
