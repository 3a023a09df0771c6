//! Image decoding, Pillow-exact resize, the ViT image processor and augmentations.
//!
//! The way of an image: [`decode`] (JPEG, PNG, WebP within [`Limits`]) gives an 8-bit [`Image`];
//! [`VitImageProcessor::preprocess`] resizes and normalises it to `[C, H, W]` f32 as
//! transformers does on Pillow; [`augment`] does the same through a random crop and flip for
//! training; [`sheet`] turns model outputs back into a picture and [`encode_png`] writes it.
//!
//! ```
//! use vitmae_image::{Image, Limits, VitImageProcessor, decode, encode_png};
//!
//! let file = encode_png(&Image::new(32, 20, 3, vec![90; 32 * 20 * 3])?)?;
//! let processor = VitImageProcessor::from_json(r#"{"size": 224, "resample": 2}"#)?;
//! let pixels = processor.preprocess(&decode(&file, &Limits::default())?)?; // [3, 224, 224]
//! assert_eq!(pixels.len(), 3 * 224 * 224);
//! # Ok::<(), vitmae_image::ImageError>(())
//! ```
//!
//! Letters: `C` channels, `H` `W` pixels. Every colour value in an [`Image`] is in 0..=255.
//! This crate knows no tensors and draws no random numbers: draws are an argument.
#![forbid(unsafe_code)]

mod augment;
mod decode;
mod encode;
mod error;
mod image;
mod processor;
mod resize;
mod sheet;
mod similarity;

pub use augment::{
    Crop, Fit, Operation, RandAugment, RandomResizedCrop, augment, center_crop, crop,
    horizontal_flip, random_resized_crop,
};
pub use decode::{Limits, Source, decode, decode_named};
pub use encode::encode_png;
pub use error::ImageError;
pub use image::Image;
pub use processor::{PerChannel, Size, VitImageProcessor};
pub use resize::{Filter, resize};
pub use sheet::{PanelShape, SheetRow, sheet};
pub use similarity::{mean_squared_error, psnr, ssim};
