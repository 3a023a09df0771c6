//! The one table of parameter names: ours, and those of every family of checkpoints.
//!
//! A family differs in its names and in whether query, key and value are one tensor, as ours, or three that
//! hold its rows one after the other. TensorFlow's names follow from Hugging Face's by rule; its layout of
//! axes stands in `order.rs`. The table is tested to be one-to-one and complete.
//!
//! Sources: `state_dict` of `ViTMAEForPreTraining` and `ViTForImageClassification`, transformers 4.57.6
//! and 5.23.0; `weights` of `TFViTMAEForPreTraining`, 4.57.6; the names in the original's checkpoints, which
//! timm shares; `MAEViT`, `MAEPretrainDecoder` and `VisionTransformer` of mmpretrain 1.2.0.

/// A family of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// PyTorch's classes of transformers 4.
    HuggingFace,
    /// The same as transformers 5 has them in memory.
    State5,
    /// The same as transformers 5 writes them.
    Saved5,
    /// The original's, and timm's.
    Original,
    /// The TensorFlow classes of transformers 4.
    TensorFlow,
    /// mmpretrain's.
    Mmpretrain,
}

/// A parameter outside the blocks.
struct Single {
    ours: &'static str,
    hugging_face: &'static str,
    original: &'static str,
    mmpretrain: &'static str,
}

/// Parameters outside the blocks; transformers 5 has those of 4.
const SINGLES: [Single; 18] = {
    const fn row(
        ours: &'static str,
        hugging_face: &'static str,
        original: &'static str,
        mmpretrain: &'static str,
    ) -> Single {
        Single { ours, hugging_face, original, mmpretrain }
    }
    [
        row("vit.cls_token", "vit.embeddings.cls_token", "cls_token", "backbone.cls_token"),
        row(
            "vit.position_embeddings",
            "vit.embeddings.position_embeddings",
            "pos_embed",
            "backbone.pos_embed",
        ),
        row(
            "vit.patch_embedding.weight",
            "vit.embeddings.patch_embeddings.projection.weight",
            "patch_embed.proj.weight",
            "backbone.patch_embed.projection.weight",
        ),
        row(
            "vit.patch_embedding.bias",
            "vit.embeddings.patch_embeddings.projection.bias",
            "patch_embed.proj.bias",
            "backbone.patch_embed.projection.bias",
        ),
        row("vit.norm.weight", "vit.layernorm.weight", "norm.weight", "backbone.ln1.weight"),
        row("vit.norm.bias", "vit.layernorm.bias", "norm.bias", "backbone.ln1.bias"),
        row(
            "decoder.embed.weight",
            "decoder.decoder_embed.weight",
            "decoder_embed.weight",
            "neck.decoder_embed.weight",
        ),
        row(
            "decoder.embed.bias",
            "decoder.decoder_embed.bias",
            "decoder_embed.bias",
            "neck.decoder_embed.bias",
        ),
        row("decoder.mask_token", "decoder.mask_token", "mask_token", "neck.mask_token"),
        row(
            "decoder.position_embeddings",
            "decoder.decoder_pos_embed",
            "decoder_pos_embed",
            "neck.decoder_pos_embed",
        ),
        row(
            "decoder.norm.weight",
            "decoder.decoder_norm.weight",
            "decoder_norm.weight",
            "neck.ln1.weight",
        ),
        row("decoder.norm.bias", "decoder.decoder_norm.bias", "decoder_norm.bias", "neck.ln1.bias"),
        row(
            "decoder.prediction.weight",
            "decoder.decoder_pred.weight",
            "decoder_pred.weight",
            "neck.decoder_pred.weight",
        ),
        row(
            "decoder.prediction.bias",
            "decoder.decoder_pred.bias",
            "decoder_pred.bias",
            "neck.decoder_pred.bias",
        ),
        row("classifier.weight", "classifier.weight", "head.weight", "head.fc.weight"),
        row("classifier.bias", "classifier.bias", "head.bias", "head.fc.bias"),
        // The norm of the mean-pooled head: Hugging Face's class cannot hold it, and its name there is ours.
        row("fc_norm.weight", "fc_norm.weight", "fc_norm.weight", "backbone.ln2.weight"),
        row("fc_norm.bias", "fc_norm.bias", "fc_norm.bias", "backbone.ln2.bias"),
    ]
};

/// What stands before the index of a block, and after it in TensorFlow's names.
struct Stack {
    ours: &'static str,
    hugging_face: &'static str,
    state5: &'static str,
    saved5: &'static str,
    original: &'static str,
    mmpretrain: &'static str,
}

const STACKS: [Stack; 2] = [
    Stack {
        ours: "vit.blocks.",
        hugging_face: "vit.encoder.layer.",
        state5: "vit.layers.",
        saved5: "vit.encoder.layer.",
        original: "blocks.",
        mmpretrain: "backbone.layers.",
    },
    Stack {
        ours: "decoder.blocks.",
        hugging_face: "decoder.decoder_layers.",
        state5: "decoder.decoder_layers.",
        saved5: "decoder.decoder_encoder.layer.",
        original: "decoder_blocks.",
        mmpretrain: "neck.decoder_blocks.",
    },
];

/// A module of a block; several names are joined by rows.
struct Module {
    ours: &'static str,
    hugging_face: &'static [&'static str],
    state5: &'static [&'static str],
    original: &'static str,
    mmpretrain: &'static str,
}

/// Modules of a block, after its index; each has a `.weight` and a `.bias`.
const MODULES: [Module; 6] = [
    Module {
        ours: "norm1",
        hugging_face: &["layernorm_before"],
        state5: &["layernorm_before"],
        original: "norm1",
        mmpretrain: "ln1",
    },
    Module {
        ours: "attention.qkv",
        hugging_face: &[
            "attention.attention.query",
            "attention.attention.key",
            "attention.attention.value",
        ],
        state5: &["attention.q_proj", "attention.k_proj", "attention.v_proj"],
        original: "attn.qkv",
        mmpretrain: "attn.qkv",
    },
    Module {
        ours: "attention.projection",
        hugging_face: &["attention.output.dense"],
        state5: &["attention.o_proj"],
        original: "attn.proj",
        mmpretrain: "attn.proj",
    },
    Module {
        ours: "norm2",
        hugging_face: &["layernorm_after"],
        state5: &["layernorm_after"],
        original: "norm2",
        mmpretrain: "ln2",
    },
    Module {
        ours: "mlp.fc1",
        hugging_face: &["intermediate.dense"],
        state5: &["mlp.fc1"],
        original: "mlp.fc1",
        mmpretrain: "ffn.layers.0.0",
    },
    Module {
        ours: "mlp.fc2",
        hugging_face: &["output.dense"],
        state5: &["mlp.fc2"],
        original: "mlp.fc2",
        mmpretrain: "ffn.layers.1",
    },
];

impl Single {
    fn name(&self, family: Family) -> &'static str {
        match family {
            Family::Original => self.original,
            Family::Mmpretrain => self.mmpretrain,
            _ => self.hugging_face,
        }
    }
}

impl Stack {
    fn name(&self, family: Family) -> &'static str {
        match family {
            Family::HuggingFace | Family::TensorFlow => self.hugging_face,
            Family::State5 => self.state5,
            Family::Saved5 => self.saved5,
            Family::Original => self.original,
            Family::Mmpretrain => self.mmpretrain,
        }
    }
}

impl Module {
    fn names(&self, family: Family) -> &[&'static str] {
        match family {
            Family::State5 => self.state5,
            Family::Original => std::slice::from_ref(&self.original),
            Family::Mmpretrain => std::slice::from_ref(&self.mmpretrain),
            _ => self.hugging_face,
        }
    }
}

impl Family {
    /// The family's names for our parameter `internal`, in the order their rows are joined.
    pub(crate) fn stored(self, internal: &str) -> Option<Vec<String>> {
        if self == Self::TensorFlow {
            let names = Self::HuggingFace.stored(internal)?;
            return names.iter().map(|name| tensorflow(name)).collect();
        }
        if let Some(single) = SINGLES.iter().find(|single| single.ours == internal) {
            return Some(vec![single.name(self).to_string()]);
        }
        STACKS.iter().find_map(|stack| {
            let (index, rest) = split_block(internal.strip_prefix(stack.ours)?)?;
            let (module, leaf) = split_leaf(rest)?;
            let module = MODULES.iter().find(|row| row.ours == module)?;
            let prefix = stack.name(self);
            let name = |part| format!("{prefix}{index}.{part}.{leaf}");
            Some(module.names(self).iter().map(name).collect())
        })
    }

    /// Our name for the family's tensor `stored`, and which part of ours it is.
    pub(crate) fn internal(self, stored: &str) -> Option<(String, usize)> {
        if self == Self::TensorFlow {
            return Self::HuggingFace.internal(&from_tensorflow(stored)?);
        }
        if let Some(single) = SINGLES.iter().find(|single| single.name(self) == stored) {
            return Some((single.ours.to_string(), 0));
        }
        STACKS.iter().find_map(|stack| {
            let (index, rest) = split_block(stored.strip_prefix(stack.name(self))?)?;
            let (module, leaf) = split_leaf(rest)?;
            MODULES.iter().find_map(|row| {
                let part = row.names(self).iter().position(|name| *name == module)?;
                Some((format!("{}{index}.{}.{leaf}", stack.ours, row.ours), part))
            })
        })
    }
}

/// TensorFlow's name for Hugging Face's; none for what its classes do not have.
///
/// `vit.encoder.layer.0.output.dense.weight` → `vit/encoder/layer_._0/output/dense/kernel:0`.
fn tensorflow(name: &str) -> Option<String> {
    if name.starts_with("fc_norm.") {
        return None;
    }
    let leaf = |name: &str| {
        let (module, leaf) = split_leaf(name)?;
        let norm = module.contains("layernorm") || module.ends_with("decoder_norm");
        let leaf = match (leaf, norm) {
            ("weight", false) => "kernel",
            ("weight", true) => "gamma",
            (_, false) => "bias",
            (_, true) => "beta",
        };
        Some(format!("{module}.{leaf}"))
    };
    let named = leaf(name).unwrap_or_else(|| name.to_string());
    let path = match named.strip_prefix("vit.encoder.layer.") {
        Some(rest) => {
            let (index, rest) = split_block(rest)?;
            format!("vit/encoder/layer_._{index}/{}", rest.replace('.', "/"))
        }
        None => match named.strip_prefix("decoder.decoder_layers.") {
            Some(rest) => {
                let (index, rest) = split_block(rest)?;
                format!("decoder/decoder_layers.{index}/{}", rest.replace('.', "/"))
            }
            None => named.replace('.', "/"),
        },
    };
    Some(format!("{path}:0"))
}

/// Hugging Face's name for TensorFlow's.
fn from_tensorflow(name: &str) -> Option<String> {
    let path = name.strip_suffix(":0")?;
    let path = match path.strip_prefix("vit/encoder/layer_._") {
        Some(rest) => format!("vit.encoder.layer.{rest}"),
        None => path.to_string(),
    };
    let mut named = path.replace('/', ".");
    for (theirs, ours) in
        [(".kernel", ".weight"), (".gamma", ".weight"), (".beta", ".bias"), (".bias", ".bias")]
    {
        if let Some(module) = named.strip_suffix(theirs) {
            named = format!("{module}{ours}");
            break;
        }
    }
    // A name that another spelling would give too is none: the way back must lead here.
    (tensorflow(&named)? == name).then_some(named)
}

/// `mlp.fc1.weight` → `("mlp.fc1", "weight")`.
fn split_leaf(name: &str) -> Option<(&str, &str)> {
    let (module, leaf) = name.rsplit_once('.')?;
    matches!(leaf, "weight" | "bias").then_some((module, leaf))
}

/// `7.norm1.weight` → `(7, "norm1.weight")`; an index has no sign and no leading zero.
pub(crate) fn split_block(rest: &str) -> Option<(usize, &str)> {
    let (digits, rest) = rest.split_once('.')?;
    let index = digits.parse().ok()?;
    (format!("{index}") == digits).then_some((index, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const FAMILIES: [Family; 6] = [
        Family::HuggingFace,
        Family::State5,
        Family::Saved5,
        Family::Original,
        Family::TensorFlow,
        Family::Mmpretrain,
    ];

    /// Every parameter there is, with blocks of one digit and of two.
    fn parameters() -> Vec<String> {
        let mut names: Vec<String> = SINGLES.iter().map(|row| row.ours.to_string()).collect();
        for stack in &STACKS {
            for index in [0, 7, 23] {
                for leaf in ["weight", "bias"] {
                    let of = |row: &Module| format!("{}{index}.{}.{leaf}", stack.ours, row.ours);
                    names.extend(MODULES.iter().map(of));
                }
            }
        }
        names
    }

    #[test]
    fn every_name_comes_back_in_its_place_and_none_has_two() {
        for family in FAMILIES {
            let mut seen = HashSet::new();
            for name in parameters() {
                let parts = family.stored(&name);
                let absent = family == Family::TensorFlow && name.starts_with("fc_norm.");
                assert_eq!(parts.is_none(), absent, "{family:?} {name}");
                for (part, stored) in parts.into_iter().flatten().enumerate() {
                    assert_eq!(family.internal(&stored), Some((name.clone(), part)), "{stored}");
                    assert!(seen.insert(stored.clone()), "{family:?} has two for {stored}");
                }
            }
        }
    }

    #[test]
    fn names_are_those_of_each_family() {
        let weight = "decoder.blocks.3.attention.qkv.weight";
        let expected = [
            [
                "decoder.decoder_layers.3.attention.attention.query.weight",
                "decoder.decoder_layers.3.attention.attention.key.weight",
                "decoder.decoder_layers.3.attention.attention.value.weight",
            ]
            .as_slice(),
            &[
                "decoder.decoder_layers.3.attention.q_proj.weight",
                "decoder.decoder_layers.3.attention.k_proj.weight",
                "decoder.decoder_layers.3.attention.v_proj.weight",
            ],
            &[
                "decoder.decoder_encoder.layer.3.attention.attention.query.weight",
                "decoder.decoder_encoder.layer.3.attention.attention.key.weight",
                "decoder.decoder_encoder.layer.3.attention.attention.value.weight",
            ],
            &["decoder_blocks.3.attn.qkv.weight"],
            &[
                "decoder/decoder_layers.3/attention/attention/query/kernel:0",
                "decoder/decoder_layers.3/attention/attention/key/kernel:0",
                "decoder/decoder_layers.3/attention/attention/value/kernel:0",
            ],
            &["neck.decoder_blocks.3.attn.qkv.weight"],
        ];
        for (family, expected) in FAMILIES.into_iter().zip(expected) {
            assert_eq!(family.stored(weight).unwrap(), expected, "{family:?}");
        }
        let tf = |name| Family::TensorFlow.stored(name).unwrap().remove(0);
        assert_eq!(tf("vit.cls_token"), "vit/embeddings/cls_token:0");
        assert_eq!(tf("vit.norm.weight"), "vit/layernorm/gamma:0");
        assert_eq!(tf("vit.blocks.11.norm2.bias"), "vit/encoder/layer_._11/layernorm_after/beta:0");
        assert_eq!(
            tf("vit.patch_embedding.weight"),
            "vit/embeddings/patch_embeddings/projection/kernel:0"
        );
        assert_eq!(tf("decoder.norm.bias"), "decoder/decoder_norm/beta:0");
        assert_eq!(tf("decoder.position_embeddings"), "decoder/decoder_pos_embed:0");
    }

    #[test]
    fn near_misses_are_no_names() {
        for name in ["vit.blocks.03.norm1.weight", "vit.blocks.+1.norm1.weight", "vit.blocks.1"] {
            for family in FAMILIES {
                assert_eq!(family.stored(name), None, "{name}");
            }
        }
        for name in [
            "",
            "vit",
            "vit.encoder.layer.00.output.dense.bias",
            "vit.encoder.layer.0.x",
            "blocks.0.mlp.fc1",
            "vit/encoder/layer_._00/output/dense/bias:0",
            "vit/encoder/layer_._0/output/dense/weight:0",
            "vit.encoder.layer_._0.output.dense.kernel:0",
            "vit/layernorm/kernel:0",
            "vit/embeddings/cls_token",
        ] {
            for family in FAMILIES {
                assert_eq!(family.internal(name), None, "{family:?} {name}");
            }
        }
    }
}
