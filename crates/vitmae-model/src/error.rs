//! What can be wrong with a call of a model.

use vitmae_layers::LayerError;
use vitmae_tensor::TensorError;

use crate::ConfigError;

/// Why a model was not made or did not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A layer refused its input.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// An operation outside the layers refused its input.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Pixels are no batch of images.
    #[error("model: `pixel_values` has shape {found:?}, expected [B, C, H, W]")]
    PixelRank {
        /// The shape found.
        found: Vec<usize>,
    },
    /// Images have another number of channels than the model.
    #[error("model: images have {found} channels, expected {expected} as `num_channels` says")]
    Channels {
        /// Channels of the images.
        found: usize,
        /// Channels of the model.
        expected: usize,
    },
    /// Images have another size than the model.
    #[error(
        "model: images are {} x {} pixels (height x width), expected {} x {}\nhelp: resize them, or \
         ask for `interpolate_pos_encoding`", found.0, found.1, expected.0, expected.1
    )]
    ImageSize {
        /// (height, width) of the images.
        found: (usize, usize),
        /// (height, width) of the model.
        expected: (usize, usize),
    },
    /// Images are not a whole number of patches.
    #[error("model: image {axis} {image} is not divisible by patch {axis} {patch}")]
    Patches {
        /// `height` or `width`.
        axis: &'static str,
        /// Side in pixels.
        image: usize,
        /// Patch side in pixels.
        patch: usize,
    },
    /// A mask is for other images.
    #[error(
        "masking: it is for {found_batch} images of {found_patches} patches, expected {batch} of \
         {patches}"
    )]
    MaskingSize {
        /// Images of the mask.
        found_batch: usize,
        /// Patches of the mask.
        found_patches: usize,
        /// Images given.
        batch: usize,
        /// Patches of each.
        patches: usize,
    },
    /// An array of the masking has the wrong length.
    #[error("masking: `{what}` has {found} values, expected {expected} for {batch} images")]
    MaskingLength {
        /// The argument.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length that fits.
        expected: usize,
        /// Images.
        batch: usize,
    },
    /// The ratio is no ratio.
    #[error("masking: the ratio is {found}, expected 0 to 1")]
    MaskRatio {
        /// The value found.
        found: f64,
    },
    /// Noise cannot be sorted.
    #[error("masking: the noise at {index} is not a number")]
    Noise {
        /// Where.
        index: usize,
    },
    /// Images of one batch keep different numbers of patches.
    #[error("masking: image {image} keeps {found} patches, expected {expected} as the first image")]
    UnevenMask {
        /// The image.
        image: usize,
        /// Its kept patches.
        found: usize,
        /// Kept patches of the first.
        expected: usize,
    },
    /// A kept patch does not exist.
    #[error("masking: image {image} keeps patch {patch}, expected less than {patches}")]
    KeptPatch {
        /// The image.
        image: usize,
        /// The patch.
        patch: u32,
        /// Patches of an image.
        patches: usize,
    },
    /// A kept patch is named twice.
    #[error("masking: image {image} keeps patch {patch} twice")]
    KeptTwice {
        /// The image.
        image: usize,
        /// The patch.
        patch: u32,
    },
    /// The mask keeps everything or there is nothing to learn from.
    #[error(
        "masking: no patch is removed, so there is no loss\nhelp: raise the mask ratio to remove at \
         least one of {patches} patches"
    )]
    NothingRemoved {
        /// Patches of an image.
        patches: usize,
    },
    /// A choice that the configuration records is not known.
    #[error("config: `{key}` is `{found}`, expected {expected}")]
    Recorded {
        /// The key.
        key: &'static str,
        /// The value found.
        found: String,
        /// The values there are.
        expected: &'static str,
    },
    /// Labels of another kind than the problem takes.
    #[error("classifier: `problem_type` is `{problem}`, which takes {expected}")]
    LabelKind {
        /// Hugging Face's name of the problem.
        problem: &'static str,
        /// What its labels are.
        expected: &'static str,
    },
    /// There are not as many labels as images, or as scores.
    #[error("classifier: {found} labels for {batch} images, expected {expected}")]
    Labels {
        /// Labels given.
        found: usize,
        /// Labels needed.
        expected: usize,
        /// Images given.
        batch: usize,
    },
}
