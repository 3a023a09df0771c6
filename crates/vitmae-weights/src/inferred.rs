//! A configuration for weights that come without one: the original's files, timm's and mmpretrain's.

use serde_json::json;
use vitmae_model::VitMaeConfig;

use crate::architecture::Architecture;
use crate::comparison::LoadOptions;
use crate::error::WeightsError;
use crate::layout::Layout;
use crate::weights_file::WeightsFile;

/// Widths of the published models and their heads: B, L, H, and the decoder of all three.
const HEADS: [(usize, usize); 3] = [(768, 12), (1024, 16), (1280, 16)];
const DECODER_HEADS: [(usize, usize); 1] = [(512, 16)];

/// The configuration that the shapes of `file` show. Heads leave no trace in them: they are those of the
/// published model of that width, unless `options` gives them.
///
/// # Errors
/// [`WeightsError::NoHeads`] for another width, [`WeightsError::NotShown`] for weights that lack a part or whose
/// patches are no square.
pub(crate) fn config_of_weights(
    layout: Layout,
    file: &WeightsFile,
    options: &LoadOptions,
) -> Result<VitMaeConfig, WeightsError> {
    let found = Architecture::infer(layout, file.tensors());
    let shown = |size: Option<usize>, key| size.ok_or(WeightsError::NotShown { key });
    let hidden_size = shown(found.hidden_size, "hidden_size")?;
    let patch_size = found.patch_size.ok_or(WeightsError::NotShown { key: "patch_size" })?;
    let patches = shown(found.num_patches, "image_size")?;
    let side = patches.isqrt();
    if side * side != patches {
        return Err(WeightsError::NotShown { key: "image_size" });
    }
    let heads = |given: Option<usize>, table: &[(usize, usize)], width: usize, what| {
        let published = table.iter().find(|(of, _)| *of == width).map(|(_, heads)| *heads);
        given.or(published).ok_or(WeightsError::NoHeads { width, what })
    };
    let mut config = VitMaeConfig {
        hidden_size,
        num_hidden_layers: found.num_hidden_layers,
        num_attention_heads: heads(options.heads, &HEADS, hidden_size, "attention heads")?,
        intermediate_size: shown(found.intermediate_size, "intermediate_size")?,
        image_size: (side * patch_size.0, side * patch_size.1),
        patch_size,
        num_channels: shown(found.num_channels, "num_channels")?,
        qkv_bias: found.qkv_bias.unwrap_or(true),
        layer_norm_eps: layout.layer_norm_eps(),
        // What a training checkpoint of the original says of itself.
        norm_pix_loss: file.metadata().get("args.norm_pix_loss").is_some_and(|text| text == "true"),
        ..VitMaeConfig::default()
    };
    if let Some(decoder) = &found.decoder {
        let width = shown(decoder.hidden_size, "decoder_hidden_size")?;
        let given = options.decoder_heads;
        config.decoder_hidden_size = width;
        config.decoder_num_attention_heads =
            heads(given, &DECODER_HEADS, width, "decoder attention heads")?;
        config.decoder_num_hidden_layers = decoder.num_hidden_layers;
        config.decoder_intermediate_size =
            shown(decoder.intermediate_size, "decoder_intermediate_size")?;
    }
    if let Some(labels) = found.num_labels {
        config.extra.insert("num_labels".to_string(), json!(labels));
    }
    config.validate()?;
    Ok(config)
}
