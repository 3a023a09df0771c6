//! What can go wrong between bytes and a model.

use std::io;
use std::path::PathBuf;

use vitmae_model::{ConfigError, ModelError};

use crate::comparison::Mismatch;
use crate::dtype::Dtype;
use crate::hdf5::Hdf5Fault;
use crate::layout::Layout;
use crate::torch::TorchFault;

/// Why weights or a model folder were not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// A file was refused; the cause says why.
    #[error("`{}` cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<WeightsError>,
    },
    /// The system refused an action.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: `open`, `read`, `write`, `rename`…
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A folder, device or pipe stands where a file is needed.
    #[error("`{}` is not a regular file", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },

    /// The file is of another format, told by its first bytes.
    #[error("the file is {format}, not safetensors\nhelp: {help}")]
    OtherFormat {
        /// What it is.
        format: &'static str,
        /// What to do.
        help: &'static str,
    },
    /// The file cannot even hold the length of a header.
    #[error("safetensors: the file has {found} bytes, expected at least 8")]
    TooShort {
        /// Bytes in the file.
        found: u64,
    },
    /// The header is longer than any model of this kind needs.
    #[error("safetensors: the header claims {found} bytes, expected at most {limit}")]
    HeaderTooLarge {
        /// Bytes claimed.
        found: u64,
        /// Bytes accepted.
        limit: u64,
    },
    /// The header reaches past the end of the file.
    #[error(
        "safetensors: the header claims {found} bytes, but {available} follow\nhelp: the file is \
         truncated or is not a safetensors file"
    )]
    HeaderBeyondFile {
        /// Bytes claimed.
        found: u64,
        /// Bytes present.
        available: u64,
    },
    /// The header does not start as an object.
    #[error("safetensors: the header starts with byte {found:#04x}, expected `{{`")]
    HeaderStart {
        /// The first byte.
        found: u8,
    },
    /// The header is not the JSON the format asks for.
    #[error("safetensors: the header is not a table of tensors")]
    HeaderJson {
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
    /// More entries than any model of this kind has.
    #[error("safetensors: the header lists {found} {what}, expected at most {limit}")]
    TooMany {
        /// `tensors` or `metadata keys`.
        what: &'static str,
        /// Entries listed.
        found: usize,
        /// Entries accepted.
        limit: usize,
    },
    /// A name occurs twice, so that its value would depend on the reader.
    #[error("{what} `{name}` occurs more than once")]
    Duplicate {
        /// `tensor` or `metadata key`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// An element type the format does not have.
    #[error("safetensors: tensor `{name}` has the unknown dtype `{found}`")]
    UnknownDtype {
        /// The tensor.
        name: String,
        /// The type claimed.
        found: String,
    },
    /// Too many axes.
    #[error("safetensors: tensor `{name}` has {found} axes, expected at most {limit}")]
    Rank {
        /// The tensor.
        name: String,
        /// Axes claimed.
        found: usize,
        /// Axes accepted.
        limit: usize,
    },
    /// The product of the sides does not fit an integer.
    #[error("safetensors: tensor `{name}` has a shape {shape:?} too large to count")]
    Overflow {
        /// The tensor.
        name: String,
        /// The shape claimed.
        shape: Vec<u64>,
    },
    /// Shape and type ask for other bytes than the range given.
    #[error(
        "safetensors: tensor `{name}` occupies {found} bytes, but {dtype} {shape:?} needs {expected}"
    )]
    ByteRange {
        /// The tensor.
        name: String,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes between its offsets.
        found: u64,
        /// Bytes it needs.
        expected: u64,
    },
    /// Elements smaller than a byte that do not fill their last one.
    #[error("safetensors: tensor `{name}` of {dtype} {shape:?} does not end at a whole byte")]
    PartialByte {
        /// The tensor.
        name: String,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Two tensors overlap, or bytes between them belong to none.
    #[error(
        "safetensors: tensor `{name}` starts at byte {found}, expected {expected}\nhelp: {help}"
    )]
    Offset {
        /// The tensor.
        name: String,
        /// Its start.
        found: u64,
        /// The end of the tensor before it.
        expected: u64,
        /// Whether it overlaps or leaves a gap.
        help: &'static str,
    },
    /// The end of a tensor comes before its start.
    #[error("safetensors: tensor `{name}` ends at byte {end}, before its start at {begin}")]
    Backwards {
        /// The tensor.
        name: String,
        /// Its start.
        begin: u64,
        /// Its end.
        end: u64,
    },
    /// The tensors end before or after the file does.
    #[error(
        "safetensors: the tensors cover {covered} bytes, but {found} bytes follow the header\nhelp: \
         {help}"
    )]
    Coverage {
        /// End of the last tensor.
        covered: u64,
        /// Bytes after the header.
        found: u64,
        /// Whether the file is cut or has bytes of no tensor.
        help: &'static str,
    },
    /// A tensor was asked for that the file does not list.
    #[error("there is no tensor `{name}`")]
    NoSuchTensor {
        /// The name asked for.
        name: String,
    },
    /// The tensor's type is known but is no float this crate converts.
    #[error("tensor `{name}` has dtype {dtype}, expected F32, F16, BF16 or F64")]
    NotAFloat {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: Dtype,
    },
    /// The values to write do not fill the shape.
    #[error("tensor `{name}` was given {found} values, expected {expected}")]
    ValueCount {
        /// The tensor.
        name: String,
        /// Values given.
        found: usize,
        /// Values the shape needs.
        expected: usize,
    },

    /// The index of shards is not the JSON that it has to be.
    #[error("shards: the index is not what transformers writes")]
    IndexJson {
        /// What the parser says, with line and column.
        source: serde_json::Error,
    },
    /// An index leads away from its folder.
    #[error("shards: the index names `{name}`, expected the name of a file beside it")]
    ShardName {
        /// The name.
        name: String,
    },
    /// A shard holds a tensor that belongs elsewhere.
    #[error(
        "shards: `{shard}` holds tensor `{name}`, which the index {}",
        listed.as_ref().map_or("does not list".to_string(), |l| format!("expects in `{l}`"))
    )]
    ShardTensor {
        /// The tensor.
        name: String,
        /// Where it lies.
        shard: String,
        /// Where the index says it lies.
        listed: Option<String>,
    },
    /// A shard lacks a tensor.
    #[error("shards: the index expects tensor `{name}` in `{shard}`, which does not hold it")]
    NotInShard {
        /// The tensor.
        name: String,
        /// The shard.
        shard: String,
    },
    /// A PyTorch archive was refused.
    #[error(transparent)]
    Torch(#[from] TorchFault),
    /// An HDF5 file was refused.
    #[error(transparent)]
    Hdf5(#[from] Hdf5Fault),

    /// A model could not be had from the hub.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),

    /// A model folder lacks a file it must have.
    #[error("`{}` has no `{file}`\nhelp: {help}", folder.display())]
    NotInFolder {
        /// The folder.
        folder: PathBuf,
        /// The file looked for.
        file: &'static str,
        /// What is there instead, or what to do.
        help: String,
    },
    /// A JSON file is larger than any of its kind.
    #[error("the file has {found} bytes, expected at most {limit}")]
    TextTooLarge {
        /// Bytes in the file.
        found: u64,
        /// Bytes accepted.
        limit: u64,
    },
    /// A JSON file is not UTF-8.
    #[error("the file is not UTF-8 from byte {valid_up_to} on")]
    NotUtf8 {
        /// Bytes before the first bad one.
        valid_up_to: usize,
    },
    /// The configuration is wrong in itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model cannot be made.
    #[error(transparent)]
    Model(#[from] ModelError),

    /// There is no configuration, and the weights do not say how many heads the model has.
    #[error(
        "there is no `config.json`, and a width of {width} is that of no published model, so that its {what} are \
         unknown\nhelp: put the model's `config.json` beside the weights, or give the number"
    )]
    NoHeads {
        /// The model's width.
        width: usize,
        /// `attention heads` or `decoder attention heads`.
        what: &'static str,
    },
    /// There is no configuration, and the weights do not show a size.
    #[error(
        "there is no `config.json`, and the weights do not show `{key}`\nhelp: put the model's `config.json` beside \
         the weights"
    )]
    NotShown {
        /// The key of the configuration.
        key: &'static str,
    },
    /// The TensorFlow classes have query, key and value with a bias only, and would make one up.
    #[error(
        "the model has `qkv_bias` false, and the TensorFlow classes always have that bias\nhelp: choose a layout of \
         PyTorch"
    )]
    TensorFlowBias,
    /// A file is in the way.
    #[error("`{}` exists\nhelp: name another place, or allow it to be replaced", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A checkpoint of which no mended copy can be made.
    #[error("`{}` is not mended: {reason}", path.display())]
    CannotMend {
        /// The weights.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No name in the file belongs to a layout of ViTMAE.
    #[error("no tensor name belongs to a ViTMAE: the file holds {}", list(names, 3))]
    UnknownLayout {
        /// Names in the file.
        names: Vec<String>,
    },
    /// A layout has no name for a parameter.
    #[error("parameter `{name}` has no place in the layout of {layout}")]
    NoPlace {
        /// The parameter.
        name: String,
        /// The layout asked for.
        layout: Layout,
    },
    /// The tensors are not those the configuration asks for.
    #[error(transparent)]
    Mismatch(Box<Mismatch>),
}

impl WeightsError {
    /// Whether the system failed (a missing, unreadable or unwritable file, a full disk), and not
    /// the contents of a file.
    pub fn is_io(&self) -> bool {
        match self {
            WeightsError::Io { .. } => true,
            WeightsError::File { source, .. } => source.is_io(),
            _ => false,
        }
    }

    pub(crate) fn in_file(self, path: impl Into<PathBuf>) -> WeightsError {
        match self {
            // These name their file already.
            own @ (WeightsError::Io { .. }
            | WeightsError::NotAFile { .. }
            | WeightsError::Exists { .. }
            | WeightsError::CannotMend { .. }
            | WeightsError::NotInFolder { .. }
            | WeightsError::File { .. }) => own,
            other => WeightsError::File { path: path.into(), source: Box::new(other) },
        }
    }
}

/// A name from a file, made safe to print: control characters escaped, cut at 100 letters.
pub(crate) fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(100).flat_map(char::escape_debug).collect();
    if name.chars().nth(100).is_some() {
        text.push('…');
    }
    text
}

/// The first `most` names in backticks and the number of the rest.
fn list(names: &[String], most: usize) -> String {
    if names.is_empty() {
        return "no tensors".to_string();
    }
    let first: Vec<_> = names.iter().take(most).map(|n| format!("`{}`", shown(n))).collect();
    let more = names.len().saturating_sub(most);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", first.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_safe_to_print() {
        assert_eq!(shown("a\u{1b}[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(shown(&"x".repeat(101)), format!("{}…", "x".repeat(100)));
    }

    #[test]
    fn an_unknown_layout_shows_the_first_names() {
        let names = ["a", "b", "c", "d", "e"].map(String::from).to_vec();
        assert_eq!(
            WeightsError::UnknownLayout { names }.to_string(),
            "no tensor name belongs to a ViTMAE: the file holds `a`, `b`, `c` and 2 more"
        );
        assert_eq!(
            WeightsError::UnknownLayout { names: vec![] }.to_string(),
            "no tensor name belongs to a ViTMAE: the file holds no tensors"
        );
    }
}
