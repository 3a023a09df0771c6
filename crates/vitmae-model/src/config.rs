//! The model's configuration: Hugging Face's `config.json` for `vit_mae`, every field of it.
//!
//! Sizes in pixels are `(height, width)`. A file may give them as one integer or as a pair
//! `[height, width]`; an integer is written back when both sides agree. Keys this crate does not
//! know are kept in [`VitMaeConfig::extra`] and written back unchanged.
//!
//! Trap: `layer_norm_eps` is 1e-12 in Hugging Face's files and 1e-6 in the original code, so it
//! always travels with the weights.

mod error;
mod json;
mod validate;

pub use error::ConfigError;
pub use validate::{ACTIVATIONS, MAX_PARAMETERS};

use serde_json::{Map, Value};

/// The key under which the way of resizing position tables is recorded (`hf1d` or `grid2d`).
pub const INTERPOLATION_KEY: &str = "vitmae_interpolation";

/// The key under which it is recorded whose arithmetic a model was trained with (`torch` or `tf`).
pub const NUMERICS_KEY: &str = "vitmae_numerics";

/// What `problem_type` may be.
pub(crate) const PROBLEM_TYPES: &str =
    "`regression`, `single_label_classification` or `multi_label_classification`";

/// Sizes and choices of one ViTMAE; the field names and defaults are Hugging Face's.
///
/// Small models are made by struct update and checked by [`VitMaeConfig::validate`]:
///
/// ```
/// use vitmae_model::config::VitMaeConfig;
/// let tiny = VitMaeConfig {
///     hidden_size: 32,
///     num_hidden_layers: 2,
///     num_attention_heads: 4,
///     intermediate_size: 64,
///     decoder_hidden_size: 16,
///     decoder_num_hidden_layers: 1,
///     decoder_num_attention_heads: 2,
///     decoder_intermediate_size: 32,
///     image_size: (32, 48),
///     patch_size: (8, 8),
///     ..VitMaeConfig::default()
/// };
/// tiny.validate()?;
/// assert_eq!(tiny.grid(), (4, 6));
/// # Ok::<(), vitmae_model::config::ConfigError>(())
/// ```
///
/// Source: `ViTMAEConfig` of transformers 4.57.6.
#[derive(Debug, Clone, PartialEq)]
pub struct VitMaeConfig {
    /// `vit_mae`, or `vit` for a classifier made from one.
    pub model_type: String,
    /// Encoder width D, divisible by `num_attention_heads` and by 4.
    pub hidden_size: usize,
    /// Encoder blocks N.
    pub num_hidden_layers: usize,
    /// Encoder heads A.
    pub num_attention_heads: usize,
    /// Width of the encoder's MLP.
    pub intermediate_size: usize,
    /// Name of the MLP's activation, one of [`ACTIVATIONS`]; the decoder uses it too.
    pub hidden_act: String,
    /// Dropout after the attention projection and after the MLP, in [0, 1).
    pub hidden_dropout_prob: f64,
    /// Dropout of the attention probabilities, in [0, 1).
    pub attention_probs_dropout_prob: f64,
    /// Standard deviation of normal initialisation, at least 0.
    pub initializer_range: f64,
    /// Added to the variance inside the root of every layer norm, at least 0.
    pub layer_norm_eps: f64,
    /// Image (height, width) in pixels.
    pub image_size: (usize, usize),
    /// Patch (height, width) in pixels.
    pub patch_size: (usize, usize),
    /// Image channels C.
    pub num_channels: usize,
    /// Whether query, key and value have a bias.
    pub qkv_bias: bool,
    /// Decoder heads.
    pub decoder_num_attention_heads: usize,
    /// Decoder width E, divisible by `decoder_num_attention_heads` and by 4.
    pub decoder_hidden_size: usize,
    /// Decoder blocks M.
    pub decoder_num_hidden_layers: usize,
    /// Width of the decoder's MLP.
    pub decoder_intermediate_size: usize,
    /// Share of patches removed, in [0, 1); a call may choose another.
    pub mask_ratio: f64,
    /// Whether the loss compares with each patch normalised by its own mean and variance.
    pub norm_pix_loss: bool,
    /// Every other key of the file, in the file's order.
    pub extra: Map<String, Value>,
}

impl Default for VitMaeConfig {
    fn default() -> Self {
        VitMaeConfig {
            model_type: "vit_mae".to_string(),
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".to_string(),
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            image_size: (224, 224),
            patch_size: (16, 16),
            num_channels: 3,
            qkv_bias: true,
            decoder_num_attention_heads: 16,
            decoder_hidden_size: 512,
            decoder_num_hidden_layers: 8,
            decoder_intermediate_size: 2048,
            mask_ratio: 0.75,
            norm_pix_loss: false,
            extra: Map::new(),
        }
    }
}

/// How many numbers a model's parameters hold, the frozen position tables included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterCount {
    /// Everything under `vit.`.
    pub encoder: u64,
    /// Everything under `decoder.`.
    pub decoder: u64,
    /// The two position tables, counted in `encoder` and `decoder` as well.
    pub frozen: u64,
}

impl ParameterCount {
    /// Encoder and decoder together.
    pub fn total(&self) -> u64 {
        self.encoder.saturating_add(self.decoder)
    }
}

impl VitMaeConfig {
    /// ViT-B/16 at 224 pixels: 111,907,840 parameters.
    pub fn base() -> Self {
        VitMaeConfig::default()
    }

    /// ViT-L/16 at 224 pixels: 329,541,888 parameters.
    pub fn large() -> Self {
        VitMaeConfig {
            hidden_size: 1024,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            intermediate_size: 4096,
            ..VitMaeConfig::default()
        }
    }

    /// ViT-H/14 at 224 pixels: 657,074,508 parameters.
    pub fn huge() -> Self {
        VitMaeConfig {
            hidden_size: 1280,
            num_hidden_layers: 32,
            num_attention_heads: 16,
            intermediate_size: 5120,
            patch_size: (14, 14),
            ..VitMaeConfig::default()
        }
    }

    /// Patches along (height, width); (0, 0) sides where the patch size is 0.
    pub fn grid(&self) -> (usize, usize) {
        let along = |image: usize, patch: usize| image.checked_div(patch).unwrap_or(0);
        (along(self.image_size.0, self.patch_size.0), along(self.image_size.1, self.patch_size.1))
    }

    /// Patches in an image: L.
    pub fn num_patches(&self) -> usize {
        let (rows, columns) = self.grid();
        rows.saturating_mul(columns)
    }

    /// Numbers in a patch: patch height · patch width · C.
    pub fn patch_dim(&self) -> usize {
        let (height, width) = self.patch_size;
        height.saturating_mul(width).saturating_mul(self.num_channels)
    }

    /// Width of one encoder head: D / A.
    pub fn head_dim(&self) -> usize {
        self.hidden_size.checked_div(self.num_attention_heads).unwrap_or(0)
    }

    /// Width of one decoder head.
    pub fn decoder_head_dim(&self) -> usize {
        self.decoder_hidden_size.checked_div(self.decoder_num_attention_heads).unwrap_or(0)
    }

    /// Whether the file describes a ViT classifier and not a ViTMAE.
    pub fn is_classifier(&self) -> bool {
        self.model_type == "vit"
    }

    /// Classes of the classifier: the entries of `id2label`, else `num_labels`, else 2 as in
    /// Hugging Face.
    pub fn num_labels(&self) -> usize {
        if let Some(labels) = self.extra.get("id2label").and_then(Value::as_object) {
            return labels.len();
        }
        let given = self.extra.get("num_labels").and_then(Value::as_u64);
        given.and_then(|n| usize::try_from(n).ok()).unwrap_or(2)
    }

    /// The recorded way of resizing position tables, `hf1d` or `grid2d`, if the file names one.
    pub fn recorded_interpolation(&self) -> Option<&str> {
        self.extra.get(INTERPOLATION_KEY).and_then(Value::as_str)
    }

    /// Hugging Face's `problem_type` of a classifier, if the file names one.
    pub fn problem_type(&self) -> Option<&str> {
        self.extra.get("problem_type").and_then(Value::as_str)
    }

    /// Whose arithmetic is recorded, `torch` or `tf`, if the file says so.
    pub fn recorded_numerics(&self) -> Option<&str> {
        self.extra.get(NUMERICS_KEY).and_then(Value::as_str)
    }

    /// Counts the parameters without making them; saturates on absurd sizes.
    pub fn parameter_count(&self) -> ParameterCount {
        let (d, e) = (self.hidden_size, self.decoder_hidden_size);
        let positions = self.num_patches().saturating_add(1);
        let table = product(&[positions, d]);
        let decoder_table = product(&[positions, e]);
        let patch = self.patch_dim();

        let encoder_block = block_parameters(d, self.intermediate_size, self.qkv_bias);
        let encoder = total(&[
            product(&[d]),                                               // CLS token
            table,                                                       // positions
            linear(patch, d),                                            // patch projection
            encoder_block.saturating_mul(self.num_hidden_layers as u64), // blocks
            product(&[2, d]),                                            // final norm
        ]);
        let decoder_block = block_parameters(e, self.decoder_intermediate_size, self.qkv_bias);
        let decoder = total(&[
            linear(d, e),                                                        // embed
            product(&[e]),                                                       // mask token
            decoder_table,                                                       // positions
            decoder_block.saturating_mul(self.decoder_num_hidden_layers as u64), // blocks
            product(&[2, e]),                                                    // final norm
            linear(e, patch),                                                    // prediction
        ]);
        ParameterCount { encoder, decoder, frozen: table.saturating_add(decoder_table) }
    }
}

/// Two norms, four projections of the attention, and an MLP of `inner` units.
fn block_parameters(width: usize, inner: usize, qkv_bias: bool) -> u64 {
    let qkv = product(&[3, width, width]);
    let bias = if qkv_bias { product(&[3, width]) } else { 0 };
    total(&[
        product(&[4, width]),
        qkv,
        bias,
        linear(width, width),
        linear(width, inner),
        linear(inner, width),
    ])
}

fn linear(input: usize, output: usize) -> u64 {
    product(&[input, output]).saturating_add(output as u64)
}

fn product(factors: &[usize]) -> u64 {
    factors.iter().fold(1, |n, &factor| n.saturating_mul(factor as u64))
}

fn total(terms: &[u64]) -> u64 {
    terms.iter().fold(0, |n, &term| n.saturating_add(term))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn presets_have_the_published_sizes() {
        // (config, total, encoder, decoder, without the frozen tables, L) as run on transformers.
        let cases = [
            (VitMaeConfig::base(), 111_907_840, 85_798_656, 26_109_184, 111_655_680, 196),
            (VitMaeConfig::large(), 329_541_888, 303_301_632, 26_240_256, 329_239_296, 196),
            (VitMaeConfig::huge(), 657_074_508, 630_764_800, 26_309_708, 656_613_964, 256),
        ];
        for (config, total, encoder, decoder, trainable, patches) in cases {
            config.validate().unwrap();
            let count = config.parameter_count();
            assert_eq!(count.total(), total);
            assert_eq!(count.encoder, encoder);
            assert_eq!(count.decoder, decoder);
            assert_eq!(count.total() - count.frozen, trainable);
            assert_eq!(config.num_patches(), patches);
        }
    }

    #[test]
    fn qkv_bias_off_removes_three_widths_a_block() {
        let with = VitMaeConfig::base().parameter_count();
        let config = VitMaeConfig { qkv_bias: false, ..VitMaeConfig::base() };
        let without = config.parameter_count();
        assert_eq!(with.encoder - without.encoder, 12 * 3 * 768);
        assert_eq!(with.decoder - without.decoder, 8 * 3 * 512);
    }

    #[test]
    fn sizes_derive_from_rectangles() {
        let config = VitMaeConfig {
            image_size: (32, 48),
            patch_size: (8, 4),
            num_channels: 6,
            ..VitMaeConfig::default()
        };
        assert_eq!(config.grid(), (4, 12));
        assert_eq!(config.num_patches(), 48);
        assert_eq!(config.patch_dim(), 192);
        assert_eq!(config.head_dim(), 64);
        assert_eq!(config.decoder_head_dim(), 32);
    }

    #[test]
    fn derived_sizes_never_panic_on_zero_or_huge() {
        for n in [0, usize::MAX] {
            let config = VitMaeConfig {
                hidden_size: n,
                num_hidden_layers: n,
                num_attention_heads: n,
                intermediate_size: n,
                image_size: (n, n),
                patch_size: (n.min(1), 0),
                num_channels: n,
                ..VitMaeConfig::default()
            };
            let _ = (config.grid(), config.head_dim(), config.patch_dim());
            let _ = config.parameter_count().total();
            assert!(config.validate().is_err());
        }
    }

    #[test]
    fn labels_come_from_id2label_then_num_labels_then_two() {
        let mut config = VitMaeConfig::default();
        assert_eq!(config.num_labels(), 2);
        config.extra.insert("num_labels".into(), json!(10));
        assert_eq!(config.num_labels(), 10);
        config.extra.insert("id2label".into(), json!({"0": "cat", "1": "dog", "2": "owl"}));
        assert_eq!(config.num_labels(), 3);
    }
}
