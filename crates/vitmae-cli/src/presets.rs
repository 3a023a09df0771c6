//! Model sizes by name.

use vitmae_model::VitMaeConfig;

use crate::exit::Usage;

/// The names that are understood.
pub const NAMES: &str = "tiny, tiny-32, base, large, huge, mae_vit_base_patch16, mae_vit_large_patch16, \
                         mae_vit_huge_patch14";

/// The configuration called `name`.
pub fn by_name(name: &str) -> Result<VitMaeConfig, Usage> {
    // The original's epsilon; Hugging Face's default of 1e-12 belongs to its converted files.
    let with_eps = |config| VitMaeConfig { layer_norm_eps: 1e-6, ..config };
    match name {
        "tiny" => Ok(with_eps(tiny())),
        "tiny-32" => Ok(with_eps(tiny_32())),
        "base" | "mae_vit_base_patch16" => Ok(with_eps(VitMaeConfig::base())),
        "large" | "mae_vit_large_patch16" => Ok(with_eps(VitMaeConfig::large())),
        "huge" | "mae_vit_huge_patch14" => Ok(with_eps(VitMaeConfig::huge())),
        _ => Err(Usage(format!("there is no model `{name}`, expected one of {NAMES}"))),
    }
}

/// ViT-Ti/16 at 224 pixels with a decoder of four blocks of its width.
fn tiny() -> VitMaeConfig {
    VitMaeConfig {
        hidden_size: 192,
        num_attention_heads: 3,
        intermediate_size: 768,
        decoder_hidden_size: 192,
        decoder_num_hidden_layers: 4,
        decoder_num_attention_heads: 3,
        decoder_intermediate_size: 768,
        ..VitMaeConfig::default()
    }
}

/// ViT-Ti/4 at 32 pixels with a decoder of two narrow blocks, which a CPU trains twice as fast.
fn tiny_32() -> VitMaeConfig {
    VitMaeConfig {
        image_size: (32, 32),
        patch_size: (4, 4),
        decoder_hidden_size: 128,
        decoder_num_hidden_layers: 2,
        decoder_num_attention_heads: 4,
        decoder_intermediate_size: 512,
        ..tiny()
    }
}
