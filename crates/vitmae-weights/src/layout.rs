//! The layouts a ViTMAE is stored in, told apart by the names of the tensors.

use std::fmt;

use crate::error::WeightsError;
use crate::names;

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
    /// What `save_pretrained` of transformers 5 writes (L4).
    Transformers5Saved,
    /// The original checkpoints' names, also timm's (L5).
    Original,
    /// The TensorFlow classes' names (L7).
    TensorFlow,
    /// OpenMMLab's mmpretrain.
    Mmpretrain,
}

use Layout::{
    HuggingFace, HuggingFaceEncoder, Mmpretrain, Original, TensorFlow, Transformers5Saved,
    Transformers5State,
};

impl Layout {
    /// Every layout, those that are read first.
    pub const ALL: [Layout; 7] = [
        HuggingFace,
        HuggingFaceEncoder,
        Transformers5State,
        Transformers5Saved,
        Original,
        TensorFlow,
        Mmpretrain,
    ];

    /// Whether this version reads and writes the layout.
    pub fn is_read(self) -> bool {
        matches!(self, HuggingFace | HuggingFaceEncoder)
    }

    /// The short name used in reports, `L1`…
    pub fn code(self) -> &'static str {
        match self {
            HuggingFace => "L1",
            HuggingFaceEncoder => "L2",
            Transformers5State => "L3",
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
            let count = names.clone().filter(|name| layout.owns(name)).count();
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
    /// the layout has no place for it or is not read.
    pub fn stored(self, internal: &str) -> Option<Vec<String>> {
        match self {
            HuggingFace => names::hugging_face(internal),
            HuggingFaceEncoder => {
                let names = names::hugging_face(internal)?;
                names.iter().map(|name| name.strip_prefix("vit.").map(str::to_string)).collect()
            }
            _ => None,
        }
    }

    /// Our parameter that the tensor `stored` holds, and which part of it.
    pub fn internal(self, stored: &str) -> Option<(String, usize)> {
        match self {
            HuggingFace => names::internal(stored),
            HuggingFaceEncoder => names::internal(&format!("vit.{stored}")),
            _ => None,
        }
    }

    /// The names of the layouts that are read.
    pub(crate) fn read_ones() -> String {
        let read: Vec<_> =
            Layout::ALL.into_iter().filter(|l| l.is_read()).map(|l| l.to_string()).collect();
        read.join("; ")
    }

    /// Whether the layout could hold a tensor of this name.
    fn owns(self, name: &str) -> bool {
        let in_block_of_5 = |name: &str| {
            [".attention.q_proj.", ".attention.k_proj.", ".attention.v_proj.", ".mlp.fc"]
                .iter()
                .chain(&[".attention.o_proj.", ".layernorm_before.", ".layernorm_after."])
                .any(|part| name.contains(part))
        };
        match self {
            HuggingFace | HuggingFaceEncoder => self.internal(name).is_some(),
            // Names that two layouts share count for both, so that the blocks decide.
            Transformers5State => {
                let block = ["vit.layers.", "layers.", "decoder.decoder_layers."]
                    .iter()
                    .any(|stack| name.starts_with(stack));
                (block && in_block_of_5(name))
                    || (!name.contains("layer.") && HuggingFace.owns(name) && !block)
            }
            Transformers5Saved => {
                let as_version_4 =
                    name.replacen("decoder.decoder_encoder.layer.", "decoder.decoder_layers.", 1);
                !name.starts_with("decoder.decoder_layers.") && HuggingFace.owns(&as_version_4)
            }
            Original => {
                let singles = ["cls_token", "pos_embed", "mask_token", "decoder_pos_embed"];
                let groups = ["patch_embed.", "blocks.", "norm.", "fc_norm.", "head."];
                let decoder = ["decoder_embed.", "decoder_blocks.", "decoder_norm."];
                singles.contains(&name)
                    || groups.iter().chain(&decoder).any(|group| name.starts_with(group))
                    || name.starts_with("decoder_pred.")
            }
            TensorFlow => {
                (name.starts_with("vit/") || name.starts_with("decoder/")) && name.ends_with(":0")
            }
            Mmpretrain => ["backbone.", "neck."].iter().any(|group| name.starts_with(group)),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HuggingFace => "Hugging Face transformers 4 (L1)",
            HuggingFaceEncoder => "a bare Hugging Face encoder (L2)",
            Transformers5State => "a transformers 5 state dict (L3)",
            Transformers5Saved => "transformers 5 `save_pretrained` (L4)",
            Original => "the original checkpoints and timm (L5)",
            TensorFlow => "the TensorFlow classes (L7)",
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
        let l7 = ["vit/embeddings/cls_token:0", "decoder/mask_token:0"];
        let mm = ["backbone.cls_token", "backbone.layers.0.ln1.weight", "neck.mask_token"];
        assert_eq!(detect(&l1), HuggingFace);
        assert_eq!(detect(&l1[..4]), HuggingFace, "a file without a decoder");
        assert_eq!(detect(&l2), HuggingFaceEncoder);
        assert_eq!(detect(&l3), Transformers5State);
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
    fn a_layout_that_is_not_read_is_named() {
        assert_eq!(
            WeightsError::LayoutNotRead { layout: Original }.to_string(),
            "the tensors are in the layout of the original checkpoints and timm (L5), which this \
             version does not read\nhelp: it reads Hugging Face transformers 4 (L1); a bare \
             Hugging Face encoder (L2)"
        );
    }
}
