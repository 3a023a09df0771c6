//! The sizes of a model as its tensors show them, to be held against its configuration.
//!
//! The number of heads leaves no trace in the shapes and is known from the configuration only.

use vitmae_model::VitMaeConfig;

use crate::layout::Layout;
use crate::names::split_block;
use crate::safetensors_header::TensorInfo;

/// Sizes read off the shapes; none where the tensor that shows it is absent or odd.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Architecture {
    /// Encoder width D.
    pub hidden_size: Option<usize>,
    /// Encoder blocks.
    pub num_hidden_layers: usize,
    /// Width of the encoder's MLP.
    pub intermediate_size: Option<usize>,
    /// Patch (height, width) in pixels.
    pub patch_size: Option<(usize, usize)>,
    /// Image channels C.
    pub num_channels: Option<usize>,
    /// Patches L of the position table.
    pub num_patches: Option<usize>,
    /// Whether query, key and value have a bias; none without blocks.
    pub qkv_bias: Option<bool>,
    /// The decoder's sizes, if any of its tensors is there.
    pub decoder: Option<DecoderArchitecture>,
    /// Rows of the classifier.
    pub num_labels: Option<usize>,
}

/// Sizes of the decoder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecoderArchitecture {
    /// Decoder width E.
    pub hidden_size: Option<usize>,
    /// Decoder blocks.
    pub num_hidden_layers: usize,
    /// Width of the decoder's MLP.
    pub intermediate_size: Option<usize>,
}

/// A size on which the configuration and the weights disagree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// The key of the configuration.
    pub key: &'static str,
    /// The value the weights show.
    pub weights: String,
    /// The value the configuration gives.
    pub config: String,
}

impl Architecture {
    /// Reads the sizes off `tensors`.
    pub fn infer(layout: Layout, tensors: &[TensorInfo]) -> Architecture {
        let mut sizes = Architecture::default();
        for tensor in tensors {
            if let Some((name, _)) = layout.internal(&tensor.name) {
                sizes.take(&name, &layout.order(&tensor.name).our_shape(&tensor.shape));
            }
        }
        if sizes.num_hidden_layers > 0 {
            sizes.qkv_bias = sizes.qkv_bias.or(Some(false));
        }
        sizes
    }

    fn take(&mut self, name: &str, shape: &[usize]) {
        if let Some(rest) = name.strip_prefix("decoder.") {
            self.decoder.get_or_insert_default().take(rest, shape);
            return;
        }
        if let Some((index, rest)) = name.strip_prefix("vit.blocks.").and_then(split_block) {
            self.num_hidden_layers = self.num_hidden_layers.max(index.saturating_add(1));
            match rest {
                "mlp.fc1.bias" => self.intermediate_size = shape.first().copied(),
                "attention.qkv.bias" => self.qkv_bias = Some(true),
                _ => {}
            }
            return;
        }
        match (name, shape) {
            ("vit.cls_token", [_, _, d]) => self.hidden_size = Some(*d),
            ("vit.position_embeddings", [_, rows, _]) => self.num_patches = rows.checked_sub(1),
            ("vit.patch_embedding.weight", [_, channels, height, width]) => {
                self.num_channels = Some(*channels);
                self.patch_size = Some((*height, *width));
            }
            ("classifier.bias", [labels]) => self.num_labels = Some(*labels),
            _ => {}
        }
    }

    /// Every size the weights show and `config` gives otherwise. A decoder is compared only where
    /// the weights have one.
    pub fn contradictions(&self, config: &VitMaeConfig) -> Vec<Contradiction> {
        let mut found = Vec::new();
        let mut compare = |key, weights: Option<String>, config: String| {
            if let Some(weights) = weights.filter(|weights| *weights != config) {
                found.push(Contradiction { key, weights, config });
            }
        };
        let text = |size: Option<usize>| size.map(|n| n.to_string());
        let blocks = |n: usize| (n > 0).then(|| n.to_string());
        let pair =
            |(h, w): (usize, usize)| if h == w { h.to_string() } else { format!("[{h}, {w}]") };

        compare("hidden_size", text(self.hidden_size), config.hidden_size.to_string());
        let layers = config.num_hidden_layers.to_string();
        compare("num_hidden_layers", blocks(self.num_hidden_layers), layers);
        let inner = config.intermediate_size.to_string();
        compare("intermediate_size", text(self.intermediate_size), inner);
        compare("patch_size", self.patch_size.map(pair), pair(config.patch_size));
        compare("num_channels", text(self.num_channels), config.num_channels.to_string());
        compare("qkv_bias", self.qkv_bias.map(|b| b.to_string()), config.qkv_bias.to_string());
        if self.patch_size.is_none_or(|size| size == config.patch_size) {
            // Without this guard a wrong patch size would be blamed twice.
            let (patches, expected) = (self.num_patches, config.num_patches());
            let weights = patches.map(|n| format!("{n} patches"));
            compare("image_size", weights, format!("{expected} patches"));
        }
        if let Some(decoder) = &self.decoder {
            let width = config.decoder_hidden_size.to_string();
            compare("decoder_hidden_size", text(decoder.hidden_size), width);
            let layers = config.decoder_num_hidden_layers.to_string();
            compare("decoder_num_hidden_layers", blocks(decoder.num_hidden_layers), layers);
            let inner = config.decoder_intermediate_size.to_string();
            compare("decoder_intermediate_size", text(decoder.intermediate_size), inner);
        }
        if let Some(labels) = self.num_labels {
            compare("num_labels", Some(labels.to_string()), config.num_labels().to_string());
        }
        found
    }
}

impl DecoderArchitecture {
    fn take(&mut self, name: &str, shape: &[usize]) {
        if let Some((index, rest)) = name.strip_prefix("blocks.").and_then(split_block) {
            self.num_hidden_layers = self.num_hidden_layers.max(index.saturating_add(1));
            if rest == "mlp.fc1.bias" {
                self.intermediate_size = shape.first().copied();
            }
        } else if let ("mask_token", [_, _, e]) = (name, shape) {
            self.hidden_size = Some(*e);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::Dtype;
    use crate::parameters::{ModelKind, expected_parameters};

    /// The tensors of a file with this config, as far as their shapes go.
    fn tensors(config: &VitMaeConfig, kind: ModelKind) -> Vec<TensorInfo> {
        let rows = expected_parameters(config, kind).into_iter();
        rows.flat_map(|row| {
            let names = Layout::HuggingFace.stored(&row.name).unwrap();
            let mut shape = row.shape;
            shape[0] /= names.len();
            names.into_iter().map(move |name| {
                let (dtype, shape) = (Dtype::F32, shape.clone());
                TensorInfo { name, dtype, shape, offset: 0, bytes: 0 }
            })
        })
        .collect()
    }

    #[test]
    fn every_size_is_read_off_the_shapes() {
        let config = VitMaeConfig {
            hidden_size: 32,
            num_hidden_layers: 3,
            intermediate_size: 48,
            image_size: (32, 48),
            patch_size: (8, 4),
            num_channels: 6,
            qkv_bias: false,
            decoder_hidden_size: 16,
            decoder_num_hidden_layers: 2,
            decoder_intermediate_size: 40,
            ..VitMaeConfig::default()
        };
        let sizes =
            Architecture::infer(Layout::HuggingFace, &tensors(&config, ModelKind::PreTraining));
        let decoder = DecoderArchitecture {
            hidden_size: Some(16),
            num_hidden_layers: 2,
            intermediate_size: Some(40),
        };
        let expected = Architecture {
            hidden_size: Some(32),
            num_hidden_layers: 3,
            intermediate_size: Some(48),
            patch_size: Some((8, 4)),
            num_channels: Some(6),
            num_patches: Some(48),
            qkv_bias: Some(false),
            decoder: Some(decoder),
            num_labels: None,
        };
        assert_eq!(sizes, expected);
        assert_eq!(sizes.contradictions(&config), []);
    }

    #[test]
    fn each_size_that_differs_is_reported_alone() {
        let config = VitMaeConfig::default();
        let sizes =
            Architecture::infer(Layout::HuggingFace, &tensors(&config, ModelKind::PreTraining));
        type Change = fn(&mut VitMaeConfig);
        let cases: [(Change, &str, &str, &str); 9] = [
            (|c| c.hidden_size = 96, "hidden_size", "768", "96"),
            (|c| c.num_hidden_layers = 11, "num_hidden_layers", "12", "11"),
            (|c| c.intermediate_size = 5, "intermediate_size", "3072", "5"),
            (|c| c.patch_size = (16, 8), "patch_size", "16", "[16, 8]"),
            (|c| c.num_channels = 1, "num_channels", "3", "1"),
            (|c| c.qkv_bias = false, "qkv_bias", "true", "false"),
            (|c| c.image_size = (32, 32), "image_size", "196 patches", "4 patches"),
            (|c| c.decoder_hidden_size = 8, "decoder_hidden_size", "512", "8"),
            (|c| c.decoder_num_hidden_layers = 1, "decoder_num_hidden_layers", "8", "1"),
        ];
        for (change, key, weights, ours) in cases {
            let mut config = config.clone();
            change(&mut config);
            let (weights, ours) = (weights.to_string(), ours.to_string());
            assert_eq!(
                sizes.contradictions(&config),
                [Contradiction { key, weights, config: ours }]
            );
        }
    }

    #[test]
    fn a_classifier_shows_its_labels() {
        let sizes = Architecture::infer(
            Layout::HuggingFace,
            &tensors(&VitMaeConfig::default(), ModelKind::Classifier),
        );
        assert_eq!(sizes.num_labels, Some(2));
        assert_eq!(sizes.decoder, None);
    }
}
