//! Small models and their inputs.

use vitmae_model::{Masking, VitMaeConfig};
use vitmae_tensor::{Device, Tensor};
use vitmae_testing::draws::Draws;

/// Two encoder blocks, one decoder block, 16 rectangular patches, rectangular image.
pub(crate) fn config() -> VitMaeConfig {
    VitMaeConfig {
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 24,
        decoder_hidden_size: 8,
        decoder_num_hidden_layers: 1,
        decoder_num_attention_heads: 2,
        decoder_intermediate_size: 12,
        image_size: (12, 8),
        patch_size: (3, 2),
        num_channels: 2,
        layer_norm_eps: 1e-6,
        ..VitMaeConfig::default()
    }
}

/// Random pixels for `batch` images, as f32 values.
pub(crate) fn pixels(config: &VitMaeConfig, batch: usize, draws: &mut Draws) -> Vec<f32> {
    draws.vec_f32(batch * config.num_channels * config.image_size.0 * config.image_size.1)
}

pub(crate) fn tensor(config: &VitMaeConfig, batch: usize, pixels: &[f32]) -> Tensor {
    let shape = [batch, config.num_channels, config.image_size.0, config.image_size.1];
    Tensor::from_slice(&Device::cpu(), &shape, pixels).unwrap()
}

pub(crate) fn masking(config: &VitMaeConfig, batch: usize, draws: &mut Draws) -> Masking {
    let patches = config.num_patches();
    let noise: Vec<f64> = (0..batch * patches).map(|_| draws.uniform()).collect();
    Masking::from_noise(&noise, batch, patches, config.mask_ratio).unwrap()
}
