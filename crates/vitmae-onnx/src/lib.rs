//! Writes ViTMAE models as ONNX graphs, for whatever runs them: ONNX Runtime, OpenVINO, tract, a browser.
//!
//! | what | where |
//! |---|---|
//! | which graphs there are, their inputs and outputs | [`Exported`] |
//! | build, run once beside the model, write | [`export`] |
//! | the graphs, operation by operation | `models.rs`, `parts.rs` |
//! | ONNX's messages, as far as they are needed | `proto.rs` |
//!
//! With the feature `check` a graph is run by tract before it gets its name, refused if an output differs from the model's own by
//! more than a bound, and the largest difference is part of the file's metadata. The feature costs minutes of building,
//! so it is not a default one; this crate's tests have it.
//!
//! ```no_run
//! use vitmae_onnx::{ExportOptions, Exported, Model, export};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (model, _) = vitmae_weights::from_pretrained(
//!     "run".as_ref(), &vitmae_tensor::Device::cpu(), &Default::default())?;
//! let options = ExportOptions::default();
//! let report = export(Model::Pretraining(&model), Exported::Features, "features.onnx".as_ref(), &options)?;
//! println!("{:?}", report.checked);
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "check")]
mod check;
mod error;
mod export;
mod file;
mod graph;
mod models;
mod parts;
mod proto;

pub use error::OnnxError;
pub use export::{Checked, ExportOptions, ExportReport, Exported, Model, export};
