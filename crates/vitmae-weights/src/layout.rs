//! The layouts a ViTMAE is stored in, told apart by the names of the tensors.

use std::fmt;

use crate::error::WeightsError;
use crate::names::Family;
use crate::order::Order;

/// A set of names under which a ViTMAE is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layout {
    /// Hugging Face's `ViTMAEForPreTraining` or `ViTForImageClassification`, transformers 4 (L1).
    HuggingFace,
    /// Hugging Face's bare `ViTMAEModel`: no prefix, no decoder (L2).
    HuggingFaceEncoder,
    /// A state dict of transformers 5 as it is in memory (L3).
    Transformers5State,
    /// The same of its bare `ViTMAEModel`.
    Transformers5Encoder,
    /// What `save_pretrained` of transformers 5 writes (L4).
    Transformers5Saved,
    /// The original checkpoints' names, also timm's (L5).
    Original,
    /// The TensorFlow classes' names (L6, L7).
    TensorFlow,
    /// OpenMMLab's mmpretrain.
    Mmpretrain,
}

use Layout::{
    HuggingFace, HuggingFaceEncoder, Mmpretrain, Original, TensorFlow, Transformers5Encoder,
    Transformers5Saved, Transformers5State,
};

impl Layout {
    /// Every layout; of two that a file could have, the first is taken.
    pub const ALL: [Layout; 8] = [
        HuggingFace,
        HuggingFaceEncoder,
        Transformers5State,
        Transformers5Encoder,
        Transformers5Saved,
        Original,
        TensorFlow,
        Mmpretrain,
    ];

    /// The short name used in reports, `L1`…
    pub fn code(self) -> &'static str {
        match self {
            HuggingFace => "L1",
            HuggingFaceEncoder => "L2",
            Transformers5State | Transformers5Encoder => "L3",
            Transformers5Saved => "L4",
            Original => "L5",
            TensorFlow => "L7",
            Mmpretrain => "mmpretrain",
        }
    }

    /// The layout of these tensor names: the one that most of them belong to.
    ///
    /// # Errors
    /// [`WeightsError::UnknownLayout`] if no name belongs to any.
    pub fn detect<'a>(
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<Layout, WeightsError> {
        let mut best = (0, HuggingFace);
        for layout in Layout::ALL {
            let count = names.clone().filter(|name| layout.internal(name).is_some()).count();
            if count > best.0 {
                best = (count, layout);
            }
        }
        match best {
            (0, _) => {
                Err(WeightsError::UnknownLayout { names: names.map(str::to_string).collect() })
            }
            (_, layout) => Ok(layout),
        }
    }

    /// The tensors that hold our parameter `internal`, in the order their rows are joined; none if
    /// the layout has no place for it.
    pub fn stored(self, internal: &str) -> Option<Vec<String>> {
        let names = self.family().stored(internal)?;
        if !self.is_bare() {
            return Some(names);
        }
        names.iter().map(|name| name.strip_prefix("vit.").map(str::to_string)).collect()
    }

    /// Our parameter that the tensor `stored` holds, and which part of it.
    pub fn internal(self, stored: &str) -> Option<(String, usize)> {
        match self.is_bare() {
            false => self.family().internal(stored),
            true => self.family().internal(&format!("vit.{stored}")),
        }
    }

    /// How the axes of the tensor `stored` lie.
    pub fn order(self, stored: &str) -> Order {
        match self {
            TensorFlow if stored.ends_with("/projection/kernel:0") => Order::Hwio,
            TensorFlow if stored.ends_with("/kernel:0") => Order::Transposed,
            _ => Order::Same,
        }
    }

    /// What the layer norms of models that come in this layout add to the variance where no configuration says
    /// it: the original's models have 1e-6, Hugging Face's 1e-12.
    pub fn layer_norm_eps(self) -> f64 {
        match self {
            Original | Mmpretrain => 1e-6,
            _ => 1e-12,
        }
    }

    fn family(self) -> Family {
        match self {
            HuggingFace | HuggingFaceEncoder => Family::HuggingFace,
            Transformers5State | Transformers5Encoder => Family::State5,
            Transformers5Saved => Family::Saved5,
            Original => Family::Original,
            TensorFlow => Family::TensorFlow,
            Mmpretrain => Family::Mmpretrain,
        }
    }

    /// Whether the encoder's names have no `vit.` in front, and others do not occur.
    fn is_bare(self) -> bool {
        matches!(self, HuggingFaceEncoder | Transformers5Encoder)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HuggingFace => "Hugging Face transformers 4 (L1)",
            HuggingFaceEncoder => "a bare Hugging Face encoder (L2)",
            Transformers5State => "a transformers 5 state dict (L3)",
            Transformers5Encoder => "a bare transformers 5 encoder (L3)",
            Transformers5Saved => "transformers 5 `save_pretrained` (L4)",
            Original => "the original checkpoints and timm (L5)",
            TensorFlow => "the TensorFlow classes (L6, L7)",
            Mmpretrain => "mmpretrain",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(names: &[&str]) -> Layout {
        Layout::detect(names.iter().copied()).unwrap()
    }

    #[test]
    fn each_layout_is_told_by_its_names() {
        let l1 = [
            "vit.embeddings.cls_token",
            "vit.encoder.layer.0.attention.attention.query.weight",
            "vit.encoder.layer.0.layernorm_before.weight",
            "vit.layernorm.weight",
            "decoder.mask_token",
            "decoder.decoder_layers.0.layernorm_before.weight",
            "decoder.decoder_layers.0.output.dense.weight",
        ];
        let l2 = ["embeddings.cls_token", "encoder.layer.0.output.dense.bias", "layernorm.weight"];
        let l3 = [
            "vit.embeddings.cls_token",
            "vit.layers.0.attention.q_proj.weight",
            "vit.layers.0.layernorm_before.weight",
            "vit.layernorm.weight",
            "decoder.mask_token",
            "decoder.decoder_layers.0.layernorm_before.weight",
            "decoder.decoder_layers.0.mlp.fc1.weight",
        ];
        let l4 = [
            "vit.embeddings.cls_token",
            "vit.encoder.layer.0.attention.attention.query.weight",
            "decoder.mask_token",
            "decoder.decoder_encoder.layer.0.layernorm_before.weight",
        ];
        let l5 =
            ["cls_token", "pos_embed", "blocks.0.attn.qkv.weight", "decoder_blocks.0.norm1.bias"];
        let bare5 =
            ["layers.0.mlp.fc1.weight", "layers.0.attention.q_proj.bias", "layernorm.weight"];
        let l7 = ["vit/embeddings/cls_token:0", "decoder/mask_token:0"];
        let mm = ["backbone.cls_token", "backbone.layers.0.ln1.weight", "neck.mask_token"];
        assert_eq!(detect(&l1), HuggingFace);
        assert_eq!(detect(&l1[..4]), HuggingFace, "a file without a decoder");
        assert_eq!(detect(&l2), HuggingFaceEncoder);
        assert_eq!(detect(&l3), Transformers5State);
        assert_eq!(detect(&bare5), Transformers5Encoder);
        assert_eq!(detect(&l4), Transformers5Saved);
        assert_eq!(detect(&l5), Original);
        assert_eq!(detect(&l7), TensorFlow);
        assert_eq!(detect(&mm), Mmpretrain);
    }

    #[test]
    fn a_stray_tensor_does_not_change_the_layout() {
        let names = ["vit.embeddings.cls_token", "decoder.mask_token", "blocks.0.attn.qkv.weight"];
        assert_eq!(detect(&names), HuggingFace);
    }

    #[test]
    fn the_bare_encoder_has_no_prefix_and_no_decoder() {
        let stored = |name| HuggingFaceEncoder.stored(name);
        assert_eq!(stored("vit.norm.bias").unwrap(), ["layernorm.bias"]);
        assert_eq!(stored("decoder.mask_token"), None);
        assert_eq!(stored("classifier.weight"), None);
        assert_eq!(
            HuggingFaceEncoder.internal("encoder.layer.2.attention.attention.value.bias"),
            Some(("vit.blocks.2.attention.qkv.bias".to_string(), 2))
        );
        assert_eq!(HuggingFaceEncoder.internal("vit.layernorm.bias"), None);
    }

    #[test]
    fn tensorflows_kernels_have_axes_of_their_own() {
        let order = |name| TensorFlow.order(name);
        assert_eq!(order("vit/embeddings/patch_embeddings/projection/kernel:0"), Order::Hwio);
        assert_eq!(order("decoder/decoder_pred/kernel:0"), Order::Transposed);
        assert_eq!(order("decoder/decoder_pred/bias:0"), Order::Same);
        assert_eq!(HuggingFace.order("decoder.decoder_pred.weight"), Order::Same);
    }
}
