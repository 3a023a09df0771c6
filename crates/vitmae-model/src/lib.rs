//! ViTMAE: config, positions, masking, encoder, decoder, loss.
#![forbid(unsafe_code)]

pub mod config;

pub use config::{ConfigError, VitMaeConfig};
