//! Weights and inputs by formula, so that a case of any size stores neither.
//!
//!   u(s, k) = (splitmix64(fnv1a64(s) + k) >> 11) / 2⁵³          all u64 arithmetic wraps
//!   weight  = 0.04·(2u − 1), and 1 + 0.04·(2u − 1) for the weight of a layer norm
//!   pixels  = 2·(2u − 1)          noise = u
//!
//! `s` is the tensor's name in Hugging Face's 4.x layout, `k` the row-major index. Values are computed
//! in f64 and rounded once to f32. Position tables are the exact tables of
//! [`crate::reference::position`].

use crate::draws::splitmix64;
use crate::reference::position;

/// The 64-bit FNV-1a hash of a string's UTF-8 bytes.
pub fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(14_695_981_039_346_656_037, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(1_099_511_628_211)
    })
}

/// Element `k` of the tensor called `name`, uniform in [0, 1).
pub fn uniform(name: &str, k: u64) -> f64 {
    (splitmix64(fnv1a64(name).wrapping_add(k)) >> 11) as f64 / (1u64 << 53) as f64
}

/// The parameter `name` of shape `shape` for a model with this grid of patches.
pub fn weight(name: &str, shape: &[usize], grid: (usize, usize)) -> Vec<f32> {
    if name.ends_with("position_embeddings") || name.ends_with("decoder_pos_embed") {
        let width = shape.last().copied().unwrap_or(0);
        return position::table(width, grid).into_iter().map(|v| v as f32).collect();
    }
    let centre = if is_layer_norm_weight(name) { 1.0 } else { 0.0 };
    elements(name, shape).map(|u| (centre + 0.04 * (2.0 * u - 1.0)) as f32).collect()
}

/// `input.pixel_values` of shape `[B, C, H, W]`.
pub fn pixel_values(shape: &[usize]) -> Vec<f32> {
    elements("input.pixel_values", shape).map(|u| (2.0 * (2.0 * u - 1.0)) as f32).collect()
}

/// `input.noise` of shape `[B, L]`.
pub fn noise(shape: &[usize]) -> Vec<f32> {
    elements("input.noise", shape).map(|u| u as f32).collect()
}

/// True for the scale of a layer norm in Hugging Face's 4.x names.
pub fn is_layer_norm_weight(name: &str) -> bool {
    let norms = ["layernorm_before", "layernorm_after", "layernorm", "decoder_norm"];
    let layer = name.strip_suffix(".weight").and_then(|rest| rest.rsplit('.').next());
    layer.is_some_and(|layer| norms.contains(&layer))
}

fn elements(name: &str, shape: &[usize]) -> impl Iterator<Item = f64> {
    let start = fnv1a64(name);
    let count = shape.iter().product::<usize>() as u64;
    (0..count).map(move |k| (splitmix64(start.wrapping_add(k)) >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::{Tolerance, assert_close};

    #[test]
    fn the_hash_and_the_first_values_are_those_of_the_format() {
        let name = "vit.embeddings.cls_token";
        assert_eq!(fnv1a64(name), 0x4a1a_73b6_b027_f61c);
        let found = weight(name, &[1, 1, 3], (14, 14));
        let expected = [0.037671588, -0.034741483, -0.022953408].map(|v: f64| v as f32);
        assert_close("cls_token", &found, &expected, Tolerance::EXACT);
        for (k, value) in expected.iter().enumerate() {
            assert_eq!((0.04 * (2.0 * uniform(name, k as u64) - 1.0)) as f32, *value);
        }
    }

    #[test]
    fn only_the_weight_of_a_layer_norm_is_near_one() {
        let names = [
            ("vit.encoder.layer.0.layernorm_before.weight", true),
            ("decoder.decoder_layers.7.layernorm_after.weight", true),
            ("vit.layernorm.weight", true),
            ("decoder.decoder_norm.weight", true),
            ("vit.layernorm.bias", false),
            ("decoder.decoder_pred.weight", false),
            ("vit.encoder.layer.0.output.dense.weight", false),
        ];
        for (name, near_one) in names {
            assert_eq!(is_layer_norm_weight(name), near_one, "{name}");
            let centre = if near_one { 1.0 } else { 0.0 };
            let values = weight(name, &[500], (1, 1));
            assert!(values.iter().all(|v| (v - centre).abs() <= 0.04), "{name}");
            assert!(values.iter().any(|v| (v - centre).abs() > 0.03), "{name}");
        }
    }

    #[test]
    fn position_tables_are_tables_and_inputs_have_their_ranges() {
        let table = weight("decoder.decoder_pos_embed", &[1, 7, 8], (2, 3));
        assert_eq!(table.len(), 56);
        assert!(table[..8].iter().all(|&v| v == 0.0));
        assert_eq!(table[16], 1f32.sin()); // patch 1 is row 0, column 1
        let pixels = pixel_values(&[2, 3, 4, 4]);
        assert!(pixels.iter().all(|v| v.abs() <= 2.0) && pixels.iter().any(|&v| v < -1.5));
        let noise = noise(&[2, 50]);
        assert!(noise.iter().all(|v| (0.0..1.0).contains(v)) && noise.iter().any(|&v| v > 0.9));
    }
}
