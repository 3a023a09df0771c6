//! What can be wrong with a configuration.

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not JSON.
    #[error("config: the text is not valid JSON")]
    Json {
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
    /// The text is JSON, but not an object.
    #[error("config: found {found}, expected an object with the model's sizes")]
    NotAnObject {
        /// The kind of value found.
        found: &'static str,
    },
    /// A key holds a value of another type.
    #[error("config: `{key}` is {found}, expected {expected}")]
    Type {
        /// The key.
        key: String,
        /// The value found, shortened.
        found: String,
        /// What the key takes.
        expected: &'static str,
    },
    /// The file describes another kind of model.
    #[error(
        "config: `model_type` is `{found}`, expected `vit_mae`\nhelp: only ViTMAE models and the \
         `vit` classifiers made from them are read"
    )]
    ModelType {
        /// The value found.
        found: String,
    },
    /// A size is zero.
    #[error("config: `{key}` is 0, expected at least 1")]
    Zero {
        /// The key.
        key: &'static str,
    },
    /// A size is beyond every sensible model.
    #[error("config: `{key}` is {found}, expected at most {limit}")]
    TooLarge {
        /// The key.
        key: &'static str,
        /// The value found.
        found: u64,
        /// The largest value accepted.
        limit: u64,
    },
    /// The sizes together describe a model no machine should be asked for.
    #[error("config: the sizes describe {found} parameters, expected at most {limit}")]
    TooManyParameters {
        /// The count the sizes give.
        found: u64,
        /// The largest count accepted.
        limit: u64,
    },
    /// The width cannot be shared equally by the heads.
    #[error(
        "config: `{width_key}` {width} is not divisible by `{heads_key}` {heads}\nhelp: the heads \
         share the width equally"
    )]
    Heads {
        /// Key of the width.
        width_key: &'static str,
        /// The width.
        width: usize,
        /// Key of the number of heads.
        heads_key: &'static str,
        /// The number of heads.
        heads: usize,
    },
    /// A width has no sine-cosine table.
    #[error(
        "config: `{key}` is {found}, expected a multiple of 4\nhelp: the position table holds a \
         sine and a cosine for each of two axes"
    )]
    PositionWidth {
        /// Key of the width.
        key: &'static str,
        /// The width.
        found: usize,
    },
    /// The image is not a whole number of patches.
    #[error("config: image {axis} {image} is not divisible by patch {axis} {patch}")]
    Patches {
        /// `height` or `width`.
        axis: &'static str,
        /// Image side in pixels.
        image: usize,
        /// Patch side in pixels.
        patch: usize,
    },
    /// The mask ratio keeps nothing or is no ratio.
    #[error(
        "config: `mask_ratio` is {found}, expected at least 0 and less than 1\nhelp: a ratio of 1 \
         can only be asked for in a single call"
    )]
    MaskRatio {
        /// The value found.
        found: f64,
    },
    /// A number is outside its range.
    #[error("config: `{key}` is {found}, expected {expected}")]
    Range {
        /// The key.
        key: &'static str,
        /// The value found.
        found: f64,
        /// The range accepted.
        expected: &'static str,
    },
    /// The activation is not known.
    #[error("config: `hidden_act` is `{found}`, which is not a known activation\nhelp: {help}")]
    Activation {
        /// The name found.
        found: String,
        /// The nearest known name, or all of them.
        help: String,
    },
    /// A patch of one number has no variance to be normalised by.
    #[error(
        "config: `norm_pix_loss` is true, but a patch holds a single number\nhelp: the variance \
         of a patch needs at least 2; use a larger `patch_size` or turn `norm_pix_loss` off"
    )]
    NormPixLoss,
}
