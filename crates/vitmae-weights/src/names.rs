//! The one table of parameter names: ours on the left, Hugging Face's on the right.
//!
//! Only the attention's input projection differs in more than its name: ours holds the rows of
//! query, key and value below each other, Hugging Face's holds three tensors. The table is tested
//! to be one-to-one and complete. The names of other layouts are derived in `layout.rs`.
//!
//! Source: `state_dict` of `ViTMAEForPreTraining` and `ViTForImageClassification`, transformers
//! 4.57.6.

/// Parameters outside the blocks.
const SINGLES: [(&str, &str); 18] = [
    ("vit.cls_token", "vit.embeddings.cls_token"),
    ("vit.position_embeddings", "vit.embeddings.position_embeddings"),
    ("vit.patch_embedding.weight", "vit.embeddings.patch_embeddings.projection.weight"),
    ("vit.patch_embedding.bias", "vit.embeddings.patch_embeddings.projection.bias"),
    ("vit.norm.weight", "vit.layernorm.weight"),
    ("vit.norm.bias", "vit.layernorm.bias"),
    ("decoder.embed.weight", "decoder.decoder_embed.weight"),
    ("decoder.embed.bias", "decoder.decoder_embed.bias"),
    ("decoder.mask_token", "decoder.mask_token"),
    ("decoder.position_embeddings", "decoder.decoder_pos_embed"),
    ("decoder.norm.weight", "decoder.decoder_norm.weight"),
    ("decoder.norm.bias", "decoder.decoder_norm.bias"),
    ("decoder.prediction.weight", "decoder.decoder_pred.weight"),
    ("decoder.prediction.bias", "decoder.decoder_pred.bias"),
    ("classifier.weight", "classifier.weight"),
    ("classifier.bias", "classifier.bias"),
    // Ours alone: the norm of the mean-pooled head, which Hugging Face's class cannot hold.
    ("fc_norm.weight", "fc_norm.weight"),
    ("fc_norm.bias", "fc_norm.bias"),
];

/// What stands before the index of a block.
const STACKS: [(&str, &str); 2] =
    [("vit.blocks.", "vit.encoder.layer."), ("decoder.blocks.", "decoder.decoder_layers.")];

/// Parameters of a block, after its index; several on the right are joined by rows on the left.
const IN_BLOCK: [(&str, &[&str]); 12] = [
    ("norm1.weight", &["layernorm_before.weight"]),
    ("norm1.bias", &["layernorm_before.bias"]),
    (
        "attention.qkv.weight",
        &[
            "attention.attention.query.weight",
            "attention.attention.key.weight",
            "attention.attention.value.weight",
        ],
    ),
    (
        "attention.qkv.bias",
        &[
            "attention.attention.query.bias",
            "attention.attention.key.bias",
            "attention.attention.value.bias",
        ],
    ),
    ("attention.projection.weight", &["attention.output.dense.weight"]),
    ("attention.projection.bias", &["attention.output.dense.bias"]),
    ("norm2.weight", &["layernorm_after.weight"]),
    ("norm2.bias", &["layernorm_after.bias"]),
    ("mlp.fc1.weight", &["intermediate.dense.weight"]),
    ("mlp.fc1.bias", &["intermediate.dense.bias"]),
    ("mlp.fc2.weight", &["output.dense.weight"]),
    ("mlp.fc2.bias", &["output.dense.bias"]),
];

/// Hugging Face's names for our parameter `internal`, in the order their rows are joined.
pub(crate) fn hugging_face(internal: &str) -> Option<Vec<String>> {
    if let Some((_, theirs)) = SINGLES.iter().find(|(ours, _)| *ours == internal) {
        return Some(vec![theirs.to_string()]);
    }
    STACKS.iter().find_map(|(ours, theirs)| {
        let (index, rest) = split_block(internal.strip_prefix(ours)?)?;
        let (_, parts) = IN_BLOCK.iter().find(|(name, _)| *name == rest)?;
        Some(parts.iter().map(|part| format!("{theirs}{index}.{part}")).collect())
    })
}

/// Our name for Hugging Face's tensor `stored`, and which part of ours it is.
pub(crate) fn internal(stored: &str) -> Option<(String, usize)> {
    if let Some((ours, _)) = SINGLES.iter().find(|(_, theirs)| *theirs == stored) {
        return Some((ours.to_string(), 0));
    }
    STACKS.iter().find_map(|(ours, theirs)| {
        let (index, rest) = split_block(stored.strip_prefix(theirs)?)?;
        IN_BLOCK.iter().find_map(|(name, parts)| {
            let part = parts.iter().position(|part| *part == rest)?;
            Some((format!("{ours}{index}.{name}"), part))
        })
    })
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

    #[test]
    fn the_table_is_one_to_one() {
        let unique = |names: Vec<&str>| {
            assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{names:?}");
        };
        unique(SINGLES.iter().map(|row| row.0).collect());
        unique(SINGLES.iter().map(|row| row.1).collect());
        unique(IN_BLOCK.iter().map(|row| row.0).collect());
        unique(IN_BLOCK.iter().flat_map(|row| row.1.iter().copied()).collect());
    }

    #[test]
    fn every_name_comes_back_in_its_place() {
        let mut names: Vec<String> = SINGLES.iter().map(|row| row.0.to_string()).collect();
        for (stack, _) in STACKS {
            for index in [0, 7, 23] {
                names.extend(IN_BLOCK.iter().map(|row| format!("{stack}{index}.{}", row.0)));
            }
        }
        for name in names {
            let parts = hugging_face(&name).unwrap();
            for (part, stored) in parts.iter().enumerate() {
                assert_eq!(internal(stored), Some((name.clone(), part)));
            }
        }
    }

    #[test]
    fn rows_are_joined_as_query_key_value() {
        assert_eq!(
            hugging_face("decoder.blocks.3.attention.qkv.bias").unwrap(),
            [
                "decoder.decoder_layers.3.attention.attention.query.bias",
                "decoder.decoder_layers.3.attention.attention.key.bias",
                "decoder.decoder_layers.3.attention.attention.value.bias",
            ]
        );
    }

    #[test]
    fn near_misses_are_no_names() {
        for name in ["vit.blocks.03.norm1.weight", "vit.blocks.+1.norm1.weight", "vit.blocks.1"] {
            assert_eq!(hugging_face(name), None, "{name}");
        }
        for name in ["", "vit.encoder.layer.00.output.dense.bias", "vit.encoder.layer.0.x", "vit"] {
            assert_eq!(internal(name), None, "{name}");
        }
    }
}
