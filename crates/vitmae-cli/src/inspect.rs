//! `vitmae inspect`: what a checkpoint holds, from its header and config.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use vitmae_weights::{Inspection, inspect};

use crate::{Global, model_folder};

/// Example: vitmae inspect run/ckpt-00001000
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// A model folder or a file of weights
    #[arg(value_name = "DIR|FILE")]
    path: PathBuf,
    /// Print every tensor's name, type and shape
    #[arg(long)]
    tensors: bool,
}

/// Runs the command.
pub fn run(args: &InspectArgs, global: &Global) -> Result<u8> {
    let found = inspect(&model_folder::resolve(&args.path)?)?;
    if global.json {
        outln!("{:#}", found.to_json());
        return Ok(0);
    }
    print(&found, args.tensors);
    Ok(0)
}

/// Prints what was found, a line a fact, and with `tensors` every tensor.
pub fn print(found: &Inspection, tensors: bool) {
    let (path, bytes) = (found.path.display(), found.file_bytes);
    outln!("file        {path} ({}, {bytes} bytes)", found.container);
    match found.layout {
        Some(layout) => outln!("layout      {layout}"),
        None => outln!("layout      unknown: no tensor name belongs to a ViTMAE"),
    }
    let sizes = &found.architecture;
    let number = |value: Option<usize>| value.map_or("?".to_owned(), |value| value.to_string());
    outln!(
        "encoder     width {}, blocks {}, MLP {}",
        number(sizes.hidden_size),
        sizes.num_hidden_layers,
        number(sizes.intermediate_size)
    );
    match &sizes.decoder {
        Some(decoder) => outln!(
            "decoder     width {}, blocks {}, MLP {}",
            number(decoder.hidden_size),
            decoder.num_hidden_layers,
            number(decoder.intermediate_size)
        ),
        None => outln!("decoder     none"),
    }
    let counts = &found.parameters;
    outln!(
        "parameters  {} (encoder {}, decoder {}, classifier {}, other {})",
        counts.total(),
        counts.encoder,
        counts.decoder,
        counts.classifier,
        counts.other
    );
    let dtypes: Vec<_> =
        found.dtypes.iter().map(|(dtype, count)| format!("{count} x {dtype}")).collect();
    outln!("tensors     {} ({})", found.tensors.len(), dtypes.join(", "));
    match &found.config {
        Ok(config) => {
            outln!(
                "config      image {:?}, patch {:?}, channels {}, mask ratio {}, norm_pix_loss {}",
                config.image_size,
                config.patch_size,
                config.num_channels,
                config.mask_ratio,
                config.norm_pix_loss
            );
            outln!(
                "            heads {} and {}, {}, layer norm eps {:e}, numerics {}",
                config.num_attention_heads,
                config.decoder_num_attention_heads,
                config.hidden_act,
                config.layer_norm_eps,
                config.recorded_numerics().unwrap_or("torch")
            );
        }
        Err(reason) => outln!("config      unusable: {}", reason.replace('\n', "; ")),
    }
    for contradiction in &found.contradictions {
        let (key, weights) = (contradiction.key, &contradiction.weights);
        outln!(
            "warning     `{key}` is {weights} in the weights and {} in the config",
            contradiction.config
        );
    }
    outln!("licence     {}", found.licence);
    if tensors {
        for tensor in &found.tensors {
            outln!("{} {} {:?}", tensor.name.escape_debug(), tensor.dtype, tensor.shape);
        }
    }
}
