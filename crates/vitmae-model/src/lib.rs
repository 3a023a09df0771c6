//! ViTMAE: config, positions, masking, encoder, decoder, loss.
//!
//! | what | where |
//! |---|---|
//! | sizes and choices, Hugging Face's `config.json` | [`config`] |
//! | which patches are removed | [`Masking`] |
//! | the fixed table of positions | [`position`] |
//! | first values of the parameters | [`init`] |
//! | the encoder | [`VitMaeModel`] |
//! | the decoder | [`VitMaeDecoder`] |
//! | both, with the loss and its gradient | [`VitMaeForPreTraining`] |
//! | the encoder with a classifier | [`VitForImageClassification`] |
//!
//! This crate reads and writes no file and draws no random number: noise and seeds are arguments.
//!
//! ```
//! use vitmae_model::{ForwardOptions, Masking, VitMaeConfig, VitMaeForPreTraining};
//! use vitmae_tensor::{Device, Tensor};
//!
//! let config = VitMaeConfig {
//!     hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 32,
//!     decoder_hidden_size: 16, decoder_num_hidden_layers: 1, decoder_num_attention_heads: 2,
//!     decoder_intermediate_size: 32, image_size: (8, 8), patch_size: (4, 4), num_channels: 1,
//!     ..VitMaeConfig::default()
//! };
//! let (device, seed) = (Device::cpu(), 0);
//! let model = VitMaeForPreTraining::new(config, &device, seed)?;
//! let pixels = Tensor::from_vec(&device, &[1, 1, 8, 8], vec![0.5; 64])?; // [B, C, H, W]
//! let masking = Masking::from_noise(&[0.7, 0.1, 0.9, 0.3], 1, 4, 0.5)?;
//! let output = model.forward(&pixels, &masking, &ForwardOptions::default())?;
//! assert_eq!(output.logits.shape(), [1, 4, 16]); // [B, L, PH·PW·C]
//! # Ok::<(), vitmae_model::ModelError>(())
//! ```
#![forbid(unsafe_code)]

mod classifier;
pub mod config;
mod decoder;
mod encoder;
mod error;
pub mod init;
mod labels;
mod masking;
mod options;
pub mod position;
mod pretraining;

pub use classifier::{Head, VitForImageClassification, VitForImageClassificationOutput};
pub use config::{ConfigError, VitMaeConfig};
pub use decoder::{VitMaeDecoder, VitMaeDecoderOutput};
pub use encoder::{Values, VitMaeModel, VitMaeModelOutput};
pub use error::ModelError;
pub use labels::{Labels, ProblemType};
pub use masking::Masking;
pub use options::{ForwardOptions, Interpolation, Numerics, TrainOptions};
pub use pretraining::{LatentSeen, VitMaeForPreTraining, VitMaeForPreTrainingOutput};
