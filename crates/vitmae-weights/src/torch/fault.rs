//! What can be wrong with a PyTorch archive.

use std::io;

/// Why a PyTorch archive was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchFault {
    /// The file does not start as a ZIP archive.
    #[error(
        "torch: the file is not an archive of `torch.save`\nhelp: files from before PyTorch 1.6 are not; load \
         such a file with PyTorch and save it again"
    )]
    NotAnArchive,
    /// The archive itself is broken. Its reader's text names its cause, which would otherwise be told twice.
    #[error("torch: the archive is broken: {0}")]
    Zip(zip::result::ZipError),
    /// More of something than any checkpoint of this kind has.
    #[error("torch: the file has {found} {what}, expected at most {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many are accepted.
        limit: usize,
    },
    /// The archive holds a compiled program.
    #[error(
        "torch: the file is a TorchScript program, not a checkpoint\nhelp: save the model's `state_dict()` with \
         `torch.save`"
    )]
    TorchScript,
    /// There is no `data.pkl`.
    #[error("torch: the archive has no `data.pkl`\nhelp: only files of `torch.save` are read")]
    NoProgram,
    /// An entry is compressed, which `torch.save` never does.
    #[error("torch: the entry `{entry}` is compressed, expected stored bytes")]
    Compressed {
        /// The entry.
        entry: String,
    },
    /// An entry is longer than any of its kind.
    #[error("torch: the entry `{entry}` has {found} bytes, expected at most {limit}")]
    EntryTooLarge {
        /// The entry.
        entry: String,
        /// Its bytes.
        found: u64,
        /// Bytes accepted.
        limit: u64,
    },
    /// An entry could not be read, or its checksum is wrong.
    #[error("torch: the entry `{entry}` cannot be read")]
    Entry {
        /// The entry.
        entry: String,
        /// What the archive's reader says.
        source: io::Error,
    },
    /// The values are in another order of bytes.
    #[error("torch: the byte order is `{found}`, expected `little`")]
    ByteOrder {
        /// What the file says.
        found: String,
    },
    /// The pickle ends before its program does.
    #[error("torch: the pickle ends at byte {at} in the middle of an instruction")]
    Ends {
        /// Where.
        at: usize,
    },
    /// An instruction that no checkpoint needs.
    #[error("torch: the pickle has instruction {code:#04x} at byte {at}, which is not read")]
    Instruction {
        /// The instruction.
        code: u8,
        /// Where.
        at: usize,
    },
    /// An instruction does not find on the stack what it needs.
    #[error("torch: the pickle's instruction {code:#04x} at byte {at} expects {expected}")]
    Stack {
        /// The instruction.
        code: u8,
        /// Where.
        at: usize,
        /// What it needs.
        expected: &'static str,
    },
    /// A class or function beyond those of a checkpoint.
    #[error(
        "torch: the pickle names `{name}`, which no checkpoint of tensors needs; nothing was executed\nhelp: save \
         the model's `state_dict()` alone, or do not trust the file"
    )]
    Global {
        /// Module and name.
        name: String,
    },
    /// A text is not UTF-8.
    #[error("torch: the pickle's text at byte {at} is not UTF-8")]
    Text {
        /// Where.
        at: usize,
    },
    /// The program builds no dictionary of tensors.
    #[error(
        "torch: the file holds {found}, expected a dictionary of tensors\nhelp: save the model's `state_dict()`"
    )]
    NoStateDict {
        /// What it holds.
        found: &'static str,
    },
    /// A tensor names a storage that is not there.
    #[error("torch: tensor `{name}` lies in the entry `{entry}`, which the archive does not have")]
    NoStorage {
        /// The tensor.
        name: String,
        /// The entry.
        entry: String,
    },
    /// An entry is not as long as its storage.
    #[error(
        "torch: the entry `{entry}` has {found} bytes, expected {}",
        expected.map_or("a number that fits an integer".to_string(), |n| n.to_string())
    )]
    StorageBytes {
        /// The entry.
        entry: String,
        /// Its bytes.
        found: u64,
        /// Bytes the program says.
        expected: Option<u64>,
    },
    /// A tensor reaches beyond its storage.
    #[error(
        "torch: tensor `{name}` of shape {shape:?} with strides {strides:?} from {offset} on reaches beyond its storage \
         of {len} values"
    )]
    BeyondStorage {
        /// The tensor.
        name: String,
        /// Its sides.
        shape: Vec<usize>,
        /// Its strides.
        strides: Vec<u64>,
        /// Its first value.
        offset: u64,
        /// Values of the storage.
        len: u64,
    },
    /// Two storages lie in the same bytes.
    #[error(
        "torch: the entry `{second}` starts at byte {start}, before the end of `{first}` at {end}\nhelp: storages overlap"
    )]
    Overlap {
        /// The storage that begins first.
        first: String,
        /// The one that begins in it.
        second: String,
        /// Where the second begins.
        start: u64,
        /// Where the first ends.
        end: u64,
    },
    /// A tensor is described in a way that no tensor is.
    #[error("torch: a tensor has no {what}")]
    Tensor {
        /// What is missing or odd.
        what: &'static str,
    },
}
