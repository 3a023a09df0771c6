//! `vitmae export-onnx`: a model as an ONNX graph.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;
use vitmae_onnx::{ExportOptions, ExportReport, Exported, Model, export};
use vitmae_tensor::Device;
use vitmae_weights::{LoadOptions, ModelFolder, from_pretrained};

use crate::exit::Usage;
use crate::features::encoder;
use crate::finetune::classifier_of;
use crate::{Global, model_folder};

/// Example: vitmae export-onnx run --what features --out features.onnx
///
/// Inputs: `pixel_values: [B, C, H, W]`, normalised as `preprocessor_config.json` says (the file carries it), and where
/// patches are removed `noise: [B, L]`, of which the smallest are kept. Opset 17, weights in f32. Above 1 GiB they go to
/// `FILE.data` beside the graph.
#[derive(Args, Debug)]
pub struct ExportOnnxArgs {
    /// Model folder, file of weights, the output folder of a training, or `ORG/NAME`
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// What the graph computes
    #[arg(long, value_enum)]
    what: What,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Images at once, if the graph shall take no other number
    #[arg(long)]
    batch_size: Option<usize>,
    /// Share of patches to remove [default: the model's]
    #[arg(long)]
    mask_ratio: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Noise to `last_hidden_state` of the kept patches, `mask` and `ids_restore`, as Hugging Face's ViTMAEModel
    Encoder,
    /// `last_hidden_state` of every patch in grid order, `cls` and the patches' `mean`
    Features,
    /// Noise to `logits`, `mask`, `ids_restore` and `loss`, as Hugging Face's ViTMAEForPreTraining
    Reconstruction,
    /// `logits` of the classes
    Classifier,
}

/// Runs the command.
pub fn run(args: &ExportOnnxArgs, global: &Global) -> Result<u8> {
    if args.batch_size == Some(0) {
        return Err(Usage("`--batch-size` must be at least 1".to_owned()).into());
    }
    // A graph is written from memory, whatever computes elsewhere.
    let device = Device::cpu();
    let folder = model_folder::resolve(&args.model)?;
    let options = ExportOptions {
        batch: args.batch_size,
        mask_ratio: args.mask_ratio,
        preprocessor: ModelFolder::find(&folder)?.read_preprocessor_text()?,
        ..ExportOptions::default()
    };
    let write = |model: Model<'_>, what| export(model, what, &args.out, &options);
    let report = match args.what {
        What::Encoder => write(Model::Encoder(&encoder(&folder, &device)?), Exported::Encoder),
        What::Features => write(Model::Encoder(&encoder(&folder, &device)?), Exported::Features),
        What::Reconstruction => {
            let (model, _) = from_pretrained(&folder, &device, &LoadOptions::default())?;
            write(Model::Pretraining(&model), Exported::Reconstruction)
        }
        What::Classifier => {
            write(Model::Classifier(&classifier_of(&folder, &device)?), Exported::Classifier)
        }
    }?;
    print(args, global, &report);
    Ok(0)
}

fn print(args: &ExportOnnxArgs, global: &Global, report: &ExportReport) {
    let ExportReport { checked, weight_bytes, external, .. } = report;
    if global.json {
        let result = json!({
            "output": args.out,
            "weight_bytes": weight_bytes,
            "external": external,
            "max_abs_error": checked.map(|checked| checked.max_abs_error),
        });
        outln!("{result:#}");
        return;
    }
    outln!("{}", args.out.display());
    if global.quiet {
        return;
    }
    match checked {
        Some(checked) => errln!(
            "run by tract: `{}` differs from the model by {:.1e} at most, the other outputs by less",
            checked.output,
            checked.max_abs_error
        ),
        None => errln!(
            "note: the graph was not run; a build with `--features onnx-check` does that first"
        ),
    }
}
