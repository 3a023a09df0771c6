//! What can be wrong with a case folder.

use std::path::PathBuf;

/// What went wrong with a case folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaseError {
    /// A file or folder could not be read.
    #[error("`{path}` cannot be read")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// `case.json` is not what the format says.
    #[error("`{path}`: not a parity case: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// `case.json` lacks a field that its kind needs.
    #[error("`{path}`: kind `{kind}` needs the field `{field}`")]
    MissingField {
        /// The file.
        path: PathBuf,
        /// The kind.
        kind: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field of `case.json` has a value outside its range.
    #[error("`{path}`: `{field}` is {found}, expected {expected}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// The value.
        found: String,
        /// The range.
        expected: &'static str,
    },
    /// The tensors are not a safetensors file.
    #[error("`{path}`: not a safetensors file")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: safetensors::SafeTensorError,
    },
    /// A tensor has a type that cases do not use.
    #[error("`{path}`: tensor `{name}` has dtype {found:?}, expected F32, F64, I32 or I64")]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: safetensors::Dtype,
    },
    /// A tensor is neither a known input nor an expected output.
    #[error(
        "`{path}`: tensor `{name}` is unknown, expected `input.pixel_values`, `input.noise`, \
         `input.labels` or `expected.*`"
    )]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor is missing.
    #[error("`{path}`: tensor `{name}` not found")]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor holds integers where numbers are wanted, or the reverse.
    #[error("`{path}`: tensor `{name}` holds {found}, expected {expected}")]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What it holds.
        found: &'static str,
        /// What was asked for.
        expected: &'static str,
    },
    /// A folder holds no case at all.
    #[error("`{path}` holds no folder with a `case.json`")]
    NoCases {
        /// The folder.
        path: PathBuf,
    },
}
