//! Reads and writes ViTMAE checkpoints safely in every layout.
//!
//! A file passes these stages in order, and is refused at the first that fails:
//!
//! | stage | file |
//! |---|---|
//! | the header is sound and covers every byte | [`safetensors_header`] |
//! | the names belong to a layout that is read | [`layout`] |
//! | the configuration is sound in itself | `vitmae_model::config` |
//! | names and shapes are those the configuration asks for | [`comparison`] |
//! | the data are read tensor by tensor | [`safetensors_file`] |
//!
//! Nothing is allocated for a tensor before the first four have passed. Writing goes through
//! [`atomic_file`]: a failure leaves the old file as it was.
#![forbid(unsafe_code)]

pub mod architecture;
pub mod atomic_file;
pub mod comparison;
pub mod conversion;
pub mod diagnosis;
pub mod dtype;
mod error;
pub mod folder;
pub mod hdf5;
#[cfg(feature = "hub")]
pub mod hub;
mod inferred;
pub mod inspect;
pub mod layout;
pub mod loading;
#[cfg(test)]
mod mutation;
mod names;
pub mod order;
pub mod parameters;
mod pretrained;
pub mod safetensors_file;
pub mod safetensors_header;
pub mod safetensors_writer;
pub mod saving;
pub mod torch;
pub mod weights_file;

pub use atomic_file::write_atomically;
pub use comparison::{LoadOptions, Mismatch};
pub use conversion::{ConvertOptions, ConvertReport, Target, convert};
pub use diagnosis::{Diagnosis, Finding, Repair, diagnose, repair};
pub use dtype::Dtype;
pub use error::WeightsError;
pub use folder::ModelFolder;
pub use hdf5::{Hdf5Fault, Hdf5File, write_hdf5};
#[cfg(feature = "hub")]
pub use hub::{Hub, HubError};
pub use inspect::{Inspection, inspect};
pub use layout::Layout;
pub use loading::LoadReport;
pub use order::Order;
pub use pretrained::{
    Pretrained, classifier_from_pretrained, encoder_from_pretrained, from_pretrained,
    save_pretrained, save_pretrained_with,
};
pub use safetensors_file::SafetensorsFile;
pub use safetensors_header::TensorInfo;
pub use safetensors_writer::{TensorToWrite, write_safetensors};
pub use saving::SaveOptions;
pub use torch::{TorchFault, TorchFile, write_torch};
pub use weights_file::{Container, WeightsFile};
