//! Everything that can be wrong with an image, a processor file or a picture.

use std::path::PathBuf;

/// Why an image, a processor configuration or a picture was refused.
///
/// `file` is the path as given, or `<memory>` for bytes that have no path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file system refused the file.
    #[error("cannot read image `{}`", file.display())]
    Read {
        /// The path as given.
        file: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The first bytes are of none of the formats read here.
    #[error(
        "image `{file}` starts with [{found}], which is not JPEG, PNG or WebP\n\
         help: convert it to one of these formats; the file name's extension is not looked at"
    )]
    UnknownFormat {
        /// The file.
        file: String,
        /// The first bytes, as hexadecimal.
        found: String,
    },
    /// A limit of [`Limits`](crate::Limits) is exceeded; nothing large was allocated.
    #[error(
        "image `{file}` has {what} {found}, the limit is {limit}\n\
         help: if the file can be trusted, make it smaller or raise `Limits`"
    )]
    Limit {
        /// The file.
        file: String,
        /// What was counted, with its unit.
        what: &'static str,
        /// The number found in the header.
        found: u64,
        /// The number allowed.
        limit: u64,
    },
    /// The data ends early or contradict the format.
    #[error("image `{file}` is damaged or truncated {format}")]
    Damaged {
        /// The file.
        file: String,
        /// The format that its first bytes announce.
        format: &'static str,
        /// What the decoder found.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A valid file that uses something this crate does not read.
    #[error(
        "image `{file}` is {format} with {found}, expected {expected}\n\
         help: convert it to 8-bit grey or RGB"
    )]
    Unsupported {
        /// The file.
        file: String,
        /// The format.
        format: &'static str,
        /// What was found.
        found: String,
        /// What is read here.
        expected: &'static str,
    },
    /// A decoder panicked. This is a bug, not a property of the file.
    #[error(
        "image `{file}` made the {format} decoder panic: {message}\n\
         help: this is a bug in the decoder; please report it together with the file"
    )]
    DecoderBug {
        /// The file.
        file: String,
        /// The format.
        format: &'static str,
        /// The panic's message.
        message: String,
    },
    /// An [`Image`](crate::Image) whose `data` do not fit its sizes.
    #[error(
        "image buffer holds {found} bytes, expected {expected} for {width}x{height} with \
         {channels} channels"
    )]
    Buffer {
        /// Bytes in `data`.
        found: usize,
        /// `width · height · channels`.
        expected: usize,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// Channels.
        channels: usize,
    },
    /// A channel count that the operation cannot take.
    #[error(
        "{what}: the image has {found} channels, expected {expected}\n\
         help: `Image::to_rgb` or `\"do_convert_rgb\": true` makes 3 channels of any image"
    )]
    Channels {
        /// The operation.
        what: &'static str,
        /// Channels of the image.
        found: usize,
        /// Channels that fit.
        expected: String,
    },
    /// A size of zero or one too large to hold.
    #[error("{what}: size {width}x{height} is not possible, expected 1x1 to 32768x32768")]
    TargetSize {
        /// The operation.
        what: &'static str,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// A crop box that is empty, not finite or outside the image.
    #[error(
        "box ({}, {}, {}, {}) does not lie in the image of {width}x{height}, expected \
         0 <= left < right <= width and 0 <= top < bottom <= height",
        found[0], found[1], found[2], found[3]
    )]
    CropBox {
        /// Left, top, right, bottom in pixels.
        found: [f64; 4],
        /// Width of the image.
        width: usize,
        /// Height of the image.
        height: usize,
    },
    /// A random draw outside 0..1, or crop ranges that are not ranges.
    #[error("random crop: `{what}` is {found}, expected {expected}")]
    RandomCrop {
        /// The value's name.
        what: &'static str,
        /// The value.
        found: f64,
        /// The allowed range.
        expected: &'static str,
    },
    /// The name of a RandAugment policy that means nothing here.
    #[error("augmentation policy `{policy}`: found `{found}`, expected {expected}")]
    Policy {
        /// The whole name.
        policy: String,
        /// The part that is wrong.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// `preprocessor_config.json` is not JSON.
    #[error("image processor configuration is not a JSON object")]
    ConfigJson {
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A key of `preprocessor_config.json` has a value that means nothing.
    #[error("image processor configuration: `{key}` is {found}, expected {expected}")]
    Config {
        /// The key.
        key: &'static str,
        /// Its value as JSON.
        found: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// Values given for a picture do not have the announced shape.
    #[error("{what}: found {found} values, expected {expected}")]
    Values {
        /// Which argument.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length that the shape asks for.
        expected: usize,
    },
    /// Patches that do not tile the panel.
    #[error(
        "sheet: patches of {patch_height}x{patch_width} do not tile a panel of {height}x{width} \
         with {channels} channels"
    )]
    PanelShape {
        /// Panel height in pixels.
        height: usize,
        /// Panel width in pixels.
        width: usize,
        /// Channels.
        channels: usize,
        /// Patch height in pixels.
        patch_height: usize,
        /// Patch width in pixels.
        patch_width: usize,
    },
    /// The PNG encoder failed.
    #[error("cannot encode PNG")]
    Encode {
        /// The cause.
        #[source]
        source: png::EncodingError,
    },
}
