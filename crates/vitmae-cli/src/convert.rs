//! `vitmae convert`: a checkpoint in another layout.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;
use vitmae_weights::{ConvertOptions, Dtype, LoadOptions, Target, convert};

use crate::{Global, model_folder};

/// Example: vitmae convert mae_pretrain_vit_base.pth --to hf mae-base
#[derive(Args, Debug)]
pub struct ConvertArgs {
    /// A model folder or a file of weights: safetensors, `.pth`, `.bin`, `.h5`, an index of shards
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// What it becomes
    #[arg(long, value_enum, value_name = "LAYOUT")]
    to: To,
    /// The folder that is written, or for `fb` the `.pth` file
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Type of every tensor [default: as it is; f64 becomes f32]
    #[arg(long, value_enum)]
    dtype: Option<Type>,
    /// Replace files that are in the way
    #[arg(long)]
    force: bool,
    /// Leave out tensors that have no place in a model, by a pattern such as `pooler.*`
    #[arg(long, value_name = "PATTERN")]
    allow_unexpected: Vec<String>,
    /// Attention heads of the encoder, where no `config.json` says it
    #[arg(long)]
    heads: Option<usize>,
    /// Attention heads of the decoder, where no `config.json` says it
    #[arg(long)]
    decoder_heads: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum To {
    /// Hugging Face's classes, transformers 4 and 5
    Hf,
    /// Hugging Face's bare encoder, `ViTMAEModel`
    HfBare,
    /// As transformers 5 writes it; version 4 does not read its decoder
    Hf5,
    /// The original's `.pth`
    Fb,
    /// `tf_model.h5` of the TensorFlow classes
    TfH5,
    /// Safetensors of the TensorFlow classes
    TfSafetensors,
    /// timm: encoder and head
    Timm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Type {
    F32,
    F16,
    Bf16,
    F64,
}

/// Runs the command.
pub fn run(args: &ConvertArgs, global: &Global) -> Result<u8> {
    let target = match args.to {
        To::Hf => Target::HuggingFace,
        To::HfBare => Target::HuggingFaceEncoder,
        To::Hf5 => Target::Transformers5,
        To::Fb => Target::Original,
        To::TfH5 => Target::TensorFlowH5,
        To::TfSafetensors => Target::TensorFlowSafetensors,
        To::Timm => Target::Timm,
    };
    let dtype = args.dtype.map(|dtype| match dtype {
        Type::F32 => Dtype::F32,
        Type::F16 => Dtype::F16,
        Type::Bf16 => Dtype::BF16,
        Type::F64 => Dtype::F64,
    });
    let load = LoadOptions {
        allow_unexpected: args.allow_unexpected.clone(),
        heads: args.heads,
        decoder_heads: args.decoder_heads,
        ..LoadOptions::default()
    };
    let options = ConvertOptions { dtype, replace: args.force, load };
    let input = model_folder::resolve(&args.input)?;
    let report = convert(&input, target, &args.output, &options)?;
    if global.json {
        let result = json!({
            "input": report.input,
            "layout": report.layout.code(),
            "container": report.container.to_string(),
            "output": report.output,
            "to": target.name(),
            "tensors": report.tensors,
            "dropped": report.dropped,
            "unexpected": report.unexpected,
            "rounded": report.rounded,
            "config_inferred": report.config_inferred,
        });
        outln!("{result:#}");
        return Ok(0);
    }
    outln!("{}", report.output.display());
    if global.quiet {
        return Ok(0);
    }
    let (tensors, layout, container) = (report.tensors, report.layout, report.container);
    errln!("{tensors} tensors from {layout}, {container}");
    for (names, what) in [
        (&report.dropped, "parameters are not part of this layout"),
        (&report.unexpected, "tensors were left out as allowed"),
        (&report.rounded, "parameters were rounded to another type"),
    ] {
        if let Some(first) = names.first() {
            errln!("note: {} {what}, `{}` first", names.len(), first.escape_debug());
        }
    }
    if report.config_inferred {
        errln!(
            "note: no `config.json` was there: sizes are those of the weights, the rest are the defaults of \
             the layout's models"
        );
    }
    if args.to == To::Fb {
        errln!("note: a `.pth` file holds no configuration; keep `config.json`");
    }
    Ok(0)
}
