//! Running a graph beside the model it was made from.

use prost::Message;
use tract_onnx::prelude::*;
use vitmae_cpu::random::Stream;
use vitmae_model::{ForwardOptions, Masking, VitMaeModel};
use vitmae_tensor::Tensor as Own;

use crate::OnnxError;
use crate::export::{Checked, ExportOptions, Exported, Model};
use crate::models::NOISE;
use crate::proto::ModelProto;

/// Images of the check, where their number is free.
const IMAGES: usize = 2;

/// An output of the model, by the graph's name.
type Output = (&'static str, Vec<f32>);

/// Runs graph and model on random images and noise, and compares every output.
pub(crate) fn run(
    proto: &ModelProto,
    model: Model<'_>,
    what: Exported,
    options: &ExportOptions,
) -> Result<Checked, OnnxError> {
    let vit = match model {
        Model::Pretraining(model) => &model.vit,
        Model::Encoder(model) => model,
        Model::Classifier(model) => &model.vit,
    };
    let (config, batch) = (&vit.config, options.batch.unwrap_or(IMAGES));
    let (height, width) = config.image_size;
    let sides = [batch, config.num_channels, height, width];
    let draw =
        |purpose: &str, index: usize| Stream::new(options.seed, purpose, 0, 0).normal(index as u64);
    let pixels: Vec<f32> =
        (0..sides.iter().product()).map(|i| draw("onnx pixels", i) as f32).collect();
    // Rounded first, so that both sort the same numbers.
    let patches = config.num_patches();
    let noise: Vec<f32> = (0..batch * patches).map(|i| draw("onnx noise", i) as f32).collect();

    let found = by_tract(proto, (&sides, &pixels), (&[batch, patches], &noise))
        .map_err(|error| OnnxError::Refused { reason: format!("{error:#}") })?;
    let wide: Vec<f64> = noise.iter().map(|&noise| noise.into()).collect();
    let ratio = options.mask_ratio.unwrap_or(config.mask_ratio);
    let masking = Masking::from_noise(&wide, batch, patches, ratio)?;
    let pixels = Own::from_vec(vit.device(), &sides, pixels)?;
    let expected = by_model(model, vit, what, &pixels, &masking)?;
    compare(&found, &expected, options.bound)
}

/// Every output of the graph, in its order, as f32.
fn by_tract(
    proto: &ModelProto,
    pixels: (&[usize], &[f32]),
    noise: (&[usize], &[f32]),
) -> TractResult<Vec<Vec<f32>>> {
    let mut model = tract_onnx::onnx().model_for_read(&mut proto.encode_to_vec().as_slice())?;
    let names: Vec<String> =
        model.input_outlets()?.iter().map(|outlet| model.node(outlet.node).name.clone()).collect();
    let mut inputs = tvec![];
    for (slot, name) in names.iter().enumerate() {
        let (shape, values) = if name == NOISE { noise } else { pixels };
        model = model.with_input_fact(slot, f32::fact(shape).into())?;
        inputs.push(Tensor::from_shape(shape, values)?.into_tvalue());
    }
    let outputs = model.into_optimized()?.into_runnable()?.run(inputs)?;
    let values = outputs.iter().map(|output| {
        let values = output.cast_to::<f32>()?;
        Ok(values.to_plain_array_view::<f32>()?.iter().copied().collect())
    });
    values.collect()
}

/// The same outputs by the model itself.
fn by_model(
    model: Model<'_>,
    vit: &VitMaeModel,
    what: Exported,
    pixels: &Own,
    masking: &Masking,
) -> Result<Vec<Output>, OnnxError> {
    let options = ForwardOptions::default();
    let places = |ids: &[u32]| ids.iter().map(|&id| id as f32).collect::<Vec<f32>>();
    Ok(match (what, model) {
        (Exported::Reconstruction, Model::Pretraining(model)) => {
            let output = model.forward(pixels, masking, &options)?;
            vec![
                ("logits", output.logits.to_vec()?),
                ("mask", output.mask),
                ("ids_restore", places(&output.ids_restore)),
                ("loss", output.loss.into_iter().collect()),
            ]
        }
        (Exported::Classifier, Model::Classifier(model)) => {
            vec![("logits", model.forward(pixels, None, &options)?.logits.to_vec()?)]
        }
        (Exported::Features, _) => {
            let x = vit.encode(pixels, false)?;
            let width = vit.config.hidden_size;
            let values = x.to_vec()?;
            let images = values.chunks_exact(x.shape()[1] * width);
            let cls = images.clone().flat_map(|image| &image[..width]).copied().collect();
            let mean = images.flat_map(|image| mean_of_rows(&image[width..], width)).collect();
            vec![("last_hidden_state", values.clone()), ("cls", cls), ("mean", mean)]
        }
        _ => {
            let output = vit.forward(pixels, masking, &options)?;
            vec![
                ("last_hidden_state", output.last_hidden_state.to_vec()?),
                ("mask", output.mask),
                ("ids_restore", places(&output.ids_restore)),
            ]
        }
    })
}

fn mean_of_rows(rows: &[f32], width: usize) -> Vec<f32> {
    let count = (rows.len() / width) as f32;
    (0..width).map(|i| rows[i..].iter().step_by(width).sum::<f32>() / count).collect()
}

fn compare(found: &[Vec<f32>], expected: &[Output], bound: f64) -> Result<Checked, OnnxError> {
    let mut worst =
        Checked { max_abs_error: 0.0, output: expected.first().map_or("", |output| output.0) };
    let wrong = |reason: String| OnnxError::Refused { reason };
    if found.len() != expected.len() {
        return Err(wrong(format!("it has {} outputs, expected {}", found.len(), expected.len())));
    }
    for (found, (output, expected)) in found.iter().zip(expected) {
        if found.len() != expected.len() {
            let (found, expected) = (found.len(), expected.len());
            return Err(wrong(format!("`{output}` has {found} values, expected {expected}")));
        }
        let differences = found.iter().zip(expected).map(|(&f, &e)| f64::from(f) - f64::from(e));
        // Not `max`, which would pass over NaN.
        let error =
            differences.fold(0.0, |worst: f64, d| if d.abs() <= worst { worst } else { d.abs() });
        let largest = expected.iter().fold(1.0f64, |largest, &e| largest.max(f64::from(e).abs()));
        if error.is_nan() || error > bound * largest {
            return Err(OnnxError::Differs { output, found: error, bound: bound * largest });
        }
        if error > worst.max_abs_error {
            worst = Checked { max_abs_error: error, output };
        }
    }
    Ok(worst)
}
