//! How many floating-point operations a step takes: matrix products only, a multiply-add is two.
//!
//!   block(N, D, I) = 2·N·D·(4·D + 2·I) + 4·N²·D       qkv 3, projection 1, MLP 2·I/D; attention
//!   embed = 2·L·patch·D      link = 2·(1+K)·D·E      head = 2·(1+L)·E·patch
//!   forward = embed + blocks(1+K, D) + link + blocks(1+L, E) + head
//!   training = 3·forward − embed                      pixels need no gradient
//!
//! All patches are embedded and predicted, as in the reference, whether or not a faster program
//! skips some: the count is of the work to be done, not of the work that was.

use vitmae_model::VitMaeConfig;

/// Operations of the forward pass of one image with `kept` visible patches.
pub fn forward(config: &VitMaeConfig, kept: usize) -> f64 {
    let (d, e) = (config.hidden_size as f64, config.decoder_hidden_size as f64);
    let (patches, kept) = (config.num_patches() as f64, kept as f64);
    let encoder =
        config.num_hidden_layers as f64 * block(1.0 + kept, d, config.intermediate_size as f64);
    let decoder = config.decoder_num_hidden_layers as f64
        * block(1.0 + patches, e, config.decoder_intermediate_size as f64);
    let link = 2.0 * (1.0 + kept) * d * e;
    let head = 2.0 * (1.0 + patches) * e * config.patch_dim() as f64;
    embed(config) + encoder + link + decoder + head
}

/// Operations of one training step for one image.
pub fn training(config: &VitMaeConfig, kept: usize) -> f64 {
    3.0 * forward(config, kept) - embed(config)
}

/// Operations of the encoder on all patches of one image.
pub fn features(config: &VitMaeConfig) -> f64 {
    let d = config.hidden_size as f64;
    let tokens = 1.0 + config.num_patches() as f64;
    let inner = config.intermediate_size as f64;
    embed(config) + config.num_hidden_layers as f64 * block(tokens, d, inner)
}

fn block(tokens: f64, width: f64, inner: f64) -> f64 {
    2.0 * tokens * width * (4.0 * width + 2.0 * inner) + 4.0 * tokens * tokens * width
}

fn embed(config: &VitMaeConfig) -> f64 {
    2.0 * config.num_patches() as f64 * config.patch_dim() as f64 * config.hidden_size as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_sizes_have_the_published_counts() {
        // GFLOP a training step and an encoder pass, docs of the flop model.
        let cases = [
            (VitMaeConfig::base(), 49, 58.5, 35.1),
            (VitMaeConfig::large(), 49, 124.2, 123.1),
            (VitMaeConfig::huge(), 64, 291.0, 334.6),
        ];
        for (config, kept, train, encoder) in cases {
            let found = (training(&config, kept) / 1e9, features(&config) / 1e9);
            assert!((found.0 / train - 1.0).abs() < 5e-3, "{found:?}");
            assert!((found.1 / encoder - 1.0).abs() < 5e-3, "{found:?}");
        }
    }
}
